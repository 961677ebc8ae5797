/* What becomes of messages whose deliveries are over: kept, published, parked, skipped. */

/* keyed — stock() with messages of one ordering key in an ordering subscription. */
create function pg_temp.keyed(p_name text, p_failure text, p_messages int, p_max_attempts int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[];
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name,
        json_build_object('max_delivery_attempts', p_max_attempts, 'enable_ordering', true,
            'ordering_failure', p_failure));
    v_ids := pg_temp.publish(p_name, p_messages);
    update pubsub_data.messages m set ordering_key = 'key' where m.message_id = any(v_ids);
    update pubsub_data.deliveries d set lane = 'key' where d.message_id = any(v_ids);
    return v_ids;
end
$$;

/* end_deliveries — dead_letter_deliveries of messages by their ids. */
create function pg_temp.end_deliveries(
    p_subscription text, p_ids uuid[], p_reason text, p_errors text[] default null
)
returns bigint
language plpgsql volatile
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription);
begin
    return pubsub.dead_letter_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid
        from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key
            and d.subscription_key = v_keys.subscription_key
            and d.message_id = any(p_ids)
        order by d.message_id
    ), p_reason, p_errors);
end
$$;

/* is_woken — whether a claim will look at a message now. */
create function pg_temp.is_woken(p_subscription text, p_id uuid)
returns boolean
language sql volatile
as $$
    select exists (
        select from pubsub.subscription_keys(p_subscription) k
        join pubsub_data.wakeups w
            on w.topic_key = k.topic_key and w.subscription_key = k.subscription_key
        where w.due_at <= clock_timestamp() and p_id = any(w.message_ids)
    )
$$;

do $$
declare
    c_proves constant text :=
        'dead_letter_deliveries moves what is there, counts it, keeps the rest';
    v_ids uuid[] := pg_temp.stock('moved', 3);
    v_keys record := pubsub.subscription_keys('moved');
begin
    perform pg_temp.claim('moved', 2);

    assert pubsub.dead_letter_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), 'attempts') = 1, c_proves;

    assert (
        select count(*) = 1 and bool_and(l.message_id = v_ids[1] and l.consumer_id = 'consumer'
            and l.attempts = 1 and l.reason = 'attempts')
        from pubsub_data.dead_letters l where l.topic_key = v_keys.topic_key
    ), c_proves;
    assert (select count(*) from pubsub_data.deliveries d where d.topic_key = v_keys.topic_key) = 2,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a dead letter tells who had it, what they said and how each delivery ended';
    v_ids uuid[] := pg_temp.stock('told', 3, 2);
    v_letter record;
begin
    perform pg_temp.claim('told');
    perform pg_temp.later('told', '1 hour');
    assert pubsub.cleanup_stuck_messages(null) = 3, c_proves;
    perform pg_temp.claim('told');

    assert pg_temp.end_deliveries('told', v_ids[2:3], 'rejected', array['no such order', null]) = 2,
        c_proves;

    select l.* into v_letter from pubsub_data.dead_letters l where l.message_id = v_ids[2];
    assert v_letter.reason = 'rejected' and v_letter.last_error = 'no such order', c_proves;
    assert v_letter.deliveries @> '[
        {"attempt": 1, "consumer_id": "consumer", "outcome": "consumer_lost", "reason": null},
        {"attempt": 2, "consumer_id": "consumer", "outcome": "rejected", "reason": "no such order"}
    ]' and jsonb_array_length(v_letter.deliveries) = 2, c_proves;
    assert (v_letter.deliveries -> 1 ->> 'outcome') = 'rejected', c_proves;
    assert (v_letter.deliveries -> 1 ->> 'delivered_at')::timestamptz
        < (v_letter.deliveries -> 1 ->> 'ended_at')::timestamptz, c_proves;
    assert (select l.last_error is null from pubsub_data.dead_letters l where l.message_id = v_ids[3]),
        c_proves;
    assert pubsub.recount_messages('told') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'each reason is the outcome of the delivery that it ended';
    v_ids uuid[] := pg_temp.stock('outcomes', 4);
begin
    perform pg_temp.claim('outcomes');
    perform pg_temp.end_deliveries('outcomes', v_ids[1:1], 'attempts');
    perform pg_temp.end_deliveries('outcomes', v_ids[2:2], 'rejected');
    perform pg_temp.end_deliveries('outcomes', v_ids[3:3], 'expired');
    perform pg_temp.end_deliveries('outcomes', v_ids[4:4], 'consumer_lost');

    assert array(
        select f.outcome from pubsub_data.failures f
        where f.message_id = any(v_ids) order by f.message_id
    ) = array['nacked', 'rejected', 'expired', 'consumer_lost'], c_proves;
    assert array(
        select l.reason from pubsub_data.dead_letters l
        where l.message_id = any(v_ids) order by l.message_id
    ) = array['attempts', 'rejected', 'expired', 'consumer_lost'], c_proves;
    assert (
        select m.expired = 1 and m.dlq = 4 and m.delivered = 0
        from pubsub.subscription_metrics('outcomes') m
    ), c_proves;
    assert pubsub.recount_messages('outcomes') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'without a lease no delivery ends, but how a message expired is told';
    v_ids uuid[] := pg_temp.stock('waiting', 2);
begin
    perform pg_temp.end_deliveries('waiting', v_ids[1:1], 'attempts');
    perform pg_temp.end_deliveries('waiting', v_ids[2:2], 'expired');

    assert array(
        select format('%s %s', f.message_id = v_ids[2], f.outcome) from pubsub_data.failures f
        where f.message_id = any(v_ids)
    ) = array['t expired'], c_proves;
    assert (select count(*) from pubsub.list_dlq_messages('waiting')) = 2, c_proves;
    assert pubsub.recount_messages('waiting') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead letter topic gets the message, marked, instead of a dead letter';
    v_ids uuid[];
    v_message record;
begin
    perform pg_temp.stock('undertaker');
    perform pubsub.create_topic('source');
    perform pubsub.create_subscription('source', 'source',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "undertaker"}');
    select array_agg(p.message_id) into v_ids from pubsub.publish_messages('source',
        array['{"a": 1}', '{"a": 2}']::jsonb[], array['{"region": "eu"}', null]::jsonb[]) p;

    perform pubsub.nack_messages('source', pg_temp.claim('source'));

    assert (select count(*) from pubsub.list_dlq_messages('source')) = 0, c_proves;
    assert (
        select array_agg(c.payload) = array['{"a": 1}', '{"a": 2}']::jsonb[]
            and (array_agg(c.attributes))[1] = jsonb_build_object('region', 'eu',
                'dead_letter_subscription', 'source', 'dead_letter_topic', 'source',
                'dead_letter_reason', 'attempts', 'dead_letter_message_id', v_ids[1],
                'dead_letter_attempts', '1')
            and (array_agg(c.attributes))[2] ->> 'dead_letter_message_id' = v_ids[2]::text
            and not v_ids && array_agg(c.message_id)
        from pubsub.consume_messages('undertaker', 'consumer') c
    ), c_proves;
    assert (
        select m::text = '(source,0,0,0,0,0,0,0,2,2,0,2,0,0,2,0,0)' from pubsub.subscription_metrics('source') m
    ), c_proves;
    assert pubsub.recount_messages('source') = 0 and pubsub.recount_messages('undertaker') = 0,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message that came out of a dead letter topic is kept where it dies';
begin
    perform pubsub.create_topic('ping');
    perform pubsub.create_topic('pong');
    perform pubsub.create_subscription('ping', 'ping',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "pong"}');
    perform pubsub.create_subscription('pong', 'pong',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "ping"}');
    perform pg_temp.publish('ping', 1);

    for v_round in 1 .. 3 loop
        perform pubsub.nack_messages('ping', pg_temp.claim('ping'));
        perform pubsub.nack_messages('pong', pg_temp.claim('pong'));
    end loop;

    assert (
        select count(*) = 1 and bool_and(l.attributes ->> 'dead_letter_subscription' = 'ping')
        from pubsub.list_dlq_messages('pong') l
    ), c_proves;
    assert (select count(*) from pubsub.list_dlq_messages('ping')) = 0, c_proves;
    assert pg_temp.claim('ping') = '{}' and pg_temp.claim('pong') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'without its dead letter topic a subscription keeps its dead letters again';
begin
    perform pubsub.create_topic('short-lived');
    perform pubsub.create_topic('bereft');
    perform pubsub.create_subscription('bereft', 'bereft',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "short-lived"}');
    perform pg_temp.publish('bereft', 1);
    perform pubsub.delete_topic('short-lived');

    perform pubsub.nack_messages('bereft', pg_temp.claim('bereft'));

    assert (select count(*) from pubsub.list_dlq_messages('bereft')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message without its payload is kept, for it cannot be published';
    v_ids uuid[];
begin
    perform pg_temp.stock('shelf');
    perform pubsub.create_topic('hollow');
    perform pubsub.create_subscription('hollow', 'hollow',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "shelf"}');
    v_ids := pg_temp.publish('hollow', 2);
    perform pg_temp.claim('hollow');
    delete from pubsub_data.messages m where m.message_id = v_ids[1];

    perform pubsub.nack_messages('hollow', v_ids);

    assert array(select l.message_id from pubsub.list_dlq_messages('hollow') l) = v_ids[1:1],
        c_proves;
    assert cardinality(pg_temp.claim('shelf')) = 1, c_proves;
    assert pubsub.recount_messages('hollow') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a spent message of a key is parked: it stays, and nobody gets it';
    v_ids uuid[] := pg_temp.keyed('park', 'park', 2, 1);
begin
    perform pg_temp.claim('park', 1);
    update pubsub_data.deliveries d set expires_at = clock_timestamp()
    where d.message_id = v_ids[1];

    assert pg_temp.end_deliveries('park', v_ids[1:1], 'attempts', array['broken']) = 1, c_proves;

    assert (
        select d.visible_at = 'infinity' and d.attempts = 1 and d.expires_at is null
            and d.leased_at is null
            and num_nulls(d.lease, d.consumer_id) = 2
        from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
    assert (
        select m.parked = 1 and m.available = 1 and m.delivered = 0 and m.dlq = 0
        from pubsub.subscription_metrics('park') m
    ), c_proves;
    assert array(
        select format('%s %s %s', f.outcome, f.reason, f.consumer_id)
        from pubsub_data.failures f where f.message_id = v_ids[1]
    ) = array['parked broken consumer'], c_proves;
    assert not pg_temp.is_woken('park', v_ids[2]), c_proves || ': what waits behind it stays there';
    perform pg_temp.later('park', '1 hour');
    assert v_ids[1] <> all(pg_temp.claim('park')), c_proves;
    assert not exists (select from pubsub_data.wakeups w where w.due_at = 'infinity'), c_proves;
    perform pubsub.dead_letter_spent_messages();
    perform pubsub.cleanup_stuck_messages(0);
    assert (
        select d.visible_at = 'infinity' from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
    assert pubsub.recount_messages('park') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a spent message of a key is skipped: dropped, and the next one woken';
    v_ids uuid[] := pg_temp.keyed('skip', 'skip', 2, 1);
begin
    perform pg_temp.claim('skip', 1);

    assert pg_temp.end_deliveries('skip', v_ids[1:1], 'consumer_lost') = 1, c_proves;

    assert not exists (select from pubsub_data.deliveries d where d.message_id = v_ids[1]), c_proves;
    assert array(
        select format('%s %s', f.outcome, f.attempt)
        from pubsub_data.failures f where f.message_id = v_ids[1]
    ) = array['skipped 1'], c_proves;
    assert (
        select m.available = 1 and m.delivered = 0 and m.dlq = 0
        from pubsub.subscription_metrics('skip') m
    ), c_proves;
    assert pg_temp.is_woken('skip', v_ids[2]), c_proves;
    assert pubsub.recount_messages('skip') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead letter of a key wakes what waited behind it';
    v_ids uuid[] := pg_temp.keyed('next', 'dead_letter', 2, 1);
begin
    perform pg_temp.claim('next', 1);

    perform pg_temp.end_deliveries('next', v_ids[1:1], 'attempts');

    assert array(select l.message_id from pubsub.list_dlq_messages('next') l) = v_ids[1:1], c_proves;
    assert pg_temp.is_woken('next', v_ids[2]), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'ordering_failure is for spent messages with a key: others become dead letters';
    v_ids uuid[];
    v_failure text;
begin
    foreach v_failure in array array['park', 'skip'] loop
        v_ids := pg_temp.keyed('mixed-' || v_failure, v_failure, 4, 1);
        update pubsub_data.deliveries d set lane = null where d.message_id = v_ids[4];
        perform pubsub.consume_messages('mixed-' || v_failure, 'consumer', 10);

        perform pg_temp.end_deliveries('mixed-' || v_failure, v_ids[1:1], 'rejected');
        perform pg_temp.end_deliveries('mixed-' || v_failure, v_ids[2:2], 'expired');
        perform pg_temp.end_deliveries('mixed-' || v_failure, v_ids[3:4], 'attempts');

        assert array(
            select l.message_id from pubsub.list_dlq_messages('mixed-' || v_failure) l
        ) = array[v_ids[1], v_ids[2], v_ids[4]], c_proves || ': ' || v_failure;
        assert pubsub.recount_messages('mixed-' || v_failure) = 0, c_proves || ': ' || v_failure;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'where consumers are limited, what they hold is counted by consumer';
    v_ids uuid[];
    v_keys record;
    v_action text;
begin
    perform pubsub.create_topic('limited');
    perform pubsub.create_subscription('limited', 'limited',
        '{"enable_ordering": true, "ordering_failure": "park", "max_in_flight_per_consumer": 10}');
    v_keys := pubsub.subscription_keys('limited');
    v_ids := pg_temp.publish('limited', 3);
    perform pubsub.consume_messages('limited', 'first', 2);
    perform pubsub.consume_messages('limited', 'second', 1);
    update pubsub_data.deliveries d set lane = 'key' where d.message_id = v_ids[1];
    -- the claims may or may not have noted the consumers
    perform pubsub.recount_messages('limited');

    perform pg_temp.end_deliveries('limited', v_ids[1:2], 'attempts');
    update pubsub_data.deliveries d set leased_at = d.leased_at - interval '1 hour';
    perform pubsub.cleanup_stuck_messages(60);

    assert not exists (
        select from pubsub_data.counters c
        where c.topic_key = v_keys.topic_key
        group by c.due_at, c.consumer_id
        having sum(c.leased) <> 0
    ), c_proves;
    assert pubsub.recount_messages('limited') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'expire_deliveries: dead letters where the subscription says so';
    v_ids uuid[] := pg_temp.stock('kept', 2);
    v_keys record := pubsub.subscription_keys('kept');
begin
    update pubsub_data.subscriptions s set dead_letter_expired = true
    where s.subscription_id = 'kept';

    perform pubsub.expire_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d where d.message_id = any(v_ids)));

    assert array(
        select l.message_id || l.reason from pubsub.list_dlq_messages('kept') l
    ) = array[v_ids[1] || 'expired', v_ids[2] || 'expired'], c_proves;
    assert not exists (select from pubsub_data.deliveries d where d.message_id = any(v_ids)),
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'bury, drop and park do what they say, whatever the settings say';
    v_ids uuid[] := pg_temp.keyed('direct', 'skip', 3, 5);
    v_keys record := pubsub.subscription_keys('direct');
    v_places tid[] := array(
        select d.ctid from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    );
begin
    perform pubsub.bury_deliveries(
        v_keys.topic_key, v_keys.subscription_key, v_places[1:1], 'attempts');
    perform pubsub.drop_deliveries(v_keys.topic_key, v_keys.subscription_key, v_places[2:2]);
    perform pubsub.park_deliveries(v_keys.topic_key, v_keys.subscription_key, v_places[3:3]);

    assert array(select l.message_id from pubsub.list_dlq_messages('direct') l) = v_ids[1:1],
        c_proves;
    assert array(
        select d.message_id from pubsub_data.deliveries d
        where d.message_id = any(v_ids) and d.visible_at = 'infinity'
    ) = v_ids[3:3], c_proves;
    assert not exists (select from pubsub_data.deliveries d where d.message_id = v_ids[2]), c_proves;
    assert pubsub.recount_messages('direct') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'without a dead letter topic, all places are to be kept';
    v_places tid[];
    v_keys record;
begin
    perform pg_temp.stock('unpublished', 2);
    v_keys := pubsub.subscription_keys('unpublished');
    v_places := array(select d.ctid from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key order by d.message_id);

    assert pubsub.publish_dead_letters(v_keys.topic_key, v_keys.subscription_key, v_places, 'attempts')
        = v_places, c_proves;
end
$$;
