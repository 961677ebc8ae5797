/* Changing messages that were published. */

do $$
declare
    c_proves constant text := 'a message is changed in place: who holds it, its attempts and its order stay';
    v_ids uuid[] := pg_temp.stock('changed', 3);
    v_lease bigint;
begin
    select c.lease into strict v_lease from pubsub.consume_messages('changed', 'me', 1) c;
    perform pubsub.create_subscription('late', 'changed');
    assert pubsub.update_message('changed', v_ids[1], '{"new": 1}'), c_proves;
    assert pubsub.update_message('changed', v_ids[2], '"text"', '{"a": "b"}'), c_proves;

    assert (
        select array_agg(format('%s %s %s %s', b.payload, b.attributes, b.state, b.attempts))
            = array['{"new": 1}  delivered 1', '"text" {"a": "b"} available 0', '{"n": 3}  available 0']
        from pubsub.browse_messages('changed') b
    ), c_proves;
    assert pubsub.update_message('changed', v_ids[2], '2'), c_proves;
    assert (
        select b.attributes = '{"a": "b"}' from pubsub.browse_messages('changed', p_message_ids => v_ids[2:2]) b
    ), c_proves || ': attributes that are not given stay';
    assert pubsub.ack_messages('changed', v_ids[1:1], array[v_lease]) = 1, c_proves;
    assert (
        select array_agg(c.payload) = array['2', '{"n": 3}']::jsonb[]
        from pubsub.consume_messages('changed', 'me') c
    ), c_proves;
    assert pg_temp.counts('changed')
        = '0 available, 2 delivered, 0 scheduled, 1 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be published cannot be put into a message, and what is gone not changed';
    v_id uuid := (pg_temp.stock('refuses', 1))[1];
    v_case record;
begin
    for v_case in
        select * from (values
            ('nowhere', 'null', 'PS404 Topic not found'),
            ('refuses', 'null', null),
            ('refuses', null, 'PS422(payload) payload must be a JSON value')
        ) c (topic, payload, refused)
    loop
        assert pg_temp.refusal(format('select pubsub.update_message(%L, %L, %L)', v_case.topic, v_id,
            v_case.payload)) is not distinct from v_case.refused, c_proves;
    end loop;
    assert pg_temp.refusal(format($r$select pubsub.update_message('refuses', %L, '1', '{"a": 1}')$r$, v_id))
        = 'PS422(attributes) the value of an attribute must be a string', c_proves;
    assert not pubsub.update_message('refuses', gen_random_uuid(), '1'), c_proves;
    assert not pubsub.update_message('refuses', null, '1'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an answer is bounded in bytes also where messages have got large';
    v_large constant jsonb := to_jsonb(repeat('x', 20000));
    v_ids uuid[] := pg_temp.stock_runs('grows', 200);
begin
    perform pubsub.create_subscription('grows-too', 'grows');
    v_ids := v_ids || pg_temp.publish('grows', 4);
    for v_n in 1 .. 204 by 3 loop
        perform pubsub.update_message('grows', v_ids[v_n], v_large);
    end loop;
    assert not exists (
        select from pubsub_data.deliveries d
        where d.message_id = v_ids[202] and d.is_large is not true
    ), c_proves || ': of all subscriptions';
    assert (
        select bool_and(r.is_large) from pubsub_data.runs r
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'grows'
    ), c_proves;

    for v_round in 1 .. 20 loop
        assert (
            select sum(octet_length(c.payload::text)) <= 100000
            from pubsub.consume_messages('grows', 'me', 50, p_max_bytes => 100000) c
        ) is not false, c_proves;
        assert (
            select sum(octet_length(c.payload::text)) <= 30000
            from pubsub.consume_messages('grows-too', 'me', 50, p_max_bytes => 30000) c
        ) is not false, c_proves;
    end loop;
    assert (
        select array_agg(b.message_id) = v_ids and array_agg(distinct b.state) = array['delivered']
        from pubsub.browse_messages('grows', p_limit => 1000) b
    ), c_proves || ': and all are handed out';
    perform pubsub.mark_large(t.topic_key, v_ids[203]) from pubsub_data.topics t where t.topic_id = 'grows';
    assert (
        select bool_and(d.is_large) from pubsub_data.deliveries d where d.message_id = v_ids[203]
    ), c_proves;
    assert pubsub.recount_messages('grows') = 0, c_proves;
end
$$;
