do $$
declare
    c_proves constant text := 'take_due sorts what is due by its fate';
    v_ids uuid[] := pg_temp.stock('fates', 5, 2);
    v_keys record := pubsub.subscription_keys('fates');
    v_now timestamptz;
    v_due record;
begin
    perform pg_temp.claim('fates');
    perform pg_temp.later('fates', '1 hour');
    v_now := clock_timestamp();
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[2];
    update pubsub_data.deliveries d set expires_at = v_now where d.message_id = v_ids[3];
    update pubsub_data.deliveries d set visible_at = v_now + interval '1 s'
    where d.message_id = v_ids[4];

    v_due := pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, '-infinity', v_now, 1, 2);

    assert array(
        select d.message_id from pubsub_data.deliveries d where d.ctid = any(v_due.ready)
    ) = v_ids[1:1], c_proves;
    assert v_due.last_due_at between v_now - interval '1 hour' and v_now, c_proves;
    assert array(
        select d.message_id from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    ) = array[v_ids[1], v_ids[4], v_ids[5]], c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('fates') l) = v_ids[2:2],
        c_proves;
    assert array(
        select w.message_ids::text || ' ' || (w.due_at - v_now)
        from pubsub_data.wakeups w
        where w.topic_key = v_keys.topic_key and w.subscription_key = v_keys.subscription_key
        order by w.due_at
    ) = array[format('{%s} 00:00:00', v_ids[5]), format('{%s} 00:00:01', v_ids[4])], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'take_due leaves alone what is due before p_from or after p_now';
    v_keys record;
    v_now timestamptz := clock_timestamp();
begin
    perform pg_temp.stock('window', 1);
    v_keys := pubsub.subscription_keys('window');
    perform pg_temp.claim('window');
    perform pg_temp.later('window', '2 minutes');

    assert pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, v_now, v_now, 1, 5)::text
        = '(,)', c_proves;
    assert pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, '-infinity',
        v_now - interval '5 minutes', 1, 5)::text = '(,)', c_proves;
    assert cardinality(pg_temp.claim('window')) = 1, c_proves;
end
$$;
