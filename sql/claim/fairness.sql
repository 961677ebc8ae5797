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
 * in flight are walked again, how far publish order was, and when to look for what again, as in
 * claims.sql.
 */

/*
 * lane_mark — a short name for a lane, however long its value is.
 */
create function pubsub.lane_mark(p_lane text)
returns text
language sql immutable parallel safe
begin atomic
    select substr(md5(p_lane), 1, 16);
end;

comment on function pubsub.lane_mark is
    'A short name of a lane, under which a session notes how far it was read.';

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
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_floor uuid, p_taken tid[], p_heads jsonb, p_last text,
    out places tid[], out heads jsonb, out last text, out complete boolean
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    -- a claim looks at no more lanes
    c_lanes constant int := 64;
    -- where reading a lane starts once it was read to its end: what is older and comes is a straggler
    v_read_upto constant uuid := pubsub.id_at(p_now - interval '1 second');
    v_ahead constant uuid := pubsub.id_at(p_now + interval '1 second');
    v_lanes text[];
    v_after uuid[];
    v_farthest text;
    v_wanted int;
    v_quota int := 1;
    v_round record;
begin
    take_from_lanes.places := '{}';
    take_from_lanes.heads := p_heads;
    take_from_lanes.last := p_last;
    select array_agg(l.lane order by l.part, l.lane),
        array_agg(coalesce((p_heads ->> pubsub.lane_mark(l.lane))::uuid, p_floor)
            order by l.part, l.lane)
    into v_lanes, v_after
    from (
        (
            select 1 as part, f.lane from pubsub_data.fair_lanes f
            where f.topic_key = p_topic_key
                and f.subscription_key = p_subscription_key
                and f.lane > p_last
            order by f.lane
            limit c_lanes
        )
        union all
        (
            select 2, f.lane from pubsub_data.fair_lanes f
            where f.topic_key = p_topic_key
                and f.subscription_key = p_subscription_key
                and f.lane <= p_last
            order by f.lane
            limit c_lanes
        )
        order by part, lane
        limit c_lanes
    ) l;
    take_from_lanes.complete := coalesce(cardinality(v_lanes), 0) < c_lanes;
    v_farthest := v_lanes[c_lanes];

    -- the first round takes one message a lane, the next ones share what is left among those that
    -- gave all they were asked for
    loop
        v_wanted := p_limit - cardinality(take_from_lanes.places);
        exit when v_wanted <= 0 or v_lanes is null;
        with picked as materialized (
            select l.position, p.place, p.message_id
            from unnest(v_lanes, v_after) with ordinality as l (lane, after, position)
            cross join lateral (
                -- rows compared and ordered so that no other index will do
                select d.ctid as place, d.message_id
                from pubsub_data.deliveries d
                where d.topic_key = p_topic_key
                    and d.subscription_key = p_subscription_key
                    and (d.lane, d.message_id) > (l.lane, l.after)
                    and d.lane <= l.lane
                    and d.visible_at <= p_now
                    and d.attempts < p_max_attempts
                    and (d.expires_at is null or d.expires_at > p_now)
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
                case when k.head <= v_ahead then k.head else v_read_upto end) as heads,
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
        v_quota := greatest(1,
            (p_limit - cardinality(take_from_lanes.places)) / coalesce(cardinality(v_lanes), 1));
    end loop;

    if v_wanted > 0 then
        -- all that were looked at were read to their end: go on with others
        take_from_lanes.last := coalesce(v_farthest, take_from_lanes.last);
    else
        take_from_lanes.complete := false;
    end if;
    -- a lane that is forgotten is read from its start again
    if pg_column_size(take_from_lanes.heads) > 8000 then
        select coalesce(jsonb_object_agg(h.mark, h.head), '{}') into take_from_lanes.heads
        from jsonb_each(take_from_lanes.heads) as h (mark, head)
        where random() < 0.5;
    end if;
end
$$;

comment on function pubsub.take_from_lanes is
    'Lock ready deliveries, shared evenly between the lanes of a subscription.';

/*
 * choose_fair — what a claim of a subscription with a fairness key leases.
 *
 * In       p_floor: no message of the subscription has a lower id; p_rewinds, p_rewound_to: of the
 *          subscription, whose messages may have come back
 * Out      the ctids of up to p_limit deliveries, locked, in the order of handing out
 * Locks    skips what others hold, never waits
 * Effects  those of take_due; notes what was read in the session
 */
create function pubsub.choose_fair(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_floor uuid, p_rewinds int, p_rewound_to uuid
)
returns tid[]
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_micros constant bigint := pubsub.micros(p_now);
    v_setting constant text := pubsub.hint_name('fair', p_subscription_key);
    v_hint pubsub.fair_hint;
    -- retries have half of a claim, in turn the smaller half, as long as lanes fill the other
    v_due_limit int;

    v_look_from timestamptz;
    v_due record;
    v_due_left boolean := false;
    v_near_from constant uuid := pubsub.id_at(p_now - interval '1 second');
    v_ahead constant uuid := pubsub.id_at(p_now + interval '1 second');
    v_head_before uuid;
    v_lanes record;
    v_complete boolean := false;
    v_step text;
    v_wanted int;
    v_after uuid;
    v_upto uuid;
    v_started_at timestamptz;
    v_took bigint;
    v_picked tid[];
    v_last_seen uuid;
    v_places tid[] := '{}';
begin
    begin
        v_hint := nullif(current_setting(v_setting, true), '')::pubsub.fair_hint;
        if exists (
            select from jsonb_each_text(v_hint.heads) as h (mark, head) where h.head::uuid > v_ahead
        ) then
            v_hint := null;
        end if;
    exception when data_exception then
        v_hint := null;
    end;
    if (v_hint is not null and v_hint.turn in (0, 1) and v_hint.head <= v_ahead
        and pubsub.is_credible(v_micros, greatest(v_hint.noted_at, v_hint.due_from),
            greatest(v_hint.due_recent_at, v_hint.due_all_at, v_hint.near_at, v_hint.far_at))
    ) is not true then
        v_hint := (0, p_rewinds, null, '{}', p_floor, 0, v_micros, 0, 0, 0, c_highest, 1000, 0);
    elsif v_hint.rewinds <> p_rewinds then
        v_hint.head := least(v_hint.head, p_rewound_to);
        v_hint.heads := coalesce((
            select jsonb_object_agg(h.mark, least(h.head::uuid, p_rewound_to))
            from jsonb_each_text(v_hint.heads) as h (mark, head)
        ), '{}');
    end if;
    v_hint.turn := 1 - v_hint.turn;
    v_due_limit := (p_limit + v_hint.turn) / 2;
    v_head_before := greatest(v_hint.head, v_near_from);
    if v_hint.last is null then
        -- new sessions start anywhere, or the first lanes would have more than their share
        select f.lane into v_hint.last
        from pubsub_data.fair_lanes f
        where f.topic_key = p_topic_key and f.subscription_key = p_subscription_key
        order by f.lane
        offset floor(random() * (
            select count(*) from (
                select from pubsub_data.fair_lanes x
                where x.topic_key = p_topic_key and x.subscription_key = p_subscription_key
                limit 1000
            ) lanes
        ))
        limit 1;
        v_hint.last := coalesce(v_hint.last, '');
    end if;
    -- wake-ups that were committed late lie below the last one processed
    v_look_from := to_timestamp(v_hint.due_from / 1000000::float8);
    if v_micros >= v_hint.due_all_at then
        v_look_from := '-infinity';
    elsif v_micros >= v_hint.due_recent_at then
        v_look_from := v_look_from - interval '5 seconds';
        v_hint.due_recent_at := v_micros + 1000000;
    end if;

    foreach v_step in array array['due', 'near', 'far', 'lanes', 'fresh', 'rest'] loop
        v_wanted := p_limit - cardinality(v_places);
        exit when v_wanted <= 0;
        if v_step in ('due', 'rest') then
            if v_step = 'rest' then
                exit when not v_due_left;
                v_due_limit := v_wanted;
            elsif v_due_limit = 0 then
                v_due_left := true;
                continue;
            end if;
            v_due := pubsub.take_due(p_topic_key, p_subscription_key, v_look_from, p_now,
                v_due_limit, p_max_attempts);
            v_due_left := cardinality(v_due.ready) = v_due_limit;
            v_hint.due_from := greatest(v_hint.due_from,
                pubsub.micros(greatest(v_due.last_due_at, 'epoch')));
            if v_look_from = '-infinity' then
                -- for no more than 1 % of the time, where many are gone that vacuum may not remove
                v_took := pubsub.micros(clock_timestamp()) - v_micros;
                v_hint.due_all_at := v_micros + greatest(2000000, least(100 * v_took, 60000000));
            end if;
            v_places := v_places || coalesce(v_due.ready, '{}');
            continue;
        elsif v_step = 'lanes' then
            v_lanes := pubsub.take_from_lanes(p_topic_key, p_subscription_key, p_now, v_wanted,
                p_max_attempts, p_floor, v_places, v_hint.heads, v_hint.last);
            v_hint.heads := v_lanes.heads;
            v_hint.last := v_lanes.last;
            v_complete := v_lanes.complete;
            v_places := v_places || v_lanes.places;
            continue;
        elsif v_step = 'near' then
            continue when v_micros < v_hint.near_at;
            v_after := v_near_from;
            v_upto := c_highest;
        elsif v_step = 'far' then
            continue when v_micros < v_hint.far_at;
            v_upto := least(v_hint.far_upto, v_near_from);
            v_after := greatest(p_floor, pubsub.id_at(
                pubsub.id_time(v_upto) - make_interval(secs => v_hint.far_millis / 1000::float8)));
            if v_upto <= v_after then
                v_hint.far_upto := c_highest;
                v_hint.far_at := v_micros + 1000000;
                continue;
            end if;
        else
            -- with all lanes at their ends only unlisted ones are left, which may wait for "far"
            v_after := case when v_complete
                then greatest(v_hint.head, pubsub.id_at(p_now - interval '10 seconds'))
                else v_hint.head end;
            v_upto := c_highest;
        end if;

        v_started_at := clock_timestamp();
        select coalesce(array_agg(p.place order by p.message_id), '{}'),
            -- short of what was wanted, the whole range was looked at, with this snapshot
            case when count(*) < v_wanted then (
                select d.message_id
                from pubsub_data.deliveries d
                where d.topic_key = p_topic_key
                    and d.subscription_key = p_subscription_key
                    and d.message_id > v_after
                    and v_step = 'fresh'
                order by d.message_id desc
                limit 1
            ) else (array_agg(p.message_id order by p.message_id))[v_wanted] end
        into v_picked, v_last_seen
        from (
            select d.ctid as place, d.message_id
            from pubsub_data.deliveries d
            where d.topic_key = p_topic_key
                and d.subscription_key = p_subscription_key
                and d.message_id > v_after
                and d.message_id <= v_upto
                and d.visible_at <= p_now
                and d.attempts < p_max_attempts
                and (d.expires_at is null or d.expires_at > p_now)
                and d.ctid <> all(v_places)
                -- stragglers are what neither wake-ups nor going round the lanes would find
                and (v_step = 'fresh' or d.attempts = 0 and (
                    d.message_id <= (v_hint.heads ->> pubsub.lane_mark(d.lane))::uuid
                    or (
                        select f.lane
                        from pubsub_data.fair_lanes f
                        where f.topic_key = p_topic_key
                            and f.subscription_key = p_subscription_key
                            and f.lane = d.lane
                        limit 1
                    ) is null
                ))
            order by d.message_id
            limit v_wanted
            for update skip locked
        ) p;
        v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_started_at);

        case v_step
            when 'near' then
                v_hint.near_at := v_micros + least(20 * v_took, 60000000);
            when 'far' then
                v_hint.far_at := v_micros + least(20 * v_took, 60000000);
                -- a full claim leaves the rest of the bite for the next one
                if v_last_seen is null then
                    v_hint.far_upto := v_after;
                    if v_took < 1000 then
                        v_hint.far_millis := least(v_hint.far_millis * 2, 86400000);
                    elsif v_took > 3000 then
                        v_hint.far_millis := greatest(v_hint.far_millis / 4, 1);
                    end if;
                end if;
            else
                v_hint.head := case when cardinality(v_picked) < v_wanted
                    then greatest(v_after, v_last_seen, v_near_from) else v_last_seen end;
                if v_hint.head > v_ahead then
                    v_hint.head := v_head_before;
                end if;
        end case;
        v_places := v_places || v_picked;
    end loop;

    v_hint.noted_at := v_micros;
    v_hint.rewinds := p_rewinds;
    perform set_config(v_setting, v_hint::text, false);
    return v_places;
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
