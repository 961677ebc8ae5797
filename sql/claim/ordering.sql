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
 * candidate whose lane is held up, or is another claim's, is passed over, and found again when the holder
 * leaves: whoever settles it calls wake_next.
 *
 * Why two claims never break the rule together: a lane belongs to the claim that has its advisory lock until
 * its transaction, or what it rolls back to, ends, and a claim looks at a lane only after it has it, with
 * a new snapshot, which shows all that those before it have leased. That needs the isolation level read
 * committed.
 *
 * Lanes are read from tail on, below which nothing is live, so that entries of messages that are gone
 * are not walked again and again while a long transaction keeps them. It follows the lowest live id, up to
 * a mark ten seconds ago, once all transactions have ended that were running when the mark was set:
 * ids are given out when a message is published, so nothing can be committed below it any more. What
 * comes back below it comes with a rewind, after which every session forgets its tail.
 */

/*
 * take_runs — of candidates, those whose lanes allow it.
 *
 * In       p_tail, p_upto, p_taken: as walk_lanes; p_ids, p_lanes: the candidates, in id order
 * Out      places: the ctids of up to p_limit deliveries in id order, which are locked now, also of
 *          messages of those lanes that are no candidates; left_over: ids that may be taken, but for
 *          p_limit; others: candidates of lanes that another claim has; held_up: as walk_lanes;
 *          lost: whether the consumer of any let its lease run out
 * Locks    the lanes; skips locked rows; rows that it gives back stay locked until the transaction ends
 * Effects  a wake-up for what it gives back
 */
create function pubsub.take_runs(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_rewinds int, p_tail uuid, p_upto uuid, p_ids uuid[], p_lanes text[],
    p_taken tid[],
    out places tid[], out left_over uuid[], out others uuid[], out held_up uuid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    v_open record;
    v_mine record;
    v_runs record;
    v_ids uuid[] := p_ids;
    v_lanes text[] := p_lanes;
    v_locked uuid[];
begin
    take_runs.places := '{}';
    take_runs.lost := false;
    if p_ids = '{}' then
        return;
    end if;
    if array_remove(p_lanes, null) <> '{}' then
        v_open := pubsub.find_open_lanes(p_topic_key, p_subscription_key, p_now, p_max_attempts,
            p_tail, p_lanes, p_taken);
        v_mine := pubsub.lock_lanes(p_subscription_key, v_open.lanes, v_open.candidates,
            v_open.before, p_limit);
        -- now that nobody else claims of them: what do they look like, with a new snapshot?
        v_runs := pubsub.walk_lanes(p_topic_key, p_subscription_key, p_now, p_limit, p_max_attempts,
            p_tail, p_upto, v_mine.locked, v_mine.candidates, p_taken);
        take_runs.held_up := v_runs.held_up;
        select array_agg(i.id order by i.id) filter (where i.fate = 'mine'),
            array_agg(i.lane order by i.id) filter (where i.fate = 'mine'),
            array_agg(i.id order by i.id) filter (where i.fate = 'left'),
            array_agg(i.id) filter (where i.fate = 'others')
        into v_ids, v_lanes, take_runs.left_over, take_runs.others
        from (
            select r.id, r.lane, 'mine' as fate from unnest(v_runs.ids, v_runs.lanes) as r (id, lane)
            union all
            select c.id, c.lane, case
                when c.lane is null then 'mine'
                when c.lane = any(v_open.lanes[:v_mine.tried]) then 'others'
                else 'left' end
            from unnest(p_ids, p_lanes) as c (id, lane)
            where c.lane is null
                or c.lane = any(v_open.lanes) and c.lane <> all(v_mine.locked)
        ) i;
    end if;
    if cardinality(v_ids) > p_limit then
        take_runs.left_over := array(
            select l.id from unnest(take_runs.left_over || v_ids[p_limit + 1:]) as l (id) order by l.id);
        v_ids := v_ids[:p_limit];
        v_lanes := v_lanes[:p_limit];
    end if;

    select coalesce(array_agg(d.place), '{}'), coalesce(array_agg(w.id), '{}'), count(d.lease) > 0
    into take_runs.places, v_locked, take_runs.lost
    from unnest(v_ids, v_lanes) as w (id, lane)
    cross join lateral (
        select x.ctid as place, x.lease
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
    -- what came back, since lanes were read, may lie below their tail
    where w.lane is null or exists (
        select from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key
            and s.subscription_key = p_subscription_key
            and s.rewinds = p_rewinds
    );
    if cardinality(v_locked) < cardinality(v_ids) then
        take_runs.places := pubsub.keep_runs(p_topic_key, p_subscription_key, p_now, v_ids, v_lanes,
            v_locked, places);
    end if;
end
$$;

comment on function pubsub.take_runs is
    'Of candidates in an ordered subscription, those whose ordering keys allow it: rows, locked.';

/*
 * keep_runs — of runs of which somebody settles a message right now, what is before it.
 *
 * In       p_ids, p_lanes: what was wanted; p_locked, p_places: what could be locked
 * Out      the ctids of what is kept, in id order
 * Effects  a wake-up, soon, for the rest
 */
create function pubsub.keep_runs(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_ids uuid[],
    p_lanes text[], p_locked uuid[], p_places tid[]
)
returns tid[]
language sql volatile
as $$
    with wanted as materialized (
        select w.id, w.lane, g.place, case when w.lane is null then g.place is not null
            else bool_and(g.place is not null) over (partition by w.lane order by w.id) end as is_kept
        from unnest(p_ids, p_lanes) as w (id, lane)
        left join unnest(p_locked, p_places) as g (id, place) on g.id = w.id
    ), noted as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, p_now + interval '100 ms', array_agg(w.id)
        from wanted w
        where not w.is_kept and w.lane is not null
        having count(*) > 0
    )
    select coalesce(array_agg(w.place order by w.id), '{}') from wanted w where w.is_kept
$$;

comment on function pubsub.keep_runs is
    'Of runs of messages that could not all be locked, what is before the first that could not.';

/*
 * find_candidates — what is ready in a range of ids, in their order; rows that nobody has locked yet.
 *
 * In       p_upto: null: no end; p_taken: ctids to leave out
 * Out      up to p_limit ids with their lanes; read_upto: as of take_range
 */
create function pubsub.find_candidates(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_from uuid, p_upto uuid, p_taken tid[],
    out ids uuid[], out lanes text[], out read_upto uuid
)
language plpgsql stable
as $$
begin
    select coalesce(array_agg(p.message_id), '{}'), array_agg(p.lane),
        case when count(*) = p_limit then (array_agg(p.message_id))[p_limit] else (
            select d.message_id
            from pubsub_data.deliveries d
            where p_upto is null
                and d.topic_key = p_topic_key
                and d.subscription_key = p_subscription_key
                and d.message_id >= p_from
            order by d.message_id desc
            limit 1
        ) end
    into find_candidates.ids, find_candidates.lanes, find_candidates.read_upto
    from (
        select d.message_id, d.lane
        from pubsub_data.deliveries d
        where d.topic_key = p_topic_key
            and d.subscription_key = p_subscription_key
            and d.message_id >= p_from
            and d.message_id <= coalesce(p_upto, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            and d.visible_at <= p_now
            and d.attempts < p_max_attempts
            and (d.expires_at is null or d.expires_at > p_now)
            and d.ctid <> all(p_taken)
        order by d.message_id
        limit p_limit
    ) p;
end
$$;

comment on function pubsub.find_candidates is
    'What is ready in a range of ids of an ordered subscription, in their order.';

/*
 * look_again — have messages that a claim passed over looked at again.
 *
 * In       p_left: at once; p_others: soon, since another claim has their lanes; p_held_up: in a second, since
 *          whoever settles the later one that holds them up wakes what comes after it only
 */
create function pubsub.look_again(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_left uuid[],
    p_others uuid[], p_held_up uuid[]
)
returns void
language sql volatile
as $$
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select p_topic_key, p_subscription_key, p_now + a.after, a.ids
    from (
        values (interval '0', p_left), ('100 ms', p_others), ('1 second', p_held_up)
    ) as a (after, ids)
    where a.ids <> '{}'
$$;

comment on function pubsub.look_again is
    'Have messages of ordering keys that a claim passed over looked at again.';

/*
 * believed_ordered_hint — what a session has noted of an ordered subscription, as far as it can be true
 * now, with tail as high as it may be.
 */
create function pubsub.believed_ordered_hint(p_claim pubsub.claim_terms, p_floor uuid)
returns pubsub.ordered_hint
language plpgsql volatile parallel restricted
as $$
declare
    v_settled constant uuid := pubsub.id_at(p_claim.now - interval '10 seconds');
    v_hint pubsub.ordered_hint;
begin
    begin
        v_hint := nullif(current_setting(
            pubsub.hint_name('ordered', p_claim.subscription_key), true), '')::pubsub.ordered_hint;
    exception when data_exception then
        v_hint := null;
    end;
    if v_hint.rewinds is distinct from p_claim.rewinds
        or num_nulls(v_hint.tail, v_hint.mark_at, v_hint.near_at, v_hint.sweep_at,
            v_hint.sweep_millis) > 0
        or not pubsub.is_credible(p_claim.micros, v_hint.noted_at,
            greatest(v_hint.mark_at, v_hint.near_at, v_hint.sweep_at))
        or greatest(v_hint.tail, v_hint.mark) > greatest(v_settled, p_floor)
    then
        v_hint := (0, 0, p_floor, null, null, 0, 0, 0, null, 1000);
    end if;
    if (v_hint.mark is null or v_hint.mark_xid is null) and p_claim.micros >= v_hint.mark_at then
        v_hint.mark := v_settled;
        v_hint.mark_xid := pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot());
        v_hint.mark_at := p_claim.micros + 1000000;
    end if;
    if pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= v_hint.mark_xid then
        select greatest(v_hint.tail, coalesce(d.message_id, v_hint.mark)) into v_hint.tail
        from (values (1)) as always (row)
        left join lateral (
            select x.message_id
            from pubsub_data.deliveries x
            where x.topic_key = p_claim.topic_key
                and x.subscription_key = p_claim.subscription_key
                and x.message_id >= v_hint.tail
                and x.message_id < v_hint.mark
            order by x.message_id
            limit 1
        ) d on true;
        v_hint.mark := null;
        v_hint.mark_xid := null;
    end if;
    return v_hint;
end
$$;

comment on function pubsub.believed_ordered_hint is
    'What a session has noted of an ordered subscription, as far as it can be true now.';

/*
 * take_due_ordered — of what is due in an ordered subscription, what its keys allow.
 *
 * In       p_due: the ctids that are due, which are locked; p_tail: nothing is live below it
 * Out      as choose_ordered
 * Effects  a wake-up for the rest
 */
create function pubsub.take_due_ordered(
    p_claim pubsub.claim_terms, p_limit int, p_tail uuid, p_due tid[],
    out places tid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    v_ids uuid[];
    v_lanes text[];
    v_runs record;
begin
    select array_agg(d.message_id order by d.message_id), array_agg(d.lane order by d.message_id)
    into v_ids, v_lanes
    from pubsub_data.deliveries d
    where d.ctid = any(p_due);
    v_runs := pubsub.take_runs(p_claim.topic_key, p_claim.subscription_key, p_claim.now, p_limit,
        p_claim.max_attempts, p_claim.rewinds, p_tail, null, v_ids, v_lanes, '{}');
    take_due_ordered.places := v_runs.places;
    take_due_ordered.lost := v_runs.lost;
    perform pubsub.look_again(p_claim.topic_key, p_claim.subscription_key, p_claim.now,
        array(select i.id from unnest(v_ids) as i (id) where i.id = any(v_runs.left_over)),
        v_runs.others, v_runs.held_up);
end
$$;

comment on function pubsub.take_due_ordered is
    'Of what is due in an ordered subscription, what its keys allow: rows, locked.';

/*
 * look_back_ordered — what was missed in an ordered subscription, as far as its keys allow: of the last
 * second, and round and round from the tail, in bites sized to about a millisecond; each for no more than
 * 5 % of the time.
 *
 * In       p_limit: more than 0; p_head: how far the session has read; places: ctids to leave out
 * Out      places: with up to p_limit more; lost: whether the consumer of any let its lease run out; hint:
 *          when and where to look next
 * Locks    skips locked rows
 */
create function pubsub.look_back_ordered(
    p_claim pubsub.claim_terms, p_limit int, p_head uuid,
    inout hint pubsub.ordered_hint, inout places tid[], inout lost boolean
)
language plpgsql volatile
as $$
declare
    -- how many of the last second are looked at
    c_near constant int := 1000;
    v_near_from constant uuid := pubsub.id_at(p_claim.now - interval '1 second');
    v_most constant int := cardinality(places) + p_limit;
    v_step text;
    v_from uuid;
    v_upto uuid;
    v_started_at timestamptz;
    v_took bigint;
    v_found record;
    v_runs record;
begin
    foreach v_step in array array['near', 'sweep'] loop
        exit when cardinality(places) >= v_most;
        if v_step = 'near' then
            continue when p_claim.micros < hint.near_at or v_near_from >= p_head;
            v_from := v_near_from;
            v_upto := p_head;
        else
            continue when p_claim.micros < hint.sweep_at;
            v_from := greatest(hint.sweep, hint.tail);
            v_upto := least(v_near_from, p_head, pubsub.id_at(
                pubsub.id_time(v_from) + make_interval(secs => hint.sweep_millis / 1000::float8)));
            if v_upto <= v_from then
                look_back_ordered.hint.sweep := null;
                look_back_ordered.hint.sweep_at := p_claim.micros + 1000000;
                continue;
            end if;
        end if;
        v_started_at := clock_timestamp();
        -- "near" does not go on where it came to: those that are held up must not hide the others
        v_found := pubsub.find_candidates(p_claim.topic_key, p_claim.subscription_key, p_claim.now,
            greatest(20, p_limit, case v_step when 'near' then c_near end), p_claim.max_attempts,
            v_from, v_upto, places);
        v_runs := pubsub.take_runs(p_claim.topic_key, p_claim.subscription_key, p_claim.now,
            v_most - cardinality(places), p_claim.max_attempts, p_claim.rewinds, hint.tail, null,
            v_found.ids, v_found.lanes, places);
        look_back_ordered.places := places || v_runs.places;
        look_back_ordered.lost := lost or v_runs.lost;
        v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_started_at);
        if v_step = 'near' then
            look_back_ordered.hint.near_at := p_claim.micros + least(20 * v_took, 60000000);
            continue;
        end if;
        look_back_ordered.hint.sweep_at := p_claim.micros + least(20 * v_took, 60000000);
        look_back_ordered.hint.sweep := coalesce(v_found.read_upto, v_upto);
        if v_took > 3000 then
            look_back_ordered.hint.sweep_millis := greatest(hint.sweep_millis / 4, 1);
        elsif v_found.read_upto is null and v_took < 1000 then
            look_back_ordered.hint.sweep_millis := least(hint.sweep_millis * 2, 86400000);
        end if;
    end loop;
end
$$;

comment on function pubsub.look_back_ordered is
    'What was missed in an ordered subscription, as far as its keys allow: rows, locked.';

/*
 * choose_ordered — what a claim of an ordered subscription may lease.
 *
 * In       p_floor: no message of the subscription has a lower id; p_head: how far the session has read;
 *          p_due: the ctids that are due, which are locked
 * Out      places: the ctids of up to p_limit deliveries, which are locked now; head: how far it has
 *          read now; lost: whether the consumer of any of them let its lease run out
 * Locks    skips locked rows
 * Effects  notes what was read in the session
 */
create function pubsub.choose_ordered(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int, p_head uuid, p_due tid[],
    out places tid[], out head uuid, out lost boolean
)
language plpgsql volatile
as $$
declare
    -- how many fresh ones a claim looks at, and when it has found nothing yet
    c_fresh constant int := 1000;
    c_held_up constant int := 10000;
    v_hint pubsub.ordered_hint := pubsub.believed_ordered_hint(p_claim, p_floor);
    v_upto uuid;
    v_window int := greatest(20, p_limit);
    v_looked_at int := 0;
    v_found record;
    v_runs record;
begin
    choose_ordered.head := p_head;
    choose_ordered.places := '{}';
    choose_ordered.lost := false;
    if p_due <> '{}' then
        v_runs := pubsub.take_due_ordered(p_claim, p_limit, v_hint.tail, p_due);
        choose_ordered.places := v_runs.places;
        choose_ordered.lost := v_runs.lost;
    end if;
    if cardinality(places) < p_limit then
        v_found := pubsub.look_back_ordered(
            p_claim, p_limit - cardinality(places), head, v_hint, places, lost);
        v_hint := v_found.hint;
        choose_ordered.places := v_found.places;
        choose_ordered.lost := v_found.lost;
    end if;
    while cardinality(places) < p_limit and v_looked_at < c_held_up
        and (v_looked_at < c_fresh or places = '{}')
    loop
        v_found := pubsub.find_candidates(p_claim.topic_key, p_claim.subscription_key, p_claim.now,
            v_window, p_claim.max_attempts, head, null, places);
        v_runs := pubsub.take_runs(p_claim.topic_key, p_claim.subscription_key, p_claim.now,
            p_limit - cardinality(places), p_claim.max_attempts, p_claim.rewinds, v_hint.tail,
            v_found.ids[cardinality(v_found.ids)], v_found.ids, v_found.lanes, places);
        choose_ordered.places := places || v_runs.places;
        choose_ordered.lost := lost or v_runs.lost;
        if v_runs.held_up is not null then
            perform pubsub.look_again(p_claim.topic_key, p_claim.subscription_key, p_claim.now, null,
                null, v_runs.held_up);
        end if;
        v_looked_at := v_looked_at + cardinality(v_found.ids);
        if v_runs.left_over <> '{}' then
            -- the first one that is left comes next
            v_upto := v_found.ids[pg_catalog.width_bucket(v_runs.left_over[1], v_found.ids)
                - (v_runs.left_over[1] = any(v_found.ids))::int];
            exit when coalesce(v_upto <= head, true);
            choose_ordered.head := v_upto;
            continue;
        end if;
        choose_ordered.head := coalesce(v_found.read_upto, head);
        exit when cardinality(v_found.ids) < v_window;
        -- more at once where all is held up
        v_window := case when v_runs.places = '{}' then least(c_fresh, 4 * v_window)
            else greatest(20, 2 * (p_limit - cardinality(places))) end;
    end loop;

    v_hint.noted_at := p_claim.micros;
    v_hint.rewinds := p_claim.rewinds;
    perform set_config(
        pubsub.hint_name('ordered', p_claim.subscription_key), v_hint::text, false);
end
$$;

comment on function pubsub.choose_ordered is
    'What a claim of an ordered subscription may lease: rows, locked.';
