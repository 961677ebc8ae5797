/*
 * Settling many deliveries at once, each in its own way and with its own result. Each is named by its
 * message and its lease number, so that only that very delivery is settled.
 */

/*
 * check_settlements — refuse what settle_messages cannot be asked for.
 *
 * Errors   PS422, with the position of the first fault
 */
create function pubsub.check_settlements(
    p_message_ids uuid[], p_leases bigint[], p_actions text[], p_seconds double precision[],
    p_reasons text[]
)
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_count constant int := coalesce(cardinality(p_message_ids), 0);
    v_fault record;
begin
    select c.field, c.message into v_fault
    from (values
        ('leases', 'leases must have one element per message id', cardinality(p_leases)),
        ('actions', 'actions must have one element per message id', cardinality(p_actions)),
        ('seconds', 'seconds must have one element per message id',
            coalesce(cardinality(p_seconds), v_count)),
        ('reasons', 'reasons must have one element per message id',
            coalesce(cardinality(p_reasons), v_count))
    ) c (field, message, elements)
    where coalesce(c.elements, 0) <> v_count
    limit 1;
    if found then
        perform pubsub.fail_validation(v_fault.field, v_fault.message);
    end if;

    select f.fault[1] as field, f.fault[2] as message, f.position into v_fault
    from (
        select w.position,
            case
                when w.message_id is null
                    then array['message_ids', 'a message id is required']
                when w.lease is null
                    then array['leases', 'a lease is required']
                when w.action is null or w.action not in ('ack', 'nack', 'reject', 'extend')
                    then array['actions', 'an action must be ack, nack, reject or extend']
                when w.action = 'extend' and coalesce(w.seconds, 0) not between 0.001 and 43200
                    then array['seconds', 'seconds of an extend must be 0.001 to 43200']
                when w.action = 'nack' and w.seconds not between 0 and 43200
                    then array['seconds', 'seconds of a nack must be 0 to 43200']
                when w.action in ('ack', 'reject') and w.seconds is not null
                    then array['seconds', 'seconds are of a nack or an extend']
                when w.action = 'extend' and w.reason is not null
                    then array['reasons', 'a reason is of an ack, a nack or a reject']
                when char_length(w.reason) > 1024
                    then array['reasons', 'a reason must have at most 1024 characters']
                when w.named > 1
                    then array['message_ids', 'a delivery is named twice']
            end as fault
        from (
            select x.*, count(*) over (partition by x.message_id, x.lease) as named
            from unnest(p_message_ids, p_leases, p_actions, p_seconds, p_reasons)
                with ordinality as x (message_id, lease, action, seconds, reason, position)
        ) w
    ) f
    where f.fault is not null
    order by f.position
    limit 1;
    if found then
        perform pubsub.fail_validation(
            v_fault.field, v_fault.message, jsonb_build_array(v_fault.position - 1));
    end if;
end
$$;

comment on function pubsub.check_settlements is
    'Refuse what settle_messages cannot be asked for, with its position.';

/*
 * told_settlements — what settle_messages says of each delivery.
 *
 * In       p_positions and the arrays after it: the deliveries that were found, and what was done with
 *          each since p_since
 * Out      one row for each of p_message_ids, in order
 */
create function pubsub.told_settlements(
    p_topic_key bigint, p_subscription_key bigint, p_enable_ordering boolean, p_message_ids uuid[],
    p_positions bigint[], p_fates text[], p_attempts int[], p_lanes text[], p_since timestamptz
)
returns table ("position" int, status text, ack_deadline timestamptz)
language sql stable parallel safe
-- no SET: it is put into the statement of settle_messages
begin atomic
    select w.position::int,
        case h.fate
            when 'ack' then 'acked'
            when 'nack' then 'nacked'
            when 'extend' then 'extended'
            when 'spent' then coalesce(f.outcome, 'dead_lettered')
            when 'reject' then coalesce(f.outcome, 'dead_lettered')
            else 'lease_lost'
        end,
        case when h.fate = 'extend' then (
            select x.visible_at
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = w.message_id
            limit 1
        ) end
    from unnest(p_message_ids) with ordinality as w (message_id, position)
    left join unnest(p_positions, p_fates, p_attempts, p_lanes)
        as h (position, fate, attempts, lane)
        on h.position = w.position
    -- the policy of an ordering key may have kept it from the dead letters
    left join lateral (
        select x.outcome
        from pubsub_data.failures x
        where p_enable_ordering
            and h.lane is not null
            and x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.message_id = w.message_id
            and x.attempt = h.attempts
            and x.ended_at >= p_since
            and x.outcome in ('parked', 'skipped')
        limit 1
    ) f on h.fate in ('spent', 'reject')
    order by w.position;
end;

comment on function pubsub.told_settlements is
    'What settle_messages says of each delivery: what was done, or that its lease was lost.';

/*
 * ack_noted — ack_held, with what the consumers say.
 *
 * In       p_notes: one per place, or null where nothing is said
 * Effects  a row per message is remembered, not one per call
 */
create function pubsub.ack_noted(
    p_topic_key bigint, p_subscription_key bigint, p_places tid[], p_notes text[],
    p_enable_ordering boolean, p_per_consumer boolean
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_ids uuid[];
    v_lanes text[];
begin
    with said as materialized (
        select n.note, d.message_id
        from unnest(p_places, p_notes) as n (place, note)
        join pubsub_data.deliveries d on d.ctid = n.place
    ), acked as (
        delete from pubsub_data.deliveries d
        where d.ctid = any(p_places)
        returning d.message_id, d.attempts, d.consumer_id, d.visible_at, d.leased_at, d.lane
    ), remembered as (
        insert into pubsub_data.acked (
            topic_key, subscription_key, acked_at, delivered_at, attempts, consumer_id, message_ids, note
        )
        select p_topic_key, p_subscription_key, v_now, a.leased_at, a.attempts, a.consumer_id,
            array[a.message_id], s.note
        from acked a
        join said s using (message_id)
    ), counted as (
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, backlog, leased, acked
        )
        select p_topic_key, p_subscription_key, pubsub.counter_time(a.visible_at),
            case when p_per_consumer then a.consumer_id end, -count(*), -count(*), count(*)
        from acked a
        group by pubsub.counter_time(a.visible_at), case when p_per_consumer then a.consumer_id end
    )
    select array_agg(a.message_id), array_agg(a.lane) into v_ids, v_lanes
    from acked a;
    if p_enable_ordering and array_remove(v_lanes, null) <> '{}' then
        perform pubsub.wake_next(p_topic_key, p_subscription_key, v_ids, v_lanes);
    end if;
end
$$;

comment on function pubsub.ack_noted is 'Ack deliveries that are locked, with what the consumers say of each.';

/*
 * settle_deliveries — settle_messages, of single deliveries.
 */
create function pubsub.settle_deliveries(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_actions text[], p_seconds double precision[], p_reasons text[], p_max_attempts int,
    p_backoff_min_seconds double precision, p_backoff_max_seconds double precision,
    p_backoff_strategy text, p_enable_ordering boolean, p_per_consumer boolean
)
returns table ("position" int, status text, ack_deadline timestamptz)
language plpgsql volatile
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_held record;
begin
    with held as materialized (
        select w.position, w.message_id, w.seconds, w.reason, d.place, d.attempts, d.lane,
            case
                when w.action = 'nack' and d.attempts >= p_max_attempts
                    then 'spent'
                when w.action = 'extend' and d.visible_at <= v_now then null
                else w.action
            end as fate
        from (
            select x.position, x.message_id, x.lease, x.action, x.seconds, x.reason
            from unnest(p_message_ids, p_leases, p_actions, p_seconds, p_reasons)
                with ordinality as x (message_id, lease, action, seconds, reason, position)
            order by x.message_id
        ) w
        cross join lateral (
            select x.ctid as place, x.attempts, x.visible_at, x.lane
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = w.message_id
                and x.lease = w.lease
            limit 1
            for update
        ) d
    )
    select array_agg(h.position) as positions, array_agg(h.fate) as fates,
        array_agg(h.attempts) as attempts, array_agg(h.lane) as lanes,
        array_agg(h.place) filter (where h.fate = 'ack') as acked,
        array_agg(h.reason) filter (where h.fate = 'ack') as notes,
        array_agg(h.place) filter (where h.fate = 'nack') as nacked,
        array_agg(h.seconds) filter (where h.fate = 'nack') as delays,
        array_agg(h.reason) filter (where h.fate = 'nack') as nack_reasons,
        array_agg(h.place) filter (where h.fate = 'spent') as spent,
        array_agg(h.reason) filter (where h.fate = 'spent') as spent_reasons,
        array_agg(h.place) filter (where h.fate = 'reject') as rejected,
        array_agg(h.reason) filter (where h.fate = 'reject') as reject_reasons,
        array_agg(h.place) filter (where h.fate = 'extend') as extended,
        array_agg(h.seconds) filter (where h.fate = 'extend') as extensions
    into v_held
    from held h;

    if array_remove(v_held.notes, null) <> '{}' then
        perform pubsub.ack_noted(p_topic_key, p_subscription_key,
            v_held.acked, v_held.notes, p_enable_ordering, p_per_consumer);
    elsif v_held.acked is not null then
        perform pubsub.ack_held(p_topic_key, p_subscription_key,
            v_held.acked, p_enable_ordering, p_per_consumer);
    end if;
    if cardinality(v_held.acked) = cardinality(p_message_ids) then
        return query
            select n, 'acked', null::timestamptz from generate_series(1, cardinality(p_message_ids)) n;
        return;
    end if;
    if v_held.nacked is not null then
        perform pubsub.retry_deliveries(p_topic_key, p_subscription_key,
            v_held.nacked, v_held.delays, v_held.nack_reasons, p_backoff_min_seconds,
            p_backoff_max_seconds, p_backoff_strategy, p_per_consumer);
    end if;
    if v_held.spent is not null then
        perform pubsub.dead_letter_deliveries(p_topic_key,
            p_subscription_key, v_held.spent, 'attempts', v_held.spent_reasons);
    end if;
    if v_held.rejected is not null then
        perform pubsub.dead_letter_deliveries(p_topic_key,
            p_subscription_key, v_held.rejected, 'rejected', v_held.reject_reasons);
    end if;
    if v_held.extended is not null then
        perform pubsub.extend_deliveries(p_topic_key,
            p_subscription_key, v_held.extended, v_held.extensions,
            p_per_consumer);
    end if;

    return query
        select t."position", t.status, t.ack_deadline
        from pubsub.told_settlements(
            p_topic_key, p_subscription_key,
            p_enable_ordering, p_message_ids, v_held.positions, v_held.fates,
            v_held.attempts, v_held.lanes, v_now
        ) t;
end
$$;

comment on function pubsub.settle_deliveries is 'settle_messages, of single deliveries.';

/*
 * settle_messages — settle deliveries, each in its own way, in one go.
 *
 * In       one element per delivery: message and lease, p_actions: ack, nack, reject (to the dead
 *          letters at once) or extend. p_seconds: until a nacked message returns (0 to 43200; null:
 *          the backoff), or by how much to extend (0.001 to 43200). p_reasons: what the consumer says of
 *          an ack, a nack or a reject, at most 1024 characters. Both may be null as a whole
 * Out      in the order given, by position: acked, nacked, dead_lettered (parked or skipped where the
 *          subscription orders and says so), extended with the new deadline, or lease_lost: the
 *          message was settled, or its lease ended and, but for extend, it was given away
 * Errors   PS404 · PS422 (message_ids: one is null or a delivery is named twice; leases; actions;
 *          seconds; reasons)
 * Locks    the deliveries, in id order
 */
create function pubsub.settle_messages(
    p_subscription_id text, p_message_ids uuid[], p_leases bigint[], p_actions text[],
    p_seconds double precision[] default null, p_reasons text[] default null
)
returns table ("position" int, status text, ack_deadline timestamptz)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_subscription record;
    -- the positions of what is not settled yet; null: all is not
    v_left int[];
begin
    perform pubsub.check_settlements(p_message_ids, p_leases, p_actions, p_seconds, p_reasons);
    select s.*, coalesce(s.exact_backoff_min_seconds, s.backoff_min_seconds) as backoff_min,
        coalesce(s.exact_backoff_max_seconds, s.backoff_max_seconds) as backoff_max,
        coalesce(s.max_in_flight, s.max_in_flight_per_consumer) is not null as per_consumer
    into v_subscription
    from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;

    -- a run has no room for what is said of one message
    if pubsub.may_be_of_runs(p_leases) and 'ack' = all(p_actions)
        and coalesce(array_remove(p_reasons, null), '{}') = '{}'
    then
        v_left := pubsub.ack_runs(v_subscription.topic_key, v_subscription.subscription_key,
            p_message_ids, p_leases, v_subscription.per_consumer);
    elsif pubsub.may_be_of_runs(p_leases) then
        perform pubsub.single_out(
            v_subscription.topic_key, v_subscription.subscription_key, p_message_ids);
    end if;
    if v_left is null or cardinality(v_left) = cardinality(p_message_ids) then
        return query
            select s.*
            from pubsub.settle_deliveries(v_subscription.topic_key,
                v_subscription.subscription_key, p_message_ids, p_leases, p_actions, p_seconds,
                p_reasons, v_subscription.max_delivery_attempts,
                v_subscription.backoff_min, v_subscription.backoff_max,
                v_subscription.backoff_strategy, v_subscription.enable_ordering,
                v_subscription.per_consumer) s;
    elsif v_left = '{}' then
        return query
            select n, 'acked', null::timestamptz
            from generate_series(1, cardinality(p_message_ids)) n;
    else
        return query
            with rest as (
                select array_agg(x.id) as ids, array_agg(x.lease) as leases,
                    array_agg(x.position) as positions
                from unnest(p_message_ids, p_leases) with ordinality as x (id, lease, position)
                join unnest(v_left) as l (position) using (position)
            ), settled as materialized (
                select r.positions[s."position"] as position, s.status, s.ack_deadline
                from rest r
                cross join lateral pubsub.settle_deliveries(v_subscription.topic_key,
                    v_subscription.subscription_key, r.ids, r.leases,
                    array_fill('ack'::text, array[cardinality(v_left)]), null, null,
                    v_subscription.max_delivery_attempts, v_subscription.backoff_min,
                    v_subscription.backoff_max, v_subscription.backoff_strategy,
                    v_subscription.enable_ordering, v_subscription.per_consumer) s
            )
            select i.position::int, coalesce(s.status, 'acked'), s.ack_deadline
            from generate_series(1, cardinality(p_message_ids)) as i (position)
            left join settled s on s.position = i.position
            order by 1;
    end if;
end
$$;

comment on function pubsub.settle_messages is
    'Ack, nack, reject or extend deliveries, each with its own result, in the order given.';
