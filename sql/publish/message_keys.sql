/*
 * A message key keeps a job from being queued twice: while a message under a key is live, which means
 * queued or in somebody's hands, what comes under the same key in its topic is not published; its answer
 * is the id of the live one. Once that is acked, dead or over, the key is free.
 *
 * A key's row says which message was published under it last, and stays when that is settled, so acks
 * and nacks know nothing of keys. Whoever publishes locks the rows of his keys, waiting for rivals, then
 * looks, with a snapshot of its own, which of their messages are live, and takes over the others. So of
 * two publishes of a key one comes second, and sees whatever was settled before it began. An ack that
 * commits while it looks counts as after it.
 *
 * Keys are looked at by publishes only. What a seek, a replay or a reprocess brings back is live beside a
 * message that has taken its key over since.
 */

/*
 * is_live — whether a message waits in a subscription, or is in somebody's hands. One whose time is over, or
 * whose last lease is, is not, though its delivery may still be there.
 */
create function pubsub.is_live(
    p_topic_key bigint, p_subscription_key bigint, p_message_id uuid, p_now timestamptz
)
returns boolean
language sql stable parallel safe
begin atomic
    -- limit, and a union: so that no plan reads all deliveries instead
    select exists (
        (
            select from pubsub_data.deliveries d
            where d.topic_key = p_topic_key
                and d.subscription_key = p_subscription_key
                and d.message_id = p_message_id
                and (d.expires_at is null or d.expires_at > p_now
                    or d.lease is not null and d.visible_at > p_now)
                -- spent: nobody gets it any more
                and not (d.lease is not null and d.visible_at <= p_now and exists (
                    select from pubsub_data.subscriptions s
                    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
                        and s.max_delivery_attempts <= d.attempts
                ))
            limit 1
        )
        union all
        select where pubsub.is_in_run(p_topic_key, p_subscription_key, p_message_id)
    );
end;

comment on function pubsub.is_live is
    'Whether a message waits in a subscription or is in somebody''s hands.';

/*
 * claim_live_keys — take the message keys that are free for the messages that carry them.
 *
 * In       by position: p_keys, null for a message without one; p_new_ids: the ids that the messages
 *          would get; p_message_ids: those that their idempotency keys left them, of a duplicate another
 * Out      by position: the id of whichever message is to stand for it, and whether that is another one
 * Errors   PS422 (message_key)
 * Locks    the keys of what is no duplicate, in their order, until the transaction ends; waits for who
 *          holds one
 */
create function pubsub.claim_live_keys(
    p_topic_key bigint, p_keys text[], p_new_ids uuid[], p_message_ids uuid[],
    out message_ids uuid[], out duplicates boolean[]
)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_wrong int;
    v_keys text[];
    v_ids uuid[];
begin
    select min(k.position) - 1 into v_wrong
    from unnest(p_keys) with ordinality as k (message_key, position)
    where char_length(k.message_key) not between 1 and 256;
    if v_wrong is not null then
        perform pubsub.fail_validation('message_key', 'message_key must be 1 to 256 characters',
            jsonb_build_array(v_wrong));
    end if;

    -- in key order: two calls with the same keys must not wait for each other
    select array_agg(f.message_key order by f.message_key collate "C"),
        array_agg(f.new_id order by f.message_key collate "C")
    into v_keys, v_ids
    from (
        select distinct on (k.message_key) k.message_key, k.new_id
        from unnest(p_keys, p_new_ids, p_message_ids)
            with ordinality as k (message_key, new_id, message_id, position)
        where k.message_key is not null and k.message_id = k.new_id
        order by k.message_key, k.position
    ) f;
    -- on conflict do nothing would lock nothing, and a clean-up could take a row before its turn below
    insert into pubsub_data.message_keys as k (topic_key, message_key, message_id)
    select p_topic_key, f.message_key, f.new_id
    from unnest(v_keys, v_ids) with ordinality as f (message_key, new_id, position)
    order by f.position
    on conflict (topic_key, message_key) do update set message_id = excluded.message_id where false;

    -- a statement of its own: it sees what the one above waited for, and nobody else changes these rows
    update pubsub_data.message_keys k
    set message_id = f.new_id
    from (
        select x.place, o.new_id
        from unnest(v_keys, v_ids) as o (message_key, new_id)
        cross join lateral (
            select y.ctid as place, y.message_id
            from pubsub_data.message_keys y
            where y.topic_key = p_topic_key and y.message_key = o.message_key
            limit 1
        ) x
        where x.message_id <> o.new_id
            and not exists (
                select from pubsub_data.subscriptions s
                where s.topic_key = p_topic_key
                    and pubsub.is_live(s.topic_key, s.subscription_key, x.message_id, v_now)
            )
    ) f
    where k.ctid = f.place;

    select array_agg(r.message_id order by r.position),
        array_agg(r.message_id <> r.new_id order by r.position)
    into claim_live_keys.message_ids, claim_live_keys.duplicates
    from (
        -- a duplicate by its idempotency key may be one of a message that its own key kept back
        select i.position, i.new_id, coalesce(k.message_id, i.message_id) as message_id
        from unnest(p_new_ids, p_message_ids) with ordinality as i (new_id, message_id, position)
        left join unnest(p_new_ids, p_keys) as c (new_id, message_key) on c.new_id = i.message_id
        left join lateral (
            select x.message_id
            from pubsub_data.message_keys x
            where x.topic_key = p_topic_key and x.message_key = c.message_key
            limit 1
        ) k on true
    ) r;
end
$$;

comment on function pubsub.claim_live_keys is
    'Take the message keys that are free: which message stands for each, and whether it is another one.';

/*
 * find_messages — those of a subscription that are live under some message keys.
 *
 * Out      in the order of p_message_keys, which may name one twice; none for a key without a live message
 * Errors   PS404
 */
create function pubsub.find_messages(p_subscription_id text, p_message_keys text[])
returns table (message_key text, message_id uuid)
language plpgsql stable parallel safe
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_subscription constant record := pubsub.subscription_keys(p_subscription_id);
begin
    return query
        select i.message_key, k.message_id
        from unnest(p_message_keys) with ordinality as i (message_key, position)
        cross join lateral (
            select x.message_id
            from pubsub_data.message_keys x
            where x.topic_key = v_subscription.topic_key and x.message_key = i.message_key
            limit 1
        ) k
        where pubsub.is_live(v_subscription.topic_key, v_subscription.subscription_key,
            k.message_id, v_now)
        order by i.position;
end
$$;

comment on function pubsub.find_messages is
    'The live messages of a subscription under some message keys.';
