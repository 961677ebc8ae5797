/*
 * What a claim looks at: ranges of ids, and what is due.
 */

/*
 * take_range — lock the single deliveries that are ready in a range of ids.
 *
 * In       above p_after, up to p_upto or, if that is null, to the first run that is ready; p_taken: ctids to
 *          leave out
 * Out      places: the ctids of up to p_limit deliveries, in id order; read_upto: the last of them, or,
 *          short of the limit, the last id of the subscription above p_after, ready or not; run_id: short of the
 *          limit, the first run that is ready; lost: whether the consumer of any of them let its lease run out;
 *          large: whether the message of any may be large; places and these are null where there is nothing
 * Locks    only what it returns; skips locked rows
 */
create function pubsub.take_range(
    p_claim pubsub.claim_terms, p_after uuid, p_upto uuid, p_limit int, p_taken tid[],
    out places tid[], out read_upto uuid, out run_id uuid, out lost boolean, out large boolean
)
language plpgsql volatile
as $$
begin
    -- one statement: a run that is committed between two would be passed
    select array_agg(p.place),
        case when count(*) < p_limit then (
            select d.message_id
            from pubsub_data.deliveries d
            where d.topic_key = p_claim.topic_key
                and d.subscription_key = p_claim.subscription_key
                and d.message_id > p_after
            order by d.message_id desc
            limit 1
        ) else (array_agg(p.message_id))[p_limit] end,
        case when count(*) < p_limit and p_upto is null then (
            select r.run_id
            from pubsub_data.runs r
            where r.topic_key = p_claim.topic_key
                and r.subscription_key = p_claim.subscription_key
                and r.run_id > p_after
                and r.lease is null
            order by r.run_id
            limit 1
        ) end,
        count(p.lease) > 0, count(p.is_large) > 0
    into take_range.places, take_range.read_upto, take_range.run_id, take_range.lost,
        take_range.large
    from (
        select d.ctid as place, d.message_id, d.lease, d.is_large
        from pubsub_data.deliveries d
        where d.topic_key = p_claim.topic_key
            and d.subscription_key = p_claim.subscription_key
            and d.message_id > p_after
            and d.message_id <= coalesce(p_upto, (
                select r.run_id
                from pubsub_data.runs r
                where r.topic_key = p_claim.topic_key
                    and r.subscription_key = p_claim.subscription_key
                    and r.run_id > p_after
                    and r.lease is null
                order by r.run_id
                limit 1
            ), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            and d.visible_at <= p_claim.now
            and d.attempts < p_claim.max_attempts
            and (d.expires_at is null or d.expires_at > p_claim.now)
            and d.ctid <> all(p_taken)
        order by d.message_id
        limit p_limit
        for update skip locked
    ) p;
end
$$;

comment on function pubsub.take_range is
    'Lock the single deliveries that are ready in a range of message ids.';

/*
 * take_missed — take_range for look_back.
 *
 * In       p_heads: how far lanes were read, by lane_mark; null where lanes are not read one by one
 * Out      as take_range; of lanes, only what neither wake-ups nor going round the lanes would find
 */
create function pubsub.take_missed(
    p_claim pubsub.claim_terms, p_after uuid, p_upto uuid, p_limit int, p_taken tid[], p_heads jsonb,
    out places tid[], out lost boolean
)
language plpgsql volatile
as $$
begin
    if p_heads is null then
        -- not the frequent case: what was missed is leased one by one
        perform pubsub.break_up_ready(
            p_claim.topic_key, p_claim.subscription_key, p_after, p_upto, p_limit);
        select r.places, r.lost into take_missed.places, take_missed.lost
        from pubsub.take_range(p_claim, p_after, p_upto, p_limit, p_taken) r;
        return;
    end if;
    select array_agg(p.place), count(p.lease) > 0 into take_missed.places, take_missed.lost
    from (
        select d.ctid as place, d.lease
        from pubsub_data.deliveries d
        where d.topic_key = p_claim.topic_key
            and d.subscription_key = p_claim.subscription_key
            and d.message_id > p_after
            and d.message_id <= p_upto
            and d.visible_at <= p_claim.now
            and d.attempts = 0
            and (d.expires_at is null or d.expires_at > p_claim.now)
            and d.ctid <> all(p_taken)
            and (
                d.message_id <= (p_heads ->> pubsub.lane_mark(d.lane))::uuid
                or (
                    select f.lane
                    from pubsub_data.fair_lanes f
                    where f.topic_key = p_claim.topic_key
                        and f.subscription_key = p_claim.subscription_key
                        and f.lane = d.lane
                    limit 1
                ) is null
            )
        order by d.message_id
        limit p_limit
        for update skip locked
    ) p;
end
$$;

comment on function pubsub.take_missed is 'Lock what is ready in a range that was read already.';

/*
 * look_back_grace — by how many microseconds a claim that finds enough without it looks back later than one
 * that would end with less: looking costs it more than the scan that look_back measures.
 */
create function pubsub.look_back_grace()
returns bigint
language sql immutable parallel safe
begin atomic
    select 20000::bigint;
end;

comment on function pubsub.look_back_grace is
    'By how many microseconds claims that find enough look back later.';

/*
 * look_back — lock stragglers: what is ready though the session has read past it, because its publisher
 * committed late or a claim of it was rolled back. Of the last second, and, in bites sized to about a
 * millisecond, of earlier times; each for no more than 5 % of the time.
 *
 * In       p_floor: no message of the subscription has a lower id; p_limit: more than 0; p_heads: of lanes
 *          that are read one by one, as in take_missed, else null; places: ctids to leave out
 * Out      places: with up to p_limit more; lost: whether the consumer of any let its lease run out; hint:
 *          when and where to look next, earlier where it found as many as it wanted
 * Locks    only what it returns; skips locked rows
 */
create function pubsub.look_back(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int, p_heads jsonb,
    inout hint pubsub.claim_hint, inout places tid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    -- who found as many as it wanted looks for more as if nobody waited
    c_grace constant bigint := pubsub.look_back_grace();
    v_near_from constant uuid := pubsub.id_at(p_claim.now - interval '1 second');
    v_read_upto constant uuid := case when p_heads is null then hint.head else c_highest end;
    v_most constant int := cardinality(places) + p_limit;
    v_found record;
    v_upto uuid;
    v_after uuid;
    v_started_at timestamptz;
    v_bite_at timestamptz;
    v_took bigint;
begin
    look_back.lost := false;
    if v_near_from >= v_read_upto then
        look_back.hint.near_at := p_claim.micros;
    elsif p_claim.micros >= hint.near_at then
        v_started_at := clock_timestamp();
        v_found := pubsub.take_missed(
            p_claim, v_near_from, v_read_upto, p_limit, places, p_heads);
        v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_started_at);
        look_back.places := places || v_found.places;
        look_back.lost := v_found.lost;
        look_back.hint.near_at := p_claim.micros + least(20 * v_took, 60000000)
            - case when cardinality(places) >= v_most then c_grace else 0 end;
    end if;
    if p_claim.micros < hint.far_at or cardinality(places) >= v_most then
        return;
    end if;
    v_started_at := clock_timestamp();
    -- bite after bite where little lies, until a millisecond is over
    loop
        v_upto := least(hint.far_upto, v_near_from, v_read_upto);
        v_after := greatest(p_floor, pubsub.id_at(
            pubsub.id_time(v_upto) - make_interval(secs => hint.far_millis / 1000::float8)));
        if v_upto <= v_after then
            look_back.hint.far_upto := c_highest;
            look_back.hint.far_at := p_claim.micros + 1000000;
            return;
        end if;
        v_bite_at := clock_timestamp();
        v_found := pubsub.take_missed(
            p_claim, v_after, v_upto, v_most - cardinality(places), places, p_heads);
        v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_bite_at);
        look_back.places := places || v_found.places;
        look_back.lost := lost or v_found.lost;
        -- a full claim leaves the rest of the bite for the next one
        exit when cardinality(places) >= v_most;
        look_back.hint.far_upto := v_after;
        if v_took < 1000 then
            look_back.hint.far_millis := least(hint.far_millis * 2, 1000000000);
        elsif v_took > 3000 then
            look_back.hint.far_millis := greatest(hint.far_millis / 4, 1);
        end if;
        exit when clock_timestamp() >= v_started_at + interval '1 ms';
    end loop;
    v_took := pubsub.micros(clock_timestamp()) - pubsub.micros(v_started_at);
    look_back.hint.far_at := p_claim.micros + least(20 * v_took, 60000000)
        - case when cardinality(places) >= v_most then c_grace else 0 end;
end
$$;

comment on function pubsub.look_back is 'Lock what is ready below what the session has read.';

/*
 * take_wakeups — take_due for claims, which look where they did not look lately: from the last wake-up
 * that was worked off, every second a little below it, where some were committed late, and every 2
 * seconds everywhere, though for no more than 1 % of the time, where many are gone that vacuum may not
 * remove.
 *
 * Out      places: with up to p_limit more; lost: whether the consumer of any let its lease run out
 * Locks    and effects: those of take_due
 */
create function pubsub.take_wakeups(
    p_claim pubsub.claim_terms, p_limit int,
    inout hint pubsub.claim_hint, inout places tid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    v_look_from timestamptz := to_timestamp(hint.due_from / 1000000::float8);
    v_due record;
    v_took bigint;
begin
    if p_claim.micros >= hint.due_all_at then
        v_look_from := '-infinity';
    elsif p_claim.micros >= hint.due_recent_at then
        v_look_from := v_look_from - interval '5 seconds';
        take_wakeups.hint.due_recent_at := p_claim.micros + 1000000;
    end if;
    v_due := pubsub.take_due(p_claim.topic_key, p_claim.subscription_key, v_look_from, p_claim.now,
        p_limit, p_claim.max_attempts);
    take_wakeups.hint.due_from := greatest(hint.due_from,
        pubsub.micros(greatest(v_due.last_due_at, 'epoch')));
    if v_look_from = '-infinity' then
        v_took := pubsub.micros(clock_timestamp()) - p_claim.micros;
        take_wakeups.hint.due_all_at :=
            p_claim.micros + greatest(2000000, least(100 * v_took, 60000000));
    end if;
    take_wakeups.places := places || array(
        select p.place from unnest(v_due.ready) as p (place) where p.place <> all(places));
    take_wakeups.lost := coalesce(v_due.lost, false);
end
$$;

comment on function pubsub.take_wakeups is 'Lock what is ready of the messages whose wake-ups are due.';
