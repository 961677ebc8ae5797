do $$
declare
    c_proves constant text := 'the helpers refuse and resolve by themselves';
    v_keys record;
begin
    perform pg_temp.stock('own');
    perform pubsub.create_topic('own-dead');
    v_keys := pubsub.subscription_keys('own');

    assert pubsub.dead_letter_topic(v_keys.topic_key, null) is null, c_proves;
    assert pubsub.dead_letter_topic(v_keys.topic_key, 'own-dead') = (
        select t.topic_key from pubsub_data.topics t where t.topic_id = 'own-dead'), c_proves;
    assert pg_temp.refusal($q$select pubsub.check_subscription_settings('{}')$q$)
        = 'PS422(max_delivery_attempts) max_delivery_attempts must be 1 to 2147483647', c_proves;
    assert pg_temp.refusal($q$select pubsub.check_changes('{"b": 1, "a": 1}', '{b}')$q$)
        = 'PS422(a) "a" is not a setting that can be changed', c_proves;
    assert pg_temp.refusal($q$select pubsub.check_changes('{"b": 1}', '{b}')$q$) is null, c_proves;
end
$$;
