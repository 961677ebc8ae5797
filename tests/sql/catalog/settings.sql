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
    assert pg_temp.refusal($q$select pubsub.check_setting_names('{"b": 1, "a": 1}', '{b}')$q$)
        = 'PS422(a) "a" is not a setting', c_proves;
    assert pg_temp.refusal($q$select pubsub.check_setting_names('{"b": 1}', '{b}')$q$) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'changed settings are what there was and what is new, judged together';
    v_new jsonb;
begin
    v_new := pubsub.changed_settings(pubsub.default_settings(),
        '{"max_rate": 10.0, "filter": {"a": [1]}}');

    assert v_new = pubsub.default_settings() || '{"max_rate": 10}', c_proves;
    assert pg_temp.refusal(
        $q$select pubsub.changed_settings(pubsub.default_settings(), '{"backoff_min_seconds": 301}')$q$)
        like 'PS422(backoff_max_seconds) %', c_proves;
    assert pg_temp.refusal(
        $q$select pubsub.changed_settings(pubsub.default_settings(), '{"filter": {"a": 1}}')$q$)
        like 'PS422(filter) %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'settings that are saved are shown, and the filter is compiled';
    v_keys record;
begin
    perform pg_temp.stock('saved');
    v_keys := pubsub.subscription_keys('saved');

    perform pubsub.save_settings(v_keys.topic_key, v_keys.subscription_key,
        pubsub.default_settings() || '{"max_in_flight": 7.0, "fairness_key": "k"}',
        '{"a" : [1, 2]}', null);

    assert (select g.max_in_flight = 7 and g.fairness_key = 'k' and g.filter::text = '{"a" : [1, 2]}'
        from pubsub.get_subscription('saved') g), c_proves;
    assert (select s.filter_path is not null and s.filter_values = 2
        from pubsub_data.subscriptions s where s.subscription_id = 'saved'), c_proves;
end
$$;
