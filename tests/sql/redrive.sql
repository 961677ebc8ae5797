/* Dead letters: listing, reprocessing, redriving, purging. */

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

    perform pubsub.create_subscription('own-2', 'own', p_max_delivery_attempts => 1);
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
