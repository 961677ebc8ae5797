/*
 * The dead letters of a subscription: messages whose attempts are spent, with the reason. They stay
 * until they are reprocessed or the subscription is deleted.
 */

/*
 * dead_letter_deliveries — move deliveries of a subscription to its dead letters.
 *
 * In       p_places: the ctids of the rows, which the caller has locked; per place p_errors, what the
 *          consumer said, null as a whole when nobody did
 * Out      how many were moved
 */
create function pubsub.dead_letter_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_reason text,
    p_errors text[] default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_moved bigint;
begin
    with dead as (
        delete from pubsub_data.deliveries d
        using unnest(p_places, p_errors) as e (place, error)
        where d.ctid = e.place
        returning d.message_id, d.attempts, d.consumer_id, d.visible_at, d.lease, e.error
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, backlog, leased, waiting, dlq
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(d.visible_at), -count(*),
            -count(d.lease), -count(*) filter (where d.lease is null), count(*)
        from dead d
        group by pubsub.counter_time(d.visible_at)
    )
    insert into pubsub_data.dead_letters (
        topic_key, subscription_key, message_id, payload, attributes, ordering_key, priority,
        published_at, attempts, consumer_id, reason, last_error
    )
    select p_topic_key, p_subscription_key, d.message_id, coalesce(m.payload, 'null'), m.attributes,
        m.ordering_key, m.priority, coalesce(m.published_at, pubsub.id_time(d.message_id)),
        d.attempts, d.consumer_id, p_reason, d.error
    from dead d
    -- a message that someone removed by hand still ends in the books
    left join lateral (
        select x.payload, x.attributes, x.ordering_key, x.priority, x.published_at
        from pubsub_data.messages x
        where x.topic_key = p_topic_key and x.message_id = d.message_id
        limit 1
    ) m on true;
    get diagnostics v_moved = row_count;
    return v_moved;
end
$$;

comment on function pubsub.dead_letter_deliveries is
    'Move deliveries to the dead letters with a reason, copying their messages.';

/*
 * list_dlq_messages — a page of dead letters, in publish order.
 *
 * Errors   PS404
 */
create function pubsub.list_dlq_messages(
    p_subscription_id text, p_offset bigint default 0, p_limit int default 10
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, published_at timestamptz, attempts int,
    reason text, dead_at timestamptz
)
language plpgsql stable parallel safe
as $$
declare
    v_keys record;
begin
    v_keys := pubsub.subscription_keys(p_subscription_id);
    return query
        select l.message_id, l.payload, l.attributes, l.published_at, l.attempts, l.reason,
            l.dead_at
        from pubsub_data.dead_letters l
        where l.topic_key = v_keys.topic_key and l.subscription_key = v_keys.subscription_key
        order by l.message_id
        offset p_offset limit p_limit;
end
$$;

comment on function pubsub.list_dlq_messages is 'A page of the dead letters of a subscription.';

/*
 * reprocess_dlq_messages — make dead letters available again, with no attempts spent.
 *
 * Out      how many were moved; unknown ids are not
 * Errors   PS404
 * Locks    the dead letters and their messages
 */
create function pubsub.reprocess_dlq_messages(p_subscription_id text, p_message_ids uuid[])
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_keys record;
    v_moved bigint;
begin
    v_keys := pubsub.subscription_keys(p_subscription_id);
    with back as materialized (
        delete from pubsub_data.dead_letters l
        where l.topic_key = v_keys.topic_key
            and l.subscription_key = v_keys.subscription_key
            and l.message_id = any(p_message_ids)
        returning l.*
    ), stored as (
        -- the message may be gone, or about to be cleaned up: an update locks it, nothing would not
        insert into pubsub_data.messages (
            topic_key, message_id, payload, attributes, ordering_key, priority, published_at
        )
        select b.topic_key, b.message_id, b.payload, b.attributes, b.ordering_key, b.priority,
            b.published_at
        from back b
        on conflict (topic_key, message_id) do update set published_at = excluded.published_at
    ), delivered as (
        insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane)
        select b.topic_key, b.subscription_key, b.message_id, pubsub.delivery_lane(
            s.enable_ordering, s.fairness_key, b.ordering_key, b.attributes, b.priority)
        from back b
        join pubsub_data.subscriptions s
            on s.topic_key = b.topic_key and s.subscription_key = b.subscription_key
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select v_keys.topic_key, v_keys.subscription_key, clock_timestamp(),
            array_agg(b.message_id)
        from back b
        having count(*) > 0
    ), counted as (
        insert into pubsub_data.counters (topic_key, subscription_key, backlog, dlq)
        select v_keys.topic_key, v_keys.subscription_key, count(*), -count(*)
        from back b
        having count(*) > 0
    )
    select count(*) into v_moved from back;
    return v_moved;
end
$$;

comment on function pubsub.reprocess_dlq_messages is
    'Make dead letters available again with no attempts spent; returns how many were.';
