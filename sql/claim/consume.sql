/*
 * Consuming: what people and the server call. claims.sql leases; here the messages are added. Neither of the
 * two calls the other, and one message is looked up in a statement of its own: each level costs a claim of
 * one some percent, and with its id a parameter only one partition is opened.
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
 *          them, though the first one is returned whatever its size; null: no bound;
 *          p_only: as in consume_messages
 * Out      by consumer (1 is the first), then in publish order, higher priorities first; no rows when
 *          nothing is ready. is_cut: the bound ended it, so those after the last consumer that is named
 *          were not served
 * Errors   PS404 · PS422 (consumer_id null, batch_size 1 to 1000 each,
 *          ack_deadline_seconds 1 to 43200, max_bytes below 1, only)
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
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid, rewinds int, is_cut boolean
)
language plpgsql volatile rows 10
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_topic_key bigint;
    v_ids uuid[];
    v_attempts int[];
    v_consumers int[];
    v_lease bigint;
    v_ack_deadline timestamptz;
    v_head uuid;
    v_rewinds int;
    v_is_cut boolean;
begin
    select c.topic_key, c.message_ids, c.attempts, c.consumers, c.lease, c.ack_deadline, c.head,
        c.rewinds, c.is_cut
    into v_topic_key, v_ids, v_attempts, v_consumers, v_lease, v_ack_deadline, v_head,
        v_rewinds, v_is_cut
    from pubsub.claim_messages(p_subscription_id, p_consumer_ids, p_batch_sizes,
        p_ack_deadline_seconds, p_default_ack_deadline_seconds, p_head, p_rewinds, p_max_bytes,
        p_only) c;
    if cardinality(v_ids) = 1 then
        return query
            select v_consumers[1], m.message_id, m.payload, m.attributes, m.ordering_key,
                m.priority, m.published_at, v_attempts[1], v_lease, v_ack_deadline, v_head,
                v_rewinds, v_is_cut
            from pubsub_data.messages m
            where m.topic_key = v_topic_key and m.message_id = v_ids[1];
        return;
    end if;
    -- in the order of the arrays, without a sort
    return query
        select i.consumer, m.message_id, m.payload, m.attributes, m.ordering_key, m.priority,
            m.published_at, i.attempts, v_lease, v_ack_deadline, v_head, v_rewinds, v_is_cut
        from unnest(v_ids, v_attempts, v_consumers) as i (message_id, attempts, consumer)
        cross join lateral (
            select x.*
            from pubsub_data.messages x
            where x.topic_key = v_topic_key and x.message_id = i.message_id
            limit 1
        ) m;
end
$$;

comment on function pubsub.consume_messages_for is
    'Lease ready messages to several consumers at once: the first gets the oldest.';

/*
 * consume_messages — lease up to p_batch_size ready messages of a subscription to a consumer.
 *
 * In       p_ack_deadline_seconds for this claim, else the subscription's, else the default;
 *          p_max_bytes: what is returned has no more, unless one message alone has; null: no bound;
 *          p_only: new: what was never delivered; unseen: nor to this consumer; null: whatever is ready
 * Out      in publish order, higher priorities first; no rows when nothing is ready. lease is the
 *          fence for ack and nack
 * Errors   PS404 · PS422 (batch_size 1 to 1000, ack_deadline_seconds 1 to 43200, consumer_id null,
 *          max_bytes below 1, only: another word, or the subscription orders or shares)
 * Locks    only rows it returns; skips locked ones, never waits
 */
create function pubsub.consume_messages(
    p_subscription_id text,
    p_consumer_id text,
    p_batch_size int default 10,
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60,
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, attempts int, lease bigint, ack_deadline timestamptz
)
language plpgsql volatile rows 10
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_topic_key bigint;
    v_ids uuid[];
    v_attempts int[];
    v_lease bigint;
    v_ack_deadline timestamptz;
begin
    select c.topic_key, c.message_ids, c.attempts, c.lease, c.ack_deadline
    into v_topic_key, v_ids, v_attempts, v_lease, v_ack_deadline
    from pubsub.claim_messages(p_subscription_id, array[p_consumer_id], array[p_batch_size],
        p_ack_deadline_seconds, p_default_ack_deadline_seconds, null, null, p_max_bytes, p_only) c;
    if cardinality(v_ids) = 1 then
        return query
            select m.message_id, m.payload, m.attributes, m.ordering_key, m.priority,
                m.published_at, v_attempts[1], v_lease, v_ack_deadline
            from pubsub_data.messages m
            where m.topic_key = v_topic_key and m.message_id = v_ids[1];
        return;
    end if;
    -- in the order of the arrays, without a sort
    return query
        select m.message_id, m.payload, m.attributes, m.ordering_key, m.priority, m.published_at,
            i.attempts, v_lease, v_ack_deadline
        from unnest(v_ids, v_attempts) as i (message_id, attempts)
        cross join lateral (
            select x.*
            from pubsub_data.messages x
            where x.topic_key = v_topic_key and x.message_id = i.message_id
            limit 1
        ) m;
end
$$;

comment on function pubsub.consume_messages is
    'Lease ready messages of a subscription to a consumer until their ack deadline.';
