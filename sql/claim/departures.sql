/*
 * Deliveries that leave what may be claimed: dropped or parked. What waited behind them in their lanes
 * is looked at.
 */

/*
 * wake_next — deliveries have left: have the next of their ordering keys looked at.
 *
 * In       p_lanes: one element per id, null for a message without a key; the rows are gone already
 * Effects  a wake-up, due now, for the first delivery of each key above the lowest id given, unless it is
 *          in flight or waits, and so has one; none where the subscription does not order
 */
create function pubsub.wake_next(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_lanes text[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if not exists (
        select from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key
            and s.subscription_key = p_subscription_key
            and s.enable_ordering
    ) then
        return;
    end if;
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select p_topic_key, p_subscription_key, clock_timestamp(), array_agg(next.message_id)
    from (
        select distinct on (l.lane) l.lane, l.message_id
        from unnest(p_message_ids, p_lanes) as l (message_id, lane)
        where l.lane is not null
        order by l.lane, l.message_id
    ) gone
    cross join lateral (
        select d.message_id, d.visible_at
        from pubsub_data.deliveries d
        where d.topic_key = p_topic_key
            and d.subscription_key = p_subscription_key
            and d.lane = gone.lane
            and d.message_id > gone.message_id
        order by d.message_id
        limit 1
    ) next
    where next.visible_at <= clock_timestamp()
    having count(*) > 0;
end
$$;

comment on function pubsub.wake_next is
    'Have the next messages of ordering keys looked at, now that deliveries of theirs have left.';

/*
 * drop_deliveries — delete deliveries, with their counts; what waited behind them is looked at.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 */
create function pubsub.drop_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_subscription record;
    v_message_ids uuid[];
    v_lanes text[];
begin
    select s.enable_ordering, pubsub.counts_by_consumer(s.topic_key, s.subscription_key) as by_consumer
    into v_subscription
    from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;

    with dropped as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(p_places)
        returning d.message_id, d.visible_at, d.lease, d.lane,
            case when v_subscription.by_consumer and d.lease is not null then d.consumer_id end
                as counted_for
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, waiting
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(d.visible_at), d.counted_for,
            -count(*), -count(d.lease),
            -count(*) filter (where d.lease is null and d.visible_at > '-infinity')
        from dropped d
        group by pubsub.counter_time(d.visible_at), d.counted_for
    )
    select array_agg(d.message_id order by d.message_id), array_agg(d.lane order by d.message_id)
    into v_message_ids, v_lanes
    from dropped d
    where d.lane is not null;

    if v_subscription.enable_ordering and v_message_ids is not null then
        perform pubsub.wake_next(p_topic_key, p_subscription_key, v_message_ids, v_lanes);
    end if;
end
$$;

comment on function pubsub.drop_deliveries is
    'Delete deliveries, with their counts; what waited behind them in their lanes is woken.';

/*
 * park_deliveries — keep deliveries from everybody until an operator acts. They do not expire.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 */
create function pubsub.park_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_by_consumer constant boolean :=
        pubsub.counts_by_consumer(p_topic_key, p_subscription_key);
begin
    -- one snapshot: what is counted is what they were before
    with held as (
        select d.*
        from unnest(p_places) as p (place)
        cross join lateral (
            select x.visible_at, x.lease,
                case when v_by_consumer and x.lease is not null then x.consumer_id end
                    as counted_for
            from pubsub_data.deliveries x
            where x.ctid = p.place
            limit 1
        ) d
    ), parked as (
        update pubsub_data.deliveries d
        set visible_at = 'infinity', lease = null, leased_at = null, consumer_id = null,
            extended_at = null, expires_at = null
        where d.ctid = any(p_places)
    )
    insert into pubsub_data.counters (
        topic_key, subscription_key, due_at, consumer_id, leased, waiting
    )
    select p_topic_key, p_subscription_key, pubsub.counter_time(h.visible_at), h.counted_for,
        -count(h.lease), -count(*) filter (where h.lease is null and h.visible_at > '-infinity')
    from held h
    group by pubsub.counter_time(h.visible_at), h.counted_for
    union all
    select p_topic_key, p_subscription_key, 'infinity', null, 0, cardinality(p_places);
end
$$;

comment on function pubsub.park_deliveries is
    'Keep deliveries from every consumer until an operator acts.';
