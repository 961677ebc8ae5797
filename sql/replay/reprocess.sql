/*
 * The dead letters of a subscription: looked at, brought back, purged. They stay until then, or until
 * the subscription is deleted.
 *
 * What comes back lies below the place that claims have read to: few messages get a wake-up, and for
 * many the subscription's rewinds send the claims back. Either way messages are handed out in publish
 * order, those of an ordering key before the later ones of the key.
 */

/*
 * list_dlq_messages — a page of dead letters, in publish order.
 *
 * In       p_after: only ids after it, which need not be there: what leaves meanwhile makes no page skip
 * Out      deliveries: the last 100 that failed, the oldest first
 * Errors   PS404
 */
create function pubsub.list_dlq_messages(
    p_subscription_id text, p_offset bigint default 0, p_limit int default 10,
    p_after uuid default null
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, attempts int, consumer_id text, reason text, last_error text,
    dead_at timestamptz, deliveries jsonb
)
language plpgsql stable parallel safe
as $$
declare
    v_keys record;
begin
    v_keys := pubsub.subscription_keys(p_subscription_id);
    return query
        select l.message_id, l.payload, l.attributes, l.ordering_key, l.priority, l.published_at,
            l.attempts, l.consumer_id, l.reason, l.last_error, l.dead_at, l.deliveries
        from pubsub_data.dead_letters l
        where l.topic_key = v_keys.topic_key and l.subscription_key = v_keys.subscription_key
            and l.message_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
        order by l.message_id
        offset p_offset limit p_limit;
end
$$;

comment on function pubsub.list_dlq_messages is 'A page of the dead letters of a subscription.';

/*
 * revive_dead_letters — make dead letters available again, with no attempts spent and no expiry.
 *
 * In       p_per_second: hand out no more than so many a second, in id order; null: all at once
 * Out      how many were moved; unknown ids are not
 * Locks    the dead letters in id order, then their messages; the caller has locked the subscription
 */
create function pubsub.revive_dead_letters(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[],
    p_per_second int default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    -- more than so many ids are too much for a wake-up, which is rewritten with each claim
    c_most_woken constant int := 1000;
    v_now constant timestamptz := clock_timestamp();
    v_ids uuid[];
    v_in_lanes boolean;
begin
    select array_agg(l.message_id) into v_ids
    from (
        select x.message_id
        from pubsub_data.dead_letters x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.message_id = any(p_message_ids)
        order by x.message_id
        for update
    ) l;
    if v_ids is null then
        return 0;
    end if;

    with back as materialized (
        delete from pubsub_data.dead_letters l
        where l.topic_key = p_topic_key
            and l.subscription_key = p_subscription_key
            and l.message_id = any(v_ids)
        returning l.*
    ), stored as (
        -- the message may be gone, or about to be cleaned up: an update locks it, nothing would not
        insert into pubsub_data.messages (
            topic_key, message_id, payload, attributes, ordering_key, priority, published_at
        )
        select b.topic_key, b.message_id, b.payload, b.attributes, b.ordering_key, b.priority,
            b.published_at
        from back b
        -- other subscriptions bring the same messages back
        order by b.message_id
        on conflict (topic_key, message_id) do update set published_at = excluded.published_at
    ), delivered as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, visible_at, lane
        )
        select p_topic_key, p_subscription_key, b.message_id,
            -- ten times a second, so that there are no more wake-ups than that
            case when p_per_second is null then '-infinity'
                else v_now + make_interval(secs => floor(
                    (row_number() over (order by b.message_id) - 1) * 10.0 / p_per_second) / 10)
            end,
            pubsub.delivery_lane(
                s.enable_ordering, s.fairness_key, b.ordering_key, b.attributes, b.priority)
        from back b
        join pubsub_data.subscriptions s
            on s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
        -- a seek may have brought it back already
        on conflict (topic_key, subscription_key, message_id) do nothing
        returning visible_at, lane
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, backlog, waiting, dlq, published
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(d.visible_at), count(*),
            count(*) filter (where d.visible_at > v_now), 0, 0
        from delivered d
        group by pubsub.counter_time(d.visible_at)
        union all
        select p_topic_key, p_subscription_key, '-infinity', 0, 0, -count(*), 0 from back b
    )
    select bool_or(d.lane is not null) into v_in_lanes from delivered d;

    if p_per_second is not null or v_in_lanes then
        perform pubsub.note_deliveries(p_topic_key, array[p_subscription_key], v_ids);
    end if;
    if p_per_second is null and cardinality(v_ids) <= c_most_woken then
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        values (p_topic_key, p_subscription_key, v_now, v_ids);
    end if;
    perform pubsub.rewind_subscription(p_topic_key, p_subscription_key, v_ids[1]);
    return cardinality(v_ids);
end
$$;

comment on function pubsub.revive_dead_letters is
    'Make dead letters available again, at once or so many a second; returns how many were.';

/*
 * reprocess_dlq_messages — make the dead letters with these ids available again.
 *
 * Out      how many were moved; unknown ids are not
 * Errors   PS404
 * Locks    the subscription, the dead letters in id order, then their messages
 */
create function pubsub.reprocess_dlq_messages(p_subscription_id text, p_message_ids uuid[])
returns bigint
language plpgsql volatile
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription_id);
begin
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    return pubsub.revive_dead_letters(
        v_keys.topic_key, v_keys.subscription_key, p_message_ids);
end
$$;

comment on function pubsub.reprocess_dlq_messages is
    'Make dead letters available again with no attempts spent; returns how many were.';

/*
 * reprocess_matching_dlq_messages — make all dead letters available again, or those that match a
 * filter, the oldest first.
 *
 * In       p_filter: as a subscription's; null: all · p_limit: most of them; null: 10000 ·
 *          p_per_second: hand out no more than so many a second; null: all at once
 * Out      how many were moved, and how many that match are left: call again for them, when paced
 *          after those moved have been handed out
 * Errors   PS404 · PS422 (filter, limit 1 to 10000, per_second 1 to 1000000)
 * Locks    the subscription, the dead letters, of which it skips those that others hold, then their
 *          messages
 */
create function pubsub.reprocess_matching_dlq_messages(
    p_subscription_id text, p_filter json default null, p_limit int default null,
    p_per_second int default null
)
returns table (reprocessed bigint, remaining bigint)
language plpgsql volatile rows 1
set enable_seqscan = off
as $$
declare
    c_most constant int := 10000;
    v_keys record := pubsub.subscription_keys(p_subscription_id);
    v_path constant jsonpath := pubsub.compile_filter(p_filter::jsonb);
    v_values constant int := pubsub.count_filter_values(p_filter::jsonb);
    v_attribute_path constant jsonpath := pubsub.compile_attribute_filter(p_filter::jsonb);
begin
    if p_limit not between 1 and c_most then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 10000');
    end if;
    if p_per_second not between 1 and 1000000 then
        perform pubsub.fail_validation('per_second', 'per_second must be 1 to 1000000');
    end if;
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    reprocess_matching_dlq_messages.reprocessed := pubsub.revive_dead_letters(
        v_keys.topic_key, v_keys.subscription_key, array(
            select l.message_id
            from pubsub_data.dead_letters l
            where l.topic_key = v_keys.topic_key
                and l.subscription_key = v_keys.subscription_key
                and pubsub.passes_filter(l.payload, l.attributes, v_path, p_filter::jsonb, v_values,
                    v_attribute_path)
            order by l.message_id
            limit coalesce(p_limit, c_most)
            for update skip locked
        ), p_per_second);
    select count(*) into reprocess_matching_dlq_messages.remaining
    from pubsub_data.dead_letters l
    where l.topic_key = v_keys.topic_key
        and l.subscription_key = v_keys.subscription_key
        and pubsub.passes_filter(l.payload, l.attributes, v_path, p_filter::jsonb, v_values,
            v_attribute_path);
    return next;
end
$$;

comment on function pubsub.reprocess_matching_dlq_messages is
    'Make dead letters available again, all or those that match a filter, at once or paced.';

/*
 * purge_dlq_messages — delete dead letters, a batch a call.
 *
 * In       p_message_ids: these; null: all, the oldest first
 * Out      how many were deleted, at most 10000
 * Errors   PS404
 * Locks    skips what others hold
 */
create function pubsub.purge_dlq_messages(
    p_subscription_id text, p_message_ids uuid[] default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription_id);
    v_places tid[] := array(
        select l.ctid
        from pubsub_data.dead_letters l
        where l.topic_key = v_keys.topic_key
            and l.subscription_key = v_keys.subscription_key
            and (p_message_ids is null or l.message_id = any(p_message_ids))
        order by l.message_id
        limit 10000
        for update skip locked
    );
begin
    if v_places <> '{}' then
        delete from pubsub_data.dead_letters l where l.ctid = any(v_places);
        insert into pubsub_data.counters (topic_key, subscription_key, dlq)
        values (v_keys.topic_key, v_keys.subscription_key, -cardinality(v_places));
    end if;
    return cardinality(v_places);
end
$$;

comment on function pubsub.purge_dlq_messages is
    'Delete dead letters, all or these, a batch a call; returns how many.';
