/* Acks of runs. */

do $$
declare
    c_proves constant text := 'acks settle runs as they are, in any order, and the rest one by one';
    v_ids uuid[];
    v_lease bigint;
    v_later bigint;
begin
    perform pg_temp.stock('rows');
    perform pg_temp.run_in_hundreds('rows');
    v_ids := array(select p.message_id
        from pubsub.publish_messages('rows', array_fill('{"n": 1}'::jsonb, array[250])) p);
    select max(c.lease) into v_lease from pubsub.consume_messages('rows', 'c', 100) c;
    select max(c.lease) into v_later from pubsub.consume_messages('rows', 'd', 150) c;
    assert v_lease % 2 = 1 and v_later % 2 = 1, c_proves || ': leases of runs are odd';
    assert pubsub.ack_messages('rows', v_ids[201:220] || v_ids[1:200],
        array_fill(v_later, array[20]) || array_fill(v_lease, array[100])
        || array_fill(v_later, array[100])) = 220, c_proves;
    assert (
        select array_agg(a.consumer_id || cardinality(a.message_ids) order by a.consumer_id,
            cardinality(a.message_ids)) = array['c100', 'd20', 'd100'] and bool_and(a.attempts = 1
            and a.delivered_at is not null)
        from pubsub_data.acked a
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'rows'
    ), c_proves;
    assert (select array_agg(s.status order by s."position") = array_fill('acked'::text, array[30])
        from pubsub.settle_messages('rows', v_ids[221:250], array_fill(v_later, array[30]),
            array_fill('ack'::text, array[30])) s), c_proves;
    assert pubsub.recount_messages('rows') = 0, c_proves;
    assert pubsub.ack_messages('rows', null) = 0 and pubsub.ack_messages('rows', '{}') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'settlements tell each position, whether it was in a run or not';
    v_ids uuid[];
    v_lease bigint;
begin
    perform pg_temp.stock('told');
    perform pg_temp.run_in_hundreds('told');
    v_ids := array(select p.message_id
        from pubsub.publish_messages('told', array_fill('{"n": 1}'::jsonb, array[120])) p);
    select max(c.lease) into v_lease from pubsub.consume_messages('told', 'c', 120) c;
    -- a run as it is, a part of one, and one that is not held; in the order given, not sorted here
    assert (
        select array_agg(s.status) = array_fill('acked'::text, array[110])
            || array['lease_lost', 'acked'] and array_agg(s."position")
            = array(select n from generate_series(1, 112) n)
        from pubsub.settle_messages('told', v_ids[1:110] || gen_random_uuid() || v_ids[111],
            array_fill(v_lease, array[112]), array_fill('ack'::text, array[112])) s
    ), c_proves;
    assert pubsub.recount_messages('told') = 0, c_proves;
    assert (select m.acked = 111 and m.delivered = 9 from pubsub.subscription_metrics('told') m), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs among single messages are acked as they are, whatever comes first';
    v_ids uuid[];
    v_lease bigint;
begin
    perform pg_temp.stock('among');
    perform pg_temp.run_in_hundreds('among');
    for v_call in 1 .. 3 loop
        v_ids := v_ids || pg_temp.publish('among', 1);
        v_ids := v_ids || array(select p.message_id
            from pubsub.publish_messages('among', array_fill('{"n": 1}'::jsonb, array[10])) p);
    end loop;
    select max(c.lease) into v_lease from pubsub.consume_messages('among', 'c', 33) c;
    -- the last of the second run stays, so that this one is broken up
    assert (
        select array_agg(s."position" order by s."position") = array(select n from generate_series(1, 32) n)
            and bool_and(s.status = 'acked')
        from pubsub.settle_messages('among', v_ids[23:33] || v_ids[1:21],
            array_fill(v_lease, array[32]), array_fill('ack'::text, array[32])) s
    ), c_proves;
    assert (
        select array_agg(cardinality(a.message_ids) order by cardinality(a.message_ids)) = '{12,20}'
        from pubsub_data.acked a
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'among'
    ), c_proves;
    assert (select m.acked = 32 and m.delivered = 1 from pubsub.subscription_metrics('among') m), c_proves;
    assert pubsub.recount_messages('among') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'leases are of runs if any is odd, or any lease will do';
begin
    assert pubsub.may_be_of_runs(null) and pubsub.may_be_of_runs(array[2, null]::bigint[])
        and pubsub.may_be_of_runs(array[2, 3]::bigint[]) and pubsub.may_be_of_runs(array[-1]::bigint[]),
        c_proves;
    assert not pubsub.may_be_of_runs(array[2, 4]::bigint[]), c_proves;
end
$$;
