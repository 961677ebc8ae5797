/*
 * Counters: the number of messages of a subscription by state. Each call appends what it changes to
 * pubsub_data.counters, under the time at which it ends; no row is ever updated, which would queue all
 * calls behind it. Sums of them cost the same at any backlog.
 *
 * Totals since ever are sums too. A row that does not say otherwise tells them by what it changes: a
 * backlog that grows is a publish, leases that begin are a claim. So whatever else makes messages
 * available or moves leases to another time writes published = 0 or delivered = 0. What was acked is acked + forgotten.
 */

/*
 * counter_time — the due_at of counters for a time, to 0.1 s.
 */
create function pubsub.counter_time(p_at timestamptz)
returns timestamptz
language sql immutable parallel safe
begin atomic
    select date_bin('100 milliseconds', p_at, '2000-01-01 00:00:00+00');
end;

comment on function pubsub.counter_time is
    'The time under which counters note what ends at a time: to 0.1 s, never later.';

/*
 * counts_by_consumer — whether the counters of a subscription tell apart who holds its leases: where
 * something limits what is in flight. Their leased rows then have a consumer_id and are in an index.
 *
 * Out      null when there is no such subscription
 */
create function pubsub.counts_by_consumer(p_topic_key bigint, p_subscription_key bigint)
returns boolean
language sql stable parallel safe
begin atomic
    select coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null
    from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;
end;

comment on function pubsub.counts_by_consumer is
    'Whether leased counters of a subscription carry the consumer.';

/*
 * fold_counters — replace the counters of subscriptions that have many by few.
 *
 * In       p_more_than: leave subscriptions with at most so many rows alone
 * Out      by how many rows there are fewer now
 */
create function pubsub.fold_counters(p_more_than int default 100)
returns bigint
language sql volatile
as $$
    with busy as (
        select c.topic_key, c.subscription_key
        from pubsub_data.counters c
        group by c.topic_key, c.subscription_key
        having count(*) > p_more_than
    ), old as (
        delete from pubsub_data.counters c
        using busy b
        where c.topic_key = b.topic_key and c.subscription_key = b.subscription_key
        returning c.*
    ), folded as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, waiting, acked, dlq,
            expired, published, delivered, forgotten, nacked, rejected, dead_lettered, redelivered,
            extended
        )
        select o.topic_key, o.subscription_key, part.due_at, part.consumer_id, sum(part.backlog),
            sum(part.leased), sum(part.waiting), sum(part.acked), sum(part.dlq),
            sum(part.expired), sum(part.published), sum(part.delivered), sum(part.forgotten),
            sum(part.nacked), sum(part.rejected), sum(part.dead_lettered), sum(part.redelivered),
            sum(part.extended)
        from old o
        cross join lateral (
            -- what does not depend on time, and what ends later
            values
                ('-infinity'::timestamptz, null, o.backlog, 0, 0, o.acked, o.dlq, o.expired,
                    coalesce(o.published, greatest(o.backlog, 0)),
                    coalesce(o.delivered, greatest(o.leased, 0)), o.forgotten, o.nacked, o.rejected,
                    o.dead_lettered, o.redelivered, o.extended),
                (nullif(o.due_at, '-infinity'), o.consumer_id, 0, o.leased, o.waiting, 0, 0, 0,
                    0, 0, null, null, null, null, null, null)
        ) as part (due_at, consumer_id, backlog, leased, waiting, acked, dlq, expired, published,
            delivered, forgotten, nacked, rejected, dead_lettered, redelivered, extended)
        where part.due_at = '-infinity'
            -- leases count for max_in_flight a little longer (flow.sql)
            or part.due_at > clock_timestamp() - interval '1 second'
        group by o.topic_key, o.subscription_key, part.due_at, part.consumer_id
        having sum(part.leased) <> 0 or sum(part.waiting) <> 0 or part.due_at = '-infinity'
        returning 1
    )
    select (select count(*) from old) - (select count(*) from folded)
$$;

comment on function pubsub.fold_counters is
    'Replace counters by their sums; returns by how many rows there are fewer now.';

/*
 * recount_messages — make the counters of a subscription agree with its messages.
 *
 * Out      how many messages the counts of its states were off by, in sum
 * Errors   PS404
 * Effects  nothing when they agree, as they do unless someone wrote to the tables by hand. Reads every
 *          message of the subscription. Expired messages are gone: their count is taken as it is, and so
 *          are all totals
 */
create function pubsub.recount_messages(p_subscription_id text)
returns bigint
language plpgsql volatile
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription_id);
    v_now constant timestamptz := clock_timestamp();
    v_by_consumer constant boolean :=
        pubsub.counts_by_consumer(v_keys.topic_key, v_keys.subscription_key);
    v_off bigint;
begin
    -- one statement: what it counts and what it compares with are of one moment
    with found as (
        select '-infinity'::timestamptz as due_at, null as consumer_id, count(*) as backlog,
            0 as leased, 0 as waiting, 0 as acked, 0 as dlq
        from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
        union all
        select pubsub.counter_time(d.visible_at),
            case when v_by_consumer and d.lease is not null then d.consumer_id end, 0,
            count(d.lease), count(*) filter (where d.lease is null), 0, 0
        from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
            and d.visible_at > v_now
        group by 1, 2
        union all
        select '-infinity', null, sum(cardinality(r.message_ids)), 0, 0, 0, 0
        from pubsub_data.runs r
        where r.topic_key = v_keys.topic_key and r.subscription_key = v_keys.subscription_key
        having count(*) > 0
        union all
        select pubsub.counter_time(r.ack_deadline), case when v_by_consumer then r.consumer_id end, 0,
            sum(cardinality(r.message_ids)), 0, 0, 0
        from pubsub_data.runs r
        where r.topic_key = v_keys.topic_key and r.subscription_key = v_keys.subscription_key
            and r.ack_deadline > v_now
        group by 1, 2
        union all
        select '-infinity', null, 0, 0, 0, sum(cardinality(a.message_ids)), 0
        from pubsub_data.acked a
        where a.topic_key = v_keys.topic_key and a.subscription_key = v_keys.subscription_key
        having count(*) > 0
        union all
        select '-infinity', null, 0, 0, 0, 0, count(*)
        from pubsub_data.dead_letters l
        where l.topic_key = v_keys.topic_key and l.subscription_key = v_keys.subscription_key
        union all
        select counted.*
        from pubsub_data.counters c
        cross join lateral (
            values
                ('-infinity'::timestamptz, null, -c.backlog, 0, 0, -c.acked, -c.dlq),
                -- what was due at once never waited
                (nullif(c.due_at, '-infinity'), c.consumer_id, 0, -c.leased, -c.waiting, 0, 0)
        ) as counted (due_at, consumer_id, backlog, leased, waiting, acked, dlq)
        where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    ), difference as (
        select f.due_at, f.consumer_id, sum(f.backlog) as backlog, sum(f.leased) as leased,
            sum(f.waiting) as waiting, sum(f.acked) as acked, sum(f.dlq) as dlq
        from found f
        -- what has ended, or never began, is not counted
        where f.due_at = '-infinity' or f.due_at > v_now
        group by f.due_at, f.consumer_id
    ), corrected as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, waiting, acked, dlq,
            published, delivered, forgotten
        )
        select v_keys.topic_key, v_keys.subscription_key, d.due_at, d.consumer_id, d.backlog,
            d.leased, d.waiting, d.acked, d.dlq, 0, 0, -d.acked
        from difference d
        where (d.backlog, d.leased, d.waiting, d.acked, d.dlq) <> (0, 0, 0, 0, 0)
        returning abs(backlog) + abs(leased) + abs(waiting) + abs(acked) + abs(dlq) as off
    )
    select coalesce(sum(c.off), 0) into v_off from corrected c;
    return v_off;
end
$$;

comment on function pubsub.recount_messages is
    'Make the counts of a subscription agree with its messages; returns how far they were off.';
