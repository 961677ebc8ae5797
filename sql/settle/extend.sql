/*
 * Leases that live longer, and leases that nobody saw. A lease ends 12 hours after it began, however
 * often it is extended: who works longer on a message than that is taken for gone.
 */

/*
 * extend_deliveries — move the ack deadlines of leased deliveries.
 *
 * In       p_places: the ctids of the rows, which the caller has locked, and per place the seconds
 *          from now on
 * Out      the new deadlines
 */
create function pubsub.extend_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_seconds int[],
    p_per_consumer boolean
)
returns table (message_id uuid, ack_deadline timestamptz)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    return query
        with held as materialized (
            select w.place, w.seconds, d.visible_at
            from unnest(p_places, p_seconds) as w (place, seconds)
            join pubsub_data.deliveries d on d.ctid = w.place
        ), extended as (
            update pubsub_data.deliveries d
            set visible_at = least(v_now + make_interval(secs => h.seconds),
                    d.leased_at + interval '12 hours'),
                extended_at = v_now
            from held h
            where d.ctid = h.place
            returning d.message_id, d.visible_at, d.consumer_id, h.visible_at as deadline
        ), noted as (
            -- a deadline that moved nearer would be missed by the wake-up of the claim
            insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
            select p_topic_key, p_subscription_key, e.visible_at, array_agg(e.message_id)
            from extended e
            group by e.visible_at
        ), counted as (
            insert into pubsub_data.counters (
                topic_key, subscription_key, due_at, consumer_id, leased, delivered, extended
            )
            select p_topic_key, p_subscription_key, c.due_at, c.consumer_id, sum(c.leased), 0,
                sum(c.extended)
            from (
                select pubsub.counter_time(x.due_at) as due_at,
                    case when p_per_consumer then e.consumer_id end as consumer_id, x.leased,
                    x.extended
                from extended e
                cross join lateral (values (e.visible_at, 1, 1), (e.deadline, -1, 0))
                    as x (due_at, leased, extended)
            ) c
            group by c.due_at, c.consumer_id
        )
        select e.message_id, e.visible_at from extended e;
end
$$;

comment on function pubsub.extend_deliveries is
    'Move the ack deadlines of leased deliveries, at most to 12 hours after the lease began.';

/*
 * extend_messages — move the ack deadline of live leases to p_seconds from now, at most to 12 hours
 * after they began.
 *
 * Out      how many were extended; a lease whose deadline has passed is not
 * Errors   PS404 · PS422 (seconds 1 to 43200; leases not one per id)
 * Locks    the deliveries, in id order
 */
create function pubsub.extend_messages(
    p_subscription_id text, p_message_ids uuid[], p_leases bigint[], p_seconds int
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_subscription record;
    v_held tid[];
begin
    if p_seconds is null or p_seconds not between 1 and 43200 then
        perform pubsub.fail_validation('seconds', 'seconds must be 1 to 43200');
    end if;
    select s.topic_key, s.subscription_key, coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null as per_consumer
    into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    -- unlike ack and nack, this needs the lease and a deadline that has not passed
    select array_agg(l.place) into v_held
    from pubsub.lock_leases(
        v_subscription.topic_key, v_subscription.subscription_key, p_message_ids,
        -- no lease has number -1
        coalesce(array_replace(p_leases, null, -1),
            array_fill(-1::bigint, array[coalesce(cardinality(p_message_ids), 0)]))
    ) h
    cross join unnest(h.places, h.deadlines) as l (place, deadline)
    where l.deadline > v_now;
    if v_held is null then
        return 0;
    end if;
    return (
        select count(*)
        from pubsub.extend_deliveries(
            v_subscription.topic_key, v_subscription.subscription_key, v_held,
            array_fill(p_seconds, array[cardinality(v_held)]), v_subscription.per_consumer)
    );
end
$$;

comment on function pubsub.extend_messages is
    'Move the ack deadline of live leases to p_seconds from now; returns how many were.';

/*
 * release_messages — undo leases whose holder went away before it saw the messages: they are
 * available at once, as if they had not been delivered.
 *
 * In       one lease per id
 * Out      how many were released; stale leases are not
 * Errors   PS404 · PS422 (leases) not one per id
 * Locks    the deliveries, in id order
 */
create function pubsub.release_messages(
    p_subscription_id text, p_message_ids uuid[], p_leases bigint[]
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_subscription record;
    v_held tid[];
    v_released bigint;
begin
    select s.topic_key, s.subscription_key, coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null as per_consumer
    into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    select l.places into v_held
    from pubsub.lock_leases(
        v_subscription.topic_key, v_subscription.subscription_key, p_message_ids,
        -- no lease has number -1
        coalesce(array_replace(p_leases, null, -1),
            array_fill(-1::bigint, array[coalesce(cardinality(p_message_ids), 0)]))
    ) l;
    if v_held is null then
        return 0;
    end if;
    with held as materialized (
        select d.ctid as place, d.visible_at, d.consumer_id
        from pubsub_data.deliveries d
        where d.ctid = any(v_held)
    ), released as (
        update pubsub_data.deliveries d
        set visible_at = v_now, attempts = d.attempts - 1, lease = null, leased_at = null,
            consumer_id = null
        from held h
        where d.ctid = h.place
        returning d.message_id, h.visible_at as deadline, h.consumer_id
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select v_subscription.topic_key, v_subscription.subscription_key, v_now,
            array_agg(r.message_id)
        from released r
    ), counted as (
        insert into pubsub_data.counters (topic_key, subscription_key, due_at, consumer_id, leased)
        select v_subscription.topic_key, v_subscription.subscription_key, c.due_at, c.consumer_id,
            -count(*)
        from (
            select pubsub.counter_time(r.deadline) as due_at,
                case when v_subscription.per_consumer then r.consumer_id end as consumer_id
            from released r
        ) c
        group by c.due_at, c.consumer_id
    )
    select count(*) into v_released from released;
    return v_released;
end
$$;

comment on function pubsub.release_messages is
    'Undo leases that nobody saw: available at once, the attempt not counted; returns how many.';
