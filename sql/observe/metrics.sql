/*
 * Counts by state. They are sums over pubsub_data.counters, so they cost the same at any backlog. A
 * message whose lease, backoff or delay ends counts as available up to 0.1 s before that.
 */

/*
 * list_subscription_metrics — counts of the first p_limit subscriptions by id, or of the one named.
 *
 * In       p_limit: null: all; p_prefix: only ids that begin with it
 * Out      available: can be consumed now · delivered: leased · scheduled: waiting for its time
 *          (backoff or delay) · acked: acked and still remembered · dlq: dead letters ·
 *          expired: never acked because their time was over, since ever · parked: hold their ordering
 *          key until an operator acts · the totals count since the subscription is there and never fall.
 *          published: by publishes, not by replays · delivered: leases, of which redelivered of what
 *          was delivered before · nacked: also those that spent the attempts · rejected · expired ·
 *          dead_lettered: kept or published to the dead letter topic · extended
 */
create function pubsub.list_subscription_metrics(
    p_limit int default 1000, p_subscription_id text default null, p_prefix text default null
)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint, expired bigint, parked bigint, published_total bigint, delivered_total bigint,
    acked_total bigint, nacked_total bigint, rejected_total bigint, expired_total bigint,
    dead_lettered_total bigint, redelivered_total bigint, extended_total bigint
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
            sum(c.expired)::bigint as expired,
            sum(coalesce(c.published, greatest(c.backlog, 0)))::bigint as published,
            sum(coalesce(c.delivered, greatest(c.leased, 0)))::bigint as delivered,
            sum(c.acked + coalesce(c.forgotten, 0))::bigint as ever_acked,
            sum(c.nacked)::bigint as nacked, sum(c.rejected)::bigint as rejected,
            sum(c.dead_lettered)::bigint as dead_lettered,
            sum(c.redelivered)::bigint as redelivered, sum(c.extended)::bigint as extended
        from pubsub_data.counters c
        group by c.topic_key, c.subscription_key
    )
    select s.subscription_id,
        coalesce(c.backlog, 0) - coalesce(c.leased, 0) - coalesce(c.waiting, 0)
            - coalesce(c.parked, 0),
        coalesce(c.leased, 0), coalesce(c.waiting, 0), coalesce(c.acked, 0), coalesce(c.dlq, 0),
        coalesce(c.expired, 0), coalesce(c.parked, 0), coalesce(c.published, 0),
        coalesce(c.delivered, 0), coalesce(c.ever_acked, 0), coalesce(c.nacked, 0),
        coalesce(c.rejected, 0), coalesce(c.expired, 0), coalesce(c.dead_lettered, 0),
        coalesce(c.redelivered, 0), coalesce(c.extended, 0)
    from (
        select x.topic_key, x.subscription_key, x.subscription_id
        from pubsub_data.subscriptions x
        where (p_subscription_id is null or x.subscription_id = p_subscription_id)
            and (p_prefix is null or starts_with(x.subscription_id, p_prefix))
        order by x.subscription_id
        limit p_limit
    ) s
    left join counts c
        on c.topic_key = s.topic_key and c.subscription_key = s.subscription_key
    order by s.subscription_id
$$;

comment on function pubsub.list_subscription_metrics is
    'Counts by state, and totals since ever, of the first p_limit subscriptions by id.';

/*
 * subscription_metrics — list_subscription_metrics of one subscription.
 *
 * Errors   PS404
 */
create function pubsub.subscription_metrics(p_subscription_id text)
returns table (
    subscription_id text, available bigint, delivered bigint, scheduled bigint, acked bigint,
    dlq bigint, expired bigint, parked bigint, published_total bigint, delivered_total bigint,
    acked_total bigint, nacked_total bigint, rejected_total bigint, expired_total bigint,
    dead_lettered_total bigint, redelivered_total bigint, extended_total bigint
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
    'Counts of one subscription by state, and totals since ever.';
