/*
 * Replay makes messages available again that a subscription has settled, as long as the topic still
 * has them; a seek also settles what lies before its place.
 *
 * A message comes back if it matches the subscription's filter as it is now, and has not expired. What
 * is waiting or in flight stays as it is. Dead letters stay dead letters: reprocessing brings those back.
 * The history of acks stays, too. A message that comes back has no attempts behind it, is available at
 * once, though not before the time that it was published for, and, where the subscription lets messages
 * expire, has its whole time again.
 *
 * To settle here is to drop a delivery: nobody acked it, so it is not in the history of acks, and a
 * consumer that holds it has lost its lease.
 *
 * Places are message ids, so times count to the millisecond. All of it is done by jobs, in steps.
 */

/*
 * settle_range — take the deliveries of a range of ids away, the lowest first.
 *
 * In       p_after, p_upto: the range, without its begin, as far as it has no runs; p_except: ids that stay;
 *          p_number_upto: so do those that end in a higher one (new_message_number)
 * Out      settled: how many, at most p_limit; reached: p_upto, or the id after which to go on, which is p_after
 *          where a run is the next
 * Locks    the deliveries, in id order
 */
create function pubsub.settle_range(
    p_topic_key bigint, p_subscription_key bigint, p_after uuid, p_upto uuid, p_limit int,
    p_except uuid[], p_number_upto text default null, out settled bigint, out reached uuid
)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_run_id constant uuid := pubsub.first_run(p_topic_key, p_subscription_key, p_after, p_upto);
    v_places tid[];
    v_last uuid;
begin
    select coalesce(array_agg(d.place), '{}'), (array_agg(d.message_id order by d.message_id desc))[1]
    into v_places, v_last
    from (
        select x.ctid as place, x.message_id
        from pubsub_data.deliveries x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.message_id > p_after
            and x.message_id <= p_upto
            and x.message_id < coalesce(v_run_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            and x.message_id <> all(p_except)
            and (p_number_upto is null
                or right(translate(x.message_id::text, '-', ''), 16) collate "C" <= p_number_upto)
        order by x.message_id
        limit p_limit
        for update
    ) d;
    settle_range.reached := case
        when cardinality(v_places) = p_limit then v_last
        when v_run_id is null then p_upto
        else coalesce(v_last, p_after) end;
    perform pubsub.drop_deliveries(p_topic_key, p_subscription_key, v_places);
    settle_range.settled := cardinality(v_places);
end
$$;

comment on function pubsub.settle_range is
    'Take the deliveries of a range of message ids away, a batch a call.';

/*
 * redeliver_messages — make messages available again that a subscription has settled.
 *
 * In       p_filter: only those that match it, beside the subscription's own filter
 * Out      how many; not those that are gone, live, dead letters, expired or do not match
 * Locks    those in the default partition, which leaves by row, and deliveries of the same messages
 *          that others are inserting or deleting
 */
create function pubsub.redeliver_messages(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_filter jsonb default null
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_filter_path constant jsonpath := pubsub.compile_filter(p_filter);
    v_filter_values constant int := pubsub.count_filter_values(p_filter);
    v_attribute_filter_path constant jsonpath := pubsub.compile_attribute_filter(p_filter);
    v_ids uuid[];
    v_dues timestamptz[];
    v_dead uuid[];
begin
    perform 1
    from unnest(p_message_ids) as i (id)
    cross join lateral (
        select from pubsub_data.messages_default x
        where x.topic_key = p_topic_key and x.message_id = i.id
        limit 1
        for key share
    ) m;

    with back as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, visible_at, expires_at, lane
        )
        select p_topic_key, p_subscription_key, m.message_id,
            case when m.deliver_at > v_now then m.deliver_at else '-infinity' end,
            least(m.expires_at, greatest(v_now, m.deliver_at)
                + make_interval(secs => s.message_ttl_seconds)),
            pubsub.delivery_lane(s.enable_ordering, s.fairness_key, m.ordering_key, m.attributes,
                m.priority)
        from (select i.id from unnest(p_message_ids) as i (id) order by i.id) i
        cross join lateral (
            select x.* from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = i.id
            limit 1
        ) m
        -- in this statement, which sees a message and its run, or neither
        left join lateral (
            select true as found from pubsub_data.runs x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.run_id >= pubsub.run_start(m.message_id)
                and x.run_id <= m.message_id
                and m.message_id = any(x.message_ids)
            limit 1
        ) r on true
        cross join (
            select x.* from pubsub_data.subscriptions x
            where x.topic_key = p_topic_key and x.subscription_key = p_subscription_key
        ) s
        where pubsub.passes_filter(m.payload, m.attributes, s.filter_path, s.filter::jsonb,
                s.filter_values, s.attribute_filter_path)
            and pubsub.passes_filter(m.payload, m.attributes, v_filter_path, p_filter,
                v_filter_values, v_attribute_filter_path)
            and (m.expires_at is null or m.expires_at > v_now)
            and r.found is null
        on conflict do nothing
        returning message_id, visible_at
    )
    select array_agg(b.message_id order by b.message_id),
        array_agg(b.visible_at order by b.message_id)
    into v_ids, v_dues
    from back b;

    -- dead letters, also those that became one since the statement above began
    select array_agg(l.message_id) into v_dead
    from unnest(v_ids) as i (id)
    cross join lateral (
        select x.message_id from pubsub_data.dead_letters x
        where x.topic_key = p_topic_key and x.subscription_key = p_subscription_key
            and x.message_id = i.id
        limit 1
    ) l;
    if v_dead is not null then
        delete from pubsub_data.deliveries d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
            and d.message_id = any(v_dead);
    end if;
    if cardinality(v_ids) is not distinct from cardinality(v_dead) then
        return 0;
    end if;

    insert into pubsub_data.counters (topic_key, subscription_key, due_at, backlog, waiting, published)
    select p_topic_key, p_subscription_key, pubsub.counter_time(d.visible_at), count(*),
        count(*) filter (where d.visible_at > v_now), 0
    from unnest(v_ids, v_dues) as d (message_id, visible_at)
    where v_dead is null or d.message_id <> all(v_dead)
    group by pubsub.counter_time(d.visible_at);
    perform pubsub.note_deliveries(p_topic_key, array[p_subscription_key], v_ids);
    perform pubsub.rewind_subscription(p_topic_key, p_subscription_key, v_ids[1]);
    return cardinality(v_ids) - coalesce(cardinality(v_dead), 0);
end
$$;

comment on function pubsub.redeliver_messages is
    'Make messages available again that a subscription has settled; returns how many.';

/*
 * settle_to_snapshot — bring a subscription, up to a snapshot's place, to what was unsettled then.
 *
 * In       p_part: the part of the snapshot to go on with; p_after: the id after which; p_number_upto:
 *          as of settle_range
 * Out      part, reached: where to go on; scanned, changed: how many messages
 */
create function pubsub.settle_to_snapshot(
    p_topic_key bigint, p_subscription_key bigint, p_snapshot_id text, p_part int, p_after uuid,
    p_upto uuid, p_limit int, p_number_upto text default null,
    out part int, out reached uuid, out scanned bigint, out changed bigint
)
language plpgsql volatile
as $$
declare
    v_listed uuid[];
    v_upto uuid;
begin
    select m.message_ids into v_listed
    from pubsub_data.snapshot_messages m
    where m.snapshot_id = p_snapshot_id and m.part = p_part;
    v_upto := coalesce(v_listed[cardinality(v_listed)], p_upto);

    settle_to_snapshot.part := p_part;
    select s.settled, s.settled, s.reached
    into settle_to_snapshot.scanned, settle_to_snapshot.changed, settle_to_snapshot.reached
    from pubsub.settle_range(p_topic_key, p_subscription_key, p_after, v_upto, p_limit,
        coalesce(v_listed, '{}'), p_number_upto) s;
    if v_listed is not null and settle_to_snapshot.reached = v_upto then
        settle_to_snapshot.part := p_part + 1;
        settle_to_snapshot.scanned := settle_to_snapshot.scanned + cardinality(v_listed);
        settle_to_snapshot.changed := settle_to_snapshot.changed
            + pubsub.redeliver_messages(p_topic_key, p_subscription_key, v_listed);
    end if;
end
$$;

comment on function pubsub.settle_to_snapshot is
    'Bring a subscription to what was unsettled at a snapshot, a part of it a call.';

/*
 * redeliver_range — make the messages of a range of ids available again, the lowest first.
 *
 * In       p_after, p_upto: the range, without its begin; p_settled_in: a snapshot in which some of them are
 *          listed as settled, which are settled, as far as the range has no runs; p_except_acked: not what was acked
 * Out      reached: as of settle_range; scanned, changed: how many messages
 */
create function pubsub.redeliver_range(
    p_topic_key bigint, p_subscription_key bigint, p_after uuid, p_upto uuid, p_limit int,
    p_filter jsonb, p_settled_in text, p_except_acked boolean,
    out reached uuid, out scanned bigint, out changed bigint
)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_run_id constant uuid := case when p_settled_in is not null
        then pubsub.first_run(p_topic_key, p_subscription_key, p_after, p_upto) end;
    v_ids uuid[];
    v_except uuid[] := '{}';
    v_places tid[];
begin
    select coalesce(array_agg(m.message_id order by m.message_id), '{}') into v_ids
    from (
        select x.message_id
        from pubsub_data.messages x
        where x.topic_key = p_topic_key and x.message_id > p_after and x.message_id <= p_upto
            and x.message_id < coalesce(v_run_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        order by x.message_id
        limit p_limit
    ) m;
    redeliver_range.scanned := cardinality(v_ids);
    redeliver_range.reached := case
        when scanned = p_limit then v_ids[p_limit]
        when v_run_id is null then p_upto
        else coalesce(v_ids[scanned], p_after) end;
    redeliver_range.changed := 0;

    if p_settled_in is not null then
        select coalesce(array_agg(i.id), '{}') into v_except
        from pubsub_data.snapshot_messages m
        cross join unnest(m.message_ids) as i (id)
        where m.snapshot_id = p_settled_in and m.part < 0
            and i.id > p_after and i.id <= redeliver_range.reached;
        select coalesce(array_agg(d.place), '{}') into v_places
        from (select e.id from unnest(v_except) as e (id) order by e.id) e
        cross join lateral (
            select x.ctid as place
            from pubsub_data.deliveries x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.message_id = e.id
            limit 1
            for update
        ) d;
        perform pubsub.drop_deliveries(p_topic_key, p_subscription_key, v_places);
        redeliver_range.changed := cardinality(v_places);
    end if;
    if p_except_acked then
        select v_except || coalesce(array_agg(i.id), '{}') into v_except
        from pubsub_data.acked a
        cross join unnest(a.message_ids) as i (id)
        where a.topic_key = p_topic_key and a.subscription_key = p_subscription_key
            and i.id > p_after and i.id <= redeliver_range.reached;
    end if;
    if v_except <> '{}' then
        v_ids := array(select i.id from unnest(v_ids) as i (id)
            except select e.id from unnest(v_except) as e (id));
    end if;
    redeliver_range.changed := redeliver_range.changed
        + pubsub.redeliver_messages(p_topic_key, p_subscription_key, v_ids, p_filter);
end
$$;

comment on function pubsub.redeliver_range is
    'Make the messages of a range of ids available again, a batch a call.';
