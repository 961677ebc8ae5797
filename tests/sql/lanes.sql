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
