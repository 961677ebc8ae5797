/*
 * What becomes of a message that a subscription will not deliver any more: its attempts are spent, its
 * consumer rejected it, its time is over. dead_letter_deliveries decides; nobody else does.
 *
 *   kept        a dead letter of the subscription, with a copy of the message and its deliveries
 *   published   to the dead letter topic, where the subscription has one. A message that came out of
 *               one is kept instead, so that two topics that are each other's cannot send it round
 *   parked      stays where it is and holds its ordering key until an operator acts (parking.sql)
 *   skipped     dropped, so that its ordering key goes on
 *
 * The last two are for messages with an ordering key whose attempts are spent, where the subscription
 * orders and its ordering_failure says so. What a consumer rejects is a dead letter: it asked for that.
 */

/*
 * dead_letter_deliveries — end deliveries of a subscription for good.
 *
 * In       p_places: the ctids of the rows, which the caller has locked; p_reason: attempts, rejected,
 *          expired or consumer_lost; p_errors: what the consumer said, null or one per place
 * Out      how many there were
 * Effects  notes the end of each lease in failures; counts
 */
create function pubsub.dead_letter_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_reason text,
    p_errors text[] default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    -- parked and skipped, or null when neither applies
    v_held_as text;
    v_held tid[];
begin
    if p_reason in ('attempts', 'consumer_lost') then
        select case s.ordering_failure when 'park' then 'parked' when 'skip' then 'skipped' end
        into v_held_as
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key
            and s.subscription_key = p_subscription_key
            and s.enable_ordering;
    end if;

    with ended as (
        select d.*, p.error, d.lane is not null and v_held_as is not null as is_held
        from unnest(p_places, p_errors) as p (place, error)
        cross join lateral (
            select x.ctid as place, x.message_id, x.attempts, x.consumer_id, x.lease, x.leased_at,
                x.lane
            from pubsub_data.deliveries x
            where x.ctid = p.place
            limit 1
        ) d
    ), noted as (
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome, reason
        )
        select p_topic_key, p_subscription_key, e.message_id, e.attempts, e.consumer_id, e.leased_at,
            clock_timestamp(),
            case when e.is_held then v_held_as when p_reason = 'attempts' then 'nacked'
                else p_reason end,
            e.error
        from ended e
        -- without a lease no delivery ends here; how a message expired or was held is told all the same
        where e.lease is not null or e.is_held or p_reason = 'expired'
    )
    select array_agg(e.place) into v_held from ended e where e.is_held;

    if p_reason <> 'consumer_lost' then
        -- attempts are spent by a nack
        insert into pubsub_data.counters (
            topic_key, subscription_key, expired, nacked, rejected
        )
        values (p_topic_key, p_subscription_key,
            case when p_reason = 'expired' then cardinality(p_places) else 0 end,
            case when p_reason = 'attempts' then cardinality(p_places) end,
            case when p_reason = 'rejected' then cardinality(p_places) end);
    end if;
    if v_held is null then
        perform pubsub.bury_deliveries(p_topic_key, p_subscription_key, p_places, p_reason);
        return cardinality(p_places);
    end if;
    if v_held_as = 'parked' then
        perform pubsub.park_deliveries(p_topic_key, p_subscription_key, v_held);
    else
        perform pubsub.drop_deliveries(p_topic_key, p_subscription_key, v_held);
    end if;
    if cardinality(v_held) < cardinality(p_places) then
        perform pubsub.bury_deliveries(p_topic_key, p_subscription_key, array(
            select p.place from unnest(p_places) as p (place) where p.place <> all(v_held)
        ), p_reason);
    end if;
    return cardinality(p_places);
end
$$;

comment on function pubsub.dead_letter_deliveries is
    'End deliveries for good: keep, publish, park or skip them, as their subscription says.';

/*
 * publish_dead_letters — publish deliveries to the dead letter topic, if there is one.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 * Out      the places of those that were not, and so are to be kept
 * Locks    the dead letter topic, so that it is not deleted before what it gets is committed
 */
create function pubsub.publish_dead_letters(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_reason text
)
returns tid[]
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_dead_letter_topic_key bigint;
    v_marks jsonb;
    v_published record;
begin
    select s.dead_letter_topic_key, jsonb_build_object(
        'dead_letter_subscription', s.subscription_id, 'dead_letter_topic', t.topic_id,
        'dead_letter_reason', p_reason)
    into v_dead_letter_topic_key, v_marks
    from pubsub_data.subscriptions s
    join pubsub_data.topics t on t.topic_key = s.topic_key
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;
    -- one that is being deleted counts as deleted: waiting for that could be for ever
    select t.topic_key into v_dead_letter_topic_key
    from pubsub_data.topics t
    where t.topic_key = v_dead_letter_topic_key
    for key share skip locked;
    if v_dead_letter_topic_key is null then
        return p_places;
    end if;

    select array_agg(d.place) as places,
        array_agg(m.payload order by d.message_id) as payloads,
        array_agg(coalesce(m.attributes, '{}') || v_marks || jsonb_build_object(
            'dead_letter_message_id', d.message_id,
            'dead_letter_attempts', d.attempts::text) order by d.message_id) as attributes,
        array_agg(m.ordering_key order by d.message_id) as ordering_keys,
        array_agg(m.priority order by d.message_id) as priorities
    into v_published
    from unnest(p_places) as p (place)
    cross join lateral (
        select x.ctid as place, x.message_id, x.attempts
        from pubsub_data.deliveries x
        where x.ctid = p.place
        limit 1
    ) d
    cross join lateral (
        select x.payload, x.attributes, x.ordering_key, x.priority
        from pubsub_data.messages x
        where x.topic_key = p_topic_key and x.message_id = d.message_id
        limit 1
    ) m
    where not coalesce(m.attributes, '{}') ? 'dead_letter_message_id';
    if v_published.places is null then
        return p_places;
    end if;
    -- whoever holds a subscription there may wait for deliveries here
    perform pubsub.insert_messages(v_dead_letter_topic_key, v_published.payloads,
        v_published.attributes, null, null, v_published.ordering_keys, v_published.priorities,
        p_waits => false);
    perform pubsub.drop_deliveries(p_topic_key, p_subscription_key, v_published.places);
    return array(
        select p.place from unnest(p_places) as p (place)
        where p.place <> all(v_published.places)
    );
end
$$;

comment on function pubsub.publish_dead_letters is
    'Publish deliveries to the dead letter topic, if there is one; returns the places of the others.';

/*
 * bury_deliveries — make deliveries dead letters, or publish them to the dead letter topic.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 */
create function pubsub.bury_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_reason text
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_kept constant tid[] := pubsub.publish_dead_letters(
        p_topic_key, p_subscription_key, p_places, p_reason);
begin
    with buried as (
        insert into pubsub_data.dead_letters (
            topic_key, subscription_key, message_id, payload, attributes, ordering_key, priority,
            published_at, attempts, consumer_id, reason, last_error, deliveries
        )
        select p_topic_key, p_subscription_key, d.message_id, coalesce(m.payload, 'null'), m.attributes,
            m.ordering_key, m.priority, coalesce(m.published_at, pubsub.id_time(d.message_id)),
            d.attempts, d.consumer_id, p_reason, f.last_error, coalesce(f.deliveries, '[]')
        from unnest(v_kept) as p (place)
        cross join lateral (
            select x.message_id, x.attempts, x.consumer_id
            from pubsub_data.deliveries x
            where x.ctid = p.place
            limit 1
        ) d
        -- a message that someone removed by hand still ends in the books
        left join lateral (
            select x.payload, x.attributes, x.ordering_key, x.priority, x.published_at
            from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = d.message_id
            limit 1
        ) m on true
        cross join lateral (
            select jsonb_agg(jsonb_build_object('attempt', l.attempt, 'consumer_id', l.consumer_id,
                    'delivered_at', l.delivered_at, 'ended_at', l.ended_at, 'outcome', l.outcome,
                    'reason', l.reason) order by l.ended_at) as deliveries,
                (array_agg(l.reason order by l.ended_at desc))[1] as last_error
            from (
                select x.*
                from pubsub_data.failures x
                where x.topic_key = p_topic_key
                    and x.subscription_key = p_subscription_key
                    and x.message_id = d.message_id
                order by x.ended_at desc
                limit 100
            ) l
        ) f
        -- seeking back may have brought a dead letter to life beside itself
        on conflict (topic_key, subscription_key, message_id) do update
        set attempts = excluded.attempts, consumer_id = excluded.consumer_id, reason = excluded.reason,
            last_error = excluded.last_error, deliveries = excluded.deliveries,
            dead_at = excluded.dead_at
        returning xmax = 0 as is_new
    )
    insert into pubsub_data.counters (topic_key, subscription_key, dlq, dead_lettered)
    select p_topic_key, p_subscription_key, count(*) filter (where b.is_new), cardinality(p_places)
    from buried b;
    perform pubsub.drop_deliveries(p_topic_key, p_subscription_key, v_kept);
end
$$;

comment on function pubsub.bury_deliveries is
    'Make deliveries dead letters, or publish them to the dead letter topic.';

/*
 * expire_deliveries — end deliveries whose time is over.
 *
 * In       p_places: the ctids of the rows, which the caller has locked
 * Effects  they are dropped and remembered in failures, or dead letters where the subscription says so
 */
create function pubsub.expire_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_ids uuid[];
    v_lanes text[];
begin
    if (
        select s.dead_letter_expired
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
    ) then
        perform pubsub.dead_letter_deliveries(
            p_topic_key, p_subscription_key, p_places, 'expired');
        return;
    end if;
    with expired as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(p_places)
        returning d.message_id, d.attempts, d.consumer_id, d.leased_at, d.expires_at, d.lane
    ), noted as (
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome
        )
        select p_topic_key, p_subscription_key, e.message_id, e.attempts, e.consumer_id,
            e.leased_at, e.expires_at, 'expired'
        from expired e
    )
    select array_agg(e.message_id), array_agg(e.lane) into v_ids, v_lanes from expired e;
    insert into pubsub_data.counters (topic_key, subscription_key, backlog, expired)
    values (p_topic_key, p_subscription_key, -cardinality(v_ids), cardinality(v_ids));
    if array_remove(v_lanes, null) <> '{}' then
        perform pubsub.wake_next(p_topic_key, p_subscription_key, v_ids, v_lanes);
    end if;
end
$$;

comment on function pubsub.expire_deliveries is
    'End deliveries whose time is over: dropped, or dead letters where the subscription says so.';
