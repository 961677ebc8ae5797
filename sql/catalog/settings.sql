/*
 * The settings of subscriptions: what they may be.
 *
 * A change holds from its commit on, for what happens from then on. What a publish decided stays as it
 * is for messages that were routed already: whether the subscription has them (filter), when they
 * expire (message_ttl_seconds) and in which queue they stand (enable_ordering, fairness_key). Attempts,
 * backoff, deadlines, limits, a pause and what happens to spent messages are read at each claim and nack.
 */

/*
 * default_settings — the settings of a subscription that says nothing: all there are, but the filter and push.
 */
create function pubsub.default_settings()
returns jsonb
language sql immutable parallel safe
begin atomic
    select '{
        "max_delivery_attempts": 5,
        "backoff_min_seconds": 5,
        "backoff_max_seconds": 300,
        "backoff_strategy": "exponential",
        "ack_deadline_seconds": null,
        "enable_ordering": false,
        "ordering_failure": "dead_letter",
        "fairness_key": null,
        "max_in_flight": null,
        "max_in_flight_per_consumer": null,
        "max_rate": null,
        "message_ttl_seconds": null,
        "dead_letter_expired": false,
        "dead_letter_topic_id": null,
        "paused": false,
        "expires_after_seconds": null
    }'::jsonb;
end;

comment on function pubsub.default_settings is
    'The settings of a subscription that says nothing: all there are, but the filter and push.';

/*
 * check_setting_names — refuse settings that are not an object, or that are not known.
 *
 * Errors   PS422 (the name, or settings)
 */
create function pubsub.check_setting_names(p_settings jsonb, p_names text[])
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_unknown text;
begin
    if p_settings is null or jsonb_typeof(p_settings) <> 'object' then
        perform pubsub.fail_validation('settings', 'settings must be an object');
    end if;
    select min(k.name) into v_unknown
    from jsonb_object_keys(p_settings) as k (name)
    where k.name <> all(p_names);
    if v_unknown is not null then
        perform pubsub.fail_validation(v_unknown, format('"%s" is not a setting', v_unknown));
    end if;
end
$$;

comment on function pubsub.check_setting_names is
    'Refuse settings that are not an object, or that are not known.';

/*
 * check_subscription_settings — refuse settings that are out of range or contradict each other.
 *
 * In       p_settings: all settings but the filter; null and left out are the same
 * Errors   PS422 (field)
 */
create function pubsub.check_subscription_settings(p_settings jsonb)
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_fault record;
begin
    -- numbers: their ranges, and whether they may be null. Those from 1 on are whole ones
    select r.field, r.highest, r.lowest into v_fault
    from (
        values
        (1, 'max_delivery_attempts', 1, 2147483647, false),
        (2, 'backoff_min_seconds', 0.001, 2147483647, false),
        (3, 'backoff_max_seconds', 0.001, 2147483647, false),
        (4, 'ack_deadline_seconds', 1, 43200, true),
        (5, 'max_in_flight', 1, 1000000, true),
        (6, 'max_in_flight_per_consumer', 1, 1000000, true),
        (7, 'max_rate', 1, 1000000, true),
        (8, 'message_ttl_seconds', 1, 31536000, true),
        (9, 'expires_after_seconds', 10, 31536000, true)
    ) r (position, field, lowest, highest, nullable)
    where not case jsonb_typeof(p_settings -> r.field)
        when 'number' then (p_settings ->> r.field)::numeric between r.lowest and r.highest
            and (r.lowest < 1
                or (p_settings ->> r.field)::numeric = trunc((p_settings ->> r.field)::numeric))
        else r.nullable and coalesce(jsonb_typeof(p_settings -> r.field), 'null') = 'null'
    end
    order by r.position
    limit 1;
    if found and v_fault.field <> 'backoff_max_seconds' then
        perform pubsub.fail_validation(v_fault.field,
            format('%s must be %s to %s', v_fault.field, v_fault.lowest, v_fault.highest));
    end if;
    if found or (p_settings ->> 'backoff_max_seconds')::numeric
        < (p_settings ->> 'backoff_min_seconds')::numeric
    then
        perform pubsub.fail_validation('backoff_max_seconds',
            'backoff_max_seconds must be backoff_min_seconds to 2147483647');
    end if;

    select b.field into v_fault
    from unnest(array['enable_ordering', 'dead_letter_expired', 'paused']) as b (field)
    where jsonb_typeof(p_settings -> b.field) is distinct from 'boolean';
    if found then
        perform pubsub.fail_validation(v_fault.field,
            format('%s must be true or false', v_fault.field));
    end if;
    if p_settings -> 'backoff_strategy' not in ('"fixed"', '"linear"', '"exponential"')
        or p_settings ->> 'backoff_strategy' is null
    then
        perform pubsub.fail_validation('backoff_strategy',
            'backoff_strategy must be fixed, linear or exponential');
    end if;
    if p_settings -> 'ordering_failure' not in ('"dead_letter"', '"park"', '"skip"')
        or p_settings ->> 'ordering_failure' is null
    then
        perform pubsub.fail_validation('ordering_failure',
            'ordering_failure must be dead_letter, park or skip');
    end if;
    if jsonb_typeof(p_settings -> 'fairness_key') not in ('string', 'null')
        or char_length(p_settings ->> 'fairness_key') not between 1 and 256
    then
        perform pubsub.fail_validation('fairness_key',
            'fairness_key must be 1 to 256 characters');
    end if;
    if p_settings ->> 'fairness_key' is not null and (p_settings ->> 'enable_ordering')::boolean then
        perform pubsub.fail_validation('fairness_key',
            'fairness_key cannot go together with enable_ordering');
    end if;
    if jsonb_typeof(p_settings -> 'dead_letter_topic_id') not in ('string', 'null') then
        perform pubsub.fail_validation('dead_letter_topic_id',
            'dead_letter_topic_id must be the id of a topic');
    end if;
end
$$;

comment on function pubsub.check_subscription_settings is
    'Refuse settings of a subscription that are out of range or contradict each other.';

/*
 * dead_letter_topic — the key of a dead-letter topic.
 *
 * In       p_topic_key: the subscription's own topic
 * Out      null for null
 * Errors   PS422 (dead_letter_topic_id) unknown, or the subscription's own topic
 * Locks    the topic: a concurrent delete_topic waits or is seen
 */
create function pubsub.dead_letter_topic(p_topic_key bigint, p_dead_letter_topic_id text)
returns bigint
language plpgsql volatile
as $$
declare
    v_dead_letter_topic_key bigint;
begin
    if p_dead_letter_topic_id is null then
        return null;
    end if;
    select t.topic_key into v_dead_letter_topic_key
    from pubsub_data.topics t where t.topic_id = p_dead_letter_topic_id for key share;
    if not found then
        perform pubsub.fail_validation('dead_letter_topic_id',
            'dead_letter_topic_id must be a topic that exists');
    end if;
    if v_dead_letter_topic_key = p_topic_key then
        -- its dead letters would come back to it for ever
        perform pubsub.fail_validation('dead_letter_topic_id',
            'dead_letter_topic_id must not be the topic of the subscription');
    end if;
    return v_dead_letter_topic_key;
end
$$;

comment on function pubsub.dead_letter_topic is
    'The key of a dead-letter topic, which must exist and be another one than the subscription''s.';

/*
 * changed_settings — settings after a change.
 *
 * In       p_settings: all but the filter and push; p_changes: an object of some, and of these two
 * Out      all but these two; push, save_push checks
 * Errors   PS422 (field) unknown, of another type, out of range, or in contradiction to others
 */
create function pubsub.changed_settings(p_settings jsonb, p_changes jsonb)
returns jsonb
language plpgsql immutable parallel safe
as $$
declare
    v_changed jsonb;
begin
    perform pubsub.check_setting_names(p_changes,
        array(select jsonb_object_keys(pubsub.default_settings())) || array['filter', 'push']);
    perform pubsub.compile_filter(nullif(p_changes -> 'filter', 'null'));
    v_changed := p_settings || (p_changes - array['filter', 'push']);
    perform pubsub.check_subscription_settings(v_changed);
    return v_changed;
end
$$;

comment on function pubsub.changed_settings is
    'Settings of a subscription after a change, which must be right and right together.';

/*
 * with_push_limit — changes of a subscription that does not push: if it begins to, and nobody says how many messages
 * may be in flight, that are 10.
 *
 * In       p_settings: before the changes
 */
create function pubsub.with_push_limit(p_changes jsonb, p_settings jsonb)
returns jsonb
language sql immutable parallel safe
begin atomic
    select case
        when p_changes -> 'push' <> 'null' and not p_changes ? 'max_in_flight'
            and p_settings ->> 'max_in_flight' is null
        then p_changes || '{"max_in_flight": 10}'
        else p_changes
    end;
end;

comment on function pubsub.with_push_limit is
    'Changes of a subscription that does not push, with the limit in flight that it gets if it begins to.';

/*
 * save_settings — let a subscription have settings that were checked.
 *
 * In       p_settings: all but the filter; p_dead_letter_topic_key: of dead_letter_topic
 * Effects  keeps one that expires
 */
create function pubsub.save_settings(
    p_topic_key bigint, p_subscription_key bigint, p_settings jsonb, p_filter json,
    p_dead_letter_topic_key bigint
)
returns void
language sql volatile
as $$
    update pubsub_data.subscriptions s
    set filter = p_filter,
        filter_path = pubsub.compile_filter(p_filter::jsonb),
        attribute_filter_path = pubsub.compile_attribute_filter(p_filter::jsonb),
        filter_values = pubsub.count_filter_values(p_filter::jsonb),
        max_delivery_attempts = n.max_delivery_attempts,
        backoff_min_seconds = ceil(n.backoff_min_seconds),
        backoff_max_seconds = ceil(n.backoff_max_seconds),
        exact_backoff_min_seconds = nullif(n.backoff_min_seconds, ceil(n.backoff_min_seconds)),
        exact_backoff_max_seconds = nullif(n.backoff_max_seconds, ceil(n.backoff_max_seconds)),
        backoff_strategy = n.backoff_strategy,
        ack_deadline_seconds = n.ack_deadline_seconds,
        enable_ordering = n.enable_ordering,
        ordering_failure = n.ordering_failure,
        fairness_key = n.fairness_key,
        max_in_flight = n.max_in_flight,
        max_in_flight_per_consumer = n.max_in_flight_per_consumer,
        max_rate = n.max_rate,
        message_ttl_seconds = n.message_ttl_seconds,
        dead_letter_expired = n.dead_letter_expired,
        dead_letter_topic_key = p_dead_letter_topic_key,
        paused = n.paused,
        expires_after_seconds = n.expires_after_seconds
    -- numeric: 10.0 is a whole number, too
    from jsonb_to_record(p_settings) as n (
        max_delivery_attempts numeric, backoff_min_seconds double precision,
        backoff_max_seconds double precision, backoff_strategy text, ack_deadline_seconds numeric, enable_ordering boolean,
        ordering_failure text, fairness_key text, max_in_flight numeric,
        max_in_flight_per_consumer numeric, max_rate numeric, message_ttl_seconds numeric,
        dead_letter_expired boolean, paused boolean, expires_after_seconds numeric)
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;

    -- whoever chooses it is there
    insert into pubsub_data.kept_subscriptions (topic_key, subscription_key, kept_at)
    select p_topic_key, p_subscription_key, clock_timestamp()
    where p_settings ->> 'expires_after_seconds' is not null
$$;

comment on function pubsub.save_settings is
    'Let a subscription have settings that were checked, and its filter compiled.';
