/*
 * Publishing stores each message once and adds a delivery for every subscription of the topic whose
 * filter matches, in the caller's transaction. A subscription created while a publish runs may or
 * may not receive it.
 */

/*
 * publish_batch — publish_messages by key, with everything that can be told of it.
 *
 * Out      message_ids, duplicates (null: none is): in the order of p_payloads; subscription_keys: who
 *          got any
 * Errors   those of publish_messages
 */
create function pubsub.publish_batch(
    p_topic_key bigint,
    p_payloads jsonb[],
    p_attributes jsonb[],
    p_deliver_at timestamptz[],
    p_expires_at timestamptz[],
    p_ordering_keys text[],
    p_priorities smallint[],
    p_idempotency_keys text[],
    p_request_key text,
    p_request_fingerprint text,
    p_idempotency_window_seconds int,
    out message_ids uuid[],
    out duplicates boolean[],
    out subscription_keys bigint[]
)
language plpgsql volatile
as $$
declare
    v_count constant int := coalesce(cardinality(p_payloads), 0);
    v_ids uuid[];
    v_first_ids uuid[];
begin
    if num_nonnulls(p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
        p_idempotency_keys) > 0
    then
        perform pubsub.check_cardinality(a.field, a.elements, v_count)
        from (
            values ('attributes', cardinality(p_attributes)),
                ('deliver_at', cardinality(p_deliver_at)),
                ('expires_at', cardinality(p_expires_at)),
                ('ordering_key', cardinality(p_ordering_keys)),
                ('priority', cardinality(p_priorities)),
                ('idempotency_key', cardinality(p_idempotency_keys))
        ) as a (field, elements);
    end if;

    if p_request_key is not null or p_idempotency_keys is not null then
        if p_idempotency_window_seconds is null
            or p_idempotency_window_seconds not between 60 and 604800
        then
            perform pubsub.fail_validation('idempotency_window_seconds',
                'idempotency_window_seconds must be 60 to 604800');
        end if;
        v_ids := pubsub.new_message_ids(v_count);
    end if;
    if p_request_key is not null then
        publish_batch.message_ids := pubsub.claim_request_key(
            p_topic_key, p_request_key, v_ids,
            coalesce(p_request_fingerprint, pubsub.request_fingerprint(
                p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
                p_priorities, p_idempotency_keys)),
            p_idempotency_window_seconds);
        if publish_batch.message_ids is not null then
            publish_batch.duplicates := array_fill(true, array[v_count]);
            return;
        end if;
    end if;
    if p_idempotency_keys is not null then
        select k.message_ids, k.duplicates into v_first_ids, publish_batch.duplicates
        from pubsub.claim_message_keys(
            p_topic_key, p_idempotency_keys, v_ids, p_idempotency_window_seconds) k;
    end if;
    -- whoever held a key may have held it for long
    if v_ids is not null
        and not exists (select from pubsub_data.topics t where t.topic_key = p_topic_key)
    then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;

    -- what is not published needs not be right: the time of a retry's message may have passed; payloads
    -- alone are looked at as they are stored
    if num_nonnulls(p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
        p_idempotency_keys) > 0
    then
        perform pubsub.check_messages(clock_timestamp(), p_payloads, p_attributes, p_deliver_at,
            p_expires_at, p_ordering_keys, p_priorities, publish_batch.duplicates);
    end if;
    if true = any(publish_batch.duplicates) then
        select p.subscription_keys into publish_batch.subscription_keys
        from (
            select array_agg(m.payload order by m.position) as payloads,
                array_agg(m.attributes order by m.position) as attributes,
                array_agg(m.deliver_at order by m.position) as deliver_at,
                array_agg(m.expires_at order by m.position) as expires_at,
                array_agg(m.ordering_key order by m.position) as ordering_keys,
                array_agg(m.priority order by m.position) as priorities,
                array_agg(m.message_id order by m.position) as message_ids
            from unnest(p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
                    p_priorities, v_ids, publish_batch.duplicates) with ordinality
                as m (payload, attributes, deliver_at, expires_at, ordering_key, priority,
                    message_id, is_duplicate, position)
            where not m.is_duplicate
        ) fresh
        cross join lateral pubsub.publish_to_topic(
            p_topic_key, fresh.payloads, fresh.attributes, fresh.deliver_at,
            fresh.expires_at, fresh.ordering_keys, fresh.priorities, fresh.message_ids
        ) p
        where fresh.payloads is not null;
        publish_batch.message_ids := v_first_ids;
        if p_request_key is not null then
            update pubsub_data.idempotency_keys i
            set message_ids = v_first_ids
            where i.topic_key = p_topic_key
                and i.scope = 'request'
                and i.idempotency_key = p_request_key;
        end if;
    else
        select p.message_ids, p.subscription_keys
        into publish_batch.message_ids, publish_batch.subscription_keys
        from pubsub.publish_to_topic(
            p_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at,
            p_ordering_keys, p_priorities, v_ids
        ) p;
    end if;
end
$$;

comment on function pubsub.publish_batch is
    'What publish_messages does, in one row, with the keys of the subscriptions that got any.';

/*
 * publish_messages — all of the messages, or none.
 *
 * In       the arrays: null, or one element per payload, which may be null · p_request_key: an
 *          idempotency key for the whole request; p_request_fingerprint: what tells another request
 *          under it, by default all that is published
 * Out      message ids, in the order of p_payloads; a duplicate has the id of the first message of its
 *          idempotency key
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
    p_idempotency_window_seconds int default 86400
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
    -- payloads alone take the short way
    if num_nonnulls(p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
        p_idempotency_keys, p_request_key) = 0
    then
        v_published := pubsub.publish_to_topic(v_topic_key, p_payloads);
        -- in the order of the array, without a sort
        return query select unnest(v_published.message_ids), false;
        return;
    end if;
    return query
        select i.message_id, coalesce(i.duplicate, false)
        from pubsub.publish_batch(
            v_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
            p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
            p_idempotency_window_seconds
        ) b
        cross join lateral unnest(b.message_ids, b.duplicates)
            with ordinality as i (message_id, duplicate, position)
        order by i.position;
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
    -- payloads alone take the short way
    if num_nonnulls(p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities,
        p_idempotency_keys, p_request_key) = 0
    then
        v_published := pubsub.publish_to_topic(v_topic_key, p_payloads);
    else
        v_published := pubsub.publish_batch(
            v_topic_key, p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys,
            p_priorities, p_idempotency_keys, p_request_key, p_request_fingerprint,
            p_idempotency_window_seconds);
        publish_messages_for.duplicates := v_published.duplicates;
    end if;
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
