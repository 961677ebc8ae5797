/* Settling: ack, nack, extend, and the fence of the lease numbers. */

do $$
declare
    c_proves constant text := 'an ack settles a delivery for good and is counted';
    v_ids uuid[] := pg_temp.stock('ack', 3);
begin
    perform pg_temp.claim('ack');

    assert pubsub.ack_messages('ack', v_ids[1:2]) = 2, c_proves;
    assert pubsub.ack_messages('ack', v_ids) = 1, c_proves;
    assert pubsub.ack_messages('ack', v_ids) = 0, c_proves;

    perform pg_temp.later('ack', '1 hour');
    assert pg_temp.claim('ack') = '{}', c_proves;
    assert (
        select sum(cardinality(a.message_ids)) = 3
            and bool_and(a.attempts = 1 and a.consumer_id = 'consumer')
        from pubsub_data.acked a where a.message_ids && v_ids
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is not leased cannot be acked, nacked or extended';
    v_ids uuid[] := pg_temp.stock('available', 2);
    v_foreign uuid[] := pg_temp.stock('foreign', 1);
    v_unknown uuid[] := array[gen_random_uuid()];
    v_case uuid[];
begin
    perform pg_temp.claim('foreign');
    perform pg_temp.claim('available', 1);
    perform pubsub.nack_messages('available', v_ids[1:1]);
    foreach v_case slice 1 in array array[
        v_ids[2:2], v_ids[1:1], v_foreign, v_unknown, array[null::uuid]
    ] loop
        assert pubsub.ack_messages('available', v_case) = 0, c_proves || ': ' || v_case::text;
        assert pubsub.nack_messages('available', v_case) = 0, c_proves || ': ' || v_case::text;
        assert pubsub.extend_messages('available', v_case, array[1]::bigint[], 60) = 0,
            c_proves || ': ' || v_case::text;
    end loop;
    assert pubsub.ack_messages('available', '{}') = 0, c_proves;
    assert pubsub.nack_messages('available', null) = 0, c_proves;
    assert (
        select m.available = 1 and m.scheduled = 1 and m.acked = 0
        from pubsub.subscription_metrics('available') m
    ), c_proves;
    assert (select m.delivered from pubsub.subscription_metrics('foreign') m) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an id that is given twice counts once';
    v_ids uuid[] := pg_temp.stock('twice', 3);
begin
    perform pg_temp.claim('twice');

    assert pubsub.extend_messages('twice', v_ids || v_ids, array(
        select d.lease from unnest(v_ids || v_ids) i (id)
        join pubsub_data.deliveries d on d.message_id = i.id), 60) = 3, c_proves;
    assert pubsub.ack_messages('twice', array[v_ids[1], v_ids[1]]) = 1, c_proves;
    assert pubsub.nack_messages('twice', array[v_ids[2], v_ids[2]]) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a stale lease cannot ack, nack or extend; the newest one can';
    v_ids uuid[] := pg_temp.stock('fence', 3);
    v_stale bigint[];
    v_newest bigint[];
begin
    v_stale := array(select c.lease from pubsub.consume_messages('fence', 'one') c);
    perform pg_temp.later('fence', '1 hour');
    v_newest := array(select c.lease from pubsub.consume_messages('fence', 'two') c);

    assert pubsub.ack_messages('fence', v_ids, v_stale) = 0, c_proves;
    assert pubsub.nack_messages('fence', v_ids, v_stale) = 0, c_proves;
    assert pubsub.extend_messages('fence', v_ids, v_stale, 60) = 0, c_proves;
    assert (
        select count(*) = 3 and bool_and(d.lease = v_newest[1] and d.consumer_id = 'two')
        from pubsub_data.deliveries d where d.message_id = any(v_ids)
    ), c_proves;

    assert pubsub.ack_messages('fence', v_ids[1:1], v_newest[1:1]) = 1, c_proves;
    assert pubsub.nack_messages('fence', v_ids[2:2], v_newest[2:2]) = 1, c_proves;
    assert pubsub.extend_messages('fence', v_ids[3:3], v_newest[3:3], 60) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease fits its own message only, and null any lease';
    v_ids uuid[] := pg_temp.stock('pairs', 3);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('pairs', 'one', 1) c)
        || array(select c.lease from pubsub.consume_messages('pairs', 'two', 1) c)
        || array(select c.lease from pubsub.consume_messages('pairs', 'three', 1) c);

    assert pubsub.ack_messages('pairs', v_ids,
        array[v_leases[2], v_leases[2], v_leases[1]]) = 1, c_proves;
    assert array(
        select i.id from pubsub_data.acked a, unnest(a.message_ids) i (id) where i.id = any(v_ids)
    ) = v_ids[2:2], c_proves;
    assert pubsub.ack_messages('pairs', v_ids, array[null, null, v_leases[2]]) = 1, c_proves;
    assert pubsub.nack_messages('pairs', v_ids, array[null, null, null]::bigint[]) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a lease that is over, but not given away, can still be acked and nacked';
    v_ids uuid[] := pg_temp.stock('overdue', 2);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('overdue', 'consumer') c);
    perform pg_temp.later('overdue', '1 hour');

    assert pubsub.extend_messages('overdue', v_ids, v_leases, 60) = 0, c_proves;
    assert pubsub.ack_messages('overdue', v_ids[1:1], v_leases[1:1]) = 1, c_proves;
    assert pubsub.nack_messages('overdue', v_ids[2:2], v_leases[2:2]) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'backoff n is min, min * n or min * 2^(n-1), at most max, however large n is';
    v_case record;
begin
    for v_case in
        select * from (values
            (1, 5, 300, 5), (2, 5, 300, 10), (3, 5, 300, 20), (6, 5, 300, 160), (7, 5, 300, 300),
            (0, 5, 300, 5), (1, 7, 7, 7), (2, 7, 7, 7), (31, 1, 2147483647, 1073741824),
            (32, 1, 2147483647, 2147483647), (1024, 5, 300, 300),
            (2147483647, 2147483647, 2147483647, 2147483647)
        ) c (attempts, lowest, highest, seconds)
    loop
        assert pubsub.backoff_seconds(v_case.attempts, v_case.lowest, v_case.highest)
            = v_case.seconds, c_proves || ': ' || v_case;
    end loop;
    for v_case in
        select c.* from (values
            ('fixed', 1, 0.5, 60, 0.5), ('fixed', 9, 0.5, 60, 0.5), ('fixed', 0, 5, 5, 5),
            ('fixed', 2147483647, 2147483647, 2147483647, 2147483647),
            ('linear', 1, 0.5, 60, 0.5), ('linear', 2, 0.5, 60, 1), ('linear', 3, 0.5, 60, 1.5),
            ('linear', 0, 5, 60, 5), ('linear', 12, 5, 60, 60), ('linear', 13, 5, 60, 60),
            ('linear', 2147483647, 0.001, 2147483647, 2147483.647),
            ('linear', 2147483647, 2147483647, 2147483647, 2147483647),
            ('exponential', 1, 0.25, 3600, 0.25), ('exponential', 4, 0.25, 3600, 2),
            ('exponential', 20, 0.25, 3600, 3600), ('exponential', 5, 0.001, 300, 0.016),
            ('exponential', 42, 0.001, 2147483647, 2147483647)
        ) c (strategy, attempts, lowest, highest, seconds)
    loop
        assert abs(pubsub.backoff_seconds(v_case.attempts, v_case.lowest, v_case.highest,
            v_case.strategy) - v_case.seconds) < 0.000001, c_proves || ': ' || v_case;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a nacked message returns after its backoff, which doubles';
    v_ids uuid[] := pg_temp.stock('backoff', 2);
    v_seconds int;
begin
    foreach v_seconds in array array[5, 10, 20] loop
        assert pg_temp.claim('backoff') = v_ids, c_proves || ': ' || v_seconds;
        assert pubsub.nack_messages('backoff', v_ids) = 2, c_proves || ': ' || v_seconds;
        perform pg_temp.later('backoff', make_interval(secs => v_seconds - 1));
        assert pg_temp.claim('backoff') = '{}', c_proves || ': ' || v_seconds;
        perform pg_temp.later('backoff', '1 second');
    end loop;
    assert (
        select bool_and(c.attempts = 4) from pubsub.consume_messages('backoff', 'consumer') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a nack on the last attempt dead-letters, and counts';
    v_ids uuid[] := pg_temp.stock('last', 2, 2);
begin
    perform pg_temp.claim('last', 1);
    perform pubsub.nack_messages('last', v_ids[1:1]);
    perform pg_temp.later('last', '1 hour');
    perform pg_temp.claim('last');

    assert pubsub.nack_messages('last', v_ids) = 2, c_proves;
    assert (
        select count(*) = 1 and bool_and(l.message_id = v_ids[1] and l.attempts = 2
            and l.payload = '{"n": 1}' and l.reason = 'attempts')
        from pubsub.list_dlq_messages('last') l
    ), c_proves;
    perform pg_temp.later('last', '1 hour');
    assert pg_temp.claim('last') = v_ids[2:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'seconds out of range and unknown subscriptions are refused';
    v_seconds double precision;
begin
    perform pg_temp.stock('refused');
    foreach v_seconds in array array[0, -1, 43201, null, 0.0009, 43200.001, 'NaN', 'infinity'] loop
        assert pg_temp.refusal(format(
            $q$select pubsub.extend_messages('refused', '{}', '{}', %L)$q$, v_seconds))
            = 'PS422(seconds) seconds must be 0.001 to 43200', format('%s: %s', c_proves, v_seconds);
    end loop;
    assert pg_temp.refusal($q$select pubsub.extend_messages('none', '{}', '{}', 1)$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.ack_messages('none', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.nack_messages('none', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'lock_leases finds each leased delivery once, where its lease fits';
    v_ids uuid[] := pg_temp.stock('lock', 4);
    v_keys record := pubsub.subscription_keys('lock');
    v_lease bigint;
begin
    v_lease := (select max(c.lease) from pubsub.consume_messages('lock', 'consumer', 3) c);

    assert array(
        select d.message_id
        from pubsub.lock_leases(v_keys.topic_key, v_keys.subscription_key,
            array[v_ids[3], v_ids[1], v_ids[2], v_ids[4], v_ids[3], v_ids[4]],
            array[v_lease, null, v_lease + 1, null, v_lease, v_lease]) h
        cross join unnest(h.places, h.attempts, h.deadlines) as l (place, attempts, deadline)
        join pubsub_data.deliveries d on d.ctid = l.place
            and d.attempts = l.attempts and d.visible_at = l.deadline
        order by d.message_id
    ) = array[v_ids[1], v_ids[3]], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'fewer leases than ids are refused: the rest would not be fenced';
    v_ids uuid[] := pg_temp.stock('fewer', 2);
    v_function text;
begin
    perform pubsub.consume_messages('fewer', 'consumer');

    foreach v_function in array array['ack_messages', 'nack_messages'] loop
        assert pg_temp.refusal(format('select pubsub.%I(''fewer'', %L, array[-1]::bigint[])',
            v_function, v_ids)) = 'PS422(leases) leases must have one element per message id',
            format('%s: %s', c_proves, v_function);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a message that is named twice, by lease and without, is settled once';
    v_ids uuid[] := pg_temp.stock('named-twice', 3);
    v_leases bigint[] := array(
        select c.lease from pubsub.consume_messages('named-twice', 'consumer') c order by c.message_id
    );
begin
    assert pubsub.nack_messages('named-twice', v_ids[1:1] || v_ids[1:1], array[null, v_leases[1]]) = 1,
        c_proves || ': nacked';
    assert pubsub.ack_messages('named-twice', v_ids[2:2] || v_ids[2:2], array[null, v_leases[2]]) = 1,
        c_proves || ': acked';
    assert pubsub.extend_messages('named-twice', v_ids[3:3] || v_ids[3:3],
        array[v_leases[3], v_leases[3]], 900) = 1, c_proves || ': extended';

    assert pubsub.recount_messages('named-twice') = 0, c_proves || ': and counted once';
end
$$;

do $$
declare
    c_proves constant text := 'an ack remembers when the message was delivered';
    v_ids uuid[] := pg_temp.stock('when', 2);
    v_leased_at timestamptz[];
begin
    perform pg_temp.claim('when', 1);
    perform pg_temp.claim('when', 1);
    v_leased_at := array(
        select d.leased_at from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    );
    perform pubsub.ack_messages('when', v_ids);

    assert array(
        select a.delivered_at from pubsub_data.acked a
        where a.message_ids && v_ids order by a.delivered_at
    ) = v_leased_at, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a nack that leads to a retry is noted as a failure';
    v_ids uuid[] := pg_temp.stock('failed', 2, 2);
    v_leased_at timestamptz;
begin
    perform pg_temp.claim('failed');
    v_leased_at := (
        select d.leased_at from pubsub_data.deliveries d where d.message_id = v_ids[1]
    );
    perform pubsub.nack_messages('failed', v_ids[1:1]);

    assert (
        select count(*) = 1 and bool_and(f.message_id = v_ids[1] and f.attempt = 1
            and f.consumer_id = 'consumer' and f.delivered_at = v_leased_at
            and f.ended_at between v_leased_at and clock_timestamp() and f.outcome = 'nacked'
            and f.reason is null)
        from pubsub_data.failures f where f.message_id = any(v_ids)
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'retry_deliveries takes a delay and a reason for each';
    v_ids uuid[] := pg_temp.stock('delays', 3);
    v_keys record := pubsub.subscription_keys('delays');
begin
    perform pg_temp.claim('delays');

    assert pubsub.retry_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    ), array[0, 100, null], array['a', null, 'c'], 20, 20, 'fixed', false) = 3, c_proves;

    assert array(
        select round(extract(epoch from d.visible_at - clock_timestamp()))::int
        from pubsub_data.deliveries d where d.message_id = any(v_ids) order by d.message_id
    ) = array[0, 100, 20], c_proves;
    assert array(
        select f.reason from pubsub_data.failures f
        where f.message_id = any(v_ids) order by f.message_id
    ) = array['a', null, 'c'], c_proves;
    assert pg_temp.claim('delays') = v_ids[1:1], c_proves || ': no delay is none';
    assert pubsub.recount_messages('delays') = 0, c_proves || ': counted';
end
$$;

do $$
declare
    c_proves constant text := 'a subscription waits by its strategy before each retry, to the millisecond';
    v_ids uuid[];
    v_leases bigint[];
    v_waits numeric[];
    v_case record;
begin
    for v_case in
        select *
        from (values ('fixed', array[0.125, 0.125, 0.125, 0.125]),
            ('linear', array[0.125, 0.25, 0.375, 0.4]),
            ('exponential', array[0.125, 0.25, 0.4, 0.4])) c (strategy, waits)
    loop
        perform pubsub.create_topic('wait-' || v_case.strategy);
        perform pubsub.create_subscription('wait-' || v_case.strategy, 'wait-' || v_case.strategy,
            json_build_object('backoff_strategy', v_case.strategy, 'backoff_min_seconds', 0.125,
                'backoff_max_seconds', 0.4));
        v_ids := pg_temp.publish('wait-' || v_case.strategy, 2);
        v_waits := '{}';
        for v_attempt in 1 .. 4 loop
            v_leases := array(
                select c.lease from pubsub.consume_messages('wait-' || v_case.strategy, 'consumer') c);
            -- either way to nack
            assert pubsub.nack_messages('wait-' || v_case.strategy, v_ids[1:1], v_leases[1:1]) = 1, c_proves;
            assert (select s.status = 'nacked' from pubsub.settle_messages('wait-' || v_case.strategy,
                v_ids[2:2], v_leases[2:2], '{nack}') s), c_proves;
            -- the nack of each is in failures, at the time from which it waits
            v_waits := v_waits || (
                select case when count(distinct round(w.seconds, 3)) = 1 then min(round(w.seconds, 3)) end
                from (
                    select extract(epoch from d.visible_at - max(f.ended_at))::numeric as seconds
                    from pubsub_data.deliveries d
                    join pubsub_data.failures f using (topic_key, subscription_key, message_id)
                    where d.message_id = any(v_ids)
                    group by d.message_id, d.visible_at
                ) w
            );
            perform pg_temp.later('wait-' || v_case.strategy, '1 second');
        end loop;
        assert v_waits = v_case.waits, format('%s: %s %s', c_proves, v_case.strategy, v_waits);
        assert pubsub.recount_messages('wait-' || v_case.strategy) = 0, c_proves;
    end loop;
end
$$;
