/* Settling many deliveries at once, each in its own way. */

do $$
declare
    c_proves constant text := 'each delivery is settled in its own way, with its own result, in order';
    v_ids uuid[] := pg_temp.stock('mixed', 6);
    v_leases bigint[];
    v_results text[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('mixed', 'consumer', 5) c) || 1;

    -- not in id order, and the last was not leased
    v_results := array(
        select s.position || ' ' || s.status || ' '
            || coalesce(round(extract(epoch from s.ack_deadline - clock_timestamp()))::text, '')
        from pubsub.settle_messages('mixed',
            array[v_ids[3], v_ids[6], v_ids[1], v_ids[5], v_ids[4], v_ids[2]],
            array[v_leases[3], v_leases[6], v_leases[1], v_leases[5], v_leases[4], v_leases[2]],
            array['extend', 'ack', 'ack', 'nack', 'reject', 'nack'],
            array[300, null, null, 40, null, null],
            array[null, null, null, 'busy', 'broken', null]) s
    );

    assert v_results = array['1 extended 300', '2 lease_lost ', '3 acked ', '4 nacked ',
        '5 dead_lettered ', '6 nacked '], format('%s: %s', c_proves, v_results);
    assert (
        select m.available = 1 and m.delivered = 1 and m.scheduled = 2 and m.acked = 1 and m.dlq = 1
        from pubsub.subscription_metrics('mixed') m
    ), c_proves || ': counted';
    assert pubsub.recount_messages('mixed') = 0, c_proves || ': counted right';
    assert array(
        select round(extract(epoch from d.visible_at - clock_timestamp()))::int
        from pubsub_data.deliveries d
        where d.message_id in (v_ids[2], v_ids[5]) order by d.message_id
    ) = array[5, 40], c_proves || ': the backoff, or the delay asked for';
    assert (
        select count(*) = 2 and bool_and(f.attempt = 1 and f.consumer_id = 'consumer')
            and count(*) filter (where f.message_id = v_ids[5] and f.reason = 'busy') = 1
        from pubsub_data.failures f where f.message_id = any(v_ids) and f.outcome = 'nacked'
    ), c_proves || ': nacks are noted';
    assert (
        select l.message_id = v_ids[4] and l.reason = 'rejected' and l.last_error = 'broken'
            and l.attempts = 1
        from pubsub_data.dead_letters l where l.message_id = any(v_ids)
    ), c_proves || ': a reject goes to the dead letters at once';
end
$$;

do $$
declare
    c_proves constant text := 'a nack on the last attempt dead-letters with the words of the consumer';
    v_ids uuid[] := pg_temp.stock('last-words', 2, 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('last-words', 'consumer') c);

    assert array(
        select s.status
        from pubsub.settle_messages('last-words', v_ids, v_leases, array['nack', 'nack'],
            array[5, null], array['no disk', null]) s
    ) = array['dead_lettered', 'dead_lettered'], c_proves;
    assert array(
        select l.reason || ' ' || coalesce(l.last_error, '-')
        from pubsub_data.dead_letters l where l.message_id = any(v_ids) order by l.message_id
    ) = array['attempts no disk', 'attempts -'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'stale, unknown and foreign leases are lost, and nothing else is touched';
    v_ids uuid[] := pg_temp.stock('lost', 2);
    v_foreign uuid[] := pg_temp.stock('not-mine', 1);
    v_stale bigint[];
    v_newest bigint[];
    v_other bigint;
    v_action text;
begin
    v_other := (select c.lease from pubsub.consume_messages('not-mine', 'consumer') c);
    v_stale := array(select c.lease from pubsub.consume_messages('lost', 'one') c);
    perform pg_temp.later('lost', '1 hour');
    v_newest := array(select c.lease from pubsub.consume_messages('lost', 'two') c);

    foreach v_action in array array['ack', 'nack', 'reject', 'extend'] loop
        assert array(
            select s.status || coalesce(s.ack_deadline::text, '')
            from pubsub.settle_messages('lost', v_ids || v_foreign || gen_random_uuid(),
                v_stale || v_other || v_other, array_fill(v_action, array[4]),
                case when v_action = 'extend' then array[60, 60, 60, 60] end) s
        ) = array_fill('lease_lost'::text, array[4]), c_proves || ': ' || v_action;
    end loop;
    assert (
        select count(*) = 3 and bool_and(d.lease = any(v_newest || v_other))
        from pubsub_data.deliveries d where d.message_id = any(v_ids || v_foreign)
    ), c_proves;
    assert array(
        select s.status from pubsub.settle_messages('lost', v_ids || v_ids, v_stale || v_newest,
            array['ack', 'ack', 'ack', 'ack']) s
    ) = array['lease_lost', 'lease_lost', 'acked', 'acked'], c_proves || ': beside the newest';
    assert (
        select s.status = 'lease_lost'
        from pubsub.settle_messages('lost', v_ids[1:1], v_newest[1:1], array['ack']) s
    ), c_proves || ': once';
end
$$;

do $$
declare
    c_proves constant text := 'a lease whose deadline passed can be settled, but not extended';
    v_ids uuid[] := pg_temp.stock('passed', 2);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('passed', 'consumer') c);
    perform pg_temp.later('passed', '1 hour');

    assert array(
        select s.status
        from pubsub.settle_messages('passed', v_ids, v_leases, array['extend', 'ack'],
            array[60, null]) s
    ) = array['lease_lost', 'acked'], c_proves;
    assert pg_temp.claim('passed') = v_ids[1:1], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'extending ends at 12 hours, and the result shows it';
    v_ids uuid[] := pg_temp.stock('clamped', 1);
    v_leases bigint[];
    v_deadline timestamptz;
begin
    v_leases := array(select c.lease from pubsub.consume_messages('clamped', 'consumer') c);
    update pubsub_data.deliveries d set leased_at = d.leased_at - interval '11 hours'
    where d.message_id = v_ids[1];

    v_deadline := (
        select s.ack_deadline
        from pubsub.settle_messages('clamped', v_ids, v_leases, array['extend'], array[43200]) s
    );
    assert v_deadline < clock_timestamp() + interval '1 hour', c_proves;
    assert v_deadline = (
        select d.visible_at from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be asked for is refused, and nothing is half done';
    v_ids uuid[] := pg_temp.stock('asked', 2);
    v_leases bigint[];
    v_case record;
begin
    v_leases := array(select c.lease from pubsub.consume_messages('asked', 'consumer') c);
    for v_case in
        select * from (values
            ('{1}', '{ack,ack}', null, null, 'leases) leases must have one element per message id'),
            (null, '{ack,ack}', null, null, 'leases) leases must have one element per message id'),
            ('{1,2}', '{ack}', null, null, 'actions) actions must have one element per message id'),
            ('{1,2}', '{ack,ack}', '{}', null,
                'seconds) seconds must have one element per message id'),
            ('{1,2}', '{ack,ack}', null, '{a,b,c}',
                'reasons) reasons must have one element per message id'),
            ('{1,null}', '{ack,ack}', null, null, 'leases) a lease is required'),
            ('{1,2}', '{ack,burn}', null, null,
                'actions) an action must be ack, nack, reject or extend'),
            ('{1,2}', '{ack,null}', null, null,
                'actions) an action must be ack, nack, reject or extend'),
            ('{1,2}', '{ack,extend}', '{null,0}', null,
                'seconds) seconds of an extend must be 0.001 to 43200'),
            ('{1,2}', '{ack,extend}', null, null, 'seconds) seconds of an extend must be 0.001 to 43200'),
            ('{1,2}', '{ack,extend}', '{null,43201}', null,
                'seconds) seconds of an extend must be 0.001 to 43200'),
            ('{1,2}', '{ack,nack}', '{null,-1}', null,
                'seconds) seconds of a nack must be 0 to 43200'),
            ('{1,2}', '{ack,nack}', '{null,43201}', null,
                'seconds) seconds of a nack must be 0 to 43200'),
            ('{1,2}', '{ack,reject}', '{null,1}', null, 'seconds) seconds are of a nack or an extend'),
            ('{1,2}', '{ack,extend}', '{null,1}', '{null,a}',
                'reasons) a reason is of an ack, a nack or a reject'),
            ('{1,2}', '{ack,reject}', null, '{null,' || repeat('x', 1025) || '}',
                'reasons) a reason must have at most 1024 characters')
        ) c (leases, actions, seconds, reasons, refusal)
    loop
        assert pg_temp.refusal(format(
            'select pubsub.settle_messages(%L, %L, %L, %L, %L, %L)', 'asked', v_ids,
            case when v_case.leases = '{1,2}' then v_leases::text else v_case.leases end,
            v_case.actions, v_case.seconds, v_case.reasons
        )) = 'PS422(' || v_case.refusal, format('%s: %s', c_proves, v_case);
    end loop;
    assert pg_temp.refusal(format('select pubsub.settle_messages(%L, %L, %L, %L)', 'asked',
        v_ids[1:1] || v_ids[1:1], v_leases[1:1] || v_leases[1:1], '{ack,nack}'))
        = 'PS422(message_ids) a delivery is named twice', c_proves;
    assert pg_temp.refusal(
        $q$select pubsub.check_settlements('{null}', '{1}', '{ack}', null, null)$q$)
        = 'PS422(message_ids) a message id is required', c_proves;
    assert pg_temp.refusal($q$select pubsub.settle_messages('none', '{}', '{}', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert (
        select m.delivered = 2 from pubsub.subscription_metrics('asked') m
    ), c_proves;
    assert not exists (select from pubsub.settle_messages('asked', '{}', '{}', '{}')),
        c_proves || ': nothing is nothing';
    assert array(
        select s.status
        from pubsub.settle_messages('asked', v_ids, v_leases, array['nack', 'nack'],
            array[0, 43200], array[repeat('é', 1024), '']) s
    ) = array['nacked', 'nacked'], c_proves || ': the limits themselves are not';
end
$$;

do $$
declare
    c_proves constant text := 'what was not found has lost its lease; the rest is told in the order asked for';
    c_ids constant uuid[] := array[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()];
begin
    assert (
        select array_agg(t."position" || ' ' || t.status order by t."position")
        from pubsub.told_settlements(0, 0, false, c_ids, array[3, 1], array['ack', 'reject'],
            array[1, 1], array[null, null], now()) t
    ) = array['1 dead_lettered', '2 lease_lost', '3 acked'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'delays and extensions have fractions of a second, or are whole numbers of any type';
    v_ids uuid[] := pg_temp.stock('fractions', 3);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('fractions', 'consumer') c);
    assert array(
        select s.status
        from pubsub.settle_messages('fractions', v_ids, v_leases, '{nack,extend,extend}',
            array[0.25, 0.001, 7.5]) s
    ) = '{nacked,extended,extended}', c_proves;
    assert (
        select extract(epoch from d.visible_at - f.ended_at) = 0.25
        from pubsub_data.deliveries d
        join pubsub_data.failures f using (topic_key, subscription_key, message_id)
        where d.message_id = v_ids[1]
    ), c_proves;
    assert array(
        select extract(epoch from d.visible_at - d.extended_at)::numeric
        from pubsub_data.deliveries d
        where d.message_id = any(v_ids[2:3])
        order by d.message_id
    ) = array[0.001, 7.5], c_proves;
    -- as servers of before V12 call
    assert (
        select s.status
        from pubsub.settle_messages('fractions', v_ids[3:3], v_leases[3:3], '{extend}', '{30}'::int[],
            null::text[]) s
    ) = 'extended', c_proves;
    assert pubsub.extend_messages('fractions', v_ids[3:3], v_leases[3:3], 0.5) = 1, c_proves;
    assert pubsub.recount_messages('fractions') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is said of an ack is kept with it, message by message';
    v_ids uuid[] := pg_temp.stock_runs('noted', 100, '{"max_in_flight": 50}') ;
    v_leases bigint[];
    v_statuses text[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('noted', 'pusher', 4) c);

    v_statuses := array(
        select s.status
        from pubsub.settle_messages('noted', v_ids[1:4] || v_ids[9], v_leases || 1::bigint,
            array['ack', 'ack', 'nack', 'ack', 'ack'], null,
            array['HTTP 200 in 3 ms', null, 'HTTP 500 in 4 ms', 'HTTP 204 in 5 ms', 'lost']) s
    );

    assert v_statuses = array['acked', 'acked', 'nacked', 'acked', 'lease_lost'],
        format('%s: %s', c_proves, v_statuses);
    assert array(
        select coalesce(a.note, '-')
        from unnest(v_ids[1:4]) with ordinality as i (id, position)
        join pubsub_data.acked a on i.id = any(a.message_ids)
        where a.consumer_id = 'pusher' and a.attempts = 1 and a.delivered_at <= a.acked_at
        order by i.position
    ) = array['HTTP 200 in 3 ms', '-', 'HTTP 204 in 5 ms'], c_proves;
    assert pg_temp.counts('noted') = '96 available, 0 delivered, 1 scheduled, 3 acked, 0 dlq',
        c_proves || ': ' || pg_temp.counts('noted');
    assert pubsub.recount_messages('noted') = 0, c_proves || ': counted right';
    assert (
        select count(*) = 50 from pubsub.consume_messages('noted', 'pusher', 60)
    ), c_proves || ': they take no place in flight';
end
$$;

do $$
declare
    c_proves constant text := 'runs, too, are acked with what is said of each message, and without are left whole';
    v_ids uuid[] := pg_temp.stock_runs('noted-runs', 200);
    v_handles record;
    v_statuses text[];
begin
    select array_agg(c.message_id order by c.message_id) as ids, array_agg(c.lease order by c.message_id) as leases
    into v_handles
    from pubsub.consume_messages('noted-runs', 'me', 200) c;
    assert pg_temp.runs('noted-runs') = '100 me, 100 me', c_proves;

    v_statuses := array(
        select distinct s.status
        from pubsub.settle_messages('noted-runs', v_handles.ids[1:100], v_handles.leases[1:100],
            array_fill('ack'::text, array[100]), null, array(select n::text from generate_series(1, 100) n)) s
    ) || array(
        select distinct s.status
        from pubsub.settle_messages('noted-runs', v_handles.ids[101:200], v_handles.leases[101:200],
            array_fill('ack'::text, array[100]), null, array_fill(null::text, array[100])) s
    );

    assert v_statuses = array['acked', 'acked'], format('%s: %s', c_proves, v_statuses);
    assert (
        select count(*) = 101 and count(a.note) = 100
            and bool_and(a.note is null or v_ids[a.note::int] = a.message_ids[1])
        from pubsub_data.acked a where a.message_ids && v_ids
    ), c_proves;
    assert pg_temp.counts('noted-runs') = '0 available, 0 delivered, 0 scheduled, 200 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an ack that is noted lets the next of its ordering key go';
    v_ids uuid[];
    v_lease bigint;
begin
    perform pg_temp.stock('noted-order');
    perform pubsub.update_subscription('noted-order', '{"enable_ordering": true}');
    select array_agg(p.message_id order by p.message_id) into v_ids
    from pubsub.publish_messages('noted-order', array['{}', '{}']::jsonb[],
        p_ordering_keys => array['k', 'k']) p;
    select c.lease into v_lease from pubsub.consume_messages('noted-order', 'me', 1) c;
    assert pg_temp.claim('noted-order') = '{}', c_proves;

    perform pubsub.settle_messages('noted-order', v_ids[1:1], array[v_lease], array['ack'], null, array['fine']);

    assert pg_temp.claim('noted-order') = v_ids[2:2], c_proves;
end
$$;
