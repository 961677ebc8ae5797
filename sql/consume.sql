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
 * In       p_floor: no message of the subscription has a lower id
 * Out      by consumer, then in id order
 * Locks    only rows it returns; skips locked ones, never waits
 * Effects  leases what it returns: visible_at = ack deadline, attempts + 1, a new lease number
 */
create function pubsub.claim_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_floor uuid, p_consumer_ids text[],
    p_limits int[], p_ack_deadline_seconds int, p_max_attempts int, p_head uuid
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
    v_head uuid := greatest(v_cursor[1]::uuid, p_head);
    v_due_from timestamptz := coalesce(v_cursor[2]::timestamptz, '-infinity');
    v_due_recent_at timestamptz := coalesce(v_cursor[3]::timestamptz, v_now);
    v_due_all_at timestamptz := coalesce(v_cursor[4]::timestamptz, '-infinity');
    v_near_at timestamptz := coalesce(v_cursor[5]::timestamptz, '-infinity');
    v_far_at timestamptz := coalesce(v_cursor[6]::timestamptz, '-infinity');
    v_far_upto uuid := v_cursor[7];
    v_far_seconds float8 := coalesce(v_cursor[8]::float8, 1);

    v_look_from timestamptz := v_due_from;
    v_last_due_at timestamptz;
    v_near_from constant uuid := pubsub.id_at(v_now - interval '1 second');
    v_step text;
    v_after uuid;
    v_upto uuid;
    v_wanted int;
    v_started_at timestamptz;
    v_took interval;
    v_picked tid[];
    v_last_seen uuid;
    v_places tid[] := '{}';
    v_taken int := 0;
    v_leased_ids uuid[];
    v_leased_attempts int[];
    v_ids uuid[] := '{}';
    v_attempts int[] := '{}';
    v_consumers int[] := '{}';
begin
    -- 1. what is due. Wake-ups that were committed late lie below the last one processed.
    if v_now >= v_due_all_at then
        v_look_from := '-infinity';
        v_due_all_at := v_now + interval '60 seconds';
    elsif v_now >= v_due_recent_at then
        v_look_from := v_due_from - interval '5 seconds';
        v_due_recent_at := v_now + interval '1 second';
    end if;
    select coalesce(t.ready, '{}'), t.last_due_at into v_places, v_last_due_at
    from pubsub.take_due(
        p_topic_key, p_subscription_key, v_look_from, v_now, v_limit, p_max_attempts
    ) t;
    v_due_from := greatest(v_due_from, v_last_due_at);

    if v_head is null then
        select r.head into v_head
        from (
            select w.head from pubsub_data.wakeups w
            where w.topic_key = p_topic_key
                and w.subscription_key = p_subscription_key
                and w.due_at > v_now
            order by w.due_at desc, w.wakeup_number desc
            limit 8
        ) r
        order by r.head desc nulls last
        limit 1;
        v_head := coalesce(v_head, c_lowest);
    end if;

    foreach v_step in array array['near', 'far', 'fresh'] loop
        v_wanted := v_limit - cardinality(v_places);
        exit when v_wanted <= 0;
        case v_step
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
            else
                v_after := v_head;
                v_upto := c_highest;
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
            ) else (array_agg(p.message_id))[v_wanted] end
        into v_picked, v_last_seen
        from (
            select d.ctid as place, d.message_id
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

    perform set_config(v_setting, concat_ws('|', v_head, v_due_from, v_due_recent_at, v_due_all_at,
        v_near_at, v_far_at, coalesce(v_far_upto, c_highest), v_far_seconds), false);
    if v_places = '{}' then
        return;
    end if;

    for v_consumer in 1 .. cardinality(p_consumer_ids) loop
        with leased as (
            update pubsub_data.deliveries d
            set visible_at = v_ack_deadline, attempts = d.attempts + 1, lease = v_lease,
                leased_at = v_now, extended_at = null,
                consumer_id = p_consumer_ids[v_consumer]
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

    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids, head)
    values (p_topic_key, p_subscription_key, v_ack_deadline, v_ids, v_head);
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased)
    values (p_topic_key, p_subscription_key, pubsub.counter_time(v_ack_deadline),
        cardinality(v_ids));
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

/*
 * consume_messages_for — what consume_messages called for one consumer after the other would lease,
 * in one call.
 *
 * In       p_consumer_ids and p_batch_sizes: one element per consumer;
 *          p_ack_deadline_seconds for this claim, else the subscription's, else the default;
 *          p_head: the head of an earlier call on another connection, which spares this one reading
 *          what that one has read
 * Out      by consumer (1 is the first), then in publish order; no rows when nothing is ready
 * Errors   PS404 · PS422 (consumer_id null, batch_size 1 to 1000 each,
 *          ack_deadline_seconds 1 to 43200)
 * Locks    only rows it returns; skips locked ones, never waits
 */
create function pubsub.consume_messages_for(
    p_subscription_id text,
    p_consumer_ids text[],
    p_batch_sizes int[],
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60,
    p_head uuid default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid
)
language plpgsql volatile rows 10
as $$
declare
    v_subscription record;
    v_ack_deadline_seconds int;
begin
    if array_position(p_consumer_ids, null) is not null or coalesce(p_consumer_ids, '{}') = '{}' then
        perform pubsub.fail_validation('consumer_id', 'consumer_id is required');
    end if;
    if cardinality(p_batch_sizes) is distinct from cardinality(p_consumer_ids)
        or array_position(p_batch_sizes, null) is not null
        or 1 > any(p_batch_sizes) or 1000 < any(p_batch_sizes)
    then
        perform pubsub.fail_validation('batch_size', 'batch_size must be 1 to 1000');
    end if;
    select s.topic_key, s.subscription_key, s.max_delivery_attempts, s.ack_deadline_seconds,
        s.created_at
    into v_subscription
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    v_ack_deadline_seconds := coalesce(p_ack_deadline_seconds,
        v_subscription.ack_deadline_seconds, p_default_ack_deadline_seconds);
    if v_ack_deadline_seconds is null or v_ack_deadline_seconds not between 1 and 43200 then
        perform pubsub.fail_validation('ack_deadline_seconds',
            'ack_deadline_seconds must be 1 to 43200');
    end if;
    return query
        select c.*
        from pubsub.claim_deliveries(
            v_subscription.topic_key, v_subscription.subscription_key,
            -- a day for clocks that disagree
            pubsub.id_at(v_subscription.created_at - interval '1 day'),
            p_consumer_ids, p_batch_sizes, v_ack_deadline_seconds,
            v_subscription.max_delivery_attempts, p_head
        ) c;
end
$$;

comment on function pubsub.consume_messages_for is
    'Lease ready messages to several consumers at once: the first gets the oldest.';

/*
 * consume_messages — lease up to p_batch_size ready messages of a subscription to a consumer.
 *
 * In       p_ack_deadline_seconds for this claim, else the subscription's, else the default
 * Out      in publish order; no rows when nothing is ready. lease is the fence for ack and nack
 * Errors   PS404 · PS422 (batch_size 1 to 1000, ack_deadline_seconds 1 to 43200, consumer_id null)
 * Locks    only rows it returns; skips locked ones, never waits
 */
create function pubsub.consume_messages(
    p_subscription_id text,
    p_consumer_id text,
    p_batch_size int default 10,
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, attempts int, lease bigint, ack_deadline timestamptz
)
language plpgsql volatile rows 10
as $$
begin
    return query
        select c.message_id, c.payload, c.attributes, c.ordering_key, c.priority, c.published_at,
            c.attempts, c.lease, c.ack_deadline
        from pubsub.consume_messages_for(
            p_subscription_id, array[p_consumer_id], array[p_batch_size],
            p_ack_deadline_seconds, p_default_ack_deadline_seconds
        ) c
        order by c.message_id;
end
$$;

comment on function pubsub.consume_messages is
    'Lease ready messages of a subscription to a consumer until their ack deadline.';
