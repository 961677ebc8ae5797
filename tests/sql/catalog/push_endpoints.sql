/* The setting push: what it may be, how it changes, and what is shown of it. */

/* pushed — what is shown of the setting push of a subscription. */
create function pg_temp.pushed(p_subscription text)
returns json
language sql volatile
as $$
    select g.push from pubsub.get_subscription(p_subscription) g
$$;

do $$
declare
    c_proves constant text := 'a subscription is created with push, and its secret is shown then and never again';
    v_created json;
    v_secret text;
begin
    perform pubsub.create_topic('t');
    select c.push into v_created
    from pubsub.create_subscription('s', 't', '{"push": {"endpoint": "https://example.com/hook"}}') c;
    v_secret := v_created ->> 'secret';

    assert v_created::text = format('{"endpoint":"https://example.com/hook","timeout_seconds":15,"secret":"%s",'
        '"failures":0}', v_secret), format('%s: %s', c_proves, v_created);
    assert v_secret ~ '^whsec_[A-Za-z0-9+/]{43}=$', c_proves;
    assert octet_length(decode(substr(v_secret, 7), 'base64')) = 32, c_proves;
    assert pg_temp.pushed('s')::text
        = '{"endpoint":"https://example.com/hook","timeout_seconds":15,"failures":0}', c_proves;
    assert (select l.push::text from pubsub.list_subscriptions() l where l.id = 's')
        = pg_temp.pushed('s')::text, c_proves;
    assert (select g.push ->> 'secret' from pubsub.get_subscription('s', true) g) = v_secret, c_proves;
    assert pubsub.new_push_secret() <> pubsub.new_push_secret(), c_proves;

    perform pubsub.create_subscription('none', 't', '{"push": null}');
    assert pg_temp.pushed('none') is null, c_proves || ': null is none';
end
$$;

do $$
declare
    c_proves constant text := 'what is left out of a change stays, null takes it back, and the secret stays';
    v_first text := (select c.push ->> 'secret' from pubsub.create_subscription('changed', 't', '{"push": {
        "endpoint": "http://a", "timeout_seconds": 60.0, "headers": {"X-B": "2", "authorization": ""}}}') c);
    v_secret text;
begin
    assert pg_temp.pushed('changed')::text = '{"endpoint":"http://a","timeout_seconds":60,'
        '"header_names":["X-B","authorization"],"failures":0}', c_proves;

    select u.push ->> 'secret' into v_secret
    from pubsub.update_subscription('changed', '{"push": {"endpoint": "http://b"}, "max_rate": 7}') u;
    assert v_secret is null, c_proves || ': it is not shown again';
    assert pg_temp.pushed('changed')::text = '{"endpoint":"http://b","timeout_seconds":60,'
        '"header_names":["X-B","authorization"],"failures":0}', c_proves;
    assert (select l.headers from pubsub.list_push_endpoints('changed') l)
        = '{"X-B": "2", "authorization": ""}', c_proves;

    perform pubsub.update_subscription('changed', '{"push": {"headers": null, "timeout_seconds": null}}');
    assert pg_temp.pushed('changed')::text = '{"endpoint":"http://b","timeout_seconds":15,"failures":0}', c_proves;
    assert (select l.secrets from pubsub.list_push_endpoints('changed') l) = array[v_first], c_proves;

    perform pubsub.update_subscription('changed', '{"max_rate": 8}');
    assert pg_temp.pushed('changed')::text = '{"endpoint":"http://b","timeout_seconds":15,"failures":0}', c_proves;

    select u.push ->> 'secret' into v_secret
    from pubsub.update_subscription('changed', '{"push": null}') u;
    assert v_secret is null and pg_temp.pushed('changed') is null, c_proves || ': null as a whole';
    select u.push ->> 'secret' into v_secret
    from pubsub.update_subscription('changed', '{"push": {"endpoint": "http://b"}}') u;
    assert v_secret <> v_first, c_proves || ': a new one has a secret of its own, which is shown';
end
$$;

do $$
declare
    c_proves constant text := 'who begins to push has 10 in flight, unless he says otherwise';
    v_case record;
begin
    for v_case in
        select *
        from (values
            ('l1', '{"push": {"endpoint": "http://a"}}', 10),
            ('l2', '{"push": {"endpoint": "http://a"}, "max_in_flight": 3}', 3),
            ('l3', '{"push": {"endpoint": "http://a"}, "max_in_flight": null}', null),
            ('l4', '{"push": null}', null)
        ) c (id, settings, max_in_flight)
    loop
        assert (select c.max_in_flight from pubsub.create_subscription(v_case.id, 't', v_case.settings::json) c)
            is not distinct from v_case.max_in_flight, c_proves || ': ' || v_case.settings;
    end loop;
    assert (select u.max_in_flight from pubsub.update_subscription('l2', '{"push": {"endpoint": "http://b"}}') u)
        = 3, c_proves;
    assert (select u.max_in_flight from pubsub.update_subscription('l3', '{"push": {"endpoint": "http://b"}}') u)
        is null, c_proves || ': it pushed before';
    assert (select u.max_in_flight from pubsub.update_subscription('l4', '{"push": {"endpoint": "http://b"}}') u)
        = 10, c_proves || ': it did not';
end
$$;

do $$
declare
    c_proves constant text := 'what an endpoint cannot be is refused, and nothing is changed';
    v_url text;
begin
    perform pubsub.create_subscription('urls', 't', '{"push": {"endpoint": "http://a"}}');
    foreach v_url in array array[
        '', 'a', 'ftp://a', 'http:a', 'http:/a', 'http://', 'http:///a', 'https://?a', 'http://u@a', 'http://u:p@a/',
        'http://a#f', 'http://a/#', 'http://a b', ' http://a', 'http://a ', E'http://a\n', E'http://a/\t',
        'http://' || chr(228), 'http://a/' || chr(228), E'http://a\\@b', 'http://a:0', 'http://a:65536/',
        'http://a:', 'http://a:x', 'http://a:1:2', 'http://[::1', 'http://[x]', 'http://a?:@#',
        'javascript://a', 'https://a%00', 'https://a/' || repeat('x', 2039)
    ] loop
        assert pg_temp.refusal(format($q$select pubsub.update_subscription('urls', %L)$q$,
            json_build_object('max_rate', 1, 'push', json_build_object('endpoint', v_url))))
            = 'PS422(push) endpoint must be an http or https URL of at most 2048 ASCII characters, '
                'without user, password and fragment', c_proves || ': ' || v_url;
    end loop;
    assert (select g.push ->> 'endpoint' = 'http://a' and g.max_rate is null
        from pubsub.get_subscription('urls') g), c_proves;

    foreach v_url in array array[
        'http://a', 'HTTPS://A.example:65535', 'http://127.0.0.1:1/x?y=@:/?', 'https://[::ffff:1.2.3.4]:8443/',
        'http://a_b.c-d.', 'http://a?', 'http://a/%20@~''()', 'https://a/' || repeat('x', 2038)
    ] loop
        perform pubsub.update_subscription('urls',
            json_build_object('push', json_build_object('endpoint', v_url)));
        assert pg_temp.pushed('urls') ->> 'endpoint' = v_url, c_proves || ': ' || v_url;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a refusal of push says what is wrong with which part of it';
    v_case record;
    v_message text;
    v_path text;
begin
    for v_case in
        select *
        from (values
            ('1', '', 'push must be an object or null'),
            ('[]', '', 'push must be an object or null'),
            ('{}', '["endpoint"]', 'endpoint must be an http%'),
            ('{"endpoint": null}', '["endpoint"]', 'endpoint must be an http%'),
            ('{"endpoint": 1}', '["endpoint"]', 'endpoint must be an http%'),
            ('{"endpoint": "http://a", "url": 1}', '["url"]', '"url" is not a setting of push'),
            ('{"endpoint": "http://a", "secret": "whsec_"}', '["secret"]', '"secret" is not a setting of push'),
            ('{"endpoint": "http://a", "timeout_seconds": 0}', '["timeout_seconds"]', 'timeout_seconds must be 1 to 60'),
            ('{"endpoint": "http://a", "timeout_seconds": 61}', '["timeout_seconds"]', 'timeout_seconds must be 1 to 60'),
            ('{"endpoint": "http://a", "timeout_seconds": 1.5}', '["timeout_seconds"]', 'timeout_seconds must be 1 to 60'),
            ('{"endpoint": "http://a", "timeout_seconds": "5"}', '["timeout_seconds"]', 'timeout_seconds must be 1 to 60'),
            ('{"endpoint": "http://a", "headers": []}', '["headers"]', 'headers must be an object of at most 20 strings'),
            ('{"endpoint": "http://a", "headers": {"": "a"}}', '["headers", ""]', 'the name of a header must be 1 to 128%'),
            ('{"endpoint": "http://a", "headers": {"a b": "a"}}', '["headers", "a b"]', 'the name of a header must be%'),
            ('{"endpoint": "http://a", "headers": {"a:": "a"}}', '["headers", "a:"]', 'the name of a header must be%'),
            ('{"endpoint": "http://a", "headers": {"Webhook-Id": "a"}}', '["headers", "Webhook-Id"]', 'this header is the sender''s own'),
            ('{"endpoint": "http://a", "headers": {"CONTENT-type": "a"}}', '["headers", "CONTENT-type"]', 'this header is the sender''s own'),
            ('{"endpoint": "http://a", "headers": {"Host": "a"}}', '["headers", "Host"]', 'this header is the sender''s own'),
            ('{"endpoint": "http://a", "headers": {"transfer-encoding": "a"}}', '["headers", "transfer-encoding"]', 'this header is the sender''s own'),
            ('{"endpoint": "http://a", "headers": {"a": 1}}', '["headers", "a"]', 'the value of a header must be a string'),
            ('{"endpoint": "http://a", "headers": {"a": null}}', '["headers", "a"]', 'the value of a header must be a string'),
            ('{"endpoint": "http://a", "headers": {"a": "b\r\nc: d"}}', '["headers", "a"]', 'the value of a header must be at most 1024 printable ASCII characters'),
            ('{"endpoint": "http://a", "headers": {"a": "\u00e4"}}', '["headers", "a"]', 'the value of a header must be at most 1024 printable%'),
            ('{"endpoint": "http://a", "headers": {"a": "' || repeat('x', 1025) || '"}}', '["headers", "a"]', 'the value of a header must be at most 1024 printable%'),
            ('{"endpoint": "http://a", "headers": {"a": "1", "A": "2"}}', '["headers", "a"]', 'two headers have this name'),
            ((select json_build_object('endpoint', 'http://a', 'headers', json_object_agg('h' || n, '')) from generate_series(1, 21) n)::text,
                '["headers"]', 'headers must be an object of at most 20 strings')
        ) c (push, path, message)
    loop
        v_message := null;
        begin
            perform pubsub.create_subscription('refused', 't', ('{"push": ' || v_case.push || '}')::json);
        exception when sqlstate 'PS422' then
            get stacked diagnostics v_message = message_text, v_path = pg_exception_detail;
        end;
        assert v_message like v_case.message and v_path = v_case.path,
            format('%s: %s: %s %s', c_proves, v_case.push, v_path, v_message);
        assert pg_temp.refusal(format('select pubsub.check_push(%L)', '{"timeout_seconds": 15, "headers": {}}'
            || case when v_case.push like '{%' then v_case.push::jsonb else '{}' end)) like 'PS422(push) %', c_proves;
    end loop;
    assert not exists (select from pubsub.list_subscriptions() l where l.id = 'refused'), c_proves;
    perform pubsub.create_subscription('most', 't', json_build_object('push', json_build_object(
        'endpoint', 'http://a', 'timeout_seconds', 1, 'headers', (
            select json_object_agg(repeat('h', 126) || n, repeat('~', 1024)) from generate_series(10, 29) n))));
    assert pubsub.push_header_fault('user-agent', '"me"') is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'push goes with its subscription and stays at a purge, with its secret and its pauses';
    v_before record;
    v_keys record;
begin
    perform pubsub.create_subscription('goes', 't', '{"push": {"endpoint": "http://a"}}');
    perform pubsub.note_push_result('goes', false, 'no', true);
    select l.* into v_before from pubsub.list_push_endpoints('goes') l;

    perform pubsub.purge_subscription('goes');
    assert (select l::text from pubsub.list_push_endpoints('goes') l) = v_before::text, c_proves;
    assert v_before.paused_until = 'infinity', c_proves;

    v_keys := pubsub.subscription_keys('goes');
    assert pubsub.has_push(v_keys.topic_key, v_keys.subscription_key), c_proves;
    assert pubsub.push_secret(v_keys.topic_key, v_keys.subscription_key) = v_before.secrets[1], c_proves;
    assert pubsub.shown_push(v_keys.topic_key, v_keys.subscription_key) ->> 'stopped' = 'true', c_proves;
    perform pubsub.save_push(v_keys.topic_key, v_keys.subscription_key, '{"endpoint": "http://c"}');
    assert pubsub.shown_push(v_keys.topic_key, v_keys.subscription_key, true) ->> 'secret'
        = v_before.secrets[1], c_proves;

    perform pubsub.delete_subscription('goes');
    perform pubsub.create_subscription('goes', 't');
    assert pg_temp.pushed('goes') is null, c_proves;
    perform pubsub.delete_topic('t');
    assert not exists (select from pubsub.list_push_endpoints()), c_proves;
    assert not exists (select from pubsub_data.push_endpoints), c_proves;
end
$$;
