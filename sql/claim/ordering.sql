/*
 * Ordering: in a subscription with enable_ordering the messages of an ordering key, which is their lane,
 * are handed out in id order, one consumer at a time:
 *   - none while an earlier one of its key is live (ready, in flight, waiting or parked), unless both go
 *     to one consumer in one claim;
 *   - none while a later one of its key is in flight, which a publisher that commits late brings about.
 * Messages without a key are in no lane and wait for nobody.
 *
 * A claim gathers candidates where any claim looks (what is due, stragglers, fresh ones), and takes of
 * each lane among them the run of ready messages that it begins with, as far as the batch goes. A
 * candidate whose lane is held up is passed over, and found again when the holder leaves: whoever
 * settles it calls wake_next.
 *
 * Why two claims never break the rule together: each first locks what it wants, then looks at its lanes
 * with a new snapshot. Of two claims that want messages of one lane, the one that looks last sees what
 * the other has locked or leased, and gives its own back. That needs the isolation level read committed.
 *
 * Lanes are read from tail on, below which nothing is live, so that entries of messages that are gone
 * are not walked again and again while a long transaction keeps them. It follows the lowest live id, up to
 * a mark ten seconds ago, once all transactions have ended that were running when the mark was set:
 * ids are given out when a message is published, so nothing can be committed below it any more. What
 * comes back below it comes with a rewind, after which every session forgets its tail.
 */

/*
 * is_unfinished — whether a transaction had yet to end when a snapshot was taken.
 *
 * In       p_xid: of the last 2^31 transactions, as the system column xmax has it
 */
create function pubsub.is_unfinished(p_xid xid, p_snapshot pg_snapshot)
returns boolean
language sql immutable parallel safe
begin atomic
    -- the full id of which p_xid is the low half is the one nearest to the snapshot's end
    select not pg_catalog.pg_visible_in_snapshot((
        pg_catalog.pg_snapshot_xmax(p_snapshot)::text::bigint - 2147483648
        + ((p_xid::text::bigint - pg_catalog.pg_snapshot_xmax(p_snapshot)::text::bigint
            + 2147483648) & 4294967295)
    )::text::xid8, p_snapshot);
end;

comment on function pubsub.is_unfinished is
    'Whether a transaction had yet to end when a snapshot was taken.';

/*
 * take_runs — of candidates, those whose lanes allow it.
 *
 * In       p_tail: nothing is live below; p_upto: how far lanes are read;
 *          p_ids, p_lanes: the candidates, in id order; p_taken: ctids that this claim has already
 * Out      places: the ctids of up to p_limit deliveries in id order, which are locked now, also of
 *          messages of those lanes that are no candidates; left_over: ids that would have been taken
 *          but for p_limit; held_up: the first of lanes with a later one in flight; lost: whether the consumer of any let its lease run out
 * Locks    skips locked rows; rows that it gives back stay locked until the transaction ends
 * Effects  a wake-up for what it gives back
 */
create function pubsub.take_runs(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_rewinds int, p_tail uuid, p_upto uuid, p_ids uuid[], p_lanes text[],
    p_taken tid[],
    out places tid[], out left_over uuid[], out held_up uuid[], out lost boolean
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    -- how many messages of these lanes, and at least of each, are looked at for one in flight behind the run
    c_look_ahead constant int := 1000;
    c_look_ahead_each constant int := 100;
    v_wanted uuid[] := p_ids;
    v_wanted_lanes text[] := p_lanes;
    -- whether it is the first of its lane, or in none
    v_leads boolean[];
    v_ids uuid[];
    v_lanes text[];
    v_kept uuid[];
    v_in_flight boolean;
    v_leading boolean;
begin
    if array_remove(p_lanes, null) <> '{}' then
        with lanes as materialized (
            select c.lane, count(*) as candidates
            from unnest(p_lanes) as c (lane)
            where c.lane is not null
            group by c.lane
        ), walked as (
            select w.message_id, l.lane, row_number() over run = 1 as leads,
                w.message_id <= p_upto and bool_and(w.is_free) over run
                    -- one in flight behind the run holds it up: it must not take the place of others
                    and not bool_or(w.is_held) over (partition by l.lane) as is_open,
                row_number() over run = 1 and w.is_free
                    and bool_or(w.is_held) over (partition by l.lane) as is_held_up
            from lanes l
            cross join lateral (
                select x.message_id, x.visible_at <= p_now and x.attempts < p_max_attempts
                    and (x.expires_at is null or x.expires_at > p_now)
                    and not (x.xmax <> '0'
                        and pubsub.is_unfinished(x.xmax, pg_catalog.pg_current_snapshot())
                        and x.xmax <> all(array(
                            select l.transactionid from pg_catalog.pg_locks l
                            where l.locktype = 'transactionid' and l.pid = pg_catalog.pg_backend_pid()
                        ))) as is_free,
                    x.lease is not null and x.visible_at > p_now as is_held
                from pubsub_data.deliveries x
                where x.topic_key = p_topic_key
                    and x.subscription_key = p_subscription_key
                    and x.lane = l.lane
                    and x.message_id >= p_tail
                    and x.ctid <> all(p_taken)
                order by x.message_id
                limit l.candidates + greatest(c_look_ahead_each,
                    greatest(2 * p_limit, c_look_ahead) / (select count(*) from lanes))
            ) w
            window run as (partition by l.lane order by w.message_id)
        )
        select array_agg(o.message_id) filter (where o.is_open),
            array_agg(o.lane) filter (where o.is_open), array_agg(o.leads) filter (where o.is_open),
            array_agg(o.message_id) filter (where not o.is_open)
        into v_wanted, v_wanted_lanes, v_leads, take_runs.held_up
        from (
            select w.message_id, w.lane, w.leads, w.is_open
            from walked w
            where w.is_open or w.is_held_up
            union all
            select c.id, null, true, true from unnest(p_ids, p_lanes) as c (id, lane)
            where c.lane is null
            order by message_id
        ) o;
    end if;
    take_runs.left_over := v_wanted[p_limit + 1:];

    take_runs.places := '{}';
    take_runs.lost := false;
    -- who has locked the first of a lane has the lane: the others want no more of it
    foreach v_leading in array array[true, false] loop
        exit when not v_leading and not false = any(v_leads[:p_limit]);
        select take_runs.places || array_agg(d.place), v_ids || array_agg(d.message_id),
            v_lanes || array_agg(d.lane), take_runs.lost or count(d.lease) > 0
        into take_runs.places, v_ids, v_lanes, take_runs.lost
        from unnest(v_wanted[:p_limit], v_wanted_lanes[:p_limit], v_leads[:p_limit])
            as w (id, lane, leads)
        cross join lateral (
            select x.ctid as place, x.message_id, x.lane, x.lease
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = w.id
                and x.visible_at <= p_now
                and x.attempts < p_max_attempts
                and (x.expires_at is null or x.expires_at > p_now)
                and x.ctid <> all(p_taken)
            limit 1
            for update skip locked
        ) d
        where v_leading = coalesce(w.leads, true)
            and (v_leading or w.lane in (select l.lane from unnest(v_lanes) as l (lane)));
    end loop;
    if coalesce(array_remove(v_lanes, null), '{}') = '{}' then
        return;
    end if;

    -- now that they are locked: what do their lanes look like?
    with lanes as materialized (
        select m.lane, array_agg(m.id order by m.id) as ids, array_agg(m.place order by m.id) as places
        from unnest(v_ids, v_lanes, take_runs.places) as m (id, lane, place)
        where m.lane is not null
        group by m.lane
    ), checked as materialized (
        select l.ids, l.places, c.run, c.is_leased
        from lanes l
        cross join lateral (
            select case when bool_or(w.is_leased or w.is_locked) then 0
                    -- once one differs, all that follow do
                    else count(*) filter (where w.message_id = l.ids[w.position]) end as run,
                bool_or(w.is_leased) as is_leased
            from (
                select x.*, row_number() over (order by x.message_id) as position
                from (
                    select y.message_id, y.lease is not null and y.visible_at > p_now as is_leased,
                        y.xmax <> '0'
                        and pubsub.is_unfinished(y.xmax, pg_catalog.pg_current_snapshot())
                        and y.xmax <> all(array(
                            select l.transactionid from pg_catalog.pg_locks l
                            where l.locktype = 'transactionid' and l.pid = pg_catalog.pg_backend_pid()
                        )) as is_locked
                    from pubsub_data.deliveries y
                    where y.topic_key = p_topic_key
                        and y.subscription_key = p_subscription_key
                        and y.lane = l.lane
                        and y.message_id >= p_tail
                        and y.ctid <> all(p_taken)
                    order by y.message_id
                    limit cardinality(l.ids) + greatest(c_look_ahead_each, c_look_ahead / (select count(*) from lanes))
                ) x
            ) w
        ) c
    ), kept as (
        select u.id, u.place
        from checked c
        cross join lateral unnest(c.ids[:c.run], c.places[:c.run]) as u (id, place)
        where exists (
            select from pubsub_data.subscriptions s
            where s.topic_key = p_topic_key
                and s.subscription_key = p_subscription_key
                and s.rewinds = p_rewinds
        )
        union all
        select m.id, m.place
        from unnest(v_ids, v_lanes, take_runs.places) as m (id, lane, place)
        where m.lane is null
    )
    select coalesce(array_agg(k.place order by k.id), '{}'), coalesce(array_agg(k.id), '{}'),
        (select bool_or(c.is_leased) from checked c)
    into take_runs.places, v_kept, v_in_flight
    from kept k;

    if cardinality(v_kept) < cardinality(v_ids) then
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key,
            p_now + case when v_in_flight then interval '1 second' else interval '100 ms' end,
            array_agg(i.id)
        from unnest(v_ids) as i (id)
        where i.id <> all(v_kept);
    end if;
end
$$;

comment on function pubsub.take_runs is
    'Of candidates in an ordered subscription, those whose ordering keys allow it: rows, locked.';

/*
 * choose_ordered — what a claim of an ordered subscription may lease.
 *
 * In       p_head: how far the session has read; p_due: the ctids that are due, which are locked
 * Out      places: the ctids of up to p_limit deliveries, which are locked now; head: how far it has
 *          read now; lost: whether the consumer of any of them let its lease run out
 * Locks    skips locked rows
 */
create function pubsub.choose_ordered(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_floor uuid, p_rewinds int, p_head uuid, p_due tid[],
    out places tid[], out head uuid, out lost boolean
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    -- how many fresh ones a claim looks at, and when it has found nothing yet
    c_fresh constant int := 1000;
    c_held_up constant int := 10000;
    v_setting constant text := pubsub.hint_name('ordered', p_subscription_key);
    v_hint pubsub.ordered_hint;

    v_micros constant bigint := pubsub.micros(p_now);
    v_near_from constant uuid := pubsub.id_at(p_now - interval '1 second');
    v_settled constant uuid := pubsub.id_at(p_now - interval '10 seconds');
    v_step text;
    v_after uuid;
    v_upto uuid;
    v_window int := greatest(20, p_limit);
    v_looked_at int := 0;
    v_started_at timestamptz;
    v_took bigint;
    v_ids uuid[];
    v_lanes text[];
    v_last_seen uuid;
    v_taken tid[];
    v_left uuid[];
    v_held_up uuid[];
    v_found_lost boolean;
begin
    choose_ordered.head := p_head;
    choose_ordered.places := '{}';
    choose_ordered.lost := false;
    begin
        v_hint := nullif(current_setting(v_setting, true), '')::pubsub.ordered_hint;
    exception when data_exception then
        v_hint := null;
    end;
    if v_hint.rewinds is distinct from p_rewinds
        or num_nulls(v_hint.tail, v_hint.mark_at, v_hint.near_at, v_hint.sweep_at,
            v_hint.sweep_millis) > 0
        or not pubsub.is_credible(v_micros, v_hint.noted_at,
            greatest(v_hint.mark_at, v_hint.near_at, v_hint.sweep_at))
        or greatest(v_hint.tail, v_hint.mark) > greatest(v_settled, p_floor)
    then
        v_hint := (0, 0, p_floor, null, null, 0, 0, 0, null, 1000);
    end if;
    if (v_hint.mark is null or v_hint.mark_xid is null) and v_micros >= v_hint.mark_at then
        v_hint.mark := v_settled;
        v_hint.mark_xid := pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot());
        v_hint.mark_at := v_micros + 1000000;
    end if;
    if pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= v_hint.mark_xid then
        select greatest(v_hint.tail, coalesce(d.message_id, v_hint.mark)) into v_hint.tail
        from (values (1)) as always (row)
        left join lateral (
            select x.message_id
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id >= v_hint.tail
                and x.message_id < v_hint.mark
            order by x.message_id
            limit 1
        ) d on true;
        v_hint.mark := null;
        v_hint.mark_xid := null;
    end if;

    foreach v_step in array
        array['due', 'near', 'sweep'] || array_fill('fresh'::text, array[c_held_up / 20])
    loop
        exit when cardinality(choose_ordered.places) >= p_limit;
        v_started_at := clock_timestamp();
        case v_step
            when 'due' then
                continue when p_due = '{}';
                v_upto := c_highest;
                select array_agg(d.message_id order by d.message_id),
                    array_agg(d.lane order by d.message_id)
                into v_ids, v_lanes
                from pubsub_data.deliveries d
                where d.ctid = any(p_due);
            when 'near' then
                continue when v_micros < v_hint.near_at or v_near_from >= choose_ordered.head;
                v_after := v_near_from;
                v_upto := choose_ordered.head;
            when 'sweep' then
                continue when v_micros < v_hint.sweep_at;
                -- round and round from tail, in bites
                v_after := greatest(v_hint.sweep, v_hint.tail);
                v_upto := least(v_near_from, choose_ordered.head, pubsub.id_at(
                    pubsub.id_time(v_after) + make_interval(secs => v_hint.sweep_millis / 1000::float8)));
                if v_upto <= v_after then
                    v_hint.sweep := null;
                    v_hint.sweep_at := v_micros + 1000000;
                    continue;
                end if;
            else
                exit when v_looked_at >= c_held_up
                    or v_looked_at >= c_fresh and choose_ordered.places <> '{}';
                v_after := choose_ordered.head;
                v_upto := c_highest;
        end case;

        if v_step <> 'due' then
            select coalesce(array_agg(p.message_id), '{}'), array_agg(p.lane),
                case when count(*) < v_window then (
                    select d.message_id
                    from pubsub_data.deliveries d
                    where d.topic_key = p_topic_key
                        and d.subscription_key = p_subscription_key
                        and d.message_id > v_after
                        and v_step = 'fresh'
                    order by d.message_id desc
                    limit 1
                ) else (array_agg(p.message_id))[v_window] end
            into v_ids, v_lanes, v_last_seen
            from (
                select d.message_id, d.lane
                from pubsub_data.deliveries d
                where d.topic_key = p_topic_key
                    and d.subscription_key = p_subscription_key
                    and d.message_id >= v_after
                    and (d.message_id > v_after or v_step = 'sweep')
                    and d.message_id <= v_upto
                    and d.visible_at <= p_now
                    and d.attempts < p_max_attempts
                    and (d.expires_at is null or d.expires_at > p_now)
                    and d.ctid <> all(choose_ordered.places)
                order by d.message_id
                -- near does not go on where it came to: those that are held up must not hide the others
                limit case v_step when 'near' then greatest(1000, v_window) else v_window end
            ) p;
        end if;
        v_left := '{}';
        v_taken := '{}';
        v_held_up := null;
        if v_ids <> '{}' then
            select r.places, r.left_over, r.held_up, r.lost
            into v_taken, v_left, v_held_up, v_found_lost
            from pubsub.take_runs(
                p_topic_key, p_subscription_key, p_now,
                p_limit - cardinality(choose_ordered.places), p_max_attempts, p_rewinds, v_hint.tail,
                case v_step when 'fresh' then v_ids[cardinality(v_ids)] else c_highest end,
                v_ids, v_lanes, choose_ordered.places
            ) r;
            choose_ordered.places := choose_ordered.places || v_taken;
            choose_ordered.lost := choose_ordered.lost or v_found_lost;
        end if;
        -- whoever settles the later one wakes what comes after it only
        if v_held_up is not null and v_step in ('due', 'fresh') then
            insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
            values (p_topic_key, p_subscription_key, p_now + interval '1 second', v_held_up);
        end if;
        v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_started_at);

        case v_step
            when 'due' then
                -- more than the caller wants: the next claim's
                insert into pubsub_data.wakeups (
                    topic_key, subscription_key, due_at, message_ids
                )
                select p_topic_key, p_subscription_key, p_now, array_agg(i.id)
                from unnest(v_ids) as i (id)
                where i.id = any(v_left)
                having count(*) > 0;
            when 'near' then
                v_hint.near_at := v_micros + least(20 * v_took, 60000000);
            when 'sweep' then
                v_hint.sweep_at := v_micros + least(20 * v_took, 60000000);
                v_hint.sweep := coalesce(v_last_seen, v_upto);
                if v_took > 3000 then
                    v_hint.sweep_millis := greatest(v_hint.sweep_millis / 4, 1);
                elsif v_last_seen is null and v_took < 1000 then
                    v_hint.sweep_millis := least(v_hint.sweep_millis * 2, 86400000);
                end if;
            else
                v_looked_at := v_looked_at + cardinality(v_ids);
                if v_left <> '{}' then
                    -- the first one that is left comes next
                    choose_ordered.head := coalesce((
                        select i.id from unnest(v_ids) as i (id)
                        where i.id < v_left[1]
                        order by i.id desc
                        limit 1
                    ), choose_ordered.head);
                    exit;
                end if;
                choose_ordered.head := coalesce(v_last_seen, choose_ordered.head);
                exit when cardinality(v_ids) < v_window;
                -- more at once where all is held up
                v_window := case when v_taken = '{}' then least(c_fresh, 4 * v_window)
                    else greatest(20, 2 * (p_limit - cardinality(choose_ordered.places))) end;
        end case;
    end loop;

    v_hint.noted_at := v_micros;
    v_hint.rewinds := p_rewinds;
    perform set_config(v_setting, v_hint::text, false);
end
$$;

comment on function pubsub.choose_ordered is
    'What a claim of an ordered subscription may lease: rows, locked.';
