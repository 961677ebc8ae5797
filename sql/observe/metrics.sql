/*
 * Counts by state. They are sums over pubsub_data.counters, so they cost the same at any backlog. A
 * message whose lease, backoff or delay ends counts as available up to 0.1 s before that.
 */

/*
 * list_subscription_metrics — counts of the first p_limit subscriptions by id, or of the one named.
 *
 * In       p_limit: null: all
 * Out      available: can be consumed now · delivered: leased · scheduled: waiting for its time
 *          (backoff or delay) · acked: acked and still remembered · dlq: dead letters ·
 *          expired: never acked because their time was over, since ever · parked: hold their ordering
 *          key until an operator acts
 */
create function pubsub.list_subscription_metrics(
    p_limit int default 1000, p_subscription_id text default null
)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint, expired bigint, parked bigint
)
language sql stable parallel safe
as $$
    with counts as (
        select c.topic_key, c.subscription_key, sum(c.backlog)::bigint as backlog,
            (sum(c.leased) filter (where c.due_at > clock_timestamp()))::bigint as leased,
            (sum(c.waiting) filter (
                where c.due_at > clock_timestamp() and c.due_at < 'infinity'))::bigint as waiting,
            -- what has no time to wait for
            (sum(c.waiting) filter (where c.due_at = 'infinity'))::bigint as parked,
            sum(c.acked)::bigint as acked, sum(c.dlq)::bigint as dlq,
            sum(c.expired)::bigint as expired
        from pubsub_data.counters c
        group by c.topic_key, c.subscription_key
    )
    select s.subscription_id,
        coalesce(c.backlog, 0) - coalesce(c.leased, 0) - coalesce(c.waiting, 0)
            - coalesce(c.parked, 0),
        coalesce(c.leased, 0), coalesce(c.waiting, 0), coalesce(c.acked, 0), coalesce(c.dlq, 0),
        coalesce(c.expired, 0), coalesce(c.parked, 0)
    from (
        select x.topic_key, x.subscription_key, x.subscription_id
        from pubsub_data.subscriptions x
        where p_subscription_id is null or x.subscription_id = p_subscription_id
        order by x.subscription_id
        limit p_limit
    ) s
    left join counts c
        on c.topic_key = s.topic_key and c.subscription_key = s.subscription_key
    order by s.subscription_id
$$;

comment on function pubsub.list_subscription_metrics is
    'Counts by state of the first p_limit subscriptions by id.';

/*
 * subscription_metrics — list_subscription_metrics of one subscription.
 *
 * Errors   PS404
 */
create function pubsub.subscription_metrics(p_subscription_id text)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint, expired bigint, parked bigint
)
language plpgsql stable parallel safe
as $$
begin
    return query
        select m.* from pubsub.list_subscription_metrics(1, p_subscription_id) m;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.subscription_metrics is
    'Counts of one subscription by state.';
