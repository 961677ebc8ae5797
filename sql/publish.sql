/*
 * Publishing stores each message once and adds a delivery for every subscription of the topic whose
 * filter matches, in the caller's transaction. A subscription created while a publish runs may or
 * may not receive it.
 */

/*
 * publish_to_topic — publish_messages by topic key.
 *
 * Out      message ids, in the order of p_payloads
 * Errors   PS422 (messages) not an object
 * Locks    nothing that another publish or claim waits for
 */
create function pubsub.publish_to_topic(
    p_topic_key bigint,
    p_payloads jsonb[],
    p_attributes jsonb[] default null,
    p_deliver_at timestamptz[] default null,
    p_expires_at timestamptz[] default null
)
returns uuid[]
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := clock_timestamp();
    -- the first 64 bits of a UUIDv7: milliseconds, version 7, twelve zero bits
    v_prefix text := '0' || to_hex((floor(extract(epoch from v_now) * 1000)::bigint << 16) | 28672);
    v_ids uuid[];
begin
    if exists (
        select 1 from unnest(p_payloads) p(payload)
        where p.payload is null or jsonb_typeof(p.payload) <> 'object'
    ) then
        perform pubsub.fail_validation('messages', 'every message must be a JSON object');
    end if;

    with fresh as materialized (
        select (v_prefix || to_hex(nextval('pubsub_data.message_numbers')))::uuid as message_id,
            m.payload, m.attributes, m.deliver_at, m.expires_at
        from unnest(p_payloads, p_attributes, p_deliver_at, p_expires_at)
            as m (payload, attributes, deliver_at, expires_at)
        where m.payload is not null
    ), stored as (
        insert into pubsub_data.messages (
            topic_key, message_id, payload, attributes, published_at, expires_at
        )
        select p_topic_key, f.message_id, f.payload, f.attributes, v_now, f.expires_at
        from fresh f
    ), delivered as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, visible_at, expires_at
        )
        select p_topic_key, s.subscription_key, f.message_id,
            coalesce(f.deliver_at, '-infinity'), f.expires_at
        from pubsub_data.subscriptions s
        join fresh f on (s.filter_path is null or f.payload @@ s.filter_path)
            and (s.attribute_filter_path is null
                or coalesce(f.attributes, '{}') @@ s.attribute_filter_path)
        where s.topic_key = p_topic_key
        returning subscription_key, visible_at
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, backlog, waiting
        )
        select p_topic_key, d.subscription_key, pubsub.counter_time(d.visible_at), count(*),
            count(*) filter (where d.visible_at > v_now)
        from delivered d
        group by d.subscription_key, pubsub.counter_time(d.visible_at)
    )
    select array_agg(f.message_id) into v_ids from fresh f;

    -- a claim that has read past a waiting message finds it again only by its wake-up
    if p_deliver_at is not null or p_expires_at is not null then
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, d.subscription_key, due.due_at,
            array_agg(d.message_id order by d.message_id)
        from pubsub_data.subscriptions s
        cross join unnest(v_ids) as i (id)
        cross join lateral (
            select x.subscription_key, x.message_id, x.visible_at, x.expires_at
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = s.subscription_key
                and x.message_id = i.id
            limit 1
        ) d
        cross join lateral (
            values (nullif(d.visible_at, '-infinity')), (d.expires_at)
        ) as due (due_at)
        where s.topic_key = p_topic_key and due.due_at is not null
        group by d.subscription_key, due.due_at;
    end if;
    return coalesce(v_ids, '{}');
end
$$;

comment on function pubsub.publish_to_topic is
    'publish_messages by topic key: the form that can be routed to the node of a topic.';

/*
 * publish_messages — all of the messages, or none.
 *
 * In       p_attributes, p_deliver_at, p_expires_at: null, or one element per payload
 * Out      message ids, in the order of p_payloads
 * Errors   PS404 unknown topic · PS422 (messages) not an object
 * Effects  rolls back with the caller's transaction
 */
create function pubsub.publish_messages(
    p_topic_id text,
    p_payloads jsonb[],
    p_attributes jsonb[] default null,
    p_deliver_at timestamptz[] default null,
    p_expires_at timestamptz[] default null
)
returns table (message_id uuid)
language plpgsql volatile rows 100
as $$
declare
    v_topic_key bigint;
begin
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    return query
        select i.message_id
        from unnest(pubsub.publish_to_topic(
            v_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at
        )) with ordinality as i (message_id, position)
        order by i.position;
end
$$;

comment on function pubsub.publish_messages is
    'Publish JSON objects to a topic, in the caller''s transaction; returns their ids in order.';
