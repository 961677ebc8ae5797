/*
 * Cleaning up saves space; no delivery depends on it. The functions work in bounded batches: call
 * them again until they return 0.
 */

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
        insert into pubsub_data.counters (topic_key, subscription_key, acked, forgotten)
        select s.topic_key, s.subscription_key, -sum(f.messages), sum(f.messages)
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
        ), broken as (
            delete from pubsub_data.runs r
            where r.ctid = any(array(
                select x.ctid from pubsub_data.runs x
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
        select (select count(*) from gone) + (select count(*) from broken)
            + (select count(*) from woken) + (select count(*) from dead)
        into v_rows;
        v_removed := v_removed + v_rows;
        exit when v_removed >= p_limit;
        if v_rows = 0 and v_key.deleted_at < clock_timestamp() - interval '1 hour' then
            delete from pubsub_data.run_sizes z
            where z.topic_key = v_key.topic_key and z.subscription_key = v_key.subscription_key;
            delete from pubsub_data.deleted_subscriptions g
            where g.topic_key = v_key.topic_key and g.subscription_key = v_key.subscription_key;
        end if;
    end loop;
    return v_removed;
end
$$;

comment on function pubsub.purge_deleted_subscriptions is
    'Remove a batch of what deleted subscriptions left behind; returns how many rows.';
