/*
 * One step of a pipeline: messages are acked and others published in one commit, or nothing is done.
 * From psql the same is a transaction with the functions for each; this one adds that a single stale
 * lease undoes all of it.
 */

/*
 * lock_acks — lock deliveries of several subscriptions, all of them or none.
 *
 * In       one element per delivery; a lease that is null stands for any
 * Out      the keys of the subscriptions, one element per delivery
 * Errors   PS404 names a subscription that is not there · PS409 a lease is stale; the detail lists
 *          all that are: [{"position": from 0, "subscription_id", "message_id"}]
 * Locks    the deliveries by subscription, then by message id
 */
create function pubsub.lock_acks(
    p_subscription_ids text[], p_message_ids uuid[], p_leases bigint[],
    out topic_keys bigint[], out subscription_keys bigint[]
)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_unknown text;
    v_stale jsonb;
begin
    select min(a.subscription_id) filter (where s.subscription_id is null),
        array_agg(s.topic_key order by a.position),
        array_agg(s.subscription_key order by a.position)
    into v_unknown, lock_acks.topic_keys, lock_acks.subscription_keys
    from unnest(p_subscription_ids) with ordinality as a (subscription_id, position)
    left join pubsub_data.subscriptions s on s.subscription_id = a.subscription_id;
    if v_unknown is not null then
        raise exception 'Subscription not found: %', v_unknown using errcode = 'PS404';
    end if;

    perform pubsub.single_out(r.topic_key, r.subscription_key, r.message_ids)
    from (
        select a.topic_key, a.subscription_key, array_agg(a.message_id) as message_ids
        from unnest(lock_acks.topic_keys, lock_acks.subscription_keys, p_message_ids)
            as a (topic_key, subscription_key, message_id)
        group by a.topic_key, a.subscription_key
        order by a.topic_key, a.subscription_key
    ) r
    where pubsub.may_be_of_runs(p_leases);
    with wanted as materialized (
        select a.topic_key, a.subscription_key, a.subscription_id, a.message_id, a.lease,
            a.position - 1 as position
        from unnest(lock_acks.topic_keys, lock_acks.subscription_keys, p_subscription_ids,
                p_message_ids, p_leases) with ordinality
            as a (topic_key, subscription_key, subscription_id, message_id, lease, position)
        order by a.topic_key, a.subscription_key, a.message_id
    ), held as materialized (
        select w.position
        from wanted w
        cross join lateral (
            select 1
            from pubsub_data.deliveries x
            where x.topic_key = w.topic_key
                and x.subscription_key = w.subscription_key
                and x.message_id = w.message_id
                and x.lease is not null
                and (w.lease is null or w.lease = x.lease)
            limit 1
            for update
        ) d
    )
    select jsonb_agg(jsonb_build_object('position', w.position, 'subscription_id',
        w.subscription_id, 'message_id', w.message_id) order by w.position)
    into v_stale
    from wanted w
    where w.position not in (select h.position from held h);
    if v_stale is not null then
        raise exception '% of % leases to ack are stale; nothing was done',
            jsonb_array_length(v_stale), cardinality(p_message_ids)
            using errcode = 'PS409', detail = v_stale::text;
    end if;
end
$$;

comment on function pubsub.lock_acks is
    'Lock deliveries of several subscriptions for an ack of all of them, or refuse.';

/*
 * check_still_there — whether topics and subscriptions that were looked up by name exist.
 *
 * In       one key per id; null: there was none
 * Errors   PS404 names the first that is not there · 40001 it was purged: the call may be made again
 */
create function pubsub.check_still_there(
    p_topic_ids text[], p_topic_keys bigint[], p_subscription_ids text[],
    p_subscription_keys bigint[]
)
returns void
language plpgsql stable parallel safe
as $$
declare
    v_gone text;
begin
    select min(i.id) into v_gone
    from unnest(p_topic_ids, p_topic_keys) as i (id, key)
    where not exists (
        select from pubsub_data.topics t where t.topic_id = i.id and t.topic_key = i.key
    );
    if v_gone is not null then
        raise exception 'Topic not found: %', v_gone using errcode = 'PS404';
    end if;
    if p_subscription_ids is null then
        return;
    end if;
    select min(i.id) into v_gone
    from unnest(p_subscription_ids, p_subscription_keys) as i (id, key)
    where not exists (
        select from pubsub_data.subscriptions s
        where s.subscription_id = i.id and s.subscription_key = i.key
    );
    if v_gone is not null then
        if exists (
            select from unnest(p_subscription_ids, p_subscription_keys) as i (id, key)
            join pubsub_data.deleted_subscriptions g
                on g.subscription_key = i.key and g.is_purged
            where i.id = v_gone
        ) then
            raise exception 'Subscription % was purged meanwhile: call again', v_gone
                using errcode = 'serialization_failure';
        end if;
        raise exception 'Subscription not found: %', v_gone using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.check_still_there is
    'Refuse when topics or subscriptions that were looked up are gone.';

/*
 * check_transaction — refuse what apply_transaction cannot be asked for.
 *
 * In       p_elements: how many each of the arrays has that go with the messages; null: none
 * Errors   PS422 (acks, publishes)
 */
create function pubsub.check_transaction(
    p_ack_subscription_ids text[], p_ack_message_ids uuid[], p_ack_leases bigint[],
    p_topic_ids text[], p_messages int, p_elements int[]
)
returns void
language plpgsql immutable parallel safe
as $$
declare
    c_most constant int := 1000;
    v_acks constant int := coalesce(cardinality(p_ack_message_ids), 0);
begin
    if coalesce(cardinality(p_ack_subscription_ids), 0) <> v_acks
        or coalesce(cardinality(p_ack_leases), 0) <> v_acks
        or array_position(p_ack_subscription_ids, null) is not null
        or array_position(p_ack_message_ids, null) is not null
    then
        perform pubsub.fail_validation('acks',
            'acks must have a subscription, a message and a lease each');
    end if;
    if coalesce(cardinality(p_topic_ids), 0) <> p_messages
        or array_position(p_topic_ids, null) is not null
        or p_messages <> any(p_elements)
    then
        perform pubsub.fail_validation('publishes',
            'publishes must have a topic each, and one element per message in every array');
    end if;
    if v_acks + p_messages > c_most then
        perform pubsub.fail_validation('publishes',
            'a transaction has at most 1000 acks and messages in sum');
    end if;
end
$$;

comment on function pubsub.check_transaction is
    'Refuse arrays of a transaction that do not fit each other, or hold too much.';

/*
 * apply_transaction — ack these deliveries and publish these messages, all of it or nothing.
 *
 * In       p_ack_...: one element per delivery; a lease that is null stands for any ·
 *          p_topic_ids, p_payloads: one element per message; the arrays after them as in
 *          publish_messages. At most 1000 deliveries and messages in sum
 * Out      the ids of the messages, in their order
 * Errors   PS404 names a subscription or topic that is not there, or was deleted meanwhile · PS409 a
 *          lease is stale; the detail lists all that are: [{"position": from 0, "subscription_id",
 *          "message_id"}] · PS422 (acks, publishes) their number, an array's length; what
 *          publish_messages refuses
 * Locks    the deliveries by subscription, then by message id: such calls cannot deadlock
 */
create function pubsub.apply_transaction(
    p_ack_subscription_ids text[] default '{}',
    p_ack_message_ids uuid[] default '{}',
    p_ack_leases bigint[] default '{}',
    p_topic_ids text[] default '{}',
    p_payloads jsonb[] default '{}',
    p_attributes jsonb[] default null,
    p_deliver_at timestamptz[] default null,
    p_expires_at timestamptz[] default null,
    p_ordering_keys text[] default null,
    p_priorities smallint[] default null,
    p_idempotency_keys text[] default null,
    p_idempotency_window_seconds int default 86400,
    p_message_keys text[] default null
)
returns table (message_id uuid, duplicate boolean)
language plpgsql volatile rows 100
as $$
declare
    v_messages constant int := coalesce(cardinality(p_payloads), 0);
    v_topic_keys bigint[];
    v_locked record;
    v_subscription record;
    v_topic record;
    v_ids uuid[] := array_fill(null::uuid, array[v_messages]);
    v_duplicates boolean[] := array_fill(null::boolean, array[v_messages]);
    v_published record;
begin
    perform pubsub.check_transaction(p_ack_subscription_ids, p_ack_message_ids, p_ack_leases,
        p_topic_ids, v_messages, array[cardinality(p_attributes), cardinality(p_deliver_at),
            cardinality(p_expires_at), cardinality(p_ordering_keys), cardinality(p_priorities),
            cardinality(p_idempotency_keys), cardinality(p_message_keys)]);
    select array_agg(t.topic_key order by i.position) into v_topic_keys
    from unnest(p_topic_ids) with ordinality as i (topic_id, position)
    left join pubsub_data.topics t on t.topic_id = i.topic_id;
    if array_position(v_topic_keys, null) is not null then
        perform pubsub.check_still_there(p_topic_ids, v_topic_keys, null, null);
    end if;
    -- names are looked up once: what has them may be another one after a wait
    v_locked := pubsub.lock_acks(p_ack_subscription_ids, p_ack_message_ids, p_ack_leases);
    for v_subscription in
        select s.topic_key, s.subscription_key, s.enable_ordering,
            coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null as per_consumer,
            array_agg(a.message_id) as message_ids, array_agg(a.lease) as leases
        from unnest(v_locked.topic_keys, v_locked.subscription_keys, p_ack_message_ids,
                p_ack_leases)
            as a (topic_key, subscription_key, message_id, lease)
        join pubsub_data.subscriptions s
            on s.topic_key = a.topic_key and s.subscription_key = a.subscription_key
        group by s.topic_key, s.subscription_key
        order by s.topic_key, s.subscription_key
    loop
        perform pubsub.ack_deliveries(v_subscription.topic_key, v_subscription.subscription_key,
            v_subscription.message_ids, v_subscription.leases, v_subscription.enable_ordering,
            v_subscription.per_consumer);
    end loop;

    for v_topic in
        select i.topic_key, array_agg(i.payload order by i.position) as payloads,
            case when p_attributes is not null then array_agg(i.attributes order by i.position) end as attributes,
            case when p_deliver_at is not null then array_agg(i.deliver_at order by i.position) end as deliver_at,
            case when p_expires_at is not null then array_agg(i.expires_at order by i.position) end as expires_at,
            case when p_ordering_keys is not null then
                array_agg(i.ordering_key order by i.position) end as ordering_keys,
            case when p_priorities is not null then array_agg(i.priority order by i.position) end as priorities,
            case when p_idempotency_keys is not null then
                array_agg(i.idempotency_key order by i.position) end as idempotency_keys,
            case when p_message_keys is not null then array_agg(i.message_key order by i.position) end as message_keys,
            array_agg(i.position order by i.position) as positions
        from unnest(v_topic_keys, p_payloads, p_attributes, p_deliver_at, p_expires_at,
                p_ordering_keys, p_priorities, p_idempotency_keys, p_message_keys) with ordinality
            as i (topic_key, payload, attributes, deliver_at, expires_at, ordering_key, priority,
                idempotency_key, message_key, position)
        group by i.topic_key
        order by i.topic_key
    loop
        for v_published in
            select p.message_id, coalesce(p.duplicate, false) as duplicate, p.position
            from pubsub.publish_to_topic(
                v_topic.topic_key, v_topic.payloads, v_topic.attributes, v_topic.deliver_at,
                v_topic.expires_at, v_topic.ordering_keys, v_topic.priorities,
                v_topic.idempotency_keys, null, null, p_idempotency_window_seconds,
                v_topic.message_keys
            ) b
            cross join lateral unnest(b.message_ids, b.duplicates)
                with ordinality as p (message_id, duplicate, position)
        loop
            v_ids[v_topic.positions[v_published.position]] := v_published.message_id;
            v_duplicates[v_topic.positions[v_published.position]] := v_published.duplicate;
        end loop;
    end loop;
    perform pubsub.check_still_there(
        p_topic_ids, v_topic_keys, p_ack_subscription_ids, v_locked.subscription_keys);
    return query
        select i.id, i.duplicate
        from unnest(v_ids, v_duplicates) with ordinality as i (id, duplicate, position)
        order by i.position;
end
$$;

comment on function pubsub.apply_transaction is
    'Ack deliveries and publish messages in one step: all of it, or nothing when a lease is stale.';
