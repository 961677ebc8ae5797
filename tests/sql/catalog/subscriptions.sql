/* Subscriptions: create, get, list, delete. */

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
    from pubsub.create_subscription('fields-s', 'fields', '{"b": [1.0],  "a": ["<&>"]}',
        7, 2, 9, 33);
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
            from pubsub.create_subscription('echo', 'echo', v_filter::json) c
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
            ('id', $q$repeat('a', 129), 'ranges'$q$),
            ('filter', $q$'s', 'ranges', '{"a": "b"}'$q$),
            ('filter', $q$'s', 'ranges', '[]'$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', null, 0$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', null, -1$q$),
            ('max_delivery_attempts', $q$'s', 'ranges', null, null$q$),
            ('backoff_min_seconds', $q$'s', 'ranges', null, 1, 0$q$),
            ('backoff_min_seconds', $q$'s', 'ranges', null, 1, null$q$),
            ('backoff_max_seconds', $q$'s', 'ranges', null, 1, 10, 9$q$),
            ('backoff_max_seconds', $q$'s', 'ranges', null, 1, 10, null$q$),
            ('ack_deadline_seconds', $q$'s', 'ranges', null, 1, 1, 1, 0$q$),
            ('ack_deadline_seconds', $q$'s', 'ranges', null, 1, 1, 1, 43201$q$),
            -- before the topic is looked for
            ('max_delivery_attempts', $q$'s', 'none', null, 0$q$)
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
        $q$repeat('a', 128), 'ranges'$q$,
        $q$'lowest', 'ranges', null, 1, 1, 1, 1$q$,
        $q$'highest', 'ranges', null, 2147483647, 2147483647, 2147483647, 43200$q$
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
    c_proves constant text := 'an unknown subscription is PS404 for get, delete and keys';
    v_call text;
begin
    foreach v_call in array array['get_subscription', 'delete_subscription', 'subscription_keys']
    loop
        assert pg_temp.refusal(format('select pubsub.%s(%L)', v_call, 'none'))
            = 'PS404 Subscription not found', c_proves || ': ' || v_call;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'subscription_keys gives the keys of the subscription''s rows';
    v_keys record;
begin
    perform pg_temp.stock('keys', 1);
    v_keys := pubsub.subscription_keys('keys');

    assert (
        select count(*) = 1
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s on s.subscription_key = d.subscription_key
            and s.topic_key = d.topic_key
        where s.subscription_id = 'keys'
            and d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'subscriptions are listed in the byte order of their ids, page by page';
    c_ids constant text[] := array['-', '.', '0', 'B', 'Z', '_', 'a', 'b'];
    v_id text;
begin
    delete from pubsub_data.subscriptions;
    perform pubsub.create_topic('list');
    foreach v_id in array array['b', 'Z', '_', '0', 'a', '.', 'B', '-'] loop
        perform pubsub.create_subscription(v_id, 'list');
    end loop;

    assert array(select l.id from pubsub.list_subscriptions() l) = c_ids, c_proves;
    assert array(select l.id from pubsub.list_subscriptions(0, 3) l) = c_ids[1:3], c_proves;
    assert array(select l.id from pubsub.list_subscriptions(3, 3) l) = c_ids[4:6], c_proves;
    assert array(select l.id from pubsub.list_subscriptions(8, 3) l) = '{}', c_proves;
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
    c_proves constant text := 'a deleted subscription leaves the others of its topic alone';
begin
    perform pg_temp.stock('sibling');
    perform pubsub.create_subscription('sibling-gone', 'sibling');
    perform pg_temp.publish('sibling', 2);

    perform pubsub.delete_subscription('sibling-gone');

    assert cardinality(pg_temp.claim('sibling')) = 2, c_proves;
    assert cardinality(pg_temp.publish('sibling')) = 1, c_proves;
    assert cardinality(pg_temp.claim('sibling')) = 1, c_proves;
end
$$;
