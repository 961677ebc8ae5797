/*
 * Publishing stores each message once and adds a delivery for every subscription of the topic whose
 * filter matches, in the caller's transaction. A subscription created while a publish runs may or
 * may not receive it.
 */

/*
 * publish_once — what publish_to_topic does where keys say what is published already: idempotency keys
 * first, then, of what those leave, message keys. What is not published because its message key is taken
 * counts as published under its idempotency key.
 *
 * Out      as publish_to_topic
 * Errors   PS404 the topic was deleted meanwhile · PS422 what publish_messages refuses
 */
create function pubsub.publish_once(
    p_topic_key bigint, p_payloads jsonb[], p_attributes jsonb[], p_deliver_at timestamptz[],
    p_expires_at timestamptz[], p_ordering_keys text[], p_priorities smallint[],
    p_idempotency_keys text[], p_request_key text, p_request_fingerprint text,
    p_idempotency_window_seconds int, p_message_keys text[] default null,
    out message_ids uuid[], out duplicates boolean[], out subscription_keys bigint[]
)
language plpgsql volatile
as $$
declare
    v_ids constant uuid[] := pubsub.new_message_ids(coalesce(cardinality(p_payloads), 0));
begin
    perform pubsub.check_idempotency_window(p_idempotency_window_seconds);
    if p_request_key is not null then
        publish_once.message_ids := pubsub.claim_request_key(
            p_topic_key, p_request_key, v_ids,
            coalesce(p_request_fingerprint, pubsub.request_fingerprint(
                p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
                p_priorities, p_idempotency_keys, p_message_keys)),
            p_idempotency_window_seconds);
        if publish_once.message_ids is not null then
            publish_once.duplicates := array_fill(true, array[cardinality(v_ids)]);
            return;
        end if;
    end if;
    publish_once.message_ids := v_ids;
    if p_idempotency_keys is not null then
        select k.message_ids, k.duplicates
        into publish_once.message_ids, publish_once.duplicates
        from pubsub.claim_idempotency_keys(
            p_topic_key, p_idempotency_keys, v_ids, p_idempotency_window_seconds) k;
    end if;
    if p_message_keys is not null then
        select k.message_ids, k.duplicates
        into publish_once.message_ids, publish_once.duplicates
        from pubsub.claim_live_keys(
            p_topic_key, p_message_keys, v_ids, publish_once.message_ids) k;
    end if;
    -- their rows are ours: retries get this answer
    if p_request_key is not null and publish_once.message_ids <> v_ids then
        update pubsub_data.idempotency_keys i
        set message_ids = publish_once.message_ids
        where i.topic_key = p_topic_key and i.scope = 'request'
            and i.idempotency_key = p_request_key;
    end if;
    if p_idempotency_keys is not null and p_message_keys is not null then
        update pubsub_data.idempotency_keys i
        set message_ids = array[m.message_id]
        from unnest(p_idempotency_keys, v_ids, publish_once.message_ids)
            as m (idempotency_key, new_id, message_id)
        where i.topic_key = p_topic_key and i.scope = 'message'
            and i.idempotency_key = m.idempotency_key
            and i.message_ids = array[m.new_id] and m.message_id <> m.new_id;
    end if;
    -- whoever held a key may have held it for long
    if not exists (select from pubsub_data.topics t where t.topic_key = p_topic_key) then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;

    -- what is not published needs not be right: the time of a retry's message may have passed
    perform pubsub.check_messages(clock_timestamp(), p_payloads, p_attributes, p_deliver_at,
        p_expires_at, p_ordering_keys, p_priorities, publish_once.duplicates);
    select p.subscription_keys into publish_once.subscription_keys
    from (
        select array_agg(m.payload order by m.position) as payloads,
            array_agg(m.attributes order by m.position) as attributes,
            array_agg(m.deliver_at order by m.position) as deliver_at,
            array_agg(m.expires_at order by m.position) as expires_at,
            array_agg(m.ordering_key order by m.position) as ordering_keys,
            array_agg(m.priority order by m.position) as priorities,
            array_agg(m.message_id order by m.position) as message_ids
        from unnest(p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
                p_priorities, v_ids, publish_once.duplicates) with ordinality
            as m (payload, attributes, deliver_at, expires_at, ordering_key, priority,
                message_id, is_duplicate, position)
        where m.is_duplicate is not true
    ) fresh
    cross join lateral pubsub.insert_messages(
        p_topic_key, fresh.payloads, fresh.attributes, fresh.deliver_at, fresh.expires_at,
        fresh.ordering_keys, fresh.priorities, fresh.message_ids
    ) p
    where fresh.payloads is not null;
end
$$;

comment on function pubsub.publish_once is
    'Publish what was not published before under its idempotency key, and is not live under its message key.';

/*
 * publish_with_extras — what publish_to_topic does where there is more than payloads.
 *
 * Out      as publish_to_topic
 * Errors   PS422 what publish_messages refuses
 */
create function pubsub.publish_with_extras(
    p_topic_key bigint, p_payloads jsonb[], p_attributes jsonb[], p_deliver_at timestamptz[],
    p_expires_at timestamptz[], p_ordering_keys text[], p_priorities smallint[],
    p_idempotency_keys text[], p_request_key text, p_request_fingerprint text,
    p_idempotency_window_seconds int, p_message_keys text[] default null,
    out message_ids uuid[], out duplicates boolean[], out subscription_keys bigint[]
)
language plpgsql volatile
as $$
begin
    perform pubsub.check_cardinality(a.field, a.elements, coalesce(cardinality(p_payloads), 0))
    from (
        values ('attributes', cardinality(p_attributes)),
            ('deliver_at', cardinality(p_deliver_at)),
            ('expires_at', cardinality(p_expires_at)),
            ('ordering_key', cardinality(p_ordering_keys)),
            ('priority', cardinality(p_priorities)),
            ('idempotency_key', cardinality(p_idempotency_keys)),
            ('message_key', cardinality(p_message_keys))
    ) as a (field, elements);
    if num_nonnulls(p_idempotency_keys, p_request_key, p_message_keys) > 0 then
        select p.message_ids, p.duplicates, p.subscription_keys
        into publish_with_extras.message_ids, publish_with_extras.duplicates,
            publish_with_extras.subscription_keys
        from pubsub.publish_once(
            p_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
            p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
            p_idempotency_window_seconds, p_message_keys
        ) p;
        return;
    end if;
    perform pubsub.check_messages(clock_timestamp(), p_payloads, p_attributes, p_deliver_at,
        p_expires_at, p_ordering_keys, p_priorities);
    select p.message_ids, p.subscription_keys
    into publish_with_extras.message_ids, publish_with_extras.subscription_keys
    from pubsub.insert_messages(p_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at,
        p_ordering_keys, p_priorities) p;
end
$$;

comment on function pubsub.publish_with_extras is
    'Publish messages that are more than payloads.';

/*
 * publish_to_topic — publish_messages by key, with everything that can be told of it. Here and nowhere
 * else it is decided what is spared to messages that are payloads alone, the most of them: the checks,
 * and a statement like that of insert_messages, each array of which costs lone publishes some percent.
 *
 * Out      message_ids, duplicates (null: none is): in the order of p_payloads; subscription_keys: who
 *          got any
 * Errors   those of publish_messages
 */
create function pubsub.publish_to_topic(
    p_topic_key bigint, p_payloads jsonb[], p_attributes jsonb[], p_deliver_at timestamptz[],
    p_expires_at timestamptz[], p_ordering_keys text[], p_priorities smallint[],
    p_idempotency_keys text[], p_request_key text, p_request_fingerprint text,
    p_idempotency_window_seconds int, p_message_keys text[] default null,
    out message_ids uuid[], out duplicates boolean[], out subscription_keys bigint[]
)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := clock_timestamp();
    -- as in new_message_ids, whose call costs more
    v_prefix text := '0' || to_hex(
        ((date_part('epoch', v_now) * 1000000)::bigint / 1000 << 16) | 28672);
    v_to_note boolean;
begin
    -- a few are never a run
    if cardinality(p_payloads) >= pubsub.least_run()
        and num_nonnulls(p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
            p_idempotency_keys, p_request_key, p_message_keys) = 0
        and exists (
            select from pubsub_data.run_sizes z
            where z.topic_key = p_topic_key and z.run_size >= pubsub.least_run()
        )
    then
        if p_attributes is not null then
            perform pubsub.check_cardinality(
                'attributes', cardinality(p_attributes), cardinality(p_payloads));
            perform pubsub.check_messages(v_now, p_payloads, p_attributes, null, null, null, null);
        end if;
        select p.message_ids, p.subscription_keys, p.to_note
        into publish_to_topic.message_ids, publish_to_topic.subscription_keys, v_to_note
        from pubsub.publish_in_runs(p_topic_key, p_payloads, p_attributes, v_now, v_prefix) p;
    elsif num_nonnulls(p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
        p_idempotency_keys, p_request_key, p_message_keys) > 0
    then
        select p.message_ids, p.duplicates, p.subscription_keys
        into publish_to_topic.message_ids, publish_to_topic.duplicates,
            publish_to_topic.subscription_keys
        from pubsub.publish_with_extras(
            p_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
            p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
            p_idempotency_window_seconds, p_message_keys
        ) p;
        return;
    else
        with fresh as materialized (
            select (v_prefix || to_hex(nextval('pubsub_data.message_numbers')))::uuid as message_id,
                m.payload
            from unnest(p_payloads) as m (payload)
            where m.payload is not null
        ), stored as (
            insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
            select p_topic_key, f.message_id, f.payload, v_now
            from fresh f
        ), delivered as (
            insert into pubsub_data.deliveries (
                topic_key, subscription_key, message_id, expires_at, lane, is_large
            )
            select p_topic_key, s.subscription_key, f.message_id,
                v_now + make_interval(secs => s.message_ttl_seconds),
                pubsub.delivery_lane(s.enable_ordering, s.fairness_key, null, null, null),
                nullif(pg_column_size(f.payload) > 512, false)
            from pubsub_data.subscriptions s
            join fresh f on pubsub.passes_filter(f.payload, null, s.filter_path, s.filter::jsonb,
                s.filter_values, s.attribute_filter_path)
            where s.topic_key = p_topic_key
            returning subscription_key, expires_at, lane
        ), counted as (
            insert into pubsub_data.counters (topic_key, subscription_key, backlog)
            select p_topic_key, d.subscription_key, count(*)
            from delivered d
            group by d.subscription_key
            returning subscription_key
        )
        select coalesce(array_agg(f.message_id), '{}'), array(select c.subscription_key from counted c),
            exists (select from delivered d where d.lane is not null or d.expires_at is not null)
        into publish_to_topic.message_ids, publish_to_topic.subscription_keys, v_to_note
        from fresh f;
    end if;
    -- looked at last, in passing: nothing is kept of a publish that is refused
    if cardinality(publish_to_topic.message_ids) <> cardinality(p_payloads) then
        perform pubsub.check_payloads(p_payloads);
    end if;
    if v_to_note then
        perform pubsub.note_deliveries(
            p_topic_key, publish_to_topic.subscription_keys, publish_to_topic.message_ids);
    end if;
end
$$;

comment on function pubsub.publish_to_topic is
    'Publish to a topic by its key, the form that can be routed to its node: in one row, with who got any.';

/*
 * publish_messages — all of the messages, or none.
 *
 * In       the arrays: null, or one element per payload, which may be null · p_request_key: an
 *          idempotency key for the whole request; p_request_fingerprint: what tells another request
 *          under it, by default all that is published · p_message_keys: what is live under one in the
 *          topic is not published again
 * Out      message ids, in the order of p_payloads; a duplicate has the id of the first message of its
 *          idempotency key, or of the live one of its message key
 * Errors   PS404 unknown topic · PS422 (the name of an array's element) an array's length, or a value,
 *          whose position is the path
 * Effects  rolls back with the caller's transaction
 */
create function pubsub.publish_messages(
    p_topic_id text,
    p_payloads jsonb[],
    p_attributes jsonb[] default null,
    p_deliver_at timestamptz[] default null,
    p_expires_at timestamptz[] default null,
    p_ordering_keys text[] default null,
    p_priorities smallint[] default null,
    p_idempotency_keys text[] default null,
    p_request_key text default null,
    p_request_fingerprint text default null,
    p_idempotency_window_seconds int default 86400,
    p_message_keys text[] default null
)
returns table (message_id uuid, duplicate boolean)
language plpgsql volatile rows 100
as $$
declare
    v_topic_key bigint;
    v_published record;
begin
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    v_published := pubsub.publish_to_topic(
        v_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
        p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
        p_idempotency_window_seconds, p_message_keys);
    -- in the order of the arrays, without a sort
    return query
        select i.message_id, coalesce(i.duplicate, false)
        from unnest(v_published.message_ids, v_published.duplicates) as i (message_id, duplicate);
end
$$;

comment on function pubsub.publish_messages is
    'Publish JSON objects to a topic, in the caller''s transaction; returns their ids in order.';

/*
 * publish_messages_for — publish_messages for a server, which wakes the consumers that wait for it.
 *
 * Out      one row; message_ids, duplicates (null: none is): in the order of p_payloads;
 *          subscription_ids: who got any, null unless p_tell_subscriptions
 * Errors   those of publish_messages
 */
create function pubsub.publish_messages_for(
    p_topic_id text,
    p_payloads jsonb[],
    p_attributes jsonb[] default null,
    p_deliver_at timestamptz[] default null,
    p_expires_at timestamptz[] default null,
    p_ordering_keys text[] default null,
    p_priorities smallint[] default null,
    p_idempotency_keys text[] default null,
    p_request_key text default null,
    p_request_fingerprint text default null,
    p_idempotency_window_seconds int default 86400,
    p_tell_subscriptions boolean default true,
    p_message_keys text[] default null,
    out message_ids uuid[],
    out duplicates boolean[],
    out subscription_ids text[]
)
language plpgsql volatile
as $$
declare
    v_topic_key bigint;
    v_published record;
begin
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    v_published := pubsub.publish_to_topic(
        v_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
        p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
        p_idempotency_window_seconds, p_message_keys);
    publish_messages_for.duplicates := v_published.duplicates;
    publish_messages_for.message_ids := v_published.message_ids;
    if p_tell_subscriptions then
        select coalesce(array_agg(s.subscription_id), '{}')
        into publish_messages_for.subscription_ids
        from pubsub_data.subscriptions s
        where s.topic_key = v_topic_key
            and s.subscription_key = any(v_published.subscription_keys);
    end if;
end
$$;

comment on function pubsub.publish_messages_for is
    'publish_messages for a server: in one row, with the subscriptions that got any.';
