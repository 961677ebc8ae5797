/*
 * Flow control: how many messages of a subscription may be in flight, in all and per consumer, and how
 * many are handed out in a second.
 *
 * Claims of a subscription with a limit queue on an advisory lock until their transaction ends, so
 * that each counts what those before it took: a limit is never exceeded. A claim in a long transaction
 * of one's own holds the others up. Subscriptions without a limit take no lock.
 *
 * What is in flight is read off the counters, where a lease counts up to 0.1 s longer than it lasts.
 * A message that is redelivered counts against max_rate again.
 */

/*
 * fold_held — fold_counters for one subscription whose counters tell consumers apart.
 *
 * Out      by how many rows there are fewer now
 * Locks    the rows, of which it skips those that another fold holds
 */
create function pubsub.fold_held(p_topic_key bigint, p_subscription_key bigint)
returns bigint
language sql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
    with many as materialized (
        select c.ctid as place
        from pubsub_data.counters c
        where c.topic_key = p_topic_key
            and c.subscription_key = p_subscription_key
            and c.due_at > clock_timestamp() - interval '1 second'
            and c.consumer_id is not null
        for update skip locked
    ), old as (
        delete from pubsub_data.counters c
        where c.ctid = any(array(select m.place from many m))
        returning c.*
    ), folded as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, waiting, acked, dlq,
            expired, published, delivered, forgotten, nacked, rejected, dead_lettered, redelivered,
            extended
        )
        select p_topic_key, p_subscription_key, part.due_at, part.consumer_id, sum(part.backlog),
            sum(part.leased), sum(part.waiting), sum(part.acked), sum(part.dlq),
            sum(part.expired), sum(part.published), sum(part.delivered), sum(part.forgotten),
            sum(part.nacked), sum(part.rejected), sum(part.dead_lettered), sum(part.redelivered),
            sum(part.extended)
        from old o
        cross join lateral (
            values
                ('-infinity'::timestamptz, null, o.backlog, 0, 0, o.acked, o.dlq, o.expired,
                    coalesce(o.published, greatest(o.backlog, 0)),
                    coalesce(o.delivered, greatest(o.leased, 0)), o.forgotten, o.nacked, o.rejected,
                    o.dead_lettered, o.redelivered, o.extended),
                (o.due_at, o.consumer_id, 0, o.leased, o.waiting, 0, 0, 0,
                    0, 0, null, null, null, null, null, null)
        ) as part (due_at, consumer_id, backlog, leased, waiting, acked, dlq, expired, published,
            delivered, forgotten, nacked, rejected, dead_lettered, redelivered, extended)
        group by part.due_at, part.consumer_id
        having sum(part.leased) <> 0 or sum(part.waiting) <> 0 or part.due_at = '-infinity'
        returning 1
    )
    select (select count(*) from old) - (select count(*) from folded)
$$;

comment on function pubsub.fold_held is
    'Replace the counters of who holds what in a subscription by their sums.';

/*
 * claim_allowances — how much of what consumers want the limits of a subscription let them have now.
 *
 * In       p_batch_sizes: what each wants
 * Out      one element per consumer, from 0 to what it wants: one after the other gets all it may have
 * Locks    the subscription's limits, until the transaction ends. Needs read committed: an older
 *          snapshot would not show what the claim before took
 */
create function pubsub.claim_allowances(
    p_topic_key bigint, p_subscription_key bigint, p_consumer_ids text[], p_batch_sizes int[]
)
returns int[]
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    -- "fpsf" in bytes: the limits among the advisory locks of a database
    c_lock_class constant int := 1718645606;
    v_now timestamptz;
    v_limits record;
    v_allowances int[];
    v_counters bigint;
begin
    perform pg_advisory_xact_lock(c_lock_class, (p_subscription_key % 2147483648)::int);
    v_now := clock_timestamp();
    select s.max_in_flight, s.max_in_flight_per_consumer, s.max_rate into v_limits
    from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;
    -- what a consumer may have is what all before it and it may, less what all before it may
    with held as materialized (
        select c.consumer_id, sum(c.leased) as messages, count(*) as counters
        from pubsub_data.counters c
        where coalesce(v_limits.max_in_flight, v_limits.max_in_flight_per_consumer)
                is not null
            and c.topic_key = p_topic_key
            and c.subscription_key = p_subscription_key
            -- under the time of its deadline, cut to 0.1 s
            and c.due_at > v_now - interval '100 ms'
            and c.consumer_id is not null
        group by c.consumer_id
    ), room as (
        select least(
            v_limits.max_in_flight - (select coalesce(sum(h.messages), 0) from held h),
            v_limits.max_rate - (
                select coalesce(sum(o.messages), 0)
                from pubsub_data.handed_out o
                where v_limits.max_rate is not null
                    and o.topic_key = p_topic_key
                    and o.subscription_key = p_subscription_key
                    and o.handed_out_at > v_now - interval '1 second'
                    -- a clock that was set back must not stop the subscription
                    and o.handed_out_at < v_now + interval '1 second'
            )
        ) as messages
    ), wanted as (
        select w.position, w.batch_size,
            sum(w.batch_size) over (partition by w.consumer_id order by w.position) as upto,
            v_limits.max_in_flight_per_consumer - coalesce(h.messages, 0) as room
        from unnest(p_consumer_ids, p_batch_sizes)
            with ordinality as w (consumer_id, batch_size, position)
        left join held h on h.consumer_id = w.consumer_id
    ), own as (
        -- least and greatest ignore nulls: limits that do not apply
        select w.position, greatest(0, least(w.batch_size, w.room - w.upto + w.batch_size))
            as messages
        from wanted w
    ), added as (
        select o.position, o.messages, sum(o.messages) over (order by o.position) as upto
        from own o
    )
    select array_agg(greatest(0, least(a.messages, r.messages - a.upto + a.messages))::int
            order by a.position),
        (select sum(h.counters) from held h)
    into v_allowances, v_counters
    from added a
    cross join room r;
    -- now and then, so that few are read each time
    if v_counters > 100 and random() < 0.02 then
        perform pubsub.fold_held(p_topic_key, p_subscription_key);
    end if;
    return v_allowances;
end
$$;

comment on function pubsub.claim_allowances is
    'How much of what consumers want the limits of a subscription let them have now.';

/*
 * next_allowance_at — when a claim may be handed something again.
 *
 * In       p_consumer_id: of this consumer; null: of any
 * Out      -infinity when the limits leave something now; else the time at which they do by
 *          themselves: the second is over, or the next lease ends. Acks and nacks may be faster
 * Effects  none, and no lock: an answer may be outdated when it arrives, which costs an empty claim
 */
create function pubsub.next_allowance_at(
    p_topic_key bigint, p_subscription_key bigint, p_consumer_id text default null
)
returns timestamptz
language sql stable parallel safe
begin atomic
    with limits as (
        select s.max_in_flight, s.max_in_flight_per_consumer, s.max_rate,
            clock_timestamp() as now
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
            and (s.max_in_flight is not null or s.max_in_flight_per_consumer is not null
                or s.max_rate is not null)
    ), counted as (
        select c.due_at, sum(c.leased) as leased,
            coalesce(sum(c.leased) filter (where c.consumer_id = p_consumer_id), 0) as own
        from limits l
        join pubsub_data.counters c
            on c.topic_key = p_topic_key
            and c.subscription_key = p_subscription_key
            and c.due_at > l.now - interval '100 ms'
            and c.consumer_id is not null
        where coalesce(l.max_in_flight, l.max_in_flight_per_consumer) is not null
        group by c.due_at
    ), handed as (
        -- how many were handed out from each time on
        select h.handed_out_at, sum(h.messages) over (order by h.handed_out_at desc) as since
        from limits l
        join pubsub_data.handed_out h
            on h.topic_key = p_topic_key
            and h.subscription_key = p_subscription_key
            and h.handed_out_at > l.now - interval '1 second'
            and h.handed_out_at < l.now + interval '1 second'
        where l.max_rate is not null
    )
    select coalesce(greatest(
        (
            select min(c.due_at) filter (where c.leased > 0) + interval '100 ms'
            from counted c
            having sum(c.leased) >= l.max_in_flight
        ),
        (
            select min(c.due_at) filter (where c.own > 0) + interval '100 ms'
            from counted c
            having sum(c.own) >= l.max_in_flight_per_consumer
        ),
        (
            select max(h.handed_out_at) + interval '1 second'
            from handed h
            where h.since >= l.max_rate
        )
    ), '-infinity')
    from (select 1) one
    left join limits l on true;
end;

comment on function pubsub.next_allowance_at is
    'When the limits of a subscription let a claim have something again; -infinity: now.';

/*
 * cleanup_handed_out — forget what was handed out longer ago than the rate limits look back.
 *
 * Out      how many rows were removed: at most p_limit, so call again until it is 0
 */
create function pubsub.cleanup_handed_out(p_limit int default 10000)
returns bigint
language sql volatile
as $$
    with old as (
        delete from pubsub_data.handed_out h
        where h.ctid = any(array(
            select x.ctid from pubsub_data.handed_out x
            where x.handed_out_at < clock_timestamp() - interval '5 seconds'
                -- before the clock was set back
                or x.handed_out_at > clock_timestamp() + interval '5 seconds'
            limit p_limit
            for update skip locked
        ))
        returning 1
    )
    select count(*) from old
$$;

comment on function pubsub.cleanup_handed_out is
    'Forget what was handed out longer ago than rate limits look back; returns how many rows.';
