/*
 * Cleaning up saves space; no delivery depends on it. The functions work in bounded batches: call
 * them again until they return 0.
 */

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

/*
 * cleanup_stuck_messages — end the leases of crashed consumers at once, in all subscriptions.
 *
 * In       p_lock_timeout_seconds: a lease older than this is stuck, in subscriptions without an ack
 *          deadline of their own; null: only passed deadlines count
 * Out      how many deliveries were made available or dead-lettered
 */
create function pubsub.cleanup_stuck_messages(p_lock_timeout_seconds int default 60)
returns bigint
language plpgsql volatile
as $$
declare
    v_stuck_before timestamptz :=
        clock_timestamp() - make_interval(secs => p_lock_timeout_seconds);
    v_released bigint;
begin
    select coalesce(sum(pubsub.release_leases(s.topic_key, s.subscription_key,
        s.max_delivery_attempts,
        case when s.ack_deadline_seconds is null then v_stuck_before end)), 0)
    into v_released
    from pubsub_data.subscriptions s;
    return v_released;
end
$$;

comment on function pubsub.cleanup_stuck_messages is
    'Make messages whose consumer is gone available again, or dead-letter them; returns how many.';

/*
 * cleanup_acked_messages — forget acked messages older than a threshold.
 *
 * Out      how many were forgotten: about p_limit (an ack call is forgotten as a whole), or those of a
 *          whole partition
 * Errors   PS422 (older_than_seconds 0 to 2147483647, limit 1 to 1000000)
 */
create function pubsub.cleanup_acked_messages(
    p_older_than_seconds int default 3600, p_limit int default 10000
)
returns bigint
language plpgsql volatile
as $$
declare
    v_before timestamptz := clock_timestamp() - make_interval(secs => p_older_than_seconds);
    v_removed bigint;
begin
    if p_older_than_seconds is null or p_older_than_seconds < 0 then
        perform pubsub.fail_validation('older_than_seconds',
            'older_than_seconds must be 0 to 2147483647');
    end if;
    if p_limit is null or p_limit not between 1 and 1000000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000000');
    end if;
    v_removed := pubsub.drop_acked_partition(v_before);
    if v_removed > 0 then
        return v_removed;
    end if;
    with old as materialized (
        select o.part, o.row_at
        from (
            select a.tableoid as part, a.ctid as row_at,
                sum(cardinality(a.message_ids)) over (order by a.acked_at, a.ctid)
                    - cardinality(a.message_ids) as before
            from (
                select x.tableoid, x.ctid, x.acked_at, x.message_ids
                from pubsub_data.acked x
                where x.acked_at < v_before
                limit p_limit
                for update skip locked
            ) a
        ) o
        where o.before < p_limit
    ), forgotten as (
        delete from pubsub_data.acked a
        using old
        where a.tableoid = old.part and a.ctid = old.row_at
        returning a.topic_key, a.subscription_key, cardinality(a.message_ids) as messages
    ), counted as (
        insert into pubsub_data.counters (topic_key, subscription_key, acked)
        select s.topic_key, s.subscription_key, -sum(f.messages)
        from forgotten f
        -- a deleted subscription has no counts
        join pubsub_data.subscriptions s
            on s.topic_key = f.topic_key and s.subscription_key = f.subscription_key
        group by s.topic_key, s.subscription_key
    )
    select coalesce(sum(f.messages), 0) into v_removed from forgotten f;
    return v_removed;
end
$$;

comment on function pubsub.cleanup_acked_messages is
    'Forget acked messages older than a threshold, a batch a call; returns how many.';

/*
 * cleanup_failures — forget deliveries that failed before a threshold, the oldest first.
 *
 * Out      how many were forgotten, at most p_limit
 * Errors   PS422 (older_than_seconds 0 to 2147483647, limit 1 to 1000000)
 */
create function pubsub.cleanup_failures(
    p_older_than_seconds int default 3600, p_limit int default 10000
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_removed bigint;
begin
    if p_older_than_seconds is null or p_older_than_seconds < 0 then
        perform pubsub.fail_validation('older_than_seconds',
            'older_than_seconds must be 0 to 2147483647');
    end if;
    if p_limit is null or p_limit not between 1 and 1000000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000000');
    end if;
    delete from pubsub_data.failures f
    where f.ctid = any(array(
        select x.ctid
        from pubsub_data.failures x
        where x.ended_at < clock_timestamp() - make_interval(secs => p_older_than_seconds)
        order by x.ended_at
        limit p_limit
        for update skip locked
    ));
    get diagnostics v_removed = row_count;
    return v_removed;
end
$$;

comment on function pubsub.cleanup_failures is
    'Forget failed deliveries older than a threshold, a batch a call; returns how many.';

/*
 * purge_deleted_subscriptions — remove a batch of what deleted subscriptions left behind.
 *
 * Out      how many rows were removed
 * Locks    skips what others hold
 * Effects  a key is kept for an hour after its deletion, for publishes that were under way
 */
create function pubsub.purge_deleted_subscriptions(p_limit int default 10000)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_key record;
    v_rows bigint;
    v_removed bigint := 0;
begin
    for v_key in
        select g.topic_key, g.subscription_key, g.deleted_at
        from pubsub_data.deleted_subscriptions g
        order by g.deleted_at
        for update skip locked
    loop
        with gone as (
            delete from pubsub_data.deliveries d
            where d.topic_key = v_key.topic_key
                and d.subscription_key = v_key.subscription_key
                and d.ctid = any(array(
                    select x.ctid from pubsub_data.deliveries x
                    where x.topic_key = v_key.topic_key
                        and x.subscription_key = v_key.subscription_key
                    limit p_limit
                    for update skip locked
                ))
            returning 1
        ), woken as (
            delete from pubsub_data.wakeups w
            where w.ctid = any(array(
                select x.ctid from pubsub_data.wakeups x
                where x.topic_key = v_key.topic_key
                    and x.subscription_key = v_key.subscription_key
                for update skip locked
            ))
            returning 1
        ), counted as (
            delete from pubsub_data.counters c
            where c.ctid = any(array(
                select x.ctid from pubsub_data.counters x
                where x.topic_key = v_key.topic_key
                    and x.subscription_key = v_key.subscription_key
                for update skip locked
            ))
        ), dead as (
            delete from pubsub_data.dead_letters l
            where l.topic_key = v_key.topic_key
                and l.subscription_key = v_key.subscription_key
                and l.ctid = any(array(
                    select x.ctid from pubsub_data.dead_letters x
                    where x.topic_key = v_key.topic_key
                        and x.subscription_key = v_key.subscription_key
                    limit p_limit
                    for update skip locked
                ))
            returning 1
        )
        -- acked rows and failures leave by age, like those of living subscriptions
        select (select count(*) from gone) + (select count(*) from woken)
            + (select count(*) from dead)
        into v_rows;
        v_removed := v_removed + v_rows;
        exit when v_removed >= p_limit;
        if v_rows = 0 and v_key.deleted_at < clock_timestamp() - interval '1 hour' then
            delete from pubsub_data.deleted_subscriptions g
            where g.topic_key = v_key.topic_key and g.subscription_key = v_key.subscription_key;
        end if;
    end loop;
    return v_removed;
end
$$;

comment on function pubsub.purge_deleted_subscriptions is
    'Remove a batch of what deleted subscriptions left behind; returns how many rows.';
