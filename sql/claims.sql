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
 * head and the other positions are hints that live in a setting of the session,
 * pubsub.cursor_<subscription key>. They follow a rollback; losing them, or wrong ones, cost a scan or
 * a little delay, never a message.
 *
 * Plans: the tables are often tiny when a connection makes its plans and large when it uses them. So
 * every statement is written to have one plan only: rows are found by a range of the primary key, by
 * all of its columns in a "lateral ... limit 1", or by the ctid under which they were just locked.
 *
 * Lock order everywhere: wake-ups, then deliveries in message id order.
 */

/*
 * claim_deliveries — consume_messages_for by keys.
 *
 * In       p_floor: no message of the subscription has a lower id;
 *          p_head: of these rewinds, or null;
 *          p_mode: plain · priorities · ordered and fair (one consumer): how what is ready is chosen;
 *          p_count_by_consumer: the counters of the subscription tell consumers apart (flow.sql)
 * Out      by consumer, then in id order; head: of these rewinds, null when the mode has none
 * Locks    only rows it returns; skips locked ones, never waits
 * Effects  leases what it returns: visible_at = ack deadline, attempts + 1, a new lease number
 */
create function pubsub.claim_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_floor uuid, p_consumer_ids text[],
    p_limits int[], p_ack_deadline_seconds int, p_max_attempts int, p_head uuid, p_mode text,
    p_rewinds int, p_rewound_to uuid, p_count_by_consumer boolean default false
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid
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
    v_setting constant text := 'pubsub.cursor_' || p_subscription_key;
    v_cursor text[] := string_to_array(nullif(current_setting(v_setting, true), ''), '|');
    -- the cursor's fields, in this order
    v_head uuid := v_cursor[1];
    v_due_from timestamptz := coalesce(v_cursor[2]::timestamptz, '-infinity');
    v_due_recent_at timestamptz := coalesce(v_cursor[3]::timestamptz, v_now);
    v_due_all_at timestamptz := coalesce(v_cursor[4]::timestamptz, '-infinity');
    v_near_at timestamptz := coalesce(v_cursor[5]::timestamptz, '-infinity');
    v_far_at timestamptz := coalesce(v_cursor[6]::timestamptz, '-infinity');
    v_far_upto uuid := v_cursor[7];
    v_far_seconds float8 := coalesce(v_cursor[8]::float8, 1);
    v_rewinds constant int := v_cursor[9];

    v_look_from timestamptz := v_due_from;
    v_last_due_at timestamptz;
    v_near_from constant uuid := pubsub.id_at(v_now - interval '1 second');
    v_step text;
    v_quota int := v_limit;
    -- of priorities: deliveries since the oldest had its turn, and how many it gets in this claim
    v_since_aged int;
    v_aged int;
    v_after uuid;
    v_upto uuid;
    v_wanted int;
    v_started_at timestamptz;
    v_took interval;
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
begin
    -- messages came back below what this session has read
    if v_rewinds is distinct from p_rewinds then
        -- rewound_to is that of the last time; who missed more is like a new connection
        v_head := case when v_rewinds = p_rewinds - 1 and p_rewound_to is not null
            then least(v_head, p_rewound_to) end;
        v_near_at := '-infinity';
        v_far_at := '-infinity';
        v_far_upto := null;
    end if;
    v_head := greatest(v_head, p_head);
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
        where r.rewinds = p_rewinds
        order by r.head desc nulls last
        limit 1;
        v_head := coalesce(v_head, c_lowest);
    end if;

    if p_mode = 'priorities' then
        v_since_aged := coalesce(nullif(
            current_setting('pubsub.aged_' || p_subscription_key, true), '')::int, 0);
        v_quota := (v_since_aged + v_limit) / 10;
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
                if v_now >= v_due_all_at then
                    v_look_from := '-infinity';
                    v_due_all_at := v_now + interval '60 seconds';
                elsif v_now >= v_due_recent_at then
                    v_look_from := v_due_from - interval '5 seconds';
                    v_due_recent_at := v_now + interval '1 second';
                end if;
                select coalesce(t.ready, '{}'), t.last_due_at, v_lost or coalesce(t.lost, false)
                into v_picked, v_last_due_at, v_lost
                from pubsub.take_due(
                    p_topic_key, p_subscription_key, v_look_from, v_now, v_wanted, p_max_attempts
                ) t;
                v_due_from := greatest(v_due_from, v_last_due_at);
                if v_places = '{}' then
                    v_places := v_picked;
                else
                    v_places := v_places || array(
                        select p.place from unnest(v_picked) as p (place)
                        where p.place <> all(v_places));
                end if;
                continue;
            when 'near' then
                continue when v_now < v_near_at or v_near_from >= v_head;
                v_after := v_near_from;
                v_upto := v_head;
            when 'far' then
                continue when v_now < v_far_at;
                v_upto := least(v_far_upto, v_near_from, v_head);
                v_after := greatest(p_floor, pubsub.id_at(
                    pubsub.id_time(v_upto) - make_interval(secs => v_far_seconds)));
                if v_upto <= v_after then
                    v_far_upto := null;
                    v_far_at := v_now + interval '1 second';
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
        v_took := clock_timestamp() - v_started_at;

        case v_step
            when 'near' then
                v_near_at := v_now + 20 * v_took;
            when 'far' then
                v_far_at := v_now + 20 * v_took;
                -- a full claim leaves the rest of the bite for the next one
                if v_last_seen is null then
                    v_far_upto := v_after;
                    if v_took < interval '1 ms' then
                        v_far_seconds := least(v_far_seconds * 2, 86400);
                    elsif v_took > interval '3 ms' then
                        v_far_seconds := greatest(v_far_seconds / 4, 0.001);
                    end if;
                end if;
            else
                v_head := coalesce(v_last_seen, v_head);
        end case;
        v_places := v_places || v_picked;
    end loop;

    perform set_config(v_setting, concat_ws('|', coalesce(v_head, c_lowest), v_due_from,
        v_due_recent_at, v_due_all_at, v_near_at, v_far_at, coalesce(v_far_upto, c_highest),
        v_far_seconds, p_rewinds), false);
    if v_places = '{}' then
        return;
    end if;
    if p_mode = 'priorities' then
        perform set_config('pubsub.aged_' || p_subscription_key, greatest(0, least(9,
            v_since_aged + cardinality(v_places) - 10 * v_aged))::text, false);
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
            returning d.message_id, d.attempts
        )
        select array_agg(l.message_id), array_agg(l.attempts)
        into v_leased_ids, v_leased_attempts
        from leased l;
        v_ids := v_ids || v_leased_ids;
        v_attempts := v_attempts || v_leased_attempts;
        v_consumers := v_consumers || array_fill(v_consumer, array[cardinality(v_leased_ids)]);
        v_taken := v_taken + p_limits[v_consumer];
        exit when v_taken >= cardinality(v_places);
    end loop;

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
            m.published_at, i.attempts, v_lease, v_ack_deadline, v_head
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
