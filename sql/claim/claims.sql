/*
 * Claiming. A claim leases deliveries to one consumer until their ack deadline. It looks, while it
 * still wants more, at
 *   1. wake-ups that are due: expired leases, ended backoffs and delays;
 *   2. stragglers, below the place it has read up to (head): messages whose publisher committed late,
 *      and claims that were rolled back;
 *   3. fresh messages above head, in publish order.
 *
 * No step may cost more when dead rows, messages in flight or waiting ones pile up (a long transaction
 * keeps vacuum away): 1 starts at the last due time it processed, 3 at head, and 2 looks back over the
 * last second and then, in bites sized to about a millisecond, over everything older, never for more
 * than 5 % of the time. So a publisher that commits late by t is found within about t.
 *
 * head and the other positions are hints of the session (hints.sql). A head whose time lies ahead is
 * never believed and never noted: once the clock was set back, new messages have lower ids.
 *
 * Plans: the tables are often tiny when a connection makes its plans and large when it uses them. So
 * every statement is written to have one plan only: rows are found by a range of the primary key, by
 * all of its columns in a "lateral ... limit 1", or by the ctid under which they were just locked.
 *
 * Answers are bounded in bytes where the caller says so: what a claim has chosen beyond the bound it gives
 * back itself. Publishing notes which messages are small (is_large), so that these do not pay for it.
 *
 * Lock order everywhere: wake-ups, then deliveries in message id order.
 */

/*
 * claim_deliveries — consume_messages_for by keys.
 *
 * In       p_floor: no message of the subscription has a lower id;
 *          p_head: of these rewinds, or null;
 *          p_mode: plain · priorities · ordered and fair (one consumer): how what is ready is chosen;
 *          p_count_by_consumer: the counters of the subscription tell consumers apart (flow.sql);
 *          p_max_bytes: what is returned has no more, unless one message alone has; null: no bound
 * Out      by consumer, then in id order; head: of these rewinds, null when the mode has none;
 *          is_cut: the bound, and not what is there, ended it: those after the last consumer may find
 *          something; bytes: at most so many, where that was looked at
 * Locks    only rows it returns; skips locked ones, never waits
 * Effects  leases what it returns: visible_at = ack deadline, attempts + 1, a new lease number
 */
create function pubsub.claim_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_floor uuid, p_consumer_ids text[],
    p_limits int[], p_ack_deadline_seconds int, p_max_attempts int, p_head uuid, p_mode text,
    p_rewinds int, p_rewound_to uuid, p_count_by_consumer boolean default false,
    p_max_bytes bigint default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid, is_cut boolean, bytes bigint
)
language plpgsql volatile rows 10
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_now constant timestamptz := clock_timestamp();
    v_ack_deadline constant timestamptz := v_now + make_interval(secs => p_ack_deadline_seconds);
    -- not from a sequence: after a crash it may repeat numbers of claims that were not yet on disk
    v_lease constant bigint := random() * 9007199254740992;
    v_limit constant int := (select sum(l.wanted) from unnest(p_limits) as l (wanted));
    v_micros constant bigint := pubsub.micros(v_now);
    v_setting constant text := pubsub.hint_name('claim', p_subscription_key);
    v_hint pubsub.claim_hint;

    v_head uuid;
    -- where the head goes when it would lie ahead
    v_head_before uuid;
    v_look_from timestamptz;
    v_last_due_at timestamptz;
    v_near_from constant uuid := pubsub.id_at(v_now - interval '1 second');
    v_ahead constant uuid := pubsub.id_at(v_now + interval '1 second');
    v_step text;
    v_quota int := v_limit;
    -- of priorities: how many are the turn of the oldest
    v_aged int;
    v_after uuid;
    v_upto uuid;
    v_wanted int;
    v_started_at timestamptz;
    v_took bigint;
    v_picked tid[];
    v_last_seen uuid;
    v_places tid[] := '{}';
    -- whether a lease that ran out is among them
    v_lost boolean := false;
    v_taken int := 0;
    v_leased_ids uuid[];
    v_leased_attempts int[];
    v_ids uuid[] := '{}';
    v_attempts int[] := '{}';
    v_consumers int[] := '{}';
    v_large boolean := false;
    v_bytes bigint;
    v_kept uuid[];
    v_cut uuid[];
begin
    begin
        v_hint := nullif(current_setting(v_setting, true), '')::pubsub.claim_hint;
    exception when data_exception then
        v_hint := null;
    end;
    if v_hint is not null and pubsub.is_credible(v_micros, greatest(v_hint.noted_at, v_hint.due_from),
        greatest(v_hint.due_recent_at, v_hint.due_all_at, v_hint.near_at, v_hint.far_at))
    then
        v_head := case when v_hint.head <= v_ahead then v_hint.head end;
        -- messages came back below what this session has read
        if v_hint.rewinds <> p_rewinds then
            -- rewound_to is that of the last time; who missed more is like a new connection
            v_head := case when v_hint.rewinds = p_rewinds - 1 and p_rewound_to is not null
                then least(v_head, p_rewound_to) end;
            v_hint.near_at := 0;
            v_hint.far_at := 0;
            v_hint.far_upto := c_highest;
        end if;
    else
        v_hint := (0, 0, c_lowest, 0, v_micros, 0, 0, 0, c_highest, 1000, 0);
    end if;
    v_head := greatest(v_head, case when p_head <= v_ahead then p_head end);
    if v_head is null then
        select r.head into v_head
        from (
            select w.head, w.rewinds from pubsub_data.wakeups w
            where w.topic_key = p_topic_key
                and w.subscription_key = p_subscription_key
                and w.due_at > v_now
            order by w.due_at desc, w.wakeup_number desc
            limit 8
        ) r
        where r.rewinds = p_rewinds and r.head <= v_ahead
        order by r.head desc nulls last
        limit 1;
        v_head := coalesce(v_head, c_lowest);
    end if;
    v_head_before := greatest(v_head, v_near_from);

    if p_mode = 'priorities' then
        v_quota := (greatest(0, least(9, v_hint.since_aged)) + v_limit) / 10;
    end if;
    foreach v_step in array case p_mode
        when 'ordered' then array['due', 'ordered']
        when 'fair' then array['fair']
        -- first the share of the oldest
        when 'priorities'
            then array['near', 'far', 'fresh', 'due', 'urgent', 'near', 'far', 'fresh']
        else array['due', 'near', 'far', 'fresh']
    end loop
        v_wanted := v_quota - cardinality(v_places);
        continue when v_wanted <= 0 and v_step not in ('due', 'ordered');
        case v_step
            when 'due' then
                if p_mode = 'priorities' then
                    v_aged := cardinality(v_places);
                    v_quota := v_limit;
                    v_wanted := v_quota - v_aged;
                    continue when v_wanted = 0;
                end if;
                -- wake-ups that were committed late lie below the last one processed
                v_look_from := to_timestamp(v_hint.due_from / 1000000::float8);
                if v_micros >= v_hint.due_all_at then
                    v_look_from := '-infinity';
                elsif v_micros >= v_hint.due_recent_at then
                    v_look_from := v_look_from - interval '5 seconds';
                    v_hint.due_recent_at := v_micros + 1000000;
                end if;
                select coalesce(t.ready, '{}'), t.last_due_at, v_lost or coalesce(t.lost, false)
                into v_picked, v_last_due_at, v_lost
                from pubsub.take_due(
                    p_topic_key, p_subscription_key, v_look_from, v_now, v_wanted, p_max_attempts
                ) t;
                v_hint.due_from := greatest(v_hint.due_from,
                    pubsub.micros(greatest(v_last_due_at, 'epoch')));
                if v_look_from = '-infinity' then
                    -- for no more than 1 % of the time, where many are gone that vacuum may not remove
                    v_took := pubsub.micros(clock_timestamp()) - v_micros;
                    v_hint.due_all_at := v_micros + greatest(2000000, least(100 * v_took, 60000000));
                end if;
                if v_places = '{}' then
                    v_places := v_picked;
                else
                    v_places := v_places || array(
                        select p.place from unnest(v_picked) as p (place)
                        where p.place <> all(v_places));
                end if;
                continue;
            when 'near' then
                continue when v_micros < v_hint.near_at or v_near_from >= v_head;
                v_after := v_near_from;
                v_upto := v_head;
            when 'far' then
                continue when v_micros < v_hint.far_at;
                v_upto := least(v_hint.far_upto, v_near_from, v_head);
                v_after := greatest(p_floor, pubsub.id_at(
                    pubsub.id_time(v_upto) - make_interval(secs => v_hint.far_millis / 1000::float8)));
                if v_upto <= v_after then
                    v_hint.far_upto := c_highest;
                    v_hint.far_at := v_micros + 1000000;
                    continue;
                end if;
            when 'fresh' then
                v_after := v_head;
                v_upto := c_highest;
            when 'ordered' then
                -- of what is due, too, only what its key allows
                select o.places, o.head, o.lost into v_places, v_head, v_lost
                from pubsub.choose_ordered(p_topic_key, p_subscription_key, v_now, v_limit,
                    p_max_attempts, p_floor, p_rewinds, v_head, v_places) o;
                continue;
            when 'urgent' then
                select u.places, v_lost or u.lost into v_picked, v_lost
                from pubsub.choose_by_priority(p_topic_key, p_subscription_key, v_now, v_wanted,
                    p_max_attempts, p_rewinds, v_head, v_places) u;
                v_places := v_places || v_picked;
                continue;
            when 'fair' then
                v_picked := pubsub.choose_fair(p_topic_key, p_subscription_key, v_now, v_wanted,
                    p_max_attempts, p_floor, p_rewinds, p_rewound_to);
                v_places := v_picked;
                v_head := null;
                v_lost := true;
                continue;
        end case;

        v_started_at := clock_timestamp();
        select coalesce(array_agg(p.place), '{}'),
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
            ) else (array_agg(p.message_id))[v_wanted] end,
            v_lost or count(p.lease) > 0
        into v_picked, v_last_seen, v_lost
        from (
            select d.ctid as place, d.message_id, d.lease
            from pubsub_data.deliveries d
            where d.topic_key = p_topic_key
                and d.subscription_key = p_subscription_key
                and d.message_id > v_after
                and d.message_id <= v_upto
                and d.visible_at <= v_now
                and d.attempts < p_max_attempts
                and (d.expires_at is null or d.expires_at > v_now)
                -- due ones lie in these ranges too
                and d.ctid <> all(v_places)
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
                v_head := coalesce(v_last_seen, v_head);
        end case;
        v_places := v_places || v_picked;
    end loop;

    if v_head > v_ahead then
        v_head := v_head_before;
    end if;
    if p_mode = 'priorities' and v_places <> '{}' then
        v_hint.since_aged := greatest(0, least(9,
            v_hint.since_aged + cardinality(v_places) - 10 * v_aged));
    end if;
    v_hint.noted_at := v_micros;
    v_hint.rewinds := p_rewinds;
    v_hint.head := coalesce(v_head, c_lowest);
    perform set_config(v_setting, v_hint::text, false);
    if v_places = '{}' then
        return;
    end if;

    if v_lost then
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome
        )
        select p_topic_key, p_subscription_key, d.message_id, d.attempts, d.consumer_id,
            d.leased_at, d.visible_at, 'consumer_lost'
        from pubsub_data.deliveries d
        where d.ctid = any(v_places) and d.lease is not null;
    end if;
    for v_consumer in 1 .. cardinality(p_consumer_ids) loop
        with leased as (
            update pubsub_data.deliveries d
            set visible_at = v_ack_deadline, attempts = d.attempts + 1, lease = v_lease,
                leased_at = v_now, extended_at = null, consumer_id = p_consumer_ids[v_consumer]
            where d.ctid = any(v_places[v_taken + 1 : v_taken + p_limits[v_consumer]])
            returning d.message_id, d.attempts, d.is_large
        )
        select array_agg(l.message_id), array_agg(l.attempts), v_large or count(l.is_large) > 0
        into v_leased_ids, v_leased_attempts, v_large
        from leased l;
        v_ids := v_ids || v_leased_ids;
        v_attempts := v_attempts || v_leased_attempts;
        v_consumers := v_consumers || array_fill(v_consumer, array[cardinality(v_leased_ids)]);
        v_taken := v_taken + p_limits[v_consumer];
        exit when v_taken >= cardinality(v_places);
    end loop;

    if not v_large and 4000 * cardinality(v_ids) <= p_max_bytes then
        -- at most 512 bytes as they are stored
        v_bytes := 4000 * cardinality(v_ids);
    elsif p_max_bytes is not null
        -- one alone may have any size; ordered and fair claims tell what they leave to others
        and (cardinality(v_ids) > 1 or p_mode in ('ordered', 'fair'))
    then
        select f.kept, f.bytes into v_kept, v_bytes
        from pubsub.fit_messages(p_topic_key, array(
            select i.message_id
            from unnest(v_ids, v_consumers) as i (message_id, consumer)
            left join lateral (
                select x.priority
                from pubsub_data.messages x
                where p_mode = 'priorities'
                    and x.topic_key = p_topic_key and x.message_id = i.message_id
                limit 1
            ) m on true
            order by i.consumer, coalesce(m.priority, 0) desc, i.message_id
        ), p_max_bytes) f;
        if cardinality(v_kept) < cardinality(v_ids) then
            v_cut := array(select i.id from unnest(v_ids) as i (id) where i.id <> all(v_kept));
            update pubsub_data.deliveries d
            set visible_at = '-infinity', attempts = d.attempts - 1, lease = null,
                leased_at = null, consumer_id = null
            where d.ctid = any(array(
                select l.place
                from unnest(v_cut) as i (id)
                cross join lateral (
                    select x.ctid as place
                    from pubsub_data.deliveries x
                    where x.topic_key = p_topic_key
                        and x.subscription_key = p_subscription_key
                        and x.message_id = i.id
                    limit 1
                ) l
            ));
            insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
            values (p_topic_key, p_subscription_key, v_now, v_cut);
            select array_agg(i.message_id), array_agg(i.attempts), array_agg(i.consumer)
            into v_ids, v_attempts, v_consumers
            from unnest(v_ids, v_attempts, v_consumers) as i (message_id, attempts, consumer)
            where i.message_id = any(v_kept);
        end if;
    end if;

    insert into pubsub_data.wakeups (
        topic_key, subscription_key, due_at, message_ids, head, rewinds
    )
    values (p_topic_key, p_subscription_key, v_ack_deadline, v_ids, v_head, p_rewinds);
    if p_count_by_consumer then
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, leased
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(v_ack_deadline), l.consumer_id,
            count(*)
        from (
            select p_consumer_ids[c.consumer] as consumer_id from unnest(v_consumers) as c (consumer)
        ) l
        group by l.consumer_id;
    else
        insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased)
        values (p_topic_key, p_subscription_key, pubsub.counter_time(v_ack_deadline),
            cardinality(v_ids));
    end if;
    return query
        select i.consumer, m.message_id, m.payload, m.attributes, m.ordering_key, m.priority,
            m.published_at, i.attempts, v_lease, v_ack_deadline, v_head,
            v_cut is not null, v_bytes
        from unnest(v_ids, v_attempts, v_consumers) as i (message_id, attempts, consumer)
        cross join lateral (
            select x.*
            from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = i.message_id
            limit 1
        ) m
        order by i.consumer, m.message_id;
end
$$;

comment on function pubsub.claim_deliveries is
    'consume_messages_for by keys: the form that can be routed to the node of a topic.';
