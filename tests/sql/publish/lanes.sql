do $$
declare
    c_proves constant text := 'delivery_lane: one kind of lane per subscription, ordering first';
begin
    assert pubsub.delivery_lane(true, null, 'k', '{"a": "v"}', 9::smallint) = 'k', c_proves;
    assert pubsub.delivery_lane(true, null, null, '{"a": "v"}', 9::smallint) is null, c_proves;
    assert pubsub.delivery_lane(false, 'a', 'k', '{"a": "v"}', 9::smallint) = 'v', c_proves;
    assert pubsub.delivery_lane(false, 'a', 'k', null, 9::smallint) = '', c_proves;
    assert pubsub.delivery_lane(false, null, 'k', '{"a": "v"}', 9::smallint) = '9', c_proves;
    assert pubsub.delivery_lane(false, null, 'k', '{"a": "v"}', 0::smallint) is null, c_proves;
    assert pubsub.delivery_lane(false, null, 'k', '{"a": "v"}', null) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the longest keys, of characters of four bytes, have a lane each';
    v_key text;
begin
    -- random, so that it cannot be compressed
    select string_agg(chr(65536 + (random() * 60000)::int), '') into v_key
    from generate_series(1, 1023);
    perform pubsub.create_topic('long');
    perform pubsub.create_subscription('long-ordered', 'long', '{"enable_ordering": true}');
    perform pubsub.create_subscription('long-fair', 'long', '{"fairness_key": "k"}');

    perform pubsub.publish_messages('long', array_fill('{}'::jsonb, array[3]),
        array[jsonb_build_object('k', v_key || 'a'), jsonb_build_object('k', v_key || 'b'),
            jsonb_build_object('k', v_key || 'a')],
        p_ordering_keys => array[v_key || 'a', v_key || 'b', v_key || 'a']);

    assert array(
        select count(distinct d.lane) from pubsub_data.deliveries d
        join pubsub_data.subscriptions s
            on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.subscription_id like 'long-%'
        group by s.subscription_id
    ) = '{2,2}', c_proves;
    assert pubsub.lane_of(repeat('é', 1024)) = repeat('é', 1024), c_proves;
    assert pubsub.lane_of(null) is null, c_proves;
end
$$;
