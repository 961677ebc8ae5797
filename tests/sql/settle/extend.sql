/* Extending leases, and releasing those that nobody saw. */

do $$
declare
    c_proves constant text := 'extend takes no "any lease"';
    v_ids uuid[] := pg_temp.stock('extend-null', 1);
begin
    perform pg_temp.claim('extend-null');

    assert pubsub.extend_messages('extend-null', v_ids, array[null]::bigint[], 60) = 0, c_proves;
    assert pubsub.extend_messages('extend-null', v_ids, null, 60) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an extended lease holds until its new deadline, longer or shorter';
    v_seconds int;
    v_ids uuid[];
    v_leases bigint[];
begin
    foreach v_seconds in array array[3600, 10] loop
        v_ids := pg_temp.stock('extend-' || v_seconds, 2);
        v_leases := array(
            select c.lease
            from pubsub.consume_messages('extend-' || v_seconds, 'consumer', 10, 60) c);

        assert pubsub.extend_messages('extend-' || v_seconds, v_ids, v_leases, v_seconds) = 2,
            c_proves;
        perform pg_temp.later('extend-' || v_seconds, make_interval(secs => v_seconds - 1));
        assert pg_temp.claim('extend-' || v_seconds) = '{}', c_proves || ': ' || v_seconds;
        perform pg_temp.later('extend-' || v_seconds, '1 second');
        assert pg_temp.claim('extend-' || v_seconds) = v_ids, c_proves || ': ' || v_seconds;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'an extended lease keeps its number and its attempt';
    v_ids uuid[] := pg_temp.stock('kept', 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('kept', 'consumer') c);
    perform pubsub.extend_messages('kept', v_ids, v_leases, 100);

    assert (
        select d.attempts = 1 and d.lease = v_leases[1]
        from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
    assert pubsub.ack_messages('kept', v_ids, v_leases) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an extended lease is not stuck';
    v_ids uuid[] := pg_temp.stock('alive', 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('alive', 'consumer') c);
    update pubsub_data.deliveries set leased_at = leased_at - interval '59 seconds'
    where message_id = v_ids[1];
    perform pubsub.extend_messages('alive', v_ids, v_leases, 600);

    perform pubsub.cleanup_stuck_messages(30);

    assert pubsub.ack_messages('alive', v_ids, v_leases) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease ends 12 hours after it began, however often it is extended';
    v_ids uuid[] := pg_temp.stock('bound', 2);
    v_keys record := pubsub.subscription_keys('bound');
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('bound', 'consumer') c);
    update pubsub_data.deliveries d
    set leased_at = d.leased_at - interval '11 hours', extended_at = clock_timestamp()
    where d.message_id = v_ids[1];

    assert pubsub.extend_messages('bound', v_ids, v_leases, 43200) = 2, c_proves;
    assert (
        select bool_and(d.visible_at = d.leased_at + interval '12 hours')
            and min(d.visible_at) < clock_timestamp() + interval '61 minutes'
            and bool_and(d.extended_at > d.leased_at)
        from pubsub_data.deliveries d where d.message_id = any(v_ids)
    ), c_proves;
    assert (
        select count(*) = 2
        from pubsub_data.wakeups w
        join pubsub_data.deliveries d on d.message_id = any(w.message_ids)
        where w.topic_key = v_keys.topic_key and w.due_at = d.visible_at
    ), c_proves || ': with a wake-up each';
    assert pubsub.recount_messages('bound') = 0, c_proves || ': and counted';

    assert (
        select e.ack_deadline < clock_timestamp() + interval '61 seconds'
        from pubsub.extend_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
            select d.ctid from pubsub_data.deliveries d where d.message_id = v_ids[1]
        ), array[60], false) e
    ), c_proves || ': and may end before';
end
$$;

do $$
declare
    c_proves constant text := 'a new lease has not been extended';
    v_ids uuid[] := pg_temp.stock('anew', 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('anew', 'consumer') c);
    perform pubsub.extend_messages('anew', v_ids, v_leases, 60);
    perform pg_temp.later('anew', '61 seconds');
    perform pg_temp.claim('anew');

    assert (
        select d.extended_at is null and d.leased_at is not null
        from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a released message is available at once, as if nobody had had it';
    v_ids uuid[] := pg_temp.stock('release', 3);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('release', 'gone', 2) c);

    assert pubsub.release_messages('release', v_ids[1:2], v_leases) = 2, c_proves;

    assert (
        select m.available = 3 and m.delivered = 0 and m.scheduled = 0
        from pubsub.subscription_metrics('release') m
    ), c_proves || ': counted';
    assert pubsub.recount_messages('release') = 0, c_proves || ': counted right';
    assert not exists (
        select from pubsub_data.failures f where f.message_id = any(v_ids)
    ), c_proves || ': no failure';
    -- on this very session, whose cursor has passed them
    assert (
        select array_agg(c.message_id) = v_ids and bool_and(c.attempts = 1)
        from pubsub.consume_messages('release', 'next') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'only the very lease can be released, once';
    v_ids uuid[] := pg_temp.stock('release-fence', 2);
    v_stale bigint[];
    v_newest bigint[];
begin
    v_stale := array(select c.lease from pubsub.consume_messages('release-fence', 'one') c);
    perform pg_temp.later('release-fence', '1 hour');
    v_newest := array(select c.lease from pubsub.consume_messages('release-fence', 'two') c);

    assert pubsub.release_messages('release-fence', v_ids, v_stale) = 0, c_proves;
    assert pubsub.release_messages('release-fence', v_ids, array[null, null]::bigint[]) = 0,
        c_proves;
    assert pubsub.release_messages('release-fence', v_ids, null) = 0, c_proves;
    assert pubsub.release_messages('release-fence', v_ids[1:1], v_newest[1:1]) = 1, c_proves;
    assert pubsub.release_messages('release-fence', v_ids[1:1], v_newest[1:1]) = 0, c_proves;
    assert pg_temp.refusal($q$select pubsub.release_messages('none', '{}', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal(format(
        $q$select pubsub.release_messages('release-fence', %L, '{1}'::bigint[])$q$, v_ids))
        = 'PS422(leases) leases must have one element per message id', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'leases of a subscription that limits consumers are counted by consumer';
    v_ids uuid[];
    v_keys record;
    v_leases bigint[];
begin
    perform pubsub.create_topic('each');
    perform pubsub.create_subscription('each', 'each',
        '{"max_in_flight_per_consumer": 100, "backoff_min_seconds": 5}');
    v_keys := pubsub.subscription_keys('each');
    v_ids := pg_temp.publish('each', 5);
    v_leases := array(select c.lease from pubsub.consume_messages('each', 'one') c);
    -- whatever the claim noted
    delete from pubsub_data.counters c where c.subscription_key = v_keys.subscription_key;

    perform pubsub.ack_messages('each', v_ids[1:1], v_leases[1:1]);
    perform pubsub.nack_messages('each', v_ids[2:2], v_leases[2:2]);
    perform pubsub.extend_messages('each', v_ids[3:3], v_leases[3:3], 600);
    perform pubsub.release_messages('each', v_ids[4:4], v_leases[4:4]);

    assert (
        select sum(c.leased) filter (where c.consumer_id = 'one') = -3
            and coalesce(sum(c.leased) filter (where c.consumer_id is null), 0) = 0
            and sum(c.leased) filter (
                where c.due_at > clock_timestamp() + interval '500 seconds') = 1
            and bool_and(c.consumer_id is null) filter (where c.waiting <> 0)
        from pubsub_data.counters c where c.subscription_key = v_keys.subscription_key
    ), c_proves;
end
$$;
