/*
 * Settling: ack ends a delivery, nack gives it back for a retry after its backoff, or to the dead
 * letters when its attempts are spent.
 *
 * Both take message ids and, optionally, the lease numbers of consume_messages. With a lease number
 * only that very delivery is settled: after the message was delivered again, the old number fits
 * nothing. Without one, whoever holds the message now is settled.
 */

/*
 * backoff_seconds — the wait before retry n (n = attempts so far): min(max, min * 2^(n-1)).
 */
create function pubsub.backoff_seconds(p_attempts int, p_min_seconds int, p_max_seconds int)
returns float8
language sql immutable parallel safe
as $$
    -- 2^31 exceeds every p_max_seconds
    select least(p_max_seconds, p_min_seconds * power(2, least(greatest(p_attempts, 1) - 1, 31)))
$$;

comment on function pubsub.backoff_seconds is
    'Seconds to wait before the next delivery of a message that was delivered p_attempts times.';

/*
 * lock_leases — lock the deliveries that ids, and leases where given, name.
 *
 * Out      places: the ctid of each, certain from the next statement on, until this transaction ends;
 *          attempts and deadlines (visible_at) of each. Null when there is none
 * Errors   PS422 (leases) not one per id
 * Locks    the deliveries, in id order
 */
create function pubsub.lock_leases(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    out places tid[], out attempts int[], out deadlines timestamptz[]
)
language plpgsql volatile
as $$
begin
    -- unnest would pad with null, which stands for any lease
    if cardinality(p_leases) <> cardinality(p_message_ids) then
        perform pubsub.fail_validation('leases', 'leases must have one element per message id');
    end if;
    select array_agg(h.place), array_agg(h.attempts), array_agg(h.visible_at)
    into lock_leases.places, lock_leases.attempts, lock_leases.deadlines
    from (
        -- a message may be named twice, by its lease and without
        select distinct d.place, d.attempts, d.visible_at
        from (
            select x.message_id, x.lease
            from unnest(p_message_ids, p_leases) as x (message_id, lease)
            order by x.message_id
        ) w
        cross join lateral (
            select x.ctid as place, x.attempts, x.visible_at
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = w.message_id
                and x.lease is not null
                and (w.lease is null or w.lease = x.lease)
            limit 1
            for update
        ) d
    ) h;
end
$$;

comment on function pubsub.lock_leases is
    'Lock the leased deliveries that ids, and leases where given, name.';

/*
 * ack_deliveries — ack_messages by keys.
 */
create function pubsub.ack_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[],
    p_leases bigint[] default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_held tid[];
    v_acked bigint;
begin
    select l.places into v_held
    from pubsub.lock_leases(p_topic_key, p_subscription_key, p_message_ids, p_leases) l;
    if v_held is null then
        return 0;
    end if;
    with acked as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(v_held)
        returning d.message_id, d.attempts, d.consumer_id, d.visible_at
    ), remembered as (
        insert into pubsub_data.acked (
            topic_key, subscription_key, acked_at, attempts, consumer_id, message_ids
        )
        select p_topic_key, p_subscription_key, v_now, a.attempts, a.consumer_id,
            array_agg(a.message_id)
        from acked a
        group by a.attempts, a.consumer_id
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, backlog, leased, acked
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(a.visible_at), -count(*),
            -count(*), count(*)
        from acked a
        group by pubsub.counter_time(a.visible_at)
    )
    select count(*) into v_acked from acked;
    return v_acked;
end
$$;

comment on function pubsub.ack_deliveries is
    'ack_messages by keys: the form that can be routed to the node of a topic.';

/*
 * ack_messages
 *
 * In       p_leases: null, or one element per id, where null stands for "any lease"
 * Out      how many were acked; ids that are unknown, not leased or of a stale lease are not
 * Errors   PS404 · PS422 (leases) not one per id
 * Locks    the deliveries, in id order
 */
create function pubsub.ack_messages(
    p_subscription_id text, p_message_ids uuid[], p_leases bigint[] default null
)
returns bigint
language plpgsql volatile
as $$
declare
    v_keys record;
begin
    v_keys := pubsub.subscription_keys(p_subscription_id);
    return pubsub.ack_deliveries(
        v_keys.topic_key, v_keys.subscription_key, p_message_ids, p_leases);
end
$$;

comment on function pubsub.ack_messages is
    'Settle leased messages for good; returns how many were. Fenced by lease where one is given.';

/*
 * nack_deliveries — nack_messages by keys.
 */
create function pubsub.nack_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_max_attempts int, p_backoff_min_seconds int, p_backoff_max_seconds int
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_held record;
    v_retry tid[];
    v_spent tid[];
    v_nacked bigint;
begin
    select l.places, l.attempts, l.deadlines into v_held
    from pubsub.lock_leases(p_topic_key, p_subscription_key, p_message_ids, p_leases) l;
    select array_agg(l.place) filter (where l.attempts < p_max_attempts),
        array_agg(l.place) filter (where l.attempts >= p_max_attempts)
    into v_retry, v_spent
    from unnest(v_held.places, v_held.attempts) as l (place, attempts);

    with nacked as (
        update pubsub_data.deliveries d
        set visible_at = v_now + make_interval(secs => pubsub.backoff_seconds(
                d.attempts, p_backoff_min_seconds, p_backoff_max_seconds)),
            lease = null, leased_at = null, consumer_id = null
        where d.ctid = any(v_retry)
        returning d.message_id, d.visible_at
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, n.visible_at, array_agg(n.message_id)
        from nacked n
        group by n.visible_at
    ), counted as (
        insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased, waiting)
        select p_topic_key, p_subscription_key, pubsub.counter_time(c.due_at), sum(c.leased),
            sum(c.waiting)
        from (
            select n.visible_at as due_at, 0 as leased, 1 as waiting from nacked n
            union all
            select l.deadline, -1, 0
            from unnest(v_held.attempts, v_held.deadlines) as l (attempts, deadline)
            where l.attempts < p_max_attempts
        ) c
        group by pubsub.counter_time(c.due_at)
    )
    select count(*) into v_nacked from nacked;

    if v_spent is not null then
        v_nacked := v_nacked + pubsub.dead_letter_deliveries(
            p_topic_key, p_subscription_key, v_spent, 'attempts');
    end if;
    return v_nacked;
end
$$;

comment on function pubsub.nack_deliveries is
    'nack_messages by keys: the form that can be routed to the node of a topic.';

/*
 * nack_messages
 *
 * In       p_leases: null, or one element per id, where null stands for "any lease"
 * Out      how many were nacked, those that went to the dead letters included
 * Errors   PS404 · PS422 (leases) not one per id
 * Locks    the deliveries, in id order
 */
create function pubsub.nack_messages(
    p_subscription_id text, p_message_ids uuid[], p_leases bigint[] default null
)
returns bigint
language plpgsql volatile
as $$
declare
    v_subscription record;
begin
    select s.* into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    return pubsub.nack_deliveries(
        v_subscription.topic_key, v_subscription.subscription_key, p_message_ids, p_leases,
        v_subscription.max_delivery_attempts, v_subscription.backoff_min_seconds,
        v_subscription.backoff_max_seconds);
end
$$;

comment on function pubsub.nack_messages is
    'Give leased messages back: a retry after the backoff, or the dead letters when spent.';

/*
 * extend_messages — move the ack deadline of live leases to p_seconds from now.
 *
 * Out      how many were extended; a lease whose deadline has passed is not
 * Errors   PS404 · PS422 (seconds 1 to 43200)
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
    v_until constant timestamptz := v_now + make_interval(secs => p_seconds);
    v_keys record;
    v_held tid[];
    v_deadlines timestamptz[];
    v_extended uuid[];
begin
    if p_seconds is null or p_seconds not between 1 and 43200 then
        perform pubsub.fail_validation('seconds', 'seconds must be 1 to 43200');
    end if;
    v_keys := pubsub.subscription_keys(p_subscription_id);
    -- unlike ack and nack, this needs the lease and a deadline that has not passed
    select array_agg(l.place), array_agg(l.deadline) into v_held, v_deadlines
    from pubsub.lock_leases(
        v_keys.topic_key, v_keys.subscription_key, p_message_ids,
        array(select coalesce(w.lease, 0) from unnest(p_message_ids, p_leases) as w (id, lease))
    ) h
    cross join unnest(h.places, h.deadlines) as l (place, deadline)
    where l.deadline > v_now;
    if v_held is null then
        return 0;
    end if;
    with extended as (
        update pubsub_data.deliveries d
        -- leased anew: cleanup_stuck_messages goes by the age of a lease
        set visible_at = v_until, leased_at = v_now
        where d.ctid = any(v_held)
        returning d.message_id
    )
    select array_agg(e.message_id) into v_extended from extended e;
    -- a deadline that moved nearer would be missed by the wake-up of the claim
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_keys.topic_key, v_keys.subscription_key, v_until, v_extended);
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased)
    select v_keys.topic_key, v_keys.subscription_key, pubsub.counter_time(c.due_at), sum(c.leased)
    from (
        select v_until as due_at, 1 as leased from unnest(v_extended)
        union all
        select l.deadline, -1 from unnest(v_deadlines) as l (deadline)
    ) c
    group by pubsub.counter_time(c.due_at);
    return cardinality(v_extended);
end
$$;

comment on function pubsub.extend_messages is
    'Move the ack deadline of live leases to p_seconds from now; returns how many were.';
