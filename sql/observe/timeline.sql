/*
 * The life of one message, for people who ask what became of it: when it was published, and for each
 * subscription of its topic what happened there, or why it did not get the message.
 *
 * It is put together from what the engine keeps anyway: deliveries, failures, acks and dead letters.
 * Acks and failures leave by age, so the tale of an old message may have gaps.
 */

/*
 * find_message — a message by its id alone, as long as anything holds it.
 *
 * Out      topic_key is null when nothing does; payload is null when only deliveries are left
 */
create function pubsub.find_message(
    p_message_id uuid, out topic_key bigint, out payload jsonb, out attributes jsonb,
    out published_at timestamptz, out deliver_at timestamptz
)
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    select m.topic_key, m.payload, m.attributes, m.published_at, m.deliver_at
    into find_message.topic_key, find_message.payload, find_message.attributes,
        find_message.published_at, find_message.deliver_at
    from pubsub_data.topics t
    cross join lateral (
        select x.topic_key, x.payload, x.attributes, x.published_at, x.deliver_at
        from pubsub_data.messages x
        where x.topic_key = t.topic_key and x.message_id = p_message_id
        limit 1
    ) m
    limit 1;
    if found then
        return;
    end if;
    -- its partition has left: a dead letter has a copy, a failure at least remembers it
    select l.topic_key, l.payload, l.attributes, l.published_at
    into find_message.topic_key, find_message.payload, find_message.attributes,
        find_message.published_at
    from pubsub_data.subscriptions s
    cross join lateral (
        select x.topic_key, x.payload, x.attributes, x.published_at
        from pubsub_data.dead_letters x
        where x.topic_key = s.topic_key
            and x.subscription_key = s.subscription_key
            and x.message_id = p_message_id
        union all
        select x.topic_key, null, null, pubsub.id_time(x.message_id)
        from pubsub_data.failures x
        where x.topic_key = s.topic_key
            and x.subscription_key = s.subscription_key
            and x.message_id = p_message_id
    ) l
    order by l.payload is null
    limit 1;
end
$$;

comment on function pubsub.find_message is
    'A message by its id alone: its topic, payload, attributes and publish time.';

/*
 * message_events — what happened to a message in one subscription, in the order of time.
 *
 * Out      event: delivered, acked, nacked, rejected, expired, consumer_lost, parked, skipped or
 *          dead_lettered
 */
create function pubsub.message_events(
    p_topic_key bigint, p_subscription_key bigint, p_message_id uuid
)
returns table (at timestamptz, event text, attempt int, consumer_id text, reason text)
language sql stable parallel safe
set enable_seqscan = off
as $$
    with failed as (
        select f.attempt, f.consumer_id, f.delivered_at, f.ended_at, f.outcome, f.reason
        from pubsub_data.failures f
        where f.topic_key = p_topic_key
            and f.subscription_key = p_subscription_key
            and f.message_id = p_message_id
        -- a dead letter remembers them longer
        union
        select d.attempt, d.consumer_id, d.delivered_at, d.ended_at, d.outcome, d.reason
        from pubsub_data.dead_letters l
        cross join jsonb_to_recordset(l.deliveries) as d (
            attempt int, consumer_id text, delivered_at timestamptz, ended_at timestamptz,
            outcome text, reason text)
        where l.topic_key = p_topic_key
            and l.subscription_key = p_subscription_key
            and l.message_id = p_message_id
    ), settled as (
        select a.attempts, a.consumer_id, a.delivered_at, a.acked_at, a.note
        from pubsub_data.acked a
        where a.topic_key = p_topic_key
            and a.subscription_key = p_subscription_key
            -- a clock that was set back
            and a.acked_at >= pubsub.id_time(p_message_id) - interval '1 minute'
            and p_message_id = any(a.message_ids)
    )
    select e.at, e.event, e.attempt, e.consumer_id, e.reason
    from (
        select f.delivered_at as at, 'delivered' as event, f.attempt, f.consumer_id,
            null as reason, 1 as rank
        from failed f
        union all
        select f.ended_at, f.outcome, f.attempt, f.consumer_id, f.reason, 2 from failed f
        union all
        select a.delivered_at, 'delivered', a.attempts, a.consumer_id, null, 1 from settled a
        union all
        select a.acked_at, 'acked', a.attempts, a.consumer_id, a.note, 2 from settled a
        union all
        select d.leased_at, 'delivered', d.attempts, d.consumer_id, null, 1
        from pubsub_data.deliveries d
        where d.topic_key = p_topic_key
            and d.subscription_key = p_subscription_key
            and d.message_id = p_message_id
            and d.lease is not null
        union all
        select r.leased_at, 'delivered', 1, r.consumer_id, null, 1
        from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(p_message_id)
            and r.run_id <= p_message_id
            and p_message_id = any(r.message_ids)
            and r.lease is not null
        union all
        select l.dead_at, 'dead_lettered', l.attempts, null, l.reason, 3
        from pubsub_data.dead_letters l
        where l.topic_key = p_topic_key
            and l.subscription_key = p_subscription_key
            and l.message_id = p_message_id
    ) e
    where e.at is not null
    order by e.at, e.rank
$$;

comment on function pubsub.message_events is
    'What happened to a message in one subscription, in the order of time.';

/*
 * state_of — the state of a message that a subscription has not settled; null: it has, or never had it.
 */
create function pubsub.state_of(
    p_topic_key bigint, p_subscription_key bigint, p_message_id uuid, p_max_attempts int,
    p_now timestamptz
)
returns text
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    return (
        select pubsub.delivery_state(d.visible_at, d.lease, d.attempts, d.expires_at, p_max_attempts, p_now)
        from pubsub_data.deliveries d
        where d.topic_key = p_topic_key
            and d.subscription_key = p_subscription_key
            and d.message_id = p_message_id
        union all
        select pubsub.delivery_state(coalesce(r.ack_deadline, '-infinity'), r.lease,
            (r.lease is not null)::int, null, p_max_attempts, p_now)
        from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(p_message_id)
            and r.run_id <= p_message_id
            and p_message_id = any(r.message_ids)
        limit 1
    );
end
$$;

comment on function pubsub.state_of is 'The state of a message that a subscription has not settled.';

/*
 * message_timeline — what became of a message in each subscription of its topic.
 *
 * In       p_allowed: only in the subscriptions that match it (matches_any)
 * Out      by subscription id, then in the order of time; at least one row each, the first of which is
 *          published (reason: until when it was delayed) or not_matched (reason: why).
 *          state: available, delivered, scheduled, parked or expired, as in delivery_state · dlq ·
 *          acked · skipped · settled: gone, and how is not remembered (acked long ago, purged, or
 *          published to the dead letter topic) · not_matched
 * Errors   PS404, also when its topic has none of these
 */
create function pubsub.message_timeline(p_message_id uuid, p_allowed text[] default null)
returns table (
    topic_id text, published_at timestamptz, subscription_id text, state text, at timestamptz,
    event text, attempt int, consumer_id text, reason text
)
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
declare
    v_message constant record := pubsub.find_message(p_message_id);
    v_now constant timestamptz := clock_timestamp();
    v_delay constant text := 'not before ' || to_char(v_message.deliver_at at time zone 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
begin
    if v_message.topic_key is null or p_allowed is not null and not exists (
        select from pubsub_data.subscriptions s
        where s.topic_key = v_message.topic_key
            and pubsub.matches_any(s.subscription_id, p_allowed)
    ) then
        raise exception 'Message not found' using errcode = 'PS404';
    end if;
    return query
        with told as materialized (
            select s.subscription_key, e.position, e.at, e.event, e.attempt, e.consumer_id, e.reason
            from pubsub_data.subscriptions s
            cross join lateral pubsub.message_events(
                s.topic_key, s.subscription_key, p_message_id
            ) with ordinality as e (at, event, attempt, consumer_id, reason, position)
            where s.topic_key = v_message.topic_key
                and pubsub.matches_any(s.subscription_id, p_allowed)
        ), judged as (
            select s.subscription_key, s.subscription_id, last.event as last_event, d.state,
                case
                    when d.state is not null or last.event is not null then null
                    -- what compares a text with a number is neither true nor false
                    when v_message.payload is not null and pubsub.passes_filter(
                        v_message.payload, v_message.attributes, s.filter_path, s.filter::jsonb,
                        s.filter_values, s.attribute_filter_path) is not true
                    then (
                        select 'does not match the filter: '
                            || string_agg(array_to_string(x.path, '.'), ', ' order by x.path)
                        from pubsub.explain_filter(
                            v_message.payload, v_message.attributes, s.filter::jsonb) x
                        where not x.matches
                    )
                    when s.created_at > v_message.published_at
                    then 'the subscription was created after the message was published'
                end as missed_because
            from pubsub_data.subscriptions s
            left join lateral (
                select t.event
                from told t
                where t.subscription_key = s.subscription_key
                order by t.position desc
                limit 1
            ) last on true
            cross join lateral (
                select pubsub.state_of(s.topic_key, s.subscription_key, p_message_id,
                    s.max_delivery_attempts, v_now) as state
            ) d
            where s.topic_key = v_message.topic_key
                and pubsub.matches_any(s.subscription_id, p_allowed)
        ), states as materialized (
            select j.subscription_key, j.subscription_id, j.missed_because,
                case
                    when j.state is not null then j.state
                    when j.missed_because is not null then 'not_matched'
                    when j.last_event = 'dead_lettered' then 'dlq'
                    when j.last_event in ('acked', 'expired', 'skipped') then j.last_event
                    else 'settled'
                end as state
            from judged j
        )
        select p.topic_id, v_message.published_at, a.subscription_id, a.state, a.at, a.event,
            a.attempt, a.consumer_id, a.reason
        from pubsub_data.topics p
        left join (
            select s.subscription_id, s.state, 0::bigint as position,
                v_message.published_at as at,
                case s.state when 'not_matched' then 'not_matched' else 'published' end as event,
                null::int as attempt, null::text as consumer_id,
                coalesce(s.missed_because, v_delay) as reason
            from states s
            union all
            select s.subscription_id, s.state, t.position, t.at, t.event, t.attempt, t.consumer_id,
                t.reason
            from states s
            join told t on t.subscription_key = s.subscription_key
        ) a on true
        where p.topic_key = v_message.topic_key
        order by a.subscription_id, a.position;
end
$$;

comment on function pubsub.message_timeline is
    'What became of a message in each subscription of its topic, and why some did not get it.';
