/*
 * Priority: in a subscription to which a message with a priority (1 to 9) was ever published, claims
 * hand out the higher ones first. The lane of such a message is its priority; one of priority 0 has
 * none.
 *
 * Every session notes how far it has read each lane (hints.sql).
 * So entries of messages that are gone are walked once, also while a long transaction keeps them. What
 * lies below is found again like any straggler: a lane is read again from a second ago, for no more
 * than 5 % of the time, and the sweeps of a claim go over all lanes.
 *
 * Low priorities are never starved: at least one of every ten messages that a session hands out is the
 * oldest that is ready, whatever its priority. So a message with n older ones before it is handed out
 * within 10 (n + 1) deliveries of its session.
 */

/*
 * choose_by_priority — what is ready and has a priority, the highest first, and the oldest within one.
 *
 * In       p_head: how far the session has read the subscription; p_taken: ctids to leave out
 * Out      places: the ctids of up to p_limit deliveries, which are locked now; lost: whether the
 *          consumer of any of them let its lease run out
 * Locks    only what it returns; skips locked rows
 */
create function pubsub.choose_by_priority(
    p_topic_key bigint, p_subscription_key bigint, p_now timestamptz, p_limit int,
    p_max_attempts int, p_rewinds int, p_head uuid, p_taken tid[],
    out places tid[], out lost boolean
)
language plpgsql volatile
as $$
declare
    c_lanes constant text[] := array['9', '8', '7', '6', '5', '4', '3', '2', '1'];
    v_recent constant uuid := pubsub.id_at(p_now - interval '1 second');
    v_ahead constant uuid := pubsub.id_at(p_now + interval '1 second');
    v_micros constant bigint := pubsub.micros(p_now);
    v_setting constant text := pubsub.hint_name('urgent', p_subscription_key);
    v_hint pubsub.urgent_hint;
    v_heads uuid[];
    v_looks_back boolean;
    v_ids uuid[];
    v_lanes text[];
begin
    begin
        v_hint := nullif(current_setting(v_setting, true), '')::pubsub.urgent_hint;
    exception when data_exception then
        v_hint := null;
    end;
    if v_hint is not null and v_hint.rewinds = p_rewinds and cardinality(v_hint.heads) = 9
        and pubsub.is_credible(v_micros, v_hint.noted_at, v_hint.look_back_at)
    then
        v_heads := array(
            select greatest(case when h.head <= v_ahead then h.head end, p_head)
            from unnest(v_hint.heads) with ordinality as h (head, position)
            order by h.position
        );
    else
        v_hint := (0, 0, 0, null);
        v_heads := array_fill(p_head, array[9]);
    end if;
    v_looks_back := v_micros >= v_hint.look_back_at;

    -- the lanes one after the other, only as far as the limit
    select coalesce(array_agg(p.place), '{}'), array_agg(p.message_id), array_agg(p.lane),
        count(p.lease) > 0
    into choose_by_priority.places, v_ids, v_lanes, choose_by_priority.lost
    from (
        select d.place, d.message_id, d.lane, d.lease
        from unnest(c_lanes, v_heads) as l (lane, head)
        cross join lateral (
            select x.ctid as place, x.message_id, x.lane, x.lease
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.lane = l.lane
                and x.message_id > case when v_looks_back
                    then greatest(least(l.head, v_recent), p_head) else l.head end
                and x.visible_at <= p_now
                and x.attempts < p_max_attempts
                and (x.expires_at is null or x.expires_at > p_now)
                and x.ctid <> all(p_taken)
            order by x.message_id
            limit p_limit
            for update skip locked
        ) d
        limit p_limit
    ) p;
    if v_looks_back then
        v_hint.look_back_at := v_micros
            + least(20 * (pubsub.micros(clock_timestamp()) - v_micros), 60000000);
    end if;

    v_hint.heads := array(
        select case
            -- not looked at
            when l.lane < v_lanes[p_limit] then l.head
            -- looked at up to what was taken last
            when l.lane = v_lanes[p_limit] then case
                when v_ids[p_limit] > v_ahead then greatest(l.head, v_recent)
                else greatest(l.head, v_ids[p_limit])
            end
            -- looked at to its end
            else greatest(l.head, v_recent, (
                select t.message_id
                from unnest(v_ids, v_lanes) as t (message_id, lane)
                where t.lane = l.lane and t.message_id <= v_ahead
                order by t.message_id desc
                limit 1
            ))
        end
        from unnest(c_lanes, v_heads) with ordinality as l (lane, head, position)
        order by l.position
    );
    v_hint.noted_at := v_micros;
    v_hint.rewinds := p_rewinds;
    perform set_config(v_setting, v_hint::text, false);
end
$$;

comment on function pubsub.choose_by_priority is
    'What is ready and has a priority, the highest first: rows to lease, locked.';
