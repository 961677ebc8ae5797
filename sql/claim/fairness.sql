/*
 * Fairness: the deliveries of a subscription with a fairness key are shared evenly between lanes, the
 * values of that attribute ('' for messages without it), so that no value waits for the backlog of
 * another. Within a lane messages are handed out in publish order.
 *
 * A claim goes round the lanes, from the one after the last that this session served. fair_lanes lists
 * them; whatever it lacks is found in publish order, when the lanes leave room, and as stragglers. So
 * it is a hint like the heads below: wrong, it costs time or evenness, never a message.
 *
 * A session notes (hints.sql) how far each of some lanes was read, so that neither dead rows nor messages
 * in flight are walked again.
 */

/*
 * next_lanes — the lanes of a subscription that come after one, round and round.
 *
 * Out      up to p_limit, null when there is none
 */
create function pubsub.next_lanes(
    p_topic_key bigint, p_subscription_key bigint, p_last text, p_limit int
)
returns text[]
language plpgsql stable parallel safe
as $$
begin
    return (
        select array_agg(l.lane order by l.part, l.lane)
        from (
            (
                select 1 as part, f.lane from pubsub_data.fair_lanes f
                where f.topic_key = p_topic_key
                    and f.subscription_key = p_subscription_key
                    and f.lane > p_last
                order by f.lane
                limit p_limit
            )
            union all
            (
                select 2, f.lane from pubsub_data.fair_lanes f
                where f.topic_key = p_topic_key
                    and f.subscription_key = p_subscription_key
                    and f.lane <= p_last
                order by f.lane
                limit p_limit
            )
            order by part, lane
            limit p_limit
        ) l
    );
end
$$;

comment on function pubsub.next_lanes is
    'The lanes of a fair subscription that come after one, round and round.';

/*
 * take_from_lanes — messages that are ready, shared evenly between lanes.
 *
 * In       p_heads: how far lanes were read, by lane_mark; p_last: the lane that was served last;
 *          p_taken: ctids that were chosen before
 * Out      places: the ctids of up to p_limit deliveries, locked; heads and last as they are now;
 *          complete: no lane has anything more
 * Locks    skips what others hold
 */
create function pubsub.take_from_lanes(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int, p_taken tid[], p_heads jsonb, p_last text,
    out places tid[], out heads jsonb, out last text, out complete boolean
)
language plpgsql volatile
as $$
declare
    -- a claim looks at no more lanes
    c_lanes constant int := 64;
    -- where reading a lane starts once it was read to its end: what is older and comes is a straggler
    v_read_upto constant uuid := pubsub.id_at(p_claim.now - interval '1 second');
    v_lanes text[] := pubsub.next_lanes(
        p_claim.topic_key, p_claim.subscription_key, p_last, c_lanes);
    v_after uuid[] := array(
        select coalesce((p_heads ->> pubsub.lane_mark(l.lane))::uuid, p_floor)
        from unnest(v_lanes) with ordinality as l (lane, position)
        order by l.position
    );
    v_farthest constant text := v_lanes[c_lanes];
    v_wanted int;
    v_quota int := 1;
    v_round record;
begin
    take_from_lanes.places := '{}';
    take_from_lanes.heads := p_heads;
    take_from_lanes.last := p_last;

    -- the first round takes one message a lane, the next ones share what is left among those that
    -- gave all they were asked for
    loop
        v_wanted := p_limit - cardinality(places);
        exit when v_wanted <= 0 or v_lanes is null;
        with picked as materialized (
            select l.position, p.place, p.message_id
            from unnest(v_lanes, v_after) with ordinality as l (lane, after, position)
            cross join lateral (
                -- rows compared and ordered so that no other index will do
                select d.ctid as place, d.message_id
                from pubsub_data.deliveries d
                where d.topic_key = p_claim.topic_key
                    and d.subscription_key = p_claim.subscription_key
                    and (d.lane, d.message_id) > (l.lane, l.after)
                    and d.lane <= l.lane
                    and d.visible_at <= p_claim.now
                    and d.attempts < p_claim.max_attempts
                    and (d.expires_at is null or d.expires_at > p_claim.now)
                    and d.ctid <> all(p_taken)
                order by d.lane, d.message_id
                limit v_quota
                for update skip locked
            ) p
            -- stops in the middle of a round: lanes after it are not looked at
            limit v_wanted
        ), served as (
            select p.position, count(*) as messages,
                (array_agg(p.message_id order by p.message_id desc))[1] as last_id
            from picked p
            group by p.position
        ), total as (
            select sum(s.messages) as messages, max(s.position) as last_position from served s
        ), looked as (
            select l.position, l.lane, more.has,
                case when more.has then s.last_id
                    else greatest(s.last_id, l.after, v_read_upto) end as head
            from unnest(v_lanes, v_after) with ordinality as l (lane, after, position)
            cross join total t
            left join served s on s.position = l.position
            cross join lateral (
                select s.messages = v_quota
                    or (t.messages = v_wanted and l.position = t.last_position) as has
            ) more
            where t.messages is distinct from v_wanted or l.position <= t.last_position
        )
        select t.messages, v_lanes[t.last_position] as last_lane,
            (select array_agg(p.place order by p.position, p.message_id) from picked p) as places,
            -- none that lies ahead is noted
            jsonb_object_agg(pubsub.lane_mark(k.lane),
                case when k.head <= p_claim.ahead then k.head else v_read_upto end) as heads,
            array_agg(k.lane order by k.position) filter (where k.has) as lanes,
            array_agg(k.head order by k.position) filter (where k.has) as after
        into v_round
        from looked k
        cross join total t
        group by t.messages, t.last_position;

        take_from_lanes.heads := take_from_lanes.heads || v_round.heads;
        take_from_lanes.places := take_from_lanes.places || coalesce(v_round.places, '{}');
        take_from_lanes.last := coalesce(v_round.last_lane, take_from_lanes.last);
        v_lanes := v_round.lanes;
        v_after := v_round.after;
        v_quota := greatest(1, (p_limit - cardinality(places)) / coalesce(cardinality(v_lanes), 1));
    end loop;

    take_from_lanes.complete := v_farthest is null and v_wanted > 0;
    if v_wanted > 0 then
        -- all that were looked at were read to their end: go on with others
        take_from_lanes.last := coalesce(v_farthest, take_from_lanes.last);
    end if;
end
$$;

comment on function pubsub.take_from_lanes is
    'Lock ready deliveries, shared evenly between the lanes of a subscription.';

/*
 * believed_fair_hint — what a session has noted of the lanes, as far as it can be true now.
 */
create function pubsub.believed_fair_hint(p_claim pubsub.claim_terms)
returns pubsub.fair_hint
language plpgsql volatile parallel restricted
as $$
declare
    v_hint pubsub.fair_hint;
begin
    begin
        v_hint := nullif(current_setting(
            pubsub.hint_name('fair', p_claim.subscription_key), true), '')::pubsub.fair_hint;
        if exists (
            select from jsonb_each_text(v_hint.heads) as h (mark, head)
            where h.head::uuid > p_claim.ahead
        ) then
            v_hint := null;
        end if;
    exception when data_exception then
        v_hint := null;
    end;
    if (v_hint is not null and v_hint.turn in (0, 1)
        and pubsub.is_credible(p_claim.micros, v_hint.noted_at, 0)) is not true
    then
        -- new sessions start anywhere, or the first lanes would have more than their share
        v_hint := (0, p_claim.rewinds, coalesce((
            select f.lane
            from pubsub_data.fair_lanes f
            where f.topic_key = p_claim.topic_key
                and f.subscription_key = p_claim.subscription_key
            order by f.lane
            offset floor(random() * (
                select count(*) from (
                    select from pubsub_data.fair_lanes x
                    where x.topic_key = p_claim.topic_key
                        and x.subscription_key = p_claim.subscription_key
                    limit 1000
                ) lanes
            ))
            limit 1
        ), ''), '{}', 0);
    elsif v_hint.rewinds <> p_claim.rewinds then
        v_hint.heads := coalesce((
            select jsonb_object_agg(h.mark, least(h.head::uuid, p_claim.rewound_to))
            from jsonb_each_text(v_hint.heads) as h (mark, head)
        ), '{}');
    end if;
    return v_hint;
end
$$;

comment on function pubsub.believed_fair_hint is
    'What a session has noted of the lanes of a subscription, as far as it can be true now.';

/*
 * choose_fair — what a claim of a subscription with a fairness key leases.
 *
 * In       p_floor: no message of the subscription has a lower id
 * Out      places: the ctids of up to p_limit deliveries, locked, in the order of handing out; lost:
 *          whether the consumer of any may have let its lease run out; hint: what the next claim goes on from
 * Locks    skips what others hold, never waits
 * Effects  those of take_due; notes what was read in the session
 */
create function pubsub.choose_fair(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int,
    inout hint pubsub.claim_hint, out places tid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_fair pubsub.fair_hint := pubsub.believed_fair_hint(p_claim);
    -- retries have half of a claim, in turn the smaller half, as long as lanes fill the other
    v_due_limit int;
    v_due_left boolean := false;
    v_complete boolean := false;
    v_step text;
    v_wanted int;
    v_after uuid;
    v_found record;
begin
    choose_fair.places := '{}';
    choose_fair.lost := true;
    v_fair.turn := 1 - v_fair.turn;
    v_due_limit := (p_limit + v_fair.turn) / 2;
    foreach v_step in array array['due', 'late', 'lanes', 'fresh', 'rest'] loop
        v_wanted := p_limit - cardinality(places);
        exit when v_wanted <= 0;
        case v_step
            when 'due', 'rest' then
                if v_step = 'rest' then
                    exit when not v_due_left;
                    v_due_limit := v_wanted;
                end if;
                v_due_left := true;
                continue when v_due_limit = 0;
                v_found := pubsub.take_wakeups(p_claim, v_due_limit, hint, places);
                v_due_left := cardinality(v_found.places) - cardinality(places) = v_due_limit;
                choose_fair.hint := v_found.hint;
                choose_fair.places := v_found.places;
            when 'late' then
                v_found := pubsub.look_back(p_claim, p_floor, v_wanted, v_fair.heads, hint, places);
                choose_fair.hint := v_found.hint;
                choose_fair.places := v_found.places;
            when 'lanes' then
                v_found := pubsub.take_from_lanes(
                    p_claim, p_floor, v_wanted, places, v_fair.heads, v_fair.last);
                v_fair.heads := v_found.heads;
                v_fair.last := v_found.last;
                v_complete := v_found.complete;
                choose_fair.places := places || v_found.places;
            else
                -- with all lanes at their ends only unlisted ones are left, which may wait for "late"
                v_after := case when v_complete
                    then greatest(hint.head, pubsub.id_at(p_claim.now - interval '10 seconds'))
                    else hint.head end;
                v_found := pubsub.take_range(p_claim, v_after, c_highest, v_wanted, places);
                choose_fair.hint.head := pubsub.credible_head(p_claim,
                    case when coalesce(cardinality(v_found.places), 0) < v_wanted
                        then greatest(v_after, v_found.read_upto,
                            pubsub.id_at(p_claim.now - interval '1 second'))
                        else v_found.read_upto end, hint.head);
                choose_fair.places := places || v_found.places;
        end case;
    end loop;

    -- a lane that is forgotten is read from its start again
    if pg_column_size(v_fair.heads) > 8000 then
        select coalesce(jsonb_object_agg(h.mark, h.head), '{}') into v_fair.heads
        from jsonb_each(v_fair.heads) as h (mark, head)
        where random() < 0.5;
    end if;
    v_fair.noted_at := p_claim.micros;
    v_fair.rewinds := p_claim.rewinds;
    perform set_config(pubsub.hint_name('fair', p_claim.subscription_key), v_fair::text, false);
end
$$;

comment on function pubsub.choose_fair is
    'Lock what a claim leases in a subscription whose deliveries are shared evenly between lanes.';

/*
 * cleanup_fair_lanes — take lanes without messages off the lists.
 *
 * Out      how many were looked at: at most p_limit, so call again until it is 0
 * Effects  a lane is looked at an hour after it was listed, or looked at before. A message that is
 *          published at this very moment may find itself unlisted, and is delivered all the same
 */
create function pubsub.cleanup_fair_lanes(p_limit int default 1000)
returns bigint
language sql volatile
set enable_seqscan = off
as $$
    with old as materialized (
        select f.ctid as place, (
            select d.message_id
            from pubsub_data.deliveries d
            where d.topic_key = f.topic_key
                and d.subscription_key = f.subscription_key
                and (d.lane, d.message_id)
                    > (f.lane, '00000000-0000-0000-0000-000000000000'::uuid)
                and d.lane <= f.lane
            order by d.lane, d.message_id
            limit 1
        ) is not null as used
        from pubsub_data.fair_lanes f
        where f.created_at < clock_timestamp() - interval '1 hour'
        limit p_limit
        for update skip locked
    ), kept as (
        update pubsub_data.fair_lanes f
        set created_at = clock_timestamp()
        where f.ctid = any(array(select o.place from old o where o.used))
    ), removed as (
        delete from pubsub_data.fair_lanes f
        where f.ctid = any(array(select o.place from old o where not o.used))
    )
    select count(*) from old
$$;

comment on function pubsub.cleanup_fair_lanes is
    'Take lanes without messages off the lists of fair subscriptions; returns how many were looked at.';
