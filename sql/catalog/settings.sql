/*
 * The settings of subscriptions: what they may be, and changing them.
 *
 * A change holds from its commit on, for what happens from then on. What a publish decided stays as it
 * is for messages that were routed already: whether the subscription has them (filter), when they
 * expire (message_ttl_seconds) and in which queue they stand (enable_ordering, fairness_key). Attempts,
 * backoff, deadlines, limits and what happens to spent messages are read at each claim and nack.
 */

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
    -- whole numbers: their ranges, and whether they may be null
    select r.field, r.highest, r.lowest into v_fault
    from (
        values
        (1, 'max_delivery_attempts', 1, 2147483647, false),
        (2, 'backoff_min_seconds', 1, 2147483647, false),
        (3, 'backoff_max_seconds', 1, 2147483647, false),
        (4, 'ack_deadline_seconds', 1, 43200, true),
        (5, 'max_in_flight', 1, 1000000, true),
        (6, 'max_in_flight_per_consumer', 1, 1000000, true),
        (7, 'max_rate', 1, 1000000, true),
        (8, 'message_ttl_seconds', 1, 31536000, true)
    ) r (position, field, lowest, highest, nullable)
    where not case jsonb_typeof(p_settings -> r.field)
        when 'number' then (p_settings ->> r.field)::numeric between r.lowest and r.highest
            and (p_settings ->> r.field)::numeric = trunc((p_settings ->> r.field)::numeric)
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
    from unnest(array['enable_ordering', 'dead_letter_expired']) as b (field)
    where jsonb_typeof(p_settings -> b.field) is distinct from 'boolean';
    if found then
        perform pubsub.fail_validation(v_fault.field,
            format('%s must be true or false', v_fault.field));
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
 * update_subscription — change settings of a subscription; those that are not named stay.
 *
 * In       p_changes: an object of settings, named as get_subscription names them; null takes one that
 *          need not be set back
 * Errors   PS404 · PS422 (field) unknown, of another type, out of range, or in contradiction to others
 * Locks    a dead letter topic that is named, then the subscription, so that of two changes at once
 *          none is lost
 */
create function pubsub.update_subscription(p_subscription_id text, p_changes json)
returns table (
    id text, topic_id text, filter json, max_delivery_attempts int, backoff_min_seconds int,
    backoff_max_seconds int, ack_deadline_seconds int, created_at timestamptz,
    enable_ordering boolean, ordering_failure text, fairness_key text, max_in_flight int,
    max_in_flight_per_consumer int, max_rate int, message_ttl_seconds int,
    dead_letter_expired boolean, dead_letter_topic_id text
)
language plpgsql volatile
as $$
declare
    v_changes constant jsonb := p_changes;
    v_keys record;
    v_old record;
    v_new jsonb;
    v_filter json;
    v_dead_letter_topic_key bigint;
begin
    perform pubsub.check_changes(v_changes, array[
        'filter', 'max_delivery_attempts', 'backoff_min_seconds', 'backoff_max_seconds',
        'ack_deadline_seconds', 'enable_ordering', 'ordering_failure', 'fairness_key',
        'max_in_flight', 'max_in_flight_per_consumer', 'max_rate', 'message_ttl_seconds',
        'dead_letter_expired', 'dead_letter_topic_id'
    ]);
    v_keys := pubsub.subscription_keys(p_subscription_id);
    -- before the subscription: who deletes the topic locks it first
    if jsonb_typeof(v_changes -> 'dead_letter_topic_id') = 'string' then
        v_dead_letter_topic_key := pubsub.dead_letter_topic(
            v_keys.topic_key, v_changes ->> 'dead_letter_topic_id');
    end if;
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    -- a statement after the lock sees what the one who held it has changed
    select s.topic_key, s.subscription_key, s.filter, s.dead_letter_topic_key,
        to_jsonb(g) - array['id', 'topic_id', 'filter', 'created_at'] as settings,
        pubsub.counts_by_consumer(s.topic_key, s.subscription_key) as counts_by_consumer
    into v_old
    from pubsub.get_subscription(p_subscription_id) g
    join pubsub_data.subscriptions s on s.subscription_id = g.id;

    v_new := v_old.settings || (v_changes - 'filter');
    perform pubsub.check_subscription_settings(v_new);
    v_filter := case
        when not v_changes ? 'filter' then v_old.filter
        when v_changes -> 'filter' <> 'null' then p_changes -> 'filter'
    end;
    if not v_changes ? 'dead_letter_topic_id' then
        v_dead_letter_topic_key := v_old.dead_letter_topic_key;
    end if;

    update pubsub_data.subscriptions s
    set filter = v_filter,
        filter_path = case when v_changes ? 'filter'
            then pubsub.compile_filter(v_filter::jsonb) else s.filter_path end,
        attribute_filter_path = case when v_changes ? 'filter'
            then pubsub.compile_attribute_filter(v_filter::jsonb) else s.attribute_filter_path end,
        filter_values = case when v_changes ? 'filter'
            then pubsub.count_filter_values(v_filter::jsonb) else s.filter_values end,
        max_delivery_attempts = (v_new ->> 'max_delivery_attempts')::numeric,
        backoff_min_seconds = (v_new ->> 'backoff_min_seconds')::numeric,
        backoff_max_seconds = (v_new ->> 'backoff_max_seconds')::numeric,
        ack_deadline_seconds = (v_new ->> 'ack_deadline_seconds')::numeric,
        enable_ordering = (v_new ->> 'enable_ordering')::boolean,
        ordering_failure = v_new ->> 'ordering_failure',
        fairness_key = v_new ->> 'fairness_key',
        max_in_flight = (v_new ->> 'max_in_flight')::numeric,
        max_in_flight_per_consumer = (v_new ->> 'max_in_flight_per_consumer')::numeric,
        max_rate = (v_new ->> 'max_rate')::numeric,
        message_ttl_seconds = (v_new ->> 'message_ttl_seconds')::numeric,
        dead_letter_expired = (v_new ->> 'dead_letter_expired')::boolean,
        dead_letter_topic_key = v_dead_letter_topic_key
    where s.topic_key = v_old.topic_key and s.subscription_key = v_old.subscription_key;

    -- what is leased now was counted by the old rule
    if v_old.counts_by_consumer
        <> pubsub.counts_by_consumer(v_old.topic_key, v_old.subscription_key)
    then
        perform pubsub.recount_messages(p_subscription_id);
    end if;
    -- claims have passed what waited for its key
    if (v_old.settings ->> 'enable_ordering')::boolean
        and not (v_new ->> 'enable_ordering')::boolean
    then
        perform pubsub.rewind_subscription(v_old.topic_key, v_old.subscription_key, (
            select d.message_id
            from pubsub_data.deliveries d
            where d.topic_key = v_old.topic_key and d.subscription_key = v_old.subscription_key
            order by d.message_id
            limit 1
        ));
    end if;
    return query select g.* from pubsub.get_subscription(p_subscription_id) g;
end
$$;

comment on function pubsub.update_subscription is
    'Change settings of a subscription; returns it.';
