/*
 * A subscription receives every message that is published to its topic after its creation and
 * matches its filter. It carries the retry policy: attempts, backoff, ack deadline; and how its
 * messages are handed out: order, fairness, limits, and whether they are sent somewhere (push_endpoints.sql).
 * What settings may be, settings.sql decides. How one is created, new_subscriptions.sql says: it may begin in the past, which replays.
 *
 * backoff_min_seconds and backoff_max_seconds may have fractions. Where subscriptions are returned these two
 * are whole numbers, rounded up, as servers of before read them; exact_... are what was set.
 */

/*
 * update_subscription — change settings of a subscription; those that are not named stay.
 *
 * In       p_changes: an object of settings, named as get_subscription names them; null takes one that
 *          need not be set back; push as save_push takes it
 * Out      push.secret only if it was made now
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
    dead_letter_expired boolean, dead_letter_topic_id text, backoff_strategy text,
    exact_backoff_min_seconds double precision, exact_backoff_max_seconds double precision,
    paused boolean, expires_after_seconds int, push json
)
language plpgsql volatile
as $$
declare
    v_changes constant jsonb := p_changes;
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_old record;
    v_new jsonb;
    v_dead_letter_topic_key bigint;
begin
    -- before the subscription: who deletes the topic locks it first
    if jsonb_typeof(v_changes -> 'dead_letter_topic_id') = 'string' then
        v_dead_letter_topic_key := pubsub.dead_letter_topic(
            v_keys.topic_key, v_changes ->> 'dead_letter_topic_id');
    end if;
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    -- a statement after the lock sees what the one who held it has changed
    select s.topic_key, s.subscription_key, s.filter, s.dead_letter_topic_key,
        to_jsonb(g) - array['id', 'topic_id', 'filter', 'push', 'created_at',
            'exact_backoff_min_seconds', 'exact_backoff_max_seconds'] || jsonb_build_object(
            'backoff_min_seconds', g.exact_backoff_min_seconds,
            'backoff_max_seconds', g.exact_backoff_max_seconds) as settings,
        pubsub.counts_by_consumer(s.topic_key, s.subscription_key) as counts_by_consumer,
        pubsub.has_push(s.topic_key, s.subscription_key) as has_push
    into v_old
    from pubsub.get_subscription(p_subscription_id) g
    join pubsub_data.subscriptions s on s.subscription_id = g.id;
    v_new := pubsub.changed_settings(v_old.settings, case
        when v_old.has_push then v_changes
        else pubsub.with_push_limit(v_changes, v_old.settings)
    end);
    perform pubsub.save_settings(v_old.topic_key, v_old.subscription_key, v_new,
        case
            when not v_changes ? 'filter' then v_old.filter
            when v_changes -> 'filter' <> 'null' then p_changes -> 'filter'
        end,
        case when v_changes ? 'dead_letter_topic_id' then v_dead_letter_topic_key
            else v_old.dead_letter_topic_key end);
    if v_changes ? 'push' then
        perform pubsub.save_push(v_old.topic_key, v_old.subscription_key, v_changes -> 'push');
    end if;

    -- what is leased now was counted by the old rule
    if v_old.counts_by_consumer
        <> pubsub.counts_by_consumer(v_old.topic_key, v_old.subscription_key)
    then
        perform pubsub.recount_messages(p_subscription_id);
    end if;
    -- claims have passed what waited for its key, and those who wait what came during a pause
    if (v_old.settings ->> 'enable_ordering')::boolean and not (v_new ->> 'enable_ordering')::boolean
        or (v_old.settings ->> 'paused')::boolean and not (v_new ->> 'paused')::boolean
    then
        perform pubsub.rewind_subscription(v_old.topic_key, v_old.subscription_key,
            pubsub.oldest_unsettled(v_old.topic_key, v_old.subscription_key));
    end if;
    return query
        select g.* from pubsub.get_subscription(p_subscription_id, not v_old.has_push) g;
end
$$;

comment on function pubsub.update_subscription is
    'Change settings of a subscription; returns it.';

/*
 * list_subscriptions — a page of subscriptions in the byte order of their ids.
 *
 * In       p_after: only ids after it, which need not be there; p_topic_id: only of this topic;
 *          p_allowed: only what matches it (matches_any)
 */
create function pubsub.list_subscriptions(
    p_offset bigint default 0, p_limit int default 10, p_after text default null,
    p_topic_id text default null, p_allowed text[] default null
)
returns table (
    id text, topic_id text, filter json, max_delivery_attempts int, backoff_min_seconds int,
    backoff_max_seconds int, ack_deadline_seconds int, created_at timestamptz,
    enable_ordering boolean, ordering_failure text, fairness_key text, max_in_flight int,
    max_in_flight_per_consumer int, max_rate int, message_ttl_seconds int,
    dead_letter_expired boolean, dead_letter_topic_id text, backoff_strategy text,
    exact_backoff_min_seconds double precision, exact_backoff_max_seconds double precision,
    paused boolean, expires_after_seconds int, push json
)
language sql stable parallel safe
as $$
    select s.subscription_id, t.topic_id, s.filter, s.max_delivery_attempts,
        s.backoff_min_seconds, s.backoff_max_seconds, s.ack_deadline_seconds, s.created_at,
        s.enable_ordering, s.ordering_failure, s.fairness_key, s.max_in_flight,
        s.max_in_flight_per_consumer, s.max_rate, s.message_ttl_seconds, s.dead_letter_expired,
        l.topic_id, s.backoff_strategy,
        coalesce(s.exact_backoff_min_seconds, s.backoff_min_seconds),
        coalesce(s.exact_backoff_max_seconds, s.backoff_max_seconds), s.paused,
        s.expires_after_seconds, pubsub.shown_push(s.topic_key, s.subscription_key)
    from pubsub_data.subscriptions s
    join pubsub_data.topics t on t.topic_key = s.topic_key
    left join pubsub_data.topics l on l.topic_key = s.dead_letter_topic_key
    where s.subscription_id > coalesce(p_after, '')
        and (p_topic_id is null or t.topic_id = p_topic_id)
        and pubsub.matches_any(s.subscription_id, p_allowed)
    order by s.subscription_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_subscriptions is 'A page of subscriptions, ordered by id.';

/*
 * get_subscription
 *
 * In       p_with_push_secret: what signs its pushes, too, as push.secret
 * Errors   PS404
 */
create function pubsub.get_subscription(
    p_subscription_id text, p_with_push_secret boolean default false
)
returns table (
    id text, topic_id text, filter json, max_delivery_attempts int, backoff_min_seconds int,
    backoff_max_seconds int, ack_deadline_seconds int, created_at timestamptz,
    enable_ordering boolean, ordering_failure text, fairness_key text, max_in_flight int,
    max_in_flight_per_consumer int, max_rate int, message_ttl_seconds int,
    dead_letter_expired boolean, dead_letter_topic_id text, backoff_strategy text,
    exact_backoff_min_seconds double precision, exact_backoff_max_seconds double precision,
    paused boolean, expires_after_seconds int, push json
)
language plpgsql stable parallel safe
as $$
begin
    return query
        select s.subscription_id, t.topic_id, s.filter, s.max_delivery_attempts,
            s.backoff_min_seconds, s.backoff_max_seconds, s.ack_deadline_seconds, s.created_at,
            s.enable_ordering, s.ordering_failure, s.fairness_key, s.max_in_flight,
            s.max_in_flight_per_consumer, s.max_rate, s.message_ttl_seconds,
            s.dead_letter_expired, l.topic_id, s.backoff_strategy,
            coalesce(s.exact_backoff_min_seconds, s.backoff_min_seconds),
            coalesce(s.exact_backoff_max_seconds, s.backoff_max_seconds), s.paused,
            s.expires_after_seconds, pubsub.shown_push(s.topic_key, s.subscription_key, p_with_push_secret)
        from pubsub_data.subscriptions s
        join pubsub_data.topics t on t.topic_key = s.topic_key
        left join pubsub_data.topics l on l.topic_key = s.dead_letter_topic_key
        where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.get_subscription is 'One subscription by its id.';

/*
 * delete_subscription — with everything in it.
 *
 * Errors   PS404
 * Effects  instant; its rows are purged later, by purge_deleted_subscriptions
 */
create function pubsub.delete_subscription(p_subscription_id text)
returns void
language plpgsql volatile
as $$
begin
    with gone as (
        delete from pubsub_data.subscriptions s
        where s.subscription_id = p_subscription_id
        returning s.topic_key, s.subscription_key
    )
    insert into pubsub_data.deleted_subscriptions (topic_key, subscription_key)
    select g.topic_key, g.subscription_key from gone g;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.delete_subscription is 'Delete a subscription and its messages.';
