/* Dead letters: listing, reprocessing, by filter, purging. */

do $$
declare
    c_proves constant text := 'dead letters are listed in publish order, page by page';
    v_ids uuid[] := pg_temp.stock('pages', 5, 1);
begin
    perform pg_temp.claim('pages');
    perform pubsub.nack_messages('pages', v_ids[4:5]);
    perform pubsub.nack_messages('pages', v_ids[1:3]);

    assert array(select l.message_id from pubsub.list_dlq_messages('pages') l) = v_ids, c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('pages', 0, 2) l) = v_ids[1:2],
        c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('pages', 3, 2) l) = v_ids[4:5],
        c_proves;
    assert array(
        select l.message_id from pubsub.list_dlq_messages('pages', 9223372036854775807, 2) l
    ) = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead letter tells its message, its attempts, why and when it died';
    v_started_at timestamptz := clock_timestamp();
    v_letter record;
begin
    perform pg_temp.stock('letter', 0, 1);
    perform pubsub.publish_messages('letter', array['{"a": 1}']::jsonb[],
        array['{"trace": "x"}']::jsonb[]);
    perform pubsub.nack_messages('letter', pg_temp.claim('letter'));

    select l.*, m.published_at as at into v_letter
    from pubsub.list_dlq_messages('letter') l
    join pubsub_data.messages m on m.message_id = l.message_id;

    assert v_letter.payload = '{"a": 1}' and v_letter.attributes = '{"trace": "x"}', c_proves;
    assert v_letter.published_at = v_letter.at, c_proves;
    assert v_letter.attempts = 1 and v_letter.reason = 'attempts', c_proves;
    assert v_letter.dead_at between v_started_at and clock_timestamp(), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'reprocessed dead letters are available at once, with no attempts spent';
    v_ids uuid[] := pg_temp.stock('reprocess', 3, 1);
begin
    perform pg_temp.claim('reprocess');
    perform pubsub.nack_messages('reprocess', v_ids);

    assert pubsub.reprocess_dlq_messages('reprocess', v_ids[1:2]) = 2, c_proves;

    assert (
        select array_agg(c.message_id) = v_ids[1:2] and bool_and(c.attempts = 1)
            and array_agg(c.payload) = array['{"n": 1}', '{"n": 2}']::jsonb[]
        from pubsub.consume_messages('reprocess', 'consumer') c
    ), c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('reprocess') l) = v_ids[3:3],
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'only dead letters of the subscription are reprocessed, and once';
    v_ids uuid[] := pg_temp.stock('foreign', 2, 1);
    v_own uuid[] := pg_temp.stock('own', 2, 1);
    v_shared uuid[];
begin
    perform pg_temp.claim('foreign');
    perform pubsub.nack_messages('foreign', v_ids);
    perform pg_temp.claim('own', 1);
    perform pubsub.nack_messages('own', v_own[1:1]);

    assert pubsub.reprocess_dlq_messages('own', v_ids) = 0, c_proves;
    assert pubsub.reprocess_dlq_messages('own', array[gen_random_uuid()]) = 0, c_proves;
    assert pubsub.reprocess_dlq_messages('own', v_own[2:2]) = 0, c_proves;
    assert pubsub.reprocess_dlq_messages('own', '{}') = 0, c_proves;
    assert pubsub.reprocess_dlq_messages('own', null) = 0, c_proves;
    assert pubsub.reprocess_dlq_messages('own', array[v_own[1], v_own[1]]) = 1, c_proves;
    assert pubsub.reprocess_dlq_messages('own', v_own) = 0, c_proves;
    assert (select m.dlq from pubsub.subscription_metrics('foreign') m) = 2, c_proves;
    assert pg_temp.claim('own') = v_own, c_proves;

    perform pubsub.create_subscription('own-2', 'own', '{"max_delivery_attempts": 1}');
    v_shared := pg_temp.publish('own');
    perform pubsub.nack_messages('own', pg_temp.claim('own'));
    perform pubsub.nack_messages('own-2', pg_temp.claim('own-2'));
    assert pubsub.reprocess_dlq_messages('own', v_shared) = 1, c_proves || ': shared';
    assert (select m.dlq from pubsub.subscription_metrics('own-2') m) = 1, c_proves || ': shared';
end
$$;

do $$
declare
    c_proves constant text := 'a reprocessed message can die again';
    v_ids uuid[] := pg_temp.stock('again', 1, 1);
begin
    for v_round in 1 .. 3 loop
        assert pg_temp.claim('again') = v_ids, c_proves || ': ' || v_round;
        perform pubsub.nack_messages('again', v_ids);
        assert pubsub.reprocess_dlq_messages('again', v_ids) = 1, c_proves || ': ' || v_round;
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'a message whose partition is gone is reprocessed from its dead letter';
    v_id uuid;
begin
    perform pg_temp.stock('gone', 0, 1);
    perform pubsub.publish_messages('gone', array['{"a": 1}']::jsonb[],
        array['{"trace": "x"}']::jsonb[]);
    v_id := (pg_temp.claim('gone'))[1];
    update pubsub_data.messages m set ordering_key = 'key', priority = 3 where m.message_id = v_id;
    perform pubsub.nack_messages('gone', array[v_id]);
    delete from pubsub_data.messages m where m.message_id = v_id;

    assert pubsub.reprocess_dlq_messages('gone', array[v_id]) = 1, c_proves;

    assert (
        select c.message_id = v_id and c.payload = '{"a": 1}' and c.attributes = '{"trace": "x"}'
            and c.published_at is not null and c.ordering_key = 'key' and c.priority = 3
        from pubsub.consume_messages('gone', 'consumer') c
    ), c_proves;
    assert (
        select d.lane = '3'
        from pubsub_data.deliveries d where d.message_id = v_id
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'an expired message that was dead-lettered is reprocessed all the same';
    v_id uuid;
begin
    perform pg_temp.stock('expired', 0, 1);
    perform pubsub.publish_messages('expired', array['{}']::jsonb[],
        p_expires_at => array[clock_timestamp() + interval '1 hour']);
    v_id := (pg_temp.claim('expired'))[1];
    perform pubsub.nack_messages('expired', array[v_id]);
    update pubsub_data.messages m set expires_at = clock_timestamp() where m.message_id = v_id;

    perform pubsub.reprocess_dlq_messages('expired', array[v_id]);

    assert pg_temp.claim('expired') = array[v_id], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown subscription is PS404';
begin
    assert pg_temp.refusal($q$select pubsub.list_dlq_messages('none')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.reprocess_dlq_messages('none', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

/* dead — stock() whose messages are dead letters. */
create function pg_temp.dead(p_name text, p_messages int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[] := pg_temp.stock(p_name, p_messages, 1);
begin
    perform pubsub.nack_messages(p_name, pg_temp.claim(p_name));
    return v_ids;
end
$$;

do $$
declare
    c_proves constant text := 'reprocessing brings back all dead letters, in publish order';
    v_ids uuid[] := pg_temp.dead('matching', 5);
begin
    assert (
        select r.reprocessed = 5 and r.remaining = 0 from pubsub.reprocess_matching_dlq_messages('matching') r
    ), c_proves;

    assert pg_temp.claim('matching') = v_ids, c_proves;
    assert (select count(*) from pubsub.list_dlq_messages('matching')) = 0, c_proves;
    assert pubsub.recount_messages('matching') = 0, c_proves;
    assert (
        select r.reprocessed = 0 and r.remaining = 0 from pubsub.reprocess_matching_dlq_messages('matching') r
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'reprocessing takes the oldest up to its limit and tells what is left';
    v_ids uuid[] := pg_temp.dead('limit', 5);
begin
    assert (
        select r.reprocessed = 2 and r.remaining = 3
        from pubsub.reprocess_matching_dlq_messages('limit', p_limit => 2) r
    ), c_proves;

    assert pg_temp.claim('limit') = v_ids[1:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter picks what is reprocessed, by payload and by attributes';
    v_ids uuid[] := pg_temp.dead('picked', 5);
begin
    update pubsub_data.dead_letters l set attributes = '{"region": "eu"}'
    where l.message_id = v_ids[5];

    assert (
        select r.reprocessed = 1 and r.remaining = 1
        from pubsub.reprocess_matching_dlq_messages('picked', '{"n": [2, 4]}', 1) r
    ), c_proves;
    assert pg_temp.claim('picked') = v_ids[2:2], c_proves;
    assert (
        select r.reprocessed = 1 and r.remaining = 0
        from pubsub.reprocess_matching_dlq_messages('picked', '{"attributes": {"region": ["eu"]}}') r
    ), c_proves;
    assert pg_temp.claim('picked') = v_ids[5:5], c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('picked') l)
        = array[v_ids[1], v_ids[3], v_ids[4]], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'paced reprocessing spreads the messages, with at most ten wake-ups a second';
    v_ids uuid[] := pg_temp.dead('paced', 100);
    v_keys record := pubsub.subscription_keys('paced');
    v_slots timestamptz[];
    v_due int;
    v_claimed uuid[];
begin
    assert (
        select r.reprocessed = 100
        from pubsub.reprocess_matching_dlq_messages('paced', p_per_second => 40) r
    ), c_proves;

    assert (
        select max(d.visible_at) - min(d.visible_at) = interval '2.4 seconds'
            and count(distinct d.visible_at) = 25
            and array_agg(d.message_id order by d.visible_at, d.message_id) = v_ids
        from pubsub_data.deliveries d where d.message_id = any(v_ids)
    ), c_proves;
    assert (
        select count(*) = 25
        from pubsub_data.wakeups w
        where w.topic_key = v_keys.topic_key and w.message_ids && v_ids
            and w.due_at in (
                select d.visible_at from pubsub_data.deliveries d where d.message_id = any(v_ids)
            )
    ), c_proves;
    assert (
        select m.available + m.scheduled = 100
        from pubsub.subscription_metrics('paced') m
    ), c_proves;

    -- time goes on meanwhile, so what is due is counted before and after the claim
    v_slots := array(
        select d.visible_at from pubsub_data.deliveries d where d.message_id = any(v_ids));
    v_due := (select count(*) from unnest(v_slots) s (slot) where s.slot <= clock_timestamp());
    v_claimed := pg_temp.claim('paced');
    assert v_due >= 4 and cardinality(v_claimed) between v_due
        and (select count(*) from unnest(v_slots) s (slot) where s.slot <= clock_timestamp()),
        c_proves;
    assert v_claimed = v_ids[1:cardinality(v_claimed)], c_proves;
    perform pg_temp.later('paced', '1 hour');
    assert pg_temp.claim('paced') = v_ids[cardinality(v_claimed) + 1:], c_proves;
    assert pubsub.recount_messages('paced') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'what comes back sends the claims back, as far as what came back before it';
    v_ids uuid[] := pg_temp.dead('rewound', 3);
    v_earlier constant uuid := pubsub.id_at(clock_timestamp() - interval '1 hour');
    v_position record;
begin
    update pubsub_data.dead_letters l set message_id = v_earlier where l.message_id = v_ids[1];

    perform pubsub.reprocess_dlq_messages('rewound', v_ids[3:3]);
    select s.rewinds, s.rewound_to into v_position
    from pubsub_data.subscriptions s where s.subscription_id = 'rewound';
    assert v_position.rewinds = 1, c_proves;
    assert v_position.rewound_to < v_ids[3] and v_position.rewound_to > v_earlier, c_proves;

    perform pubsub.reprocess_matching_dlq_messages('rewound', p_limit => 1);
    perform pubsub.reprocess_matching_dlq_messages('rewound');
    select s.rewinds, s.rewound_to into v_position
    from pubsub_data.subscriptions s where s.subscription_id = 'rewound';
    assert v_position.rewinds = 3 and v_position.rewound_to <= v_earlier, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is there already, brought back by a seek, is not doubled';
    v_ids uuid[] := pg_temp.dead('beside', 2);
    v_keys record := pubsub.subscription_keys('beside');
begin
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[1]);
    insert into pubsub_data.counters (topic_key, subscription_key, backlog)
    values (v_keys.topic_key, v_keys.subscription_key, 1);

    assert (select r.reprocessed from pubsub.reprocess_matching_dlq_messages('beside') r) = 2, c_proves;

    assert pg_temp.claim('beside') = v_ids, c_proves;
    assert pubsub.recount_messages('beside') = 0, c_proves;

    -- and the other way round: it dies beside its dead letter
    perform pubsub.nack_messages('beside', v_ids[1:1]);
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, attempts)
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[1], 7);
    insert into pubsub_data.counters (topic_key, subscription_key, backlog)
    values (v_keys.topic_key, v_keys.subscription_key, 1);
    perform pubsub.dead_letter_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key and d.message_id = v_ids[1]
    ), 'attempts');
    assert array(select l.attempts from pubsub.list_dlq_messages('beside') l) = array[7], c_proves;
    assert pubsub.recount_messages('beside') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'many come back without a wake-up, few with one';
    v_ids uuid[] := pg_temp.stock('many', 1001, 1);
    v_keys record := pubsub.subscription_keys('many');
begin
    perform pubsub.nack_messages('many', pg_temp.claim('many', 1000) || pg_temp.claim('many', 1));
    delete from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key;

    assert pubsub.revive_dead_letters(v_keys.topic_key, v_keys.subscription_key, v_ids) = 1001,
        c_proves;

    assert not exists (select from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key),
        c_proves;
    perform pg_temp.reconnect('many');
    assert pg_temp.claim('many') = v_ids[1:1000], c_proves;
    perform pubsub.nack_messages('many', v_ids[1:1000]);
    delete from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key;
    assert pubsub.revive_dead_letters(
        v_keys.topic_key, v_keys.subscription_key, v_ids[1:1000]) = 1000, c_proves;
    assert (
        select count(*) from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key
    ) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'dead letters are purged, all or these, and only those of the subscription';
    v_ids uuid[] := pg_temp.dead('purge', 4);
    v_others uuid[] := pg_temp.dead('purge-not', 1);
begin
    assert pubsub.purge_dlq_messages('purge', v_ids[1:2] || v_others) = 2, c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('purge') l) = v_ids[3:4],
        c_proves;
    assert pubsub.purge_dlq_messages('purge', '{}') = 0, c_proves;
    assert pubsub.purge_dlq_messages('purge') = 2, c_proves;
    assert pubsub.purge_dlq_messages('purge') = 0, c_proves;

    assert (select m.dlq from pubsub.subscription_metrics('purge-not') m) = 1, c_proves;
    assert pubsub.recount_messages('purge') = 0, c_proves;
    assert pg_temp.claim('purge') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a wrong argument is refused, naming the field';
    v_case record;
begin
    perform pg_temp.stock('refused');
    for v_case in
        select * from (values
            ('PS422(limit) limit must be 1 to 10000', 'p_limit => 0'),
            ('PS422(limit) limit must be 1 to 10000', 'p_limit => 10001'),
            ('PS422(per_second) per_second must be 1 to 1000000', 'p_per_second => 0'),
            ('PS422(per_second) per_second must be 1 to 1000000', 'p_per_second => 1000001')
        ) c (refusal, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.reprocess_matching_dlq_messages(''refused'', %s)',
            v_case.arguments)) = v_case.refusal, c_proves || ': ' || v_case.arguments;
    end loop;
    assert pg_temp.refusal($q$select pubsub.reprocess_matching_dlq_messages('refused', '{"a": 1}')$q$)
        like 'PS422(filter) %', c_proves;
    assert pg_temp.refusal($q$select pubsub.reprocess_matching_dlq_messages('none')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.purge_dlq_messages('none')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;
