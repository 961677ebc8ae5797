/* New subscriptions: what they are made of, and from when on they receive. */

do $$
declare
    c_proves constant text := 'a new subscription may start from a time';
    v_ids uuid[];
    v_job record;
begin
    perform pg_temp.stock('old');
    v_ids := pg_temp.publish_apart('old', 3);
    perform pubsub.create_subscription('young', 'old',
        '{"filter": {"n": [1]}}', pubsub.id_time(v_ids[2]));

    assert pg_temp.claim('young') = v_ids[2:3], c_proves;
    select l.* into v_job from pubsub.list_jobs('young') l;
    assert v_job.changed = 2 and v_job.request ? 'start_from', c_proves;
    -- publishers that do not know it yet may still commit
    assert v_job.state = 'running', c_proves;
    assert pubsub.advance_jobs() and pubsub.advance_job(v_job.id), c_proves;
    assert not exists (select from pubsub_data.jobs j where j.arguments -> 'catch_up' ? 'horizon')
        and (select g.state from pubsub.get_job(v_job.id) g) = 'running',
        c_proves || ': while its own transaction is open, too';
    perform pubsub.create_subscription('newborn', 'old', p_start_from => 'infinity');
    assert pg_temp.claim('newborn') = '{}', c_proves || ': to come';
end
$$;

do $$
declare
    c_proves constant text := 'a created subscription is returned, found and listed alike';
    v_started_at timestamptz := clock_timestamp();
    v_created record;
    v_got record;
    v_listed record;
begin
    perform pubsub.create_topic('fields');
    select * into v_created
    from pubsub.create_subscription('fields-s', 'fields',
        '{"filter": {"b": [1.0],  "a": ["<&>"]}, "max_delivery_attempts": 7,
            "backoff_min_seconds": 2, "backoff_max_seconds": 9, "ack_deadline_seconds": 33}');
    select * into v_got from pubsub.get_subscription('fields-s');
    select * into v_listed from pubsub.list_subscriptions() l where l.id = 'fields-s';

    assert v_created.id = 'fields-s' and v_created.topic_id = 'fields', c_proves;
    assert v_created.max_delivery_attempts = 7, c_proves;
    assert v_created.backoff_min_seconds = 2 and v_created.backoff_max_seconds = 9, c_proves;
    assert v_created.ack_deadline_seconds = 33, c_proves;
    assert v_created.created_at between v_started_at and clock_timestamp(), c_proves;
    assert v_got::text = v_created::text and v_listed::text = v_created::text, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter is shown exactly as it was given';
    v_filter text;
begin
    perform pubsub.create_topic('echo');
    foreach v_filter in array array[
        '{"b": [1.0],  "a": ["<&>", "\u00e4"], "a": [1e2]}', '{}', '{"a":[]}'
    ] loop
        assert (
            select c.filter::text
            from pubsub.create_subscription('echo', 'echo',
                json_build_object('filter', v_filter::json)) c
        ) = v_filter, c_proves || ': ' || v_filter;
        assert (select g.filter::text from pubsub.get_subscription('echo') g) = v_filter,
            c_proves || ': ' || v_filter;
        perform pubsub.delete_subscription('echo');
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'what is left out has a default';
    v_created record;
begin
    perform pubsub.create_topic('defaults');
    select * into v_created from pubsub.create_subscription('defaults', 'defaults');

    assert v_created.filter is null, c_proves;
    assert v_created.max_delivery_attempts = 5, c_proves;
    assert v_created.backoff_min_seconds = 5 and v_created.backoff_max_seconds = 300, c_proves;
    assert v_created.ack_deadline_seconds is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a value out of range is refused, naming the field';
    v_case record;
begin
    perform pubsub.create_topic('ranges');
    for v_case in
        select *
        from (values
            ('id', $q$'', 'ranges'$q$),
            ('id', $q$null, 'ranges'$q$),
            ('id', $q$'a b', 'ranges'$q$),
            ('id', $q$e'a\n', 'ranges'$q$),
            ('id', $q$repeat('a', 601), 'ranges'$q$),
            ('settings', $q$'s', 'ranges', '[]'$q$),
            ('settings', $q$'s', 'ranges', null$q$),
            ('country', $q$'s', 'ranges', '{"country": ["BR"]}'$q$),
            ('filter', $q$'s', 'ranges', '{"filter": {"a": "b"}}'$q$),
            ('filter', $q$'s', 'ranges', '{"filter": []}'$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', '{"max_delivery_attempts": 0}'$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', '{"max_delivery_attempts": -1}'$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', '{"max_delivery_attempts": null}'$q$),
            ('backoff_min_seconds', $q$'s', 'ranges', '{"backoff_min_seconds": 0}'$q$),
            ('backoff_min_seconds', $q$'s', 'ranges', '{"backoff_min_seconds": null}'$q$),
            -- against the default of the other one
            ('backoff_max_seconds', $q$'s', 'ranges', '{"backoff_max_seconds": 4}'$q$),
            ('backoff_max_seconds', $q$'s', 'ranges', '{"backoff_max_seconds": null}'$q$),
            ('ack_deadline_seconds', $q$'s', 'ranges', '{"ack_deadline_seconds": 0}'$q$),
            ('ack_deadline_seconds', $q$'s', 'ranges', '{"ack_deadline_seconds": 43201}'$q$),
            -- before the topic is looked for
            ('max_delivery_attempts', $q$'s', 'none', '{"max_delivery_attempts": 0}'$q$)
        ) c (field, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.create_subscription(%s)', v_case.arguments))
            like format('PS422(%s) %%', v_case.field), c_proves || ': ' || v_case.arguments;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'the ends of the ranges are allowed';
    v_arguments text;
begin
    foreach v_arguments in array array[
        $q$repeat('a', 600), 'ranges'$q$,
        $q$'lowest', 'ranges', '{"max_delivery_attempts": 1, "backoff_min_seconds": 1,
            "backoff_max_seconds": 1, "ack_deadline_seconds": 1}'$q$,
        $q$'highest', 'ranges', '{"max_delivery_attempts": 2147483647, "ack_deadline_seconds": 43200,
            "backoff_min_seconds": 2147483647, "backoff_max_seconds": 2147483647.0}'$q$
    ] loop
        assert pg_temp.refusal(format('select pubsub.create_subscription(%s)', v_arguments))
            is null, c_proves || ': ' || v_arguments;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a taken id is PS409, also when the topic is missing';
begin
    perform pg_temp.stock('taken');
    perform pubsub.create_topic('taken-other');

    assert pg_temp.refusal($q$select pubsub.create_subscription('taken', 'taken-other')$q$)
        = 'PS409 This subscription already exists', c_proves;
    assert pg_temp.refusal($q$select pubsub.create_subscription('taken', 'none')$q$)
        = 'PS409 This subscription already exists', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown topic is PS404';
begin
    assert pg_temp.refusal($q$select pubsub.create_subscription('s', 'none')$q$)
        = 'PS404 Topic not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.create_subscription('s', null)$q$)
        = 'PS404 Topic not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription that is created again starts empty';
begin
    perform pg_temp.stock('again', 3, 1);
    perform pg_temp.claim('again', 1);
    perform pubsub.nack_messages('again', array(
        select d.message_id from pubsub.subscription_messages d where d.subscription_id = 'again'));

    perform pubsub.delete_subscription('again');
    perform pubsub.create_subscription('again', 'again');

    assert pg_temp.claim('again') = '{}', c_proves;
    assert (select m.available + m.dlq from pubsub.subscription_metrics('again') m) = 0, c_proves;
    assert (select count(*) from pubsub.list_dlq_messages('again')) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'every setting that is given to create_subscription is shown';
    v_created record;
begin
    perform pubsub.create_topic('all');
    perform pubsub.create_topic('all-dead');
    select * into v_created from pubsub.create_subscription('all', 'all',
        '{"enable_ordering": true, "ordering_failure": "park", "max_in_flight": 1000000,
            "max_in_flight_per_consumer": 10, "max_rate": 100, "message_ttl_seconds": 31536000,
            "dead_letter_expired": true, "dead_letter_topic_id": "all-dead"}');

    assert to_jsonb(v_created) @> '{"enable_ordering": true, "ordering_failure": "park",
        "fairness_key": null, "max_in_flight": 1000000, "max_in_flight_per_consumer": 10,
        "max_rate": 100, "message_ttl_seconds": 31536000, "dead_letter_expired": true,
        "dead_letter_topic_id": "all-dead"}', c_proves;
    assert (select g.fairness_key = repeat('k', 256) and not g.enable_ordering
        from pubsub.create_subscription('fair', 'all',
            json_build_object('fairness_key', repeat('k', 256))) g), c_proves;
    assert (select l::text = v_created::text from pubsub.list_subscriptions() l where l.id = 'all'),
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'each setting of create_subscription out of range is refused by name';
    v_case record;
begin
    for v_case in
        select *
        from (values
            ('enable_ordering', '{"enable_ordering": null}'),
            ('ordering_failure', '{"ordering_failure": "drop"}'),
            ('ordering_failure', '{"ordering_failure": null}'),
            ('fairness_key', '{"fairness_key": ""}'),
            ('fairness_key', json_build_object('fairness_key', repeat('k', 257))::text),
            ('fairness_key', '{"fairness_key": "k", "enable_ordering": true}'),
            ('max_in_flight', '{"max_in_flight": 0}'),
            ('max_in_flight', '{"max_in_flight": 1000001}'),
            ('max_in_flight_per_consumer', '{"max_in_flight_per_consumer": 0}'),
            ('max_in_flight_per_consumer', '{"max_in_flight_per_consumer": 1000001}'),
            ('max_rate', '{"max_rate": 0}'),
            ('max_rate', '{"max_rate": 1000001}'),
            ('message_ttl_seconds', '{"message_ttl_seconds": 0}'),
            ('message_ttl_seconds', '{"message_ttl_seconds": 31536001}'),
            ('dead_letter_expired', '{"dead_letter_expired": null}'),
            ('dead_letter_topic_id', '{"dead_letter_topic_id": "none"}'),
            ('dead_letter_topic_id', '{"dead_letter_topic_id": "all"}')
        ) c (field, settings)
    loop
        assert pg_temp.refusal(format($q$select pubsub.create_subscription('s', 'all', %L)$q$,
            v_case.settings)) like format('PS422(%s) %s%%', v_case.field, v_case.field),
            c_proves || ': ' || v_case.settings;
    end loop;
    assert not exists (select from pubsub_data.subscriptions s where s.subscription_id = 's'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription that says nothing has the default settings';
begin
    perform pubsub.create_topic('silent');

    assert (
        select to_jsonb(c) - array['id', 'topic_id', 'filter', 'push', 'created_at',
            'exact_backoff_min_seconds', 'exact_backoff_max_seconds']
        from pubsub.create_subscription('silent', 'silent') c
    ) = pubsub.default_settings(), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'one that starts from a time has what was published before the clock was set back';
    v_ids uuid[] := pg_temp.before_the_step(pg_temp.stock('step', 3));
begin
    perform pubsub.create_subscription('step-too', 'step', p_start_from => now() - interval '1 minute');
    assert pg_temp.claim('step-too') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription is added where there is none, and one that is there is not touched';
begin
    perform pubsub.create_topic('added');
    assert pubsub.add_subscription('added', 'added', '{"max_in_flight": 5}'), c_proves;
    assert not pubsub.add_subscription('added', 'added', '{"max_in_flight": 6}'), c_proves;
    assert (select g.max_in_flight = 5 from pubsub.get_subscription('added') g), c_proves;
end
$$;
