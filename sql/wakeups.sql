/*
 * Wake-ups: "look at these messages again then". A claim processes those that are due, so expired
 * leases, ended backoffs and delays need no background job.
 */

/*
 * take_due — process the wake-ups of a subscription that are due.
 *
 * In       p_from: wake-ups due before it are left alone
 * Out      ready: the ctids of up to p_limit deliveries that may be leased, which are locked now;
 *          last_due_at: the latest wake-up processed, null if none was
 * Locks    skips what others hold
 * Effects  spent deliveries go to the dead letters, expired ones are deleted, the rest gets a new
 *          wake-up
 */
create function pubsub.take_due(
    p_topic_key bigint, p_subscription_key bigint, p_from timestamptz, p_now timestamptz,
    p_limit int, p_max_attempts int,
    out ready tid[], out last_due_at timestamptz
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
    with due as materialized (
        select w.ctid, w.due_at, w.message_ids
        from pubsub_data.wakeups w
        where w.topic_key = p_topic_key
            and w.subscription_key = p_subscription_key
            and w.due_at >= p_from
            and w.due_at <= p_now
        order by w.due_at, w.wakeup_number
        limit 32
        for update skip locked
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
        select d.place, d.message_id, d.visible_at,
            case
                when d.visible_at > p_now then 'later'
                when d.expires_at <= p_now then 'expired'
                when d.attempts >= p_max_attempts then 'spent'
                else 'ready'
            end as fate
        from (select distinct live.id from unnest(v_live) as live (id) order by live.id) i
        cross join lateral (
            select x.ctid as place, x.message_id, x.visible_at, x.expires_at, x.attempts
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
        array_agg(l.place order by l.visible_at, l.message_id) filter (where l.fate = 'ready'),
        array_agg(l.message_id order by l.visible_at, l.message_id) filter (where l.fate = 'ready')
    into v_spent, v_expired, take_due.ready, v_ready_ids
    from locked l;

    if v_spent is not null then
        perform pubsub.dead_letter_deliveries(p_topic_key, p_subscription_key, v_spent, 'consumer_lost');
    end if;
    if v_expired is not null then
        delete from pubsub_data.deliveries d where d.ctid = any(v_expired);
        insert into pubsub_data.counters (topic_key, subscription_key, backlog)
        values (p_topic_key, p_subscription_key, -cardinality(v_expired));
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
