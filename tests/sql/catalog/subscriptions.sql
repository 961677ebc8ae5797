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

do $$
declare
    c_proves constant text := 'a change changes what it names and nothing else';
    v_before record;
    v_after record;
    v_change record;
begin
    perform pg_temp.stock('change');
    perform pubsub.create_topic('change-dead');
    for v_change in
        select c.value as changes
        from jsonb_array_elements('[{"max_delivery_attempts": 9}, {"backoff_min_seconds": 2},
            {"backoff_max_seconds": 7}, {"ack_deadline_seconds": 43200},
            {"ack_deadline_seconds": null}, {"enable_ordering": true},
            {"enable_ordering": false, "fairness_key": "tenant"}, {"fairness_key": null},
            {"ordering_failure": "skip"}, {"max_in_flight": 5}, {"max_in_flight": null},
            {"max_in_flight_per_consumer": 6}, {"max_rate": 7.0}, {"message_ttl_seconds": 60},
            {"dead_letter_expired": true}, {"dead_letter_topic_id": "change-dead"},
            {"dead_letter_topic_id": null}, {"filter": {"n": [1]}}, {"max_rate": 8},
            {"backoff_strategy": "linear"}, {"paused": true}, {"paused": false},
            {"filter": null}, {}]') c
    loop
        select * into v_before from pubsub.get_subscription('change');
        select * into v_after from pubsub.update_subscription('change', v_change.changes::json);
        assert to_jsonb(v_after) - '{exact_backoff_min_seconds,exact_backoff_max_seconds}'::text[]
            = to_jsonb(v_before) - '{exact_backoff_min_seconds,exact_backoff_max_seconds}'::text[]
            || v_change.changes,
            format('%s: %s gives %s', c_proves, v_change.changes, to_jsonb(v_after));
        assert (select g::text from pubsub.get_subscription('change') g) = v_after::text, c_proves;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a change that is refused names the field and changes nothing';
    v_before text;
    v_case record;
begin
    perform pg_temp.stock('refuse');
    perform pubsub.update_subscription('refuse', '{"fairness_key": "tenant"}');
    v_before := (select g::text from pubsub.get_subscription('refuse') g);
    for v_case in
        select *
        from (values
            ('settings', '[]'), ('settings', 'null'), ('settings', '1'),
            ('id', '{"id": "other"}'), ('topic_id', '{"topic_id": "t"}'),
            ('max_attempts', '{"max_rate": 1, "max_attempts": 1}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": 0}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": null}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": "5"}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": 2147483648}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": 1e300}'),
            ('max_delivery_attempts', '{"max_delivery_attempts": 1.5}'),
            ('backoff_min_seconds', '{"backoff_min_seconds": 0}'),
            ('backoff_min_seconds', '{"backoff_min_seconds": []}'),
            ('backoff_min_seconds', '{"backoff_min_seconds": 0.0009}'),
            ('backoff_max_seconds', '{"backoff_max_seconds": 2147483647.5}'),
            ('backoff_max_seconds', '{"backoff_max_seconds": 4.999}'),
            ('backoff_strategy', '{"backoff_strategy": "random"}'),
            ('backoff_strategy', '{"backoff_strategy": null}'),
            ('backoff_strategy', '{"backoff_strategy": ["fixed"]}'),
            ('paused', '{"paused": null}'), ('paused', '{"paused": "yes"}'), ('paused', '{"paused": 1}'),
            -- against the stored other one
            ('backoff_max_seconds', '{"backoff_min_seconds": 301}'),
            ('backoff_max_seconds', '{"backoff_max_seconds": 4}'),
            ('backoff_max_seconds', '{"backoff_max_seconds": false}'),
            ('ack_deadline_seconds', '{"ack_deadline_seconds": 43201}'),
            ('enable_ordering', '{"enable_ordering": "yes"}'),
            ('enable_ordering', '{"enable_ordering": null}'),
            ('fairness_key', '{"enable_ordering": true}'),
            ('fairness_key', '{"fairness_key": 1}'),
            ('ordering_failure', '{"ordering_failure": "stop"}'),
            ('ordering_failure', '{"ordering_failure": ["park"]}'),
            ('max_in_flight', '{"max_in_flight": 0}'),
            ('max_in_flight_per_consumer', '{"max_in_flight_per_consumer": {}}'),
            ('max_rate', '{"max_rate": -1}'),
            ('message_ttl_seconds', '{"message_ttl_seconds": 31536001}'),
            ('dead_letter_expired', '{"dead_letter_expired": 0}'),
            ('dead_letter_topic_id', '{"dead_letter_topic_id": "none"}'),
            ('dead_letter_topic_id', '{"dead_letter_topic_id": "refuse"}'),
            ('dead_letter_topic_id', '{"dead_letter_topic_id": 7}'),
            ('filter', '{"filter": []}'), ('filter', '{"filter": {"a": 1}, "max_rate": 1}')
        ) c (field, changes)
    loop
        assert pg_temp.refusal(format('select pubsub.update_subscription(%L, %L)', 'refuse',
            v_case.changes)) like format('PS422(%s) %%', v_case.field),
            format('%s: %s gives %s', c_proves, v_case.changes, pg_temp.refusal(
                format('select pubsub.update_subscription(%L, %L)', 'refuse', v_case.changes)));
        assert (select g::text from pubsub.get_subscription('refuse') g) = v_before, c_proves;
    end loop;
    assert pg_temp.refusal($q$select pubsub.update_subscription('none', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a new filter is shown as given and decides for what is published then';
    v_ids uuid[] := pg_temp.stock('refilter', 2);
begin
    assert (
        select u.filter::text
        from pubsub.update_subscription('refilter', '{"filter": {"n" :  [2, 1e0],"n": [2]}}') u
    ) = '{"n" :  [2, 1e0],"n": [2]}', c_proves;
    v_ids := v_ids || (pg_temp.publish('refilter', 3))[2];
    assert pg_temp.claim('refilter') = v_ids, c_proves;
    perform pubsub.ack_messages('refilter', v_ids);

    perform pubsub.update_subscription('refilter', '{"filter": {"attributes": {"a": ["b"]}}}');
    perform pg_temp.publish('refilter');
    assert pg_temp.claim('refilter') = '{}', c_proves || ': attributes';

    perform pubsub.update_subscription('refilter', '{"filter": null}');
    v_ids := pg_temp.publish('refilter', 2);
    assert pg_temp.claim('refilter') = v_ids, c_proves || ': none';
end
$$;

do $$
declare
    c_proves constant text := 'retries and deadlines follow the new settings from the next claim on';
    v_ids uuid[] := pg_temp.stock('policy', 1);
    v_claim record;
begin
    perform pubsub.update_subscription('policy',
        '{"ack_deadline_seconds": 1000, "max_delivery_attempts": 1}');
    select c.* into v_claim from pubsub.consume_messages('policy', 'consumer') c;
    assert v_claim.ack_deadline > clock_timestamp() + interval '900 seconds', c_proves;

    perform pubsub.nack_messages('policy', v_ids);
    assert (select m.dlq from pubsub.subscription_metrics('policy') m) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead-letter topic that is deleted is no setting any more';
begin
    perform pg_temp.stock('orphan');
    perform pubsub.create_topic('orphan-dead');
    perform pubsub.update_subscription('orphan', '{"dead_letter_topic_id": "orphan-dead"}');
    assert (select g.dead_letter_topic_id from pubsub.get_subscription('orphan') g) = 'orphan-dead',
        c_proves;

    perform pubsub.delete_topic('orphan-dead');
    assert (select g.dead_letter_topic_id from pubsub.get_subscription('orphan') g) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a limit that comes or goes counts what is leased then, too';
begin
    perform pg_temp.stock('limited-late', 3);
    perform pubsub.consume_messages('limited-late', 'one', 1);

    perform pubsub.update_subscription('limited-late', '{"max_in_flight_per_consumer": 1}');
    assert not exists (select from pubsub.consume_messages('limited-late', 'one', 5)), c_proves;
    assert (select count(*) from pubsub.consume_messages('limited-late', 'two', 5)) = 1, c_proves;
    assert pubsub.recount_messages('limited-late') = 0, c_proves || ': with it';

    perform pubsub.update_subscription('limited-late', '{"max_in_flight_per_consumer": null}');
    assert pubsub.recount_messages('limited-late') = 0, c_proves || ': without it';
end
$$;

do $$
declare
    c_proves constant text := 'where ordering ends, what waited for its key is handed out at the next claim';
    v_ids uuid[];
begin
    perform pubsub.create_topic('was-ordered');
    perform pubsub.create_subscription('was-ordered', 'was-ordered', '{"enable_ordering": true}');
    select array_agg(p.message_id) into v_ids from pubsub.publish_messages('was-ordered',
        array['{"n": 1}', '{"n": 2}']::jsonb[], p_ordering_keys => array['key', 'key']) p;
    assert pg_temp.claim('was-ordered', 1) = v_ids[1:1], c_proves;
    assert pg_temp.claim('was-ordered', 1) = '{}', c_proves || ': while the first is out';

    perform pubsub.update_subscription('was-ordered', '{"enable_ordering": false}');

    assert pg_temp.claim('was-ordered', 1) = v_ids[2:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'backoffs have fractions, and are shown rounded up to whoever reads whole numbers';
    v_shown record;
begin
    perform pubsub.create_topic('fraction');
    select c.* into v_shown from pubsub.create_subscription('fraction', 'fraction',
        '{"backoff_min_seconds": 0.25, "backoff_max_seconds": 7.001}') c;
    assert v_shown.backoff_min_seconds = 1 and v_shown.backoff_max_seconds = 8, c_proves;
    assert v_shown.exact_backoff_min_seconds = 0.25 and v_shown.exact_backoff_max_seconds = 7.001,
        c_proves;
    assert pg_typeof(v_shown.backoff_min_seconds) = 'integer'::regtype, c_proves;

    -- what a change does not name keeps its fraction
    select u.* into v_shown from pubsub.update_subscription('fraction', '{"max_rate": 5}') u;
    assert v_shown.exact_backoff_min_seconds = 0.25 and v_shown.exact_backoff_max_seconds = 7.001,
        c_proves;
    perform pubsub.update_subscription('fraction', '{"backoff_max_seconds": 0.25, "max_rate": null}');
    assert (
        select l.exact_backoff_max_seconds = 0.25 and l.backoff_max_seconds = 1
        from pubsub.list_subscriptions(p_topic_id => 'fraction') l
    ), c_proves;
    assert (select v.backoff_min_seconds from pubsub.subscriptions v
        where v.subscription_id = 'fraction') = 0.25, c_proves;

    -- a fraction that is too small to be kept is none
    perform pubsub.update_subscription('fraction',
        '{"backoff_min_seconds": 4, "backoff_max_seconds": 4.00000000000000000001}');
    assert (select g.exact_backoff_max_seconds = 4 and g.backoff_max_seconds = 4
        from pubsub.get_subscription('fraction') g), c_proves;
    perform pubsub.update_subscription('fraction',
        '{"backoff_min_seconds": 2147483647, "backoff_max_seconds": 2147483647.0}');
    assert (select g.backoff_max_seconds from pubsub.get_subscription('fraction') g) = 2147483647,
        c_proves;
end
$$;
