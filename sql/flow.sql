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
 * counts_by_consumer — whether the counters of a subscription tell apart who holds its leases.
 *
 * Out      null when there is no such subscription
 */
create function pubsub.counts_by_consumer(p_topic_key bigint, p_subscription_key bigint)
returns boolean
language sql stable parallel safe
as $$
    select s.max_in_flight_per_consumer is not null
    from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
$$;

comment on function pubsub.counts_by_consumer is
    'Whether leased counters of a subscription carry the consumer.';

/*
 * claim_allowances — how much of what consumers want the limits of a subscription let them have now.
 *
 * In       p_batch_sizes: what each wants; limits that are null do not apply
 * Out      one element per consumer, from 0 to what it wants: one after the other gets all it may have
 * Locks    the subscription's limits, until the transaction ends. Needs read committed: an older
 *          snapshot would not show what the claim before took
 */
create function pubsub.claim_allowances(
    p_topic_key bigint, p_subscription_key bigint, p_consumer_ids text[], p_batch_sizes int[],
    p_max_in_flight int, p_max_in_flight_per_consumer int, p_max_rate int
)
returns int[]
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    -- "fpsf" in bytes: the limits among the advisory locks of a database
    c_lock_class constant int := 1718645606;
    v_now timestamptz;
    v_left bigint := 9223372036854775807;
begin
    perform pg_advisory_xact_lock(c_lock_class, (p_subscription_key % 2147483648)::int);
    v_now := clock_timestamp();
    if p_max_in_flight is not null then
        select p_max_in_flight - coalesce(sum(c.leased), 0) into v_left
        from pubsub_data.counters c
        where c.topic_key = p_topic_key
            and c.subscription_key = p_subscription_key
            and c.due_at > v_now - interval '100 ms';
    end if;
    if p_max_rate is not null then
        select least(v_left, p_max_rate - coalesce(sum(h.messages), 0)) into v_left
        from pubsub_data.handed_out h
        where h.topic_key = p_topic_key
            and h.subscription_key = p_subscription_key
            and h.handed_out_at > v_now - interval '1 second'
            -- a clock that was set back must not stop the subscription
            and h.handed_out_at < v_now + interval '1 second';
    end if;
    -- what a consumer may have is what all before it and it may, less what all before it may
    return (
        with held as (
            select c.consumer_id, sum(c.leased) as messages
            from pubsub_data.counters c
            where p_max_in_flight_per_consumer is not null
                and c.topic_key = p_topic_key
                and c.subscription_key = p_subscription_key
                and c.due_at > v_now - interval '100 ms'
                and c.consumer_id = any(p_consumer_ids)
            group by c.consumer_id
        ), wanted as (
            select w.position, w.batch_size,
                sum(w.batch_size) over (
                    partition by w.consumer_id order by w.position
                ) as upto,
                p_max_in_flight_per_consumer - coalesce(h.messages, 0) as consumer_left
            from unnest(p_consumer_ids, p_batch_sizes)
                with ordinality as w (consumer_id, batch_size, position)
            left join held h on h.consumer_id = w.consumer_id
        ), fitting as (
            select w.position,
                greatest(0, least(w.batch_size, w.consumer_left - w.upto + w.batch_size))
                    as messages
            from wanted w
        ), cut as (
            select f.position, f.messages, sum(f.messages) over (order by f.position) as upto
            from fitting f
        )
        select array_agg(
            greatest(0, least(c.messages, v_left - c.upto + c.messages))::int order by c.position)
        from cut c
    );
end
$$;

comment on function pubsub.claim_allowances is
    'How much of what consumers want the limits of a subscription let them have now.';

/*
 * claim_within_limits — claim_deliveries in a subscription with limits.
 *
 * In       p_batch_sizes: what each consumer wants, of which it gets what the limits leave
 * Out      as claim_deliveries
 * Locks    the subscription's limits, until the transaction ends
 */
create function pubsub.claim_within_limits(
    p_topic_key bigint, p_subscription_key bigint, p_floor uuid, p_consumer_ids text[],
    p_batch_sizes int[], p_ack_deadline_seconds int, p_max_attempts int, p_head uuid, p_mode text,
    p_rewinds int, p_rewound_to uuid, p_max_in_flight int, p_max_in_flight_per_consumer int,
    p_max_rate int
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid
)
language plpgsql volatile rows 10
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_positions int[];
    v_consumer_ids text[];
    v_allowances int[];
    v_messages bigint;
begin
    -- those that may have nothing now are left out
    select array_agg(a.position::int order by a.position),
        array_agg(p_consumer_ids[a.position] order by a.position),
        array_agg(a.messages order by a.position)
    into v_positions, v_consumer_ids, v_allowances
    from unnest(pubsub.claim_allowances(
        p_topic_key, p_subscription_key, p_consumer_ids, p_batch_sizes, p_max_in_flight,
        p_max_in_flight_per_consumer, p_max_rate
    )) with ordinality as a (messages, position)
    where a.messages > 0;
    if v_positions is null then
        return;
    end if;

    return query
        with claimed as materialized (
            select g.first - 1 + c.consumer as consumer, c.message_id, c.payload, c.attributes,
                c.ordering_key, c.priority, c.published_at, c.attempts, c.lease, c.ack_deadline,
                c.head
            from (
                select 1 as first, cardinality(v_positions) as last
                where p_mode in ('plain', 'priorities')
                union all
                -- what belongs together must not be dealt out to several
                select n, n from generate_series(1, cardinality(v_positions)) n
                where p_mode not in ('plain', 'priorities')
            ) g
            cross join lateral pubsub.claim_deliveries(
                p_topic_key, p_subscription_key, p_floor, v_consumer_ids[g.first:g.last],
                v_allowances[g.first:g.last], p_ack_deadline_seconds, p_max_attempts, p_head,
                p_mode, p_rewinds, p_rewound_to
            ) c
        ), held as (
            -- claim_deliveries counted them as nobody's
            insert into pubsub_data.counters (
                topic_key, subscription_key, due_at, consumer_id, leased
            )
            select p_topic_key, p_subscription_key, pubsub.counter_time(c.ack_deadline),
                h.consumer_id, sum(h.leased)
            from claimed c
            cross join lateral (
                values (v_consumer_ids[c.consumer], 1), (null, -1)
            ) as h (consumer_id, leased)
            where p_max_in_flight_per_consumer is not null
            group by pubsub.counter_time(c.ack_deadline), h.consumer_id
        )
        select v_positions[c.consumer], c.message_id, c.payload, c.attributes, c.ordering_key,
            c.priority, c.published_at, c.attempts, c.lease, c.ack_deadline, c.head
        from claimed c
        order by 1, c.message_id;
    get diagnostics v_messages = row_count;

    -- noted after the fact: a second counts from when the last of them was leased
    if v_messages > 0 and p_max_rate is not null then
        insert into pubsub_data.handed_out (
            topic_key, subscription_key, handed_out_at, messages
        )
        values (p_topic_key, p_subscription_key, clock_timestamp(), v_messages);
    end if;
end
$$;

comment on function pubsub.claim_within_limits is
    'claim_deliveries of as many messages as the limits of the subscription leave to the consumers.';

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
as $$
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
        where l.max_in_flight is not null or l.max_in_flight_per_consumer is not null
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
    left join limits l on true
$$;

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
            limit p_limit
            for update skip locked
        ))
        returning 1
    )
    select count(*) from old
$$;

comment on function pubsub.cleanup_handed_out is
    'Forget what was handed out longer ago than rate limits look back; returns how many rows.';
