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
begin atomic
    -- 2^31 exceeds every p_max_seconds
    select least(p_max_seconds, p_min_seconds * power(2, least(greatest(p_attempts, 1) - 1, 31)));
end;

comment on function pubsub.backoff_seconds is
    'Seconds to wait before the next delivery of a message that was delivered p_attempts times.';

/*
 * lock_leases — lock the deliveries that ids, and leases where given, name.
 *
 * In       p_are_single: none of them is in a run
 * Out      places: the ctid of each, certain from the next statement on, until this transaction ends;
 *          attempts and deadlines (visible_at) of each. Null when there is none
 * Errors   PS422 (leases) not one per id
 * Locks    the runs that hold any of them, then the deliveries, each in id order
 * Effects  breaks these runs up
 */
create function pubsub.lock_leases(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_are_single boolean default false,
    out places tid[], out attempts int[], out deadlines timestamptz[]
)
language plpgsql volatile
as $$
begin
    -- unnest would pad with null, which stands for any lease
    if cardinality(p_leases) <> cardinality(p_message_ids) then
        perform pubsub.fail_validation('leases', 'leases must have one element per message id');
    end if;
    if not p_are_single and pubsub.may_be_of_runs(p_leases) then
        perform pubsub.single_out(p_topic_key, p_subscription_key, p_message_ids);
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
 * ack_held — ack deliveries that the caller has locked in an earlier statement.
 *
 * In       p_places: their ctids; p_enable_ordering, p_per_consumer: as in ack_deliveries
 * Out      how many there were
 */
create function pubsub.ack_held(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_enable_ordering boolean,
    p_per_consumer boolean
)
returns bigint
language plpgsql volatile
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_acked bigint;
    v_ids uuid[];
    v_lanes text[];
begin
    if p_enable_ordering then
        select array_agg(d.message_id), array_agg(d.lane) into v_ids, v_lanes
        from pubsub_data.deliveries d
        -- nothing but the place: with a condition on lane the planner may read the whole index of lanes
        where d.ctid = any(p_places);
    end if;
    with acked as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(p_places)
        returning d.message_id, d.attempts, d.consumer_id, d.visible_at, d.leased_at
    ), remembered as (
        insert into pubsub_data.acked (
            topic_key, subscription_key, acked_at, delivered_at, attempts, consumer_id, message_ids
        )
        select p_topic_key, p_subscription_key, v_now, a.leased_at, a.attempts, a.consumer_id,
            array_agg(a.message_id)
        from acked a
        group by a.leased_at, a.attempts, a.consumer_id
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, acked
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(a.visible_at),
            case when p_per_consumer then a.consumer_id end, -count(*), -count(*), count(*)
        from acked a
        group by pubsub.counter_time(a.visible_at), case when p_per_consumer then a.consumer_id end
    )
    select count(*) into v_acked from acked;
    if array_remove(v_lanes, null) <> '{}' then
        perform pubsub.wake_next(p_topic_key, p_subscription_key, v_ids, v_lanes);
    end if;
    return v_acked;
end
$$;

comment on function pubsub.ack_held is 'Ack deliveries that are locked; returns how many.';

/*
 * ack_deliveries — ack_messages by keys.
 *
 * In       p_enable_ordering and p_per_consumer: whether the subscription orders, and whether it limits
 *          what a consumer may hold
 */
create function pubsub.ack_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[],
    p_leases bigint[] default null, p_enable_ordering boolean default false,
    p_per_consumer boolean default false
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_one record;
    v_held tid[];
    v_rest int[];
    v_acked int := 0;
begin
    if p_message_ids = array[p_message_ids[1]]
        and (p_leases is null or p_leases = array[p_leases[1]])
    then
        -- what follows for more, without arrays: they would cost an ack of one as much as its writes
        delete from pubsub_data.deliveries d
        where d.topic_key = p_topic_key
            and d.subscription_key = p_subscription_key
            and d.message_id = p_message_ids[1]
            and d.lease is not null
            and (p_leases[1] is null or d.lease = p_leases[1])
        returning d.attempts, d.consumer_id, d.visible_at, d.leased_at, d.lane into v_one;
        if found then
            insert into pubsub_data.acked (
                topic_key, subscription_key, acked_at, delivered_at, attempts, consumer_id, message_ids
            )
            values (p_topic_key, p_subscription_key, v_now, v_one.leased_at, v_one.attempts,
                v_one.consumer_id, p_message_ids);
            insert into pubsub_data.counters (
                topic_key, subscription_key, due_at, consumer_id, backlog, leased, acked
            )
            values (p_topic_key, p_subscription_key, pubsub.counter_time(v_one.visible_at),
                case when p_per_consumer then v_one.consumer_id end, -1, -1, 1);
            if p_enable_ordering and v_one.lane is not null then
                perform pubsub.wake_next(
                    p_topic_key, p_subscription_key, p_message_ids, array[v_one.lane]);
            end if;
            return 1;
        elsif not pubsub.may_be_of_runs(p_leases) then
            return 0;
        end if;
    end if;
    if p_leases is null
        or cardinality(p_leases) = cardinality(p_message_ids) and pubsub.may_be_of_runs(p_leases)
    then
        v_rest := pubsub.ack_runs(
            p_topic_key, p_subscription_key, p_message_ids, p_leases, p_per_consumer);
        v_acked := coalesce(cardinality(p_message_ids), 0) - cardinality(v_rest);
        if v_rest = '{}' then
            return v_acked;
        end if;
        if v_acked > 0 then
            select array_agg(i.id), case when p_leases is not null then array_agg(i.lease) end
            into p_message_ids, p_leases
            from unnest(p_message_ids, p_leases) with ordinality as i (id, lease, position)
            join unnest(v_rest) as r (position) using (position);
        end if;
    end if;
    -- ack_runs has singled them out; to do it again would lock runs in another order
    select l.places into v_held
    from pubsub.lock_leases(p_topic_key, p_subscription_key, p_message_ids, p_leases, true) l;
    if v_held is null then
        return v_acked;
    end if;
    return v_acked + pubsub.ack_held(
        p_topic_key, p_subscription_key, v_held, p_enable_ordering, p_per_consumer);
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
    v_subscription record;
begin
    select s.topic_key, s.subscription_key, s.enable_ordering,
        coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null as per_consumer
    into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    return pubsub.ack_deliveries(
        v_subscription.topic_key, v_subscription.subscription_key, p_message_ids, p_leases,
        v_subscription.enable_ordering, v_subscription.per_consumer);
end
$$;

comment on function pubsub.ack_messages is
    'Settle leased messages for good; returns how many were. Fenced by lease where one is given.';

/*
 * retry_deliveries — end leases and let the messages return later.
 *
 * In       p_places: the ctids of the rows, which the caller has locked; per place p_seconds until it
 *          returns, null for the backoff, and p_reasons, what the consumer said. Each may be null as
 *          a whole
 * Out      how many will return
 * Effects  a failure per delivery
 */
create function pubsub.retry_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_seconds int[],
    p_reasons text[], p_backoff_min_seconds int, p_backoff_max_seconds int, p_per_consumer boolean
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_nacked bigint;
begin
    with held as materialized (
        select w.place, w.seconds, w.reason, d.visible_at, d.consumer_id, d.leased_at
        from unnest(p_places, p_seconds, p_reasons) as w (place, seconds, reason)
        join pubsub_data.deliveries d on d.ctid = w.place
    ), nacked as (
        update pubsub_data.deliveries d
        set visible_at = v_now + make_interval(secs => coalesce(h.seconds, pubsub.backoff_seconds(
                d.attempts, p_backoff_min_seconds, p_backoff_max_seconds))),
            lease = null, leased_at = null, consumer_id = null
        from held h
        where d.ctid = h.place
        returning d.message_id, d.visible_at, d.attempts, h.visible_at as deadline, h.consumer_id,
            h.leased_at, h.reason
    ), failed as (
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome, reason
        )
        select p_topic_key, p_subscription_key, n.message_id, n.attempts, n.consumer_id,
            n.leased_at, v_now, 'nacked', n.reason
        from nacked n
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, n.visible_at, array_agg(n.message_id)
        from nacked n
        group by n.visible_at
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, leased, waiting, nacked
        )
        select p_topic_key, p_subscription_key, c.due_at, c.consumer_id, sum(c.leased),
            sum(c.waiting), sum(c.waiting)
        from (
            select pubsub.counter_time(n.visible_at) as due_at, null as consumer_id, 0 as leased,
                1 as waiting
            from nacked n
            union all
            select pubsub.counter_time(n.deadline), case when p_per_consumer then n.consumer_id end,
                -1, 0
            from nacked n
        ) c
        group by c.due_at, c.consumer_id
    )
    select count(*) into v_nacked from nacked;
    return v_nacked;
end
$$;

comment on function pubsub.retry_deliveries is
    'End leases and let the messages return after a delay or their backoff; returns how many.';

/*
 * nack_deliveries — nack_messages by keys.
 */
create function pubsub.nack_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_max_attempts int, p_backoff_min_seconds int, p_backoff_max_seconds int,
    p_per_consumer boolean default false
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_retry tid[];
    v_spent tid[];
    v_nacked bigint := 0;
begin
    select array_agg(l.place) filter (where l.attempts < p_max_attempts),
        array_agg(l.place) filter (where l.attempts >= p_max_attempts)
    into v_retry, v_spent
    from pubsub.lock_leases(p_topic_key, p_subscription_key, p_message_ids, p_leases) h
    cross join unnest(h.places, h.attempts) as l (place, attempts);
    if v_retry is not null then
        v_nacked := pubsub.retry_deliveries(
            p_topic_key, p_subscription_key, v_retry, null, null, p_backoff_min_seconds,
            p_backoff_max_seconds, p_per_consumer);
    end if;
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
        v_subscription.backoff_max_seconds, coalesce(
            v_subscription.max_in_flight, v_subscription.max_in_flight_per_consumer) is not null);
end
$$;

comment on function pubsub.nack_messages is
    'Give leased messages back: a retry after the backoff, or the dead letters when spent.';
