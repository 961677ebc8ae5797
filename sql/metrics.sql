/*
 * subscription_metrics — exact counts of one subscription.
 *
 * Out      available: can be consumed now · delivered: leased · scheduled: waiting for its time
 *          (backoff or delay) · acked: acked and still kept · dlq: dead letters
 * Errors   PS404
 */
create function pubsub.subscription_metrics(p_subscription_id text)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint
)
language plpgsql stable parallel safe
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_subscription record;
begin
    select s.* into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    return query
        select p_subscription_id, d.available, d.delivered, d.scheduled, a.acked, l.dlq
        from (
            select count(*) filter (where state = 'available') as available,
                count(*) filter (where state = 'delivered') as delivered,
                count(*) filter (where state = 'scheduled') as scheduled
            from (
                select pubsub.delivery_state(d.visible_at, d.lease, d.attempts, d.expires_at,
                    v_subscription.max_delivery_attempts, v_now) as state
                from pubsub_data.deliveries d
                where d.topic_key = v_subscription.topic_key
                    and d.subscription_key = v_subscription.subscription_key
            ) states
        ) d,
        (
            select count(*) as acked
            from pubsub_data.acked a
            where a.topic_key = v_subscription.topic_key
                and a.subscription_key = v_subscription.subscription_key
        ) a,
        (
            select count(*) as dlq
            from pubsub_data.dead_letters l
            where l.topic_key = v_subscription.topic_key
                and l.subscription_key = v_subscription.subscription_key
        ) l;
end
$$;

comment on function pubsub.subscription_metrics is
    'Exact counts of one subscription by state.';

/* list_subscription_metrics — subscription_metrics of the first p_limit subscriptions by id. */
create function pubsub.list_subscription_metrics(p_limit int default 1000)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint
)
language sql stable parallel safe
as $$
    select m.*
    from (
        select s.subscription_id
        from pubsub_data.subscriptions s
        order by s.subscription_id
        limit p_limit
    ) s
    cross join lateral pubsub.subscription_metrics(s.subscription_id) m
$$;

comment on function pubsub.list_subscription_metrics is
    'Exact counts of the first p_limit subscriptions by id.';
