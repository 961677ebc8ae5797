/*
 * Consuming: what people and the server call by text ids. A subscription's row says how its claims choose
 * what is ready, and whether limits apply; claims.sql does the rest.
 */

/*
 * consume_messages_for — what consume_messages called for one consumer after the other would lease,
 * in one call.
 *
 * In       p_consumer_ids and p_batch_sizes: one element per consumer;
 *          p_ack_deadline_seconds for this claim, else the subscription's, else the default;
 *          p_head and p_rewinds: those of an earlier call on another connection, which spares this
 *          one reading what that one has read;
 *          p_max_bytes: the messages have no more as JSON text, and 1000 bytes each for what comes with
 *          them, though the first one is returned whatever its size; null: no bound
 * Out      by consumer (1 is the first), then in publish order, higher priorities first; no rows when
 *          nothing is ready. is_cut: the bound ended it, so those after the last consumer that is named
 *          were not served
 * Errors   PS404 · PS422 (consumer_id null, batch_size 1 to 1000 each,
 *          ack_deadline_seconds 1 to 43200, max_bytes below 1)
 * Locks    only rows it returns; skips locked ones, never waits, but for other claims where the
 *          subscription has a limit (flow.sql)
 */
create function pubsub.consume_messages_for(
    p_subscription_id text,
    p_consumer_ids text[],
    p_batch_sizes int[],
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60,
    p_head uuid default null,
    p_rewinds int default null,
    p_max_bytes bigint default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid, rewinds int, is_cut boolean
)
language plpgsql volatile rows 10
as $$
declare
    v_now constant timestamptz := clock_timestamp();
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
    if p_max_bytes < 1 then
        perform pubsub.fail_validation('max_bytes', 'max_bytes must be at least 1');
    end if;
    select s.topic_key, s.subscription_key, s.max_delivery_attempts, s.ack_deadline_seconds,
        s.rewinds, s.rewound_to, s.max_in_flight, s.max_in_flight_per_consumer, s.max_rate,
        -- a day for clocks that disagree
        pubsub.id_at(least(s.created_at, v_now) - interval '1 day') as floor,
        case
            when s.enable_ordering then 'ordered'
            when s.fairness_key is not null then 'fair'
            when s.has_priorities then 'priorities'
            else 'plain'
        end as mode
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
    if v_subscription.rewinds > 0 then
        -- replayed messages may be older than the subscription
        select pubsub.id_at(least(t.created_at, v_now) - interval '1 day') into v_subscription.floor
        from pubsub_data.topics t
        where t.topic_key = v_subscription.topic_key;
    end if;
    if v_subscription.max_in_flight is not null
        or v_subscription.max_in_flight_per_consumer is not null
        or v_subscription.max_rate is not null
    then
        return query
            select c.consumer, c.message_id, c.payload, c.attributes, c.ordering_key, c.priority,
                c.published_at, c.attempts, c.lease, c.ack_deadline, c.head,
                v_subscription.rewinds, c.is_cut
            from pubsub.claim_within_limits(
                v_subscription.topic_key, v_subscription.subscription_key, v_subscription.floor,
                p_consumer_ids, p_batch_sizes, v_ack_deadline_seconds,
                v_subscription.max_delivery_attempts,
                case when p_rewinds = v_subscription.rewinds then p_head end, v_subscription.mode,
                v_subscription.rewinds, v_subscription.rewound_to, v_subscription.max_in_flight,
                v_subscription.max_in_flight_per_consumer, v_subscription.max_rate, p_max_bytes
            ) c;
        return;
    end if;
    if v_subscription.mode = 'plain' then
        return query
            select c.consumer, c.message_id, c.payload, c.attributes, c.ordering_key, c.priority,
                c.published_at, c.attempts, c.lease, c.ack_deadline, c.head,
                v_subscription.rewinds, c.is_cut
            from pubsub.claim_deliveries(
                v_subscription.topic_key, v_subscription.subscription_key, v_subscription.floor,
                p_consumer_ids, p_batch_sizes, v_ack_deadline_seconds,
                v_subscription.max_delivery_attempts,
                case when p_rewinds = v_subscription.rewinds then p_head end, 'plain',
                v_subscription.rewinds, v_subscription.rewound_to, false, p_max_bytes
            ) c;
        return;
    end if;
    if v_subscription.mode = 'priorities' then
        return query
            select c.consumer, c.message_id, c.payload, c.attributes, c.ordering_key, c.priority,
                c.published_at, c.attempts, c.lease, c.ack_deadline, c.head,
                v_subscription.rewinds, c.is_cut
            from pubsub.claim_deliveries(
                v_subscription.topic_key, v_subscription.subscription_key, v_subscription.floor,
                p_consumer_ids, p_batch_sizes, v_ack_deadline_seconds,
                v_subscription.max_delivery_attempts,
                case when p_rewinds = v_subscription.rewinds then p_head end, 'priorities',
                v_subscription.rewinds, v_subscription.rewound_to, false, p_max_bytes
            ) c
            order by c.consumer, coalesce(c.priority, 0) desc, c.message_id;
        return;
    end if;
    return query
        select c.consumer, c.message_id, c.payload, c.attributes, c.ordering_key, c.priority,
            c.published_at, c.attempts, c.lease, c.ack_deadline, c.head,
            v_subscription.rewinds, c.is_cut
        from pubsub.claim_in_turn(
            v_subscription.topic_key, v_subscription.subscription_key, v_subscription.floor,
            p_consumer_ids, p_batch_sizes, v_ack_deadline_seconds,
            v_subscription.max_delivery_attempts,
            case when p_rewinds = v_subscription.rewinds then p_head end, v_subscription.mode,
            v_subscription.rewinds, v_subscription.rewound_to, false, p_max_bytes
        ) c;
end
$$;

comment on function pubsub.consume_messages_for is
    'Lease ready messages to several consumers at once: the first gets the oldest.';

/*
 * consume_messages — lease up to p_batch_size ready messages of a subscription to a consumer.
 *
 * In       p_ack_deadline_seconds for this claim, else the subscription's, else the default;
 *          p_max_bytes: what is returned has no more, unless one message alone has; null: no bound
 * Out      in publish order, higher priorities first; no rows when nothing is ready. lease is the
 *          fence for ack and nack
 * Errors   PS404 · PS422 (batch_size 1 to 1000, ack_deadline_seconds 1 to 43200, consumer_id null,
 *          max_bytes below 1)
 * Locks    only rows it returns; skips locked ones, never waits
 */
create function pubsub.consume_messages(
    p_subscription_id text,
    p_consumer_id text,
    p_batch_size int default 10,
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60,
    p_max_bytes bigint default null
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
            p_ack_deadline_seconds, p_default_ack_deadline_seconds, null, null, p_max_bytes
        ) with ordinality as c (
            consumer, message_id, payload, attributes, ordering_key, priority, published_at,
            attempts, lease, ack_deadline, head, rewinds, is_cut, position
        )
        order by c.position;
end
$$;

comment on function pubsub.consume_messages is
    'Lease ready messages of a subscription to a consumer until their ack deadline.';
