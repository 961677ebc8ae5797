/*
 * The settings of subscriptions: what they may be.
 *
 * A change holds from its commit on, for what happens from then on. What a publish decided stays as it
 * is for messages that were routed already: whether the subscription has them (filter), when they
 * expire (message_ttl_seconds) and in which queue they stand (enable_ordering, fairness_key). Attempts,
 * backoff, deadlines, limits and what happens to spent messages are read at each claim and nack.
 */

/*
 * check_changes — refuse changes that are not an object, or name what cannot be changed.
 *
 * Errors   PS422 (the name, or changes)
 */
create function pubsub.check_changes(p_changes jsonb, p_names text[])
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_unknown text;
begin
    if p_changes is null or jsonb_typeof(p_changes) <> 'object' then
        perform pubsub.fail_validation('changes', 'changes must be an object of settings');
    end if;
    select min(k.name) into v_unknown
    from jsonb_object_keys(p_changes) as k (name)
    where k.name <> all(p_names);
    if v_unknown is not null then
        perform pubsub.fail_validation(v_unknown,
            format('"%s" is not a setting that can be changed', v_unknown));
    end if;
end
$$;

comment on function pubsub.check_changes is
    'Refuse changes that are not an object, or that name what cannot be changed.';

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
