/*
 * Views for people at a psql prompt. The service does not use them.
 */

create view pubsub.topics as
select t.topic_id, t.message_retention_seconds, t.topic_key < 0 as index_ordering_keys, t.created_at,
    (
        select count(*) from pubsub_data.subscriptions s where s.topic_key = t.topic_key
    ) as subscriptions,
    recent.last_minute as published_last_minute,
    round(recent.last_minute / 60.0, 1) as published_per_second,
    newest.published_at as last_published_at,
    clock_timestamp() - newest.published_at as last_published_age
from pubsub_data.topics t
cross join lateral (
    select count(*) as last_minute
    from pubsub_data.messages m
    where m.topic_key = t.topic_key
        and m.message_id >= pubsub.id_at(clock_timestamp() - interval '1 minute')
) recent
left join lateral (
    select m.published_at
    from pubsub_data.messages m
    where m.topic_key = t.topic_key
    order by m.message_id desc
    limit 1
) newest on true;

comment on view pubsub.topics is
    'Topics with their retention, publish rate over the last minute and the age of their newest kept message.';

create view pubsub.subscriptions as
select s.subscription_id, t.topic_id, s.filter, s.max_delivery_attempts,
    coalesce(s.exact_backoff_min_seconds, s.backoff_min_seconds) as backoff_min_seconds,
    coalesce(s.exact_backoff_max_seconds, s.backoff_max_seconds) as backoff_max_seconds,
    s.backoff_strategy, s.ack_deadline_seconds, s.enable_ordering,
    s.ordering_failure, s.fairness_key, s.max_in_flight, s.max_in_flight_per_consumer, s.max_rate,
    s.message_ttl_seconds, s.dead_letter_expired, d.topic_id as dead_letter_topic_id, s.paused,
    s.expires_after_seconds,
    e.endpoint as push_endpoint, e.failures as push_failures, e.paused_until as push_paused_until,
    e.last_error as push_last_error,
    s.created_at,
    m.available + m.delivered + m.scheduled + m.parked as backlog, m.available,
    m.delivered as in_flight, m.scheduled, m.parked, m.acked, m.dlq, m.expired,
    clock_timestamp() - pubsub.id_time(oldest.message_id) as oldest_unacked_age,
    m.published_total, m.delivered_total, m.acked_total, m.nacked_total, m.rejected_total,
    m.expired_total, m.dead_lettered_total, m.redelivered_total, m.extended_total
from pubsub_data.subscriptions s
join pubsub_data.topics t on t.topic_key = s.topic_key
left join pubsub_data.topics d on d.topic_key = s.dead_letter_topic_key
left join pubsub_data.push_endpoints e
    on e.topic_key = s.topic_key and e.subscription_key = s.subscription_key
join pubsub.list_subscription_metrics(null) m on m.subscription_id = s.subscription_id
left join lateral (
    -- as oldest_unsettled, which not everybody may call who reads this
    select least((
        select d.message_id
        from pubsub_data.deliveries d
        where d.topic_key = s.topic_key and d.subscription_key = s.subscription_key
        order by d.message_id
        limit 1
    ), (
        select r.run_id
        from pubsub_data.runs r
        where r.topic_key = s.topic_key and r.subscription_key = s.subscription_key
        order by r.run_id
        limit 1
    )) as message_id
) oldest on true;

comment on view pubsub.subscriptions is
    'Subscriptions with their settings, backlog by state, and the age of the oldest unacked message.';

create view pubsub.subscription_messages as
select s.subscription_id, m.message_id, m.state, m.published_at, m.attempts, m.consumer_id,
    m.ack_deadline, m.due_at, m.deliver_at, m.expires_at, m.reason, m.last_error, m.settled_at, m.ordering_key,
    m.priority, m.attributes, m.payload
from pubsub_data.subscriptions s
cross join lateral (
    select d.message_id, live.state, p.published_at, d.attempts,
        case when live.state = 'delivered' then d.consumer_id end as consumer_id,
        case when live.state = 'delivered' then d.visible_at end as ack_deadline,
        case when live.state = 'scheduled' then d.visible_at end as due_at,
        p.deliver_at, d.expires_at, null::text as reason, null::text as last_error,
        null::timestamptz as settled_at, p.ordering_key, p.priority, p.attributes, p.payload
    from (
        select x.message_id, x.visible_at, x.lease, x.attempts, x.expires_at, x.consumer_id
        from pubsub_data.deliveries x
        where x.topic_key = s.topic_key and x.subscription_key = s.subscription_key
        union all
        select i.id, coalesce(x.ack_deadline, '-infinity'), x.lease, (x.lease is not null)::int, null,
            x.consumer_id
        from pubsub_data.runs x
        cross join unnest(x.message_ids) as i (id)
        where x.topic_key = s.topic_key and x.subscription_key = s.subscription_key
    ) d
    cross join lateral (
        select pubsub.delivery_state(d.visible_at, d.lease, d.attempts, d.expires_at,
            s.max_delivery_attempts, clock_timestamp()) as state
    ) live
    left join pubsub_data.messages p
        on p.topic_key = s.topic_key and p.message_id = d.message_id
    union all
    select l.message_id, 'dlq', l.published_at, l.attempts, l.consumer_id, null, null, null,
        null, l.reason, l.last_error, l.dead_at, l.ordering_key, l.priority, l.attributes, l.payload
    from pubsub_data.dead_letters l
    where l.topic_key = s.topic_key and l.subscription_key = s.subscription_key
    union all
    select i.message_id, 'acked', p.published_at, a.attempts, a.consumer_id, null, null,
        p.deliver_at, null, null, null, a.acked_at, p.ordering_key, p.priority, p.attributes, p.payload
    from pubsub_data.acked a
    cross join unnest(a.message_ids) as i (message_id)
    left join pubsub_data.messages p
        on p.topic_key = a.topic_key and p.message_id = i.message_id
    where a.topic_key = s.topic_key and a.subscription_key = s.subscription_key
) m;

comment on view pubsub.subscription_messages is
    'Every message of a subscription with its state: available, delivered (holder, ack deadline), '
    'scheduled (due time), parked, expired, dlq (reason, last error) or acked. Filter by '
    'subscription_id.';
