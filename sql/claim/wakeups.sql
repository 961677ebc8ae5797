/*
 * Wake-ups: "look at these messages again then". A claim processes those that are due, so expired
 * leases, ended backoffs and delays need no background job.
 */

/*
 * take_due — process the wake-ups of a subscription that are due.
 *
 * In       p_from: wake-ups due before it are left alone
 * Out      ready: the ctids of up to p_limit deliveries that may be leased, which are locked now, those
 *          of a lane in id order; lost: whether the consumer of any of them let its lease run out;
 *          last_due_at: the latest wake-up processed, null if none was
 * Locks    skips what others hold
 * Effects  spent deliveries go to the dead letters, expired ones leave, the rest gets a new wake-up
 */
create function pubsub.take_due(
    p_topic_key bigint, p_subscription_key bigint, p_from timestamptz, p_now timestamptz,
    p_limit int, p_max_attempts int,
    out ready tid[], out last_due_at timestamptz, out lost boolean
)
language plpgsql volatile
as $$
declare
    v_due uuid[];
    v_live uuid[];
    v_spent tid[];
    v_expired tid[];
    v_ready_ids uuid[];
begin
    with locked as materialized (
        select w.ctid, w.due_at, w.wakeup_number, w.message_ids
        from pubsub_data.wakeups w
        where w.topic_key = p_topic_key
            and w.subscription_key = p_subscription_key
            and w.due_at >= p_from
            and w.due_at <= p_now
        order by w.due_at, w.wakeup_number
        limit 32
        for update skip locked
    ), due as materialized (
        -- no more ids at once: what is more than the caller wants is locked and noted again
        select l.ctid, l.due_at, l.message_ids
        from (
            select x.*, sum(cardinality(x.message_ids)) over (order by x.due_at, x.wakeup_number)
                - cardinality(x.message_ids) as before
            from locked x
        ) l
        where l.before < greatest(2 * p_limit, 1000)
    ), processed as (
        delete from pubsub_data.wakeups w
        where w.ctid = any(array(select due.ctid from due))
    )
    select array_agg(i.id), max(due.due_at)
    into v_due, take_due.last_due_at
    from due, unnest(due.message_ids) as i (id);
    if v_due is null then
        return;
    end if;

    -- most are gone: acked before their deadline
    select array_agg(d.message_id) into v_live
    from unnest(v_due) as i (id)
    cross join lateral (
        select x.message_id
        from pubsub_data.deliveries x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.message_id = i.id
        limit 1
    ) d;
    if v_live is null then
        return;
    end if;

    with locked as materialized (
        select d.place, d.message_id, d.visible_at, d.lease is not null as lost,
            -- in order within its lane, though not before its time
            case when d.lane is null then d.visible_at
                else max(d.visible_at) over (partition by d.lane order by d.message_id)
            end as turn,
            case
                when d.visible_at > p_now then 'later'
                when d.expires_at <= p_now then 'expired'
                when d.attempts >= p_max_attempts then 'spent'
                else 'ready'
            end as fate
        from (select distinct live.id from unnest(v_live) as live (id) order by live.id) i
        cross join lateral (
            select x.ctid as place, x.message_id, x.visible_at, x.expires_at, x.attempts, x.lease,
                x.lane
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = i.id
            limit 1
            for update skip locked
        ) d
    ), again as (
        -- extended, leased again or not yet at its time; and, soon, what another transaction holds
        select l.visible_at as due_at, l.message_id from locked l
        -- what is parked comes back by hand only
        where l.fate = 'later' and l.visible_at < 'infinity'
        union all
        select p_now + interval '100 ms', i.id from unnest(v_live) as i (id)
        where i.id not in (select l.message_id from locked l)
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, a.due_at, array_agg(a.message_id)
        from again a
        group by a.due_at
    )
    select array_agg(l.place) filter (where l.fate = 'spent'),
        array_agg(l.place) filter (where l.fate = 'expired'),
        array_agg(l.place order by l.turn, l.message_id) filter (where l.fate = 'ready'),
        array_agg(l.message_id order by l.turn, l.message_id) filter (where l.fate = 'ready'),
        bool_or(l.lost) filter (where l.fate = 'ready')
    into v_spent, v_expired, take_due.ready, v_ready_ids, take_due.lost
    from locked l;

    if v_spent is not null then
        perform pubsub.dead_letter_deliveries(p_topic_key, p_subscription_key, v_spent, 'consumer_lost');
    end if;
    if v_expired is not null then
        perform pubsub.expire_deliveries(p_topic_key, p_subscription_key, v_expired);
    end if;
    -- more than the caller wants: the next claim's
    if cardinality(take_due.ready) > p_limit then
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        values (p_topic_key, p_subscription_key, p_now, v_ready_ids[p_limit + 1:]);
        take_due.ready := take_due.ready[:p_limit];
    end if;
end
$$;

comment on function pubsub.take_due is
    'Process due wake-ups of a subscription: what may be leased again, what is spent, what waits.';

/*
 * expire_deliveries — end deliveries whose time is over.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 * Effects  they are dropped and remembered in failures, or dead letters where the subscription says so
 */
create function pubsub.expire_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_ids uuid[];
    v_lanes text[];
begin
    if (
        select s.dead_letter_expired
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
    ) then
        perform pubsub.dead_letter_deliveries(
            p_topic_key, p_subscription_key, p_places, 'expired');
        return;
    end if;
    with expired as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(p_places)
        returning d.message_id, d.attempts, d.consumer_id, d.leased_at, d.expires_at, d.lane
    ), noted as (
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome
        )
        select p_topic_key, p_subscription_key, e.message_id, e.attempts, e.consumer_id,
            e.leased_at, e.expires_at, 'expired'
        from expired e
    )
    select array_agg(e.message_id), array_agg(e.lane) into v_ids, v_lanes from expired e;
    insert into pubsub_data.counters (topic_key, subscription_key, backlog, expired)
    values (p_topic_key, p_subscription_key, -cardinality(v_ids), cardinality(v_ids));
    if array_remove(v_lanes, null) <> '{}' then
        perform pubsub.wake_next(p_topic_key, p_subscription_key, v_ids, v_lanes);
    end if;
end
$$;

comment on function pubsub.expire_deliveries is
    'End deliveries whose time is over: dropped, or dead letters where the subscription says so.';

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
