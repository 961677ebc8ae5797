/*
 * Wake-ups: "look at these messages again then". A claim processes those that are due, so expired
 * leases, ended backoffs and delays need no background job.
 */

/*
 * pop_runs — make single deliveries of the runs of wake-ups that are due.
 *
 * In       p_again_at: when to look again at those that others hold
 * Out      their messages
 * Locks    skips what others hold
 * Effects  a wake-up for those that others hold
 */
create function pubsub.pop_runs(
    p_topic_key bigint, p_subscription_key bigint, p_run_ids uuid[], p_again_at timestamptz
)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[] := pubsub.break_up_runs(p_topic_key, p_subscription_key, p_run_ids);
begin
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids, run_ids)
    select p_topic_key, p_subscription_key, p_again_at, '{}', array_agg(r.run_id)
    from unnest(p_run_ids) as w (run_id)
    cross join lateral (
        select x.run_id
        from pubsub_data.runs x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.run_id = w.run_id
            and x.lease is not null
        limit 1
    ) r
    having count(*) > 0;
    return v_ids;
end
$$;

comment on function pubsub.pop_runs is
    'Make single deliveries of the runs of wake-ups that are due; returns their messages.';

/*
 * pop_wakeups — take the wake-ups of a subscription that are due off the list.
 *
 * In       as take_due
 * Out      live: the messages they name that still have a delivery, by id, null when there are none;
 *          last_due_at: the latest of them, null when there are none
 * Locks    skips what others hold
 */
create function pubsub.pop_wakeups(
    p_topic_key bigint, p_subscription_key bigint, p_from timestamptz, p_now timestamptz,
    p_limit int,
    out live uuid[], out last_due_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_due uuid[];
    v_run_ids uuid[];
begin
    with locked as materialized (
        select w.ctid, w.due_at, w.wakeup_number, w.message_ids, w.run_ids
        from pubsub_data.wakeups w
        where w.topic_key = p_topic_key
            and w.subscription_key = p_subscription_key
            and w.due_at >= p_from
            and w.due_at <= p_now
        order by w.due_at, w.wakeup_number
        limit 32
        for update skip locked
    ), due as materialized (
        -- no more ids at once
        select l.ctid, l.due_at, l.message_ids, l.run_ids
        from (
            select x.*, sum(x.most) over (order by x.due_at, x.wakeup_number) - x.most as before
            from (
                -- a run has a hundred at most
                select y.*, cardinality(y.message_ids)
                    + 100 * coalesce(cardinality(y.run_ids), 0) as most
                from locked y
            ) x
        ) l
        where l.before < greatest(2 * p_limit, 1000)
    ), processed as (
        delete from pubsub_data.wakeups w
        where w.ctid = any(array(select due.ctid from due))
    )
    select array_agg(i.id), max(due.due_at), array_agg(i.run_id) filter (where i.run_id is not null)
    into v_due, pop_wakeups.last_due_at, v_run_ids
    from due
    left join lateral unnest(due.message_ids, due.run_ids) as i (id, run_id) on true;
    if v_due is null then
        return;
    end if;
    if v_run_ids is not null then
        v_due := v_due || pubsub.pop_runs(
            p_topic_key, p_subscription_key, v_run_ids, p_now + interval '100 ms');
    end if;

    -- most are gone: acked before their deadline
    select array_agg(d.message_id order by d.message_id) into pop_wakeups.live
    from unnest(v_due) as i (id)
    cross join lateral (
        select x.message_id
        from pubsub_data.deliveries x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.message_id = i.id
        limit 1
    ) d;
end
$$;

comment on function pubsub.pop_wakeups is
    'Take the wake-ups that are due off the list; returns what is left of their messages.';

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
    -- how many are locked and judged
    v_most constant int := greatest(2 * p_limit, 100);
    v_live uuid[];
    v_rest uuid[];
    v_spent tid[];
    v_expired tid[];
    v_ready_ids uuid[];
begin
    select w.live, w.last_due_at into v_live, take_due.last_due_at
    from pubsub.pop_wakeups(p_topic_key, p_subscription_key, p_from, p_now, p_limit) w;
    if v_live is null then
        return;
    end if;
    v_rest := v_live[v_most + 1 :];
    v_live := v_live[: v_most];

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
    -- the rest after it, in parts, of which the next claims look at one each
    if v_rest <> '{}' then
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, p_now, array_agg(i.id order by i.id)
        from unnest(v_rest) with ordinality as i (id, position)
        group by (i.position - 1) / 100
        order by (i.position - 1) / 100;
    end if;
end
$$;

comment on function pubsub.take_due is
    'Process due wake-ups of a subscription: what may be leased again, what is spent, what waits.';

/*
 * break_up_leased — make single deliveries of runs that the wake-ups due in a time name, if their lease has
 * ended, or began at p_stuck_before at the latest.
 *
 * Locks    skips what others hold
 */
create function pubsub.break_up_leased(
    p_topic_key bigint, p_subscription_key bigint, p_since timestamptz, p_now timestamptz,
    p_stuck_before timestamptz
)
returns void
language plpgsql volatile
as $$
begin
    perform pubsub.break_up_runs(p_topic_key, p_subscription_key, r.run_ids)
    from (
        select array_agg(x.run_id) as run_ids
        from pubsub_data.wakeups w
        cross join unnest(w.run_ids) as i (run_id)
        cross join lateral (
            select y.run_id
            from pubsub_data.runs y
            where y.topic_key = p_topic_key
                and y.subscription_key = p_subscription_key
                and y.run_id = i.run_id
                and (y.ack_deadline <= p_now or y.leased_at <= p_stuck_before)
            limit 1
        ) x
        where w.topic_key = p_topic_key
            and w.subscription_key = p_subscription_key
            and w.due_at > p_since
            and (p_stuck_before is not null or w.due_at <= p_now)
            and w.run_ids is not null
    ) r
    where r.run_ids is not null;
end
$$;

comment on function pubsub.break_up_leased is
    'Make single deliveries of runs whose lease has ended, or is to end.';

/*
 * release_leases — end leases of a subscription whose holder is gone.
 *
 * In       p_stuck_before: also end leases taken before it, whatever their deadline; null: only
 *          leases whose ack deadline has passed
 * Out      how many deliveries were made available or dead-lettered
 * Locks    skips what others hold
 */
create function pubsub.release_leases(
    p_topic_key bigint, p_subscription_key bigint, p_max_attempts int, p_stuck_before timestamptz
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_by_consumer constant boolean :=
        pubsub.counts_by_consumer(p_topic_key, p_subscription_key);
    v_spent tid[];
    v_stuck tid[];
begin
    perform pubsub.break_up_leased(
        p_topic_key, p_subscription_key, '-infinity', v_now, p_stuck_before);
    -- every lease has a wake-up at or before its deadline
    with held as materialized (
        select d.place, d.attempts
        from (
            select distinct i.id
            from pubsub_data.wakeups w
            cross join unnest(w.message_ids) as i (id)
            where w.topic_key = p_topic_key
                and w.subscription_key = p_subscription_key
                and (p_stuck_before is not null or w.due_at <= v_now)
            order by i.id
        ) i
        cross join lateral (
            select x.ctid as place, x.attempts
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = i.id
                and x.lease is not null
                and (x.visible_at <= v_now
                    or coalesce(x.extended_at, x.leased_at) <= p_stuck_before)
            limit 1
            for update skip locked
        ) d
    )
    select array_agg(h.place) filter (where h.attempts >= p_max_attempts),
        array_agg(h.place) filter (where h.attempts < p_max_attempts)
    into v_spent, v_stuck
    from held h;

    if v_stuck is not null then
        -- one snapshot: what is noted and counted is what they were before
        with lost as (
            select d.*
            from unnest(v_stuck) as p (place)
            cross join lateral (
                select x.message_id, x.attempts, x.consumer_id, x.leased_at, x.visible_at
                from pubsub_data.deliveries x
                where x.ctid = p.place
                limit 1
            ) d
        ), noted as (
            insert into pubsub_data.failures (
                topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at,
                ended_at, outcome
            )
            select p_topic_key, p_subscription_key, l.message_id, l.attempts, l.consumer_id,
                l.leased_at, v_now, 'consumer_lost'
            from lost l
        ), counted as (
            insert into pubsub_data.counters (
                topic_key, subscription_key, due_at, consumer_id, leased
            )
            select p_topic_key, p_subscription_key, pubsub.counter_time(l.visible_at),
                case when v_by_consumer then l.consumer_id end, -count(*)
            from lost l
            group by 3, 4
        ), released as (
            update pubsub_data.deliveries d
            set visible_at = v_now, lease = null, leased_at = null, consumer_id = null,
                extended_at = null
            where d.ctid = any(v_stuck)
            returning d.message_id
        )
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, v_now, array_agg(r.message_id)
        from released r;
    end if;
    if v_spent is not null then
        perform pubsub.dead_letter_deliveries(p_topic_key, p_subscription_key, v_spent, 'consumer_lost');
    end if;
    return coalesce(cardinality(v_spent), 0) + coalesce(cardinality(v_stuck), 0);
end
$$;

comment on function pubsub.release_leases is
    'End leases of one subscription whose holder is gone; returns how many.';

/*
 * dead_letter_spent_messages — move messages whose last lease has run out to the dead letters, and end
 * those whose time is over, where no claim comes by to do it.
 *
 * In       p_since: only what was due after it
 * Out      how many were moved or ended
 * Locks    skips what others hold
 */
create function pubsub.dead_letter_spent_messages(p_since timestamptz default '-infinity')
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_subscription record;
    v_spent tid[];
    v_expired tid[];
    v_moved bigint := 0;
begin
    for v_subscription in
        select s.topic_key, s.subscription_key, s.max_delivery_attempts
        from pubsub_data.subscriptions s
    loop
        -- messages of runs are delivered for the first time, and do not expire
        if v_subscription.max_delivery_attempts <= 1 then
            perform pubsub.break_up_leased(
                v_subscription.topic_key, v_subscription.subscription_key, p_since, v_now, null);
        end if;
        select array_agg(d.place) filter (where not d.is_over),
            array_agg(d.place) filter (where d.is_over)
        into v_spent, v_expired
        from (
            select distinct i.id
            from pubsub_data.wakeups w
            cross join unnest(w.message_ids) as i (id)
            where w.topic_key = v_subscription.topic_key
                and w.subscription_key = v_subscription.subscription_key
                and w.due_at > p_since
                and w.due_at <= v_now
            order by i.id
        ) i
        cross join lateral (
            select x.ctid as place, coalesce(x.expires_at <= v_now, false) as is_over
            from pubsub_data.deliveries x
            where x.topic_key = v_subscription.topic_key
                and x.subscription_key = v_subscription.subscription_key
                and x.message_id = i.id
                and x.visible_at <= v_now
                and (x.attempts >= v_subscription.max_delivery_attempts or x.expires_at <= v_now)
            limit 1
            for update skip locked
        ) d;
        if v_spent is not null then
            v_moved := v_moved + pubsub.dead_letter_deliveries(
                v_subscription.topic_key, v_subscription.subscription_key, v_spent, 'consumer_lost');
        end if;
        if v_expired is not null then
            perform pubsub.expire_deliveries(
                v_subscription.topic_key, v_subscription.subscription_key, v_expired);
            v_moved := v_moved + cardinality(v_expired);
        end if;
    end loop;
    return v_moved;
end
$$;

comment on function pubsub.dead_letter_spent_messages is
    'End messages whose last lease has run out, or whose time is over; returns how many.';
