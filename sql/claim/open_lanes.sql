/*
 * The lanes of an ordered subscription that a claim has to itself, until its transaction ends (ordering.sql).
 */

/*
 * lane_lock — the advisory lock of a lane. Two lanes of one hash share a lock: then a claim that cannot
 * have one passes it over, and it is found again as a straggler.
 *
 * Out      below 0, which tells it from the lock of migrations; those of limits have two numbers
 */
create function pubsub.lane_lock(p_subscription_key bigint, p_lane text)
returns bigint
language sql immutable parallel safe
begin atomic
    select hashtextextended(p_lane, p_subscription_key) | '-9223372036854775808'::bigint;
end;

comment on function pubsub.lane_lock is 'The advisory lock of a lane, which whoever claims of it has.';

/*
 * lock_lanes — make lanes this claim's.
 *
 * In       by lane: p_candidates: how many the claim knows of; p_before: how many before the first of them
 * Out      locked: those that no other claim has, as far as needed for the first p_limit candidates, and
 *          their candidates;
 *          tried: how many of p_lanes were looked at. A transaction has up to 100 of all subscriptions together,
 *          or fewer where Postgres is set to hold few locks
 * Locks    theirs, until the transaction, or what it rolls back to, ends; never waits
 */
create function pubsub.lock_lanes(
    p_subscription_key bigint, p_lanes text[], p_candidates bigint[], p_before bigint[],
    p_limit int,
    out locked text[], out candidates bigint[], out tried int
)
language plpgsql volatile
as $$
declare
    -- the table of locks has room for so many of all sessions at once: some more than it is set to
    c_most constant int := least(100, current_setting('max_locks_per_transaction')::int * 100 / 64);
    -- how many the transaction has; one that it took twice may count twice
    c_setting constant text := 'pubsub.lanes_locked';
    v_had int := coalesce(
        substring(current_setting(c_setting, true) from '^[0-9]{1,3}$')::int, 0);
    v_own bigint[];
    v_key bigint;
    v_not_had bigint := 0;
begin
    lock_lanes.locked := '{}';
    lock_lanes.candidates := '{}';
    lock_lanes.tried := 0;
    while p_before[lock_lanes.tried + 1] - v_not_had < p_limit loop
        v_key := pubsub.lane_lock(p_subscription_key, p_lanes[lock_lanes.tried + 1]);
        if v_had >= c_most and v_own is null then
            v_own := array(
                select l.classid::bigint << 32 | l.objid::bigint
                from pg_locks l
                where l.locktype = 'advisory' and l.objsubid = 1 and l.pid = pg_backend_pid()
                    and l.classid::bigint >= 2147483648
            );
            v_had := cardinality(v_own);
        end if;
        exit when v_had >= c_most and v_key <> all(v_own);
        lock_lanes.tried := lock_lanes.tried + 1;
        if pg_try_advisory_xact_lock(v_key) then
            v_had := v_had + 1;
            lock_lanes.locked := lock_lanes.locked || p_lanes[lock_lanes.tried];
            lock_lanes.candidates := lock_lanes.candidates || p_candidates[lock_lanes.tried];
        else
            v_not_had := v_not_had + p_candidates[lock_lanes.tried];
        end if;
    end loop;
    perform set_config(c_setting, v_had::text, true);
end
$$;

comment on function pubsub.lock_lanes is
    'Make lanes of ordering keys the transaction''s, as far as no other claim has them.';

/*
 * find_open_lanes — of candidates, the lanes whose first message is ready; the others need not be locked.
 *
 * In       p_tail: nothing is live below; p_lanes: of the candidates, in id order; p_taken: ctids that this
 *          claim has already
 * Out      by lane, in the order of the first candidate: how many candidates are of it, and how many, of
 *          open lanes and of none, are before the first of it
 */
create function pubsub.find_open_lanes(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_max_attempts int,
    p_tail uuid, p_lanes text[], p_taken tid[],
    out lanes text[], out candidates bigint[], out before bigint[]
)
language plpgsql stable
as $$
begin
    with open as materialized (
        select l.lane
        from (select distinct c.lane from unnest(p_lanes) as c (lane)) l
        cross join lateral (
            select d.visible_at <= p_now and d.attempts < p_max_attempts
                and (d.expires_at is null or d.expires_at > p_now) as is_ready
            from pubsub_data.deliveries d
            where d.topic_key = p_topic_key
                and d.subscription_key = p_subscription_key
                and d.lane = l.lane
                and d.message_id >= p_tail
                and d.ctid <> all(p_taken)
            order by d.message_id
            limit 1
        ) f
        where f.is_ready
    ), counted as (
        select r.lane, min(r.before) as before, count(*) as candidates
        from (
            select c.lane, row_number() over (order by c.position) - 1 as before
            from unnest(p_lanes) with ordinality as c (lane, position)
            where c.lane is null or c.lane in (select o.lane from open o)
        ) r
        where r.lane is not null
        group by r.lane
    )
    select coalesce(array_agg(c.lane order by c.before), '{}'),
        array_agg(c.candidates order by c.before), array_agg(c.before order by c.before)
    into find_open_lanes.lanes, find_open_lanes.candidates, find_open_lanes.before
    from counted c;
end
$$;

comment on function pubsub.find_open_lanes is
    'The lanes of candidates whose first message is ready, in the order of their first candidates.';

/*
 * walk_lanes — the runs of ready messages that lanes begin with.
 *
 * In       p_lanes, p_candidates: how far at least each is read; p_upto: and at most; null: no end; the
 *          rest as find_open_lanes
 * Out      by id; held_up: the first of lanes with a later one in flight, which have no run
 */
create function pubsub.walk_lanes(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_tail uuid, p_upto uuid, p_lanes text[], p_candidates bigint[],
    p_taken tid[],
    out ids uuid[], out lanes text[], out held_up uuid[]
)
language plpgsql stable
as $$
declare
    -- how many messages of these lanes, and at least of each, are looked at for one in flight behind the run
    c_look_ahead constant int := 1000;
    c_look_ahead_each constant int := 100;
    v_ahead constant int := greatest(c_look_ahead_each,
        greatest(2 * p_limit, c_look_ahead) / greatest(1, cardinality(p_lanes)));
begin
    with walked as materialized (
        select l.lane, w.*
        from unnest(p_lanes, p_candidates) as l (lane, candidates)
        cross join lateral (
            select array_agg(x.message_id) filter (where x.is_ready) as ready,
                (array_agg(x.message_id) filter (where not x.is_ready))[1] as first_unready,
                bool_or(x.is_held) as is_held
            from (
                select d.message_id, d.visible_at <= p_now and d.attempts < p_max_attempts
                    and (d.expires_at is null or d.expires_at > p_now) as is_ready,
                    d.lease is not null and d.visible_at > p_now as is_held
                from pubsub_data.deliveries d
                where d.topic_key = p_topic_key
                    and d.subscription_key = p_subscription_key
                    and d.lane = l.lane
                    and d.message_id >= p_tail
                    and d.ctid <> all(p_taken)
                order by d.message_id
                limit l.candidates + v_ahead
            ) x
        ) w
    ), runs as (
        select r.id, w.lane
        from walked w
        cross join lateral unnest(w.ready) as r (id)
        where not w.is_held
            and (r.id < w.first_unready) is not false
            and (r.id <= p_upto) is not false
    )
    select array_agg(r.id order by r.id), array_agg(r.lane order by r.id),
        (select array_agg(w.ready[1]) filter (where w.is_held) from walked w)
    into walk_lanes.ids, walk_lanes.lanes, walk_lanes.held_up
    from runs r;
end
$$;

comment on function pubsub.walk_lanes is
    'The runs of ready messages that ordering keys begin with.';
