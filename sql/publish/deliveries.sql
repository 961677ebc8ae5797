/*
 * Where messages come in: a message is stored once, and every subscription that it is for gets a
 * delivery of it, in one statement.
 */

/*
 * new_message_ids — ids for messages that are about to be published, in order.
 */
create function pubsub.new_message_ids(p_count int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_prefix constant text := '0' || to_hex(
        ((date_part('epoch', clock_timestamp()) * 1000000)::bigint / 1000 << 16) | 28672);
begin
    return array(
        select (v_prefix || to_hex(nextval('pubsub_data.message_numbers')))::uuid
        from generate_series(1, p_count)
    );
end
$$;

comment on function pubsub.new_message_ids is
    'Ids for messages about to be published, in order: UUIDv7 of the present time.';

/*
 * note_priorities — let claims know that subscriptions have messages with a priority.
 *
 * In       p_waits: for a subscription that somebody holds. Else its first priority may be told by a
 *          later one only
 * Locks    the subscriptions that had none, in the order of their ids
 */
create function pubsub.note_priorities(
    p_topic_key bigint, p_subscription_keys bigint[], p_waits boolean
)
returns void
language plpgsql volatile
as $$
begin
    -- two statements: one that locked and changed would come back to a version that is gone by then,
    -- where those who wait for this lock queue, and so would wait for them
    if p_waits then
        perform 1
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key
            and s.subscription_key = any(p_subscription_keys)
            and not s.has_priorities
        -- not by key: a purge changes it
        order by s.subscription_id
        for no key update;
    else
        p_subscription_keys := array(
            select s.subscription_key
            from pubsub_data.subscriptions s
            where s.topic_key = p_topic_key
                and s.subscription_key = any(p_subscription_keys)
                and not s.has_priorities
            for no key update skip locked
        );
    end if;
    update pubsub_data.subscriptions s
    set has_priorities = true
    where s.topic_key = p_topic_key
        and s.subscription_key = any(p_subscription_keys)
        and not s.has_priorities;
end
$$;

comment on function pubsub.note_priorities is
    'Let claims know that subscriptions have messages with a priority.';

/*
 * note_deliveries — let claims know of new deliveries that the order of ids does not tell them: those
 * that wait or expire, of a fairness value not seen before, or with a priority.
 *
 * In       p_subscription_keys, p_message_ids: where the new deliveries are; p_waits: as in
 *          note_priorities
 * Locks    a fairness value, or a subscription, at its first use; waits for another's first use
 */
create function pubsub.note_deliveries(
    p_topic_key bigint, p_subscription_keys bigint[], p_message_ids uuid[],
    p_waits boolean default true
)
returns void
language sql volatile
set enable_seqscan = off
as $$
    with added as materialized (
        select d.subscription_key, d.message_id, d.visible_at, d.expires_at, d.lane
        from unnest(p_subscription_keys) as s (subscription_key)
        cross join unnest(p_message_ids) as i (id)
        cross join lateral (
            select x.subscription_key, x.message_id, x.visible_at, x.expires_at, x.lane
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = s.subscription_key
                and x.message_id = i.id
            limit 1
        ) d
    ), woken as (
        -- a claim that has read past a waiting message finds it again only by its wake-up
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, w.subscription_key, w.due_at,
            array_agg(w.message_id order by w.message_id)
        from (
            select a.subscription_key, a.message_id, due.due_at,
                -- a claim takes a wake-up as a whole
                row_number() over (
                    partition by a.subscription_key, due.due_at order by a.message_id) / 1000 as part
            from added a
            cross join lateral (
                values (nullif(a.visible_at, '-infinity')), (a.expires_at)
            ) as due (due_at)
            where due.due_at is not null
        ) w
        group by w.subscription_key, w.due_at, w.part
    ), lanes as materialized (
        select distinct s.subscription_key, s.fairness_key is not null as fair, s.has_priorities,
            a.lane
        from added a
        join pubsub_data.subscriptions s
            on s.topic_key = p_topic_key and s.subscription_key = a.subscription_key
        where a.lane is not null and not s.enable_ordering
    ), seen as (
        insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane)
        select p_topic_key, l.subscription_key, l.lane
        from lanes l
        where l.fair
            and not exists (
                select from pubsub_data.fair_lanes x
                where x.topic_key = p_topic_key
                    and x.subscription_key = l.subscription_key
                    and x.lane = l.lane
            )
        order by l.subscription_key, l.lane collate "C"
        on conflict (topic_key, subscription_key, lane) do nothing
    )
    select pubsub.note_priorities(p_topic_key, array_agg(l.subscription_key), p_waits)
    from (
        select distinct l.subscription_key
        from lanes l
        where not l.fair and not l.has_priorities
    ) l
    having count(*) > 0
$$;

comment on function pubsub.note_deliveries is
    'Let claims know of new deliveries that wait, expire or have a lane.';

/*
 * insert_messages — store and deliver messages that were checked.
 *
 * In       the arrays: null, or one element per payload; p_message_ids: of new_message_ids; p_waits:
 *          as in note_deliveries
 * Out      message_ids: in the order of p_payloads; subscription_keys: who got any
 * Locks    nothing that another publish or claim waits for, but for what note_deliveries says
 */
create function pubsub.insert_messages(
    p_topic_key bigint, p_payloads jsonb[], p_attributes jsonb[], p_deliver_at timestamptz[],
    p_expires_at timestamptz[], p_ordering_keys text[], p_priorities smallint[],
    p_message_ids uuid[] default null, p_waits boolean default true,
    out message_ids uuid[], out subscription_keys bigint[]
)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_to_note boolean;
begin
    with fresh as materialized (
        select m.*
        from unnest(coalesce(p_message_ids, pubsub.new_message_ids(cardinality(p_payloads))),
                p_payloads, p_attributes, p_deliver_at, p_expires_at, p_ordering_keys, p_priorities)
            as m (message_id, payload, attributes, deliver_at, expires_at, ordering_key, priority)
    ), stored as (
        insert into pubsub_data.messages (
            topic_key, message_id, payload, attributes, ordering_key, priority, published_at,
            expires_at, deliver_at
        )
        select p_topic_key, f.message_id, f.payload, f.attributes, f.ordering_key, f.priority,
            v_now, f.expires_at, case when f.deliver_at > v_now then f.deliver_at end
        from fresh f
    ), delivered as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, visible_at, expires_at, lane, is_large
        )
        select p_topic_key, s.subscription_key, f.message_id, coalesce(f.deliver_at, '-infinity'),
            least(f.expires_at, greatest(v_now, f.deliver_at)
                + make_interval(secs => s.message_ttl_seconds)),
            pubsub.delivery_lane(
                s.enable_ordering, s.fairness_key, f.ordering_key, f.attributes, f.priority),
            nullif(pg_column_size(f.payload) + coalesce(pg_column_size(f.attributes), 0) > 512,
                false)
        from pubsub_data.subscriptions s
        join fresh f on pubsub.passes_filter(f.payload, f.attributes, s.filter_path,
            s.filter::jsonb, s.filter_values, s.attribute_filter_path)
        where s.topic_key = p_topic_key
        returning subscription_key, visible_at, expires_at, lane
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, backlog, waiting
        )
        select p_topic_key, d.subscription_key, pubsub.counter_time(d.visible_at), count(*),
            count(*) filter (where d.visible_at > v_now)
        from delivered d
        group by d.subscription_key, pubsub.counter_time(d.visible_at)
        returning subscription_key
    )
    select coalesce(array_agg(f.message_id), '{}'),
        array(select distinct c.subscription_key from counted c),
        exists (
            select from delivered d
            where d.lane is not null or d.expires_at is not null or d.visible_at > '-infinity'
        )
    into insert_messages.message_ids, insert_messages.subscription_keys, v_to_note
    from fresh f;
    if v_to_note then
        perform pubsub.note_deliveries(
            p_topic_key, insert_messages.subscription_keys, insert_messages.message_ids, p_waits);
    end if;
end
$$;

comment on function pubsub.insert_messages is
    'Store checked messages, and deliver them to the subscriptions that they are for.';
