/*
 * Taking: claim and ack in one call. What is returned is gone with the commit, whatever becomes of the consumer:
 * each message is handed out at most once. So the commit has to wait for the disk: whoever switches
 * synchronous_commit off gets messages again that a crash of Postgres brought back.
 *
 * Books, timelines and waiting consumers see a claim and its ack. Its wake-up stays, since it tells new sessions
 * how far the subscription was read.
 */

/*
 * ack_taken — ack what this transaction has just leased.
 *
 * Errors   PS404 the subscription was deleted meanwhile · 40001 it was purged: the call may be made again
 */
create function pubsub.ack_taken(p_subscription_id text, p_message_ids uuid[], p_leases bigint[])
returns void
language plpgsql volatile
as $$
begin
    if pubsub.ack_messages(p_subscription_id, p_message_ids, p_leases) <> cardinality(p_message_ids) then
        -- purged, or made anew under the same id
        raise exception 'The subscription was purged meanwhile: call again'
            using errcode = 'serialization_failure';
    end if;
end
$$;

comment on function pubsub.ack_taken is 'Ack what this transaction has just leased, all or nothing.';

/*
 * take_messages_for — what take_messages called for one consumer after the other would take, in one call.
 *
 * In       as consume_messages_for
 * Out      as consume_messages_for, without leases
 * Errors   and locks: those of consume_messages_for
 */
create function pubsub.take_messages_for(
    p_subscription_id text,
    p_consumer_ids text[],
    p_batch_sizes int[],
    p_head uuid default null,
    p_rewinds int default null,
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, head uuid, rewinds int,
    is_cut boolean
)
language plpgsql volatile rows 10
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_claimed record;
begin
    -- the deadline is of no consequence: nobody sees the lease
    select c.* into v_claimed
    from pubsub.claim_messages(p_subscription_id, p_consumer_ids, p_batch_sizes, null, 60, p_head,
        p_rewinds, p_max_bytes, p_only) c;
    if coalesce(cardinality(v_claimed.message_ids), 0) = 0 then
        return;
    end if;
    perform pubsub.ack_taken(p_subscription_id, v_claimed.message_ids,
        array_fill(v_claimed.lease, array[cardinality(v_claimed.message_ids)]));
    return query
        select i.consumer, m.message_id, m.payload, m.attributes, m.ordering_key, m.priority,
            m.published_at, i.attempts, v_claimed.head, v_claimed.rewinds, v_claimed.is_cut
        from unnest(v_claimed.message_ids, v_claimed.attempts, v_claimed.consumers)
            as i (message_id, attempts, consumer)
        cross join lateral (
            select x.*
            from pubsub_data.messages x
            where x.topic_key = v_claimed.topic_key and x.message_id = i.message_id
            limit 1
        ) m;
end
$$;

comment on function pubsub.take_messages_for is
    'Hand out and ack ready messages for several consumers at once: the first gets the oldest.';

/*
 * take_messages — hand out up to p_batch_size ready messages of a subscription and ack them, at most once.
 *
 * In       p_max_bytes, p_only: as in consume_messages
 * Out      as consume_messages, without leases; what is returned is settled for good
 * Errors   PS404 · PS422 (batch_size 1 to 1000, consumer_id null, max_bytes below 1, only)
 * Locks    only rows it returns; skips locked ones, never waits
 */
create function pubsub.take_messages(
    p_subscription_id text,
    p_consumer_id text,
    p_batch_size int default 10,
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, attempts int
)
language sql volatile rows 10
as $$
    select t.message_id, t.payload, t.attributes, t.ordering_key, t.priority, t.published_at,
        t.attempts
    from pubsub.take_messages_for(p_subscription_id, array[p_consumer_id], array[p_batch_size],
        null, null, p_max_bytes, p_only) t
$$;

comment on function pubsub.take_messages is
    'Hand out ready messages of a subscription and ack them in one: at most once.';

/*
 * take_messages_from — take_messages of several subscriptions, one after the other in random order, until there
 * are enough.
 *
 * In       as take_messages, but that the last message may go beyond p_max_bytes
 * Out      as take_messages, by subscription
 * Errors   those of take_messages, and PS404 if any is unknown · PS422 (subscription_ids)
 */
create function pubsub.take_messages_from(
    p_subscription_ids text[],
    p_consumer_id text,
    p_batch_size int default 10,
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    subscription_id text, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int
)
language plpgsql volatile rows 10
as $$
declare
    v_lease bigint;
    v_from text[];
    v_ids uuid[];
    v_leases bigint[];
begin
    for take_messages_from.subscription_id, take_messages_from.message_id,
        take_messages_from.payload, take_messages_from.attributes,
        take_messages_from.ordering_key, take_messages_from.priority,
        take_messages_from.published_at, take_messages_from.attempts, v_lease
    in
        select c.subscription_id, c.message_id, c.payload, c.attributes, c.ordering_key,
            c.priority, c.published_at, c.attempts, c.lease
        from pubsub.consume_messages_from(p_subscription_ids, p_consumer_id, p_batch_size, null, 60,
            p_max_bytes, p_only) c
    loop
        return next;
        v_from := v_from || subscription_id;
        v_ids := v_ids || message_id;
        v_leases := v_leases || v_lease;
    end loop;
    perform pubsub.ack_taken(t.subscription_id, t.ids, t.leases)
    from (
        select x.subscription_id, array_agg(x.id) as ids, array_agg(x.lease) as leases
        from unnest(v_from, v_ids, v_leases) as x (subscription_id, id, lease)
        group by x.subscription_id
    ) t;
end
$$;

comment on function pubsub.take_messages_from is
    'Hand out and ack ready messages of several subscriptions, one after the other in random order.';
