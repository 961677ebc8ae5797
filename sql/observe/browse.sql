/*
 * Looking at what a subscription has not settled, without leasing any of it.
 */

/*
 * unsettled_page — what a subscription has not settled, in publish order.
 *
 * In       p_state: as in delivery_state; null: any; p_after: only what lies above; p_limit: of the first so many
 *          of them
 * Out      a run that is ready or leased is told message by message
 */
create function pubsub.unsettled_page(
    p_topic_key bigint, p_subscription_key bigint, p_max_attempts int, p_state text, p_after uuid,
    p_limit int
)
returns table (
    message_id uuid, visible_at timestamptz, attempts int, lease bigint, consumer_id text,
    expires_at timestamptz, state text
)
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    return query
        select u.*
        from (
            (
                select d.message_id, d.visible_at, d.attempts, d.lease, d.consumer_id, d.expires_at,
                    j.state
                from pubsub_data.deliveries d
                cross join lateral (
                    select pubsub.delivery_state(d.visible_at, d.lease, d.attempts, d.expires_at,
                        p_max_attempts, v_now) as state
                ) j
                where d.topic_key = p_topic_key
                    and d.subscription_key = p_subscription_key
                    and d.message_id > p_after
                    and j.state = coalesce(p_state, j.state)
                order by d.message_id
                limit p_limit
            )
            union all
            select i.id, r.visible_at, r.attempts, r.lease, r.consumer_id, null, r.state
            from (
                select f.*, sum(cardinality(f.message_ids)) over (order by f.run_id)
                    - cardinality(f.message_ids) as before
                from (
                    select x.run_id, x.message_ids, x.lease, x.consumer_id, v.visible_at, v.attempts,
                        j.state
                    from pubsub_data.runs x
                    cross join lateral (
                        select coalesce(x.ack_deadline, '-infinity') as visible_at,
                            (x.lease is not null)::int as attempts
                    ) v
                    cross join lateral (
                        select pubsub.delivery_state(v.visible_at, x.lease, v.attempts, null,
                            p_max_attempts, v_now) as state
                    ) j
                    where x.topic_key = p_topic_key
                        and x.subscription_key = p_subscription_key
                        and x.run_id >= pubsub.run_start(p_after)
                        and x.message_ids[cardinality(x.message_ids)] > p_after
                        and j.state = coalesce(p_state, j.state)
                    order by x.run_id
                    limit p_limit
                ) f
            ) r
            cross join lateral unnest(r.message_ids) as i (id)
            -- of the first, which has a hundred at most, some may lie below
            where r.before < p_limit + 100 and i.id > p_after
        ) u
        order by u.message_id
        limit p_limit;
end
$$;

comment on function pubsub.unsettled_page is
    'What a subscription has not settled, in publish order, runs told message by message.';

/*
 * unsettled_among — unsettled_page of the messages that are named.
 */
create function pubsub.unsettled_among(
    p_topic_key bigint, p_subscription_key bigint, p_max_attempts int, p_message_ids uuid[]
)
returns table (
    message_id uuid, visible_at timestamptz, attempts int, lease bigint, consumer_id text,
    expires_at timestamptz, state text
)
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    return query
        select i.id, u.visible_at, u.attempts, u.lease, u.consumer_id, u.expires_at,
            pubsub.delivery_state(u.visible_at, u.lease, u.attempts, u.expires_at, p_max_attempts,
                v_now)
        from (select distinct x.id from unnest(p_message_ids) as x (id)) i
        cross join lateral (
            select x.visible_at, x.attempts, x.lease, x.consumer_id, x.expires_at
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = i.id
            union all
            select coalesce(x.ack_deadline, '-infinity'), (x.lease is not null)::int, x.lease,
                x.consumer_id, null
            from pubsub_data.runs x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.run_id >= pubsub.run_start(i.id)
                and x.run_id <= i.id
                and i.id = any(x.message_ids)
            limit 1
        ) u
        order by i.id;
end
$$;

comment on function pubsub.unsettled_among is
    'Those of some messages that a subscription has not settled, in publish order.';

/*
 * browse_messages — look at messages that a subscription has not settled. Leases nothing.
 *
 * In       p_state: available, delivered, scheduled, parked or expired, as in delivery_state; null: any ·
 *          p_after: only ids after it, which need not be there · p_limit: null: 10, or all that are named ·
 *          p_message_ids: only these
 * Out      in publish order. A lease that ended reads as available; consumer_id, ack_deadline and lease: of the
 *          holder; available_at: of what is scheduled; payload is null when someone removed it by hand
 * Errors   PS404 · PS422 (state, limit 1 to 1000, offset below 0)
 * Effects  none. Reads up to the last row it returns, so a state that is rare costs a look at all before
 */
create function pubsub.browse_messages(
    p_subscription_id text, p_state text default null, p_after uuid default null,
    p_limit int default null, p_offset int default 0, p_message_ids uuid[] default null
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    attempts int, published_at timestamptz, state text, consumer_id text, ack_deadline timestamptz,
    available_at timestamptz, lease bigint
)
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    v_limit constant int := coalesce(p_limit, cardinality(p_message_ids), 10);
    v_offset constant int := coalesce(p_offset, 0);
    v_subscription record;
begin
    if p_state not in ('available', 'delivered', 'scheduled', 'parked', 'expired') then
        perform pubsub.fail_validation('state',
            'state must be available, delivered, scheduled, parked or expired');
    end if;
    if p_limit not between 1 and 1000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000');
    end if;
    if v_offset not between 0 and 1000000000 then
        perform pubsub.fail_validation('offset', 'offset must be 0 to 1000000000');
    end if;
    select s.topic_key, s.subscription_key, s.max_delivery_attempts into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    return query
        with found as materialized (
            select u.*
            from pubsub.unsettled_page(v_subscription.topic_key, v_subscription.subscription_key,
                v_subscription.max_delivery_attempts, p_state, coalesce(p_after, c_lowest),
                v_offset + v_limit) u
            where p_message_ids is null
            union all
            select u.*
            from pubsub.unsettled_among(v_subscription.topic_key, v_subscription.subscription_key,
                v_subscription.max_delivery_attempts, p_message_ids) u
            where p_message_ids is not null
                and u.state = coalesce(p_state, u.state)
                and u.message_id > coalesce(p_after, c_lowest)
        ), page as materialized (
            select f.* from found f order by f.message_id offset v_offset limit v_limit
        )
        select p.message_id, m.payload, m.attributes, m.ordering_key, m.priority, p.attempts,
            coalesce(m.published_at, pubsub.id_time(p.message_id)), p.state,
            case when p.state = 'delivered' then p.consumer_id end,
            case when p.state = 'delivered' then p.visible_at end,
            case when p.state = 'scheduled' then p.visible_at end,
            case when p.state = 'delivered' then p.lease end
        from page p
        left join lateral (
            select x.payload, x.attributes, x.ordering_key, x.priority, x.published_at
            from pubsub_data.messages x
            where x.topic_key = v_subscription.topic_key and x.message_id = p.message_id
            limit 1
        ) m on true
        order by p.message_id;
end
$$;

comment on function pubsub.browse_messages is
    'Look at messages that a subscription has not settled, by state, without leasing them.';

/*
 * backlog_bytes — how many bytes the unsettled messages of a subscription have: payloads and attributes as JSON
 * text.
 *
 * Out      exact up to 10000 messages, of 64 MB as they are stored; of more, the oldest of them stand for the rest
 * Errors   PS404
 */
create function pubsub.backlog_bytes(p_subscription_id text)
returns bigint
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    c_most constant int := 10000;
    c_most_stored constant bigint := 64 * 1024 * 1024;
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_sample record;
    v_backlog bigint;
begin
    with looked_at as materialized (
        select u.message_id, coalesce(m.stored, 0) as stored
        from pubsub.unsettled_page(v_keys.topic_key, v_keys.subscription_key, 1, null,
            '00000000-0000-0000-0000-000000000000', c_most) u
        left join lateral (
            select pg_column_size(x.payload) as stored
            from pubsub_data.messages x
            where x.topic_key = v_keys.topic_key and x.message_id = u.message_id
            limit 1
        ) m on true
    ), sample as materialized (
        select s.message_id
        from (
            select l.message_id,
                sum(l.stored) over (order by l.message_id) - l.stored as before
            from looked_at l
        ) s
        where s.before < c_most_stored
    )
    select count(*) as messages, (select count(*) from looked_at) as looked_at,
        coalesce(sum(octet_length(m.payload::text) + coalesce(octet_length(m.attributes::text), 0)), 0)
            as bytes
    into v_sample
    from sample s
    left join lateral (
        select x.payload, x.attributes
        from pubsub_data.messages x
        where x.topic_key = v_keys.topic_key and x.message_id = s.message_id
        limit 1
    ) m on true;
    if v_sample.looked_at < c_most and v_sample.messages = v_sample.looked_at then
        return v_sample.bytes;
    end if;
    select coalesce(sum(c.backlog), 0) into v_backlog
    from pubsub_data.counters c
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key;
    return round(v_sample.bytes::numeric / v_sample.messages
        * greatest(v_backlog, v_sample.looked_at));
end
$$;

comment on function pubsub.backlog_bytes is
    'How many bytes the unsettled messages of a subscription have, extrapolated beyond 10000 messages.';

/*
 * queue_summary — how large and how old a queue is.
 *
 * Out      bytes: as of backlog_bytes · last_published_at: of its newest retained message; null when there is none
 * Errors   PS404
 */
create function pubsub.queue_summary(p_queue_id text)
returns table (bytes bigint, created_at timestamptz, last_published_at timestamptz)
language plpgsql stable parallel safe
as $$
begin
    return query
        select pubsub.backlog_bytes(p_queue_id), t.created_at, (
            select m.published_at
            from pubsub_data.messages m
            where m.topic_key = t.topic_key
            order by m.message_id desc
            limit 1
        )
        from pubsub_data.topics t
        join pubsub_data.subscriptions s on s.topic_key = t.topic_key
        where t.topic_id = p_queue_id and s.subscription_id = p_queue_id;
    if not found then
        raise exception 'Queue not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.queue_summary is 'How large and how old a queue is.';
