/*
 * messages and acked leave by whole partitions, never by mass delete. Partitions are made ahead of
 * time; what none covers goes to the default partition and leaves it by row. A partition is as long
 * as a quarter of the retention, at least 15 minutes, so about seven live at a time; while unacked
 * messages keep old ones alive, no more than eight of that length are made and the default partition
 * takes the rest.
 *
 * Topics share the partitions, so those of messages go by the longest retention of all topics: a topic
 * keeps its messages at least as long as it says. What is in the default partition goes by topic.
 *
 * Locks: making and dropping a partition lock the table for an instant. They wait for it at most
 * 50 ms, then give up and are tried again by the next call.
 */

/*
 * make_partitions — the next two partitions of a table.
 *
 * In       p_parent: 'messages' or 'acked'
 * Out      how many were made
 * Effects  never one for now: an insert that is under way to the default partition would fail when
 *          its range is taken away
 */
create function pubsub.make_partitions(p_parent text, p_retention_seconds int)
returns int
language plpgsql volatile
set lock_timeout = '50ms'
as $$
declare
    -- the text of a time depends on the session
    c_time constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
    v_seconds constant int := greatest(900, p_retention_seconds / 4);
    v_from timestamptz;
    v_until timestamptz;
    v_name text;
    v_made int := 0;
begin
    -- attaching scans the default partition under a lock
    if pg_relation_size(('pubsub_data.' || p_parent || '_default')::regclass) > 64 * 1024 * 1024
    then
        return 0;
    end if;
    for v_step in 1 .. 2 loop
        v_from := to_timestamp(
            (floor(extract(epoch from clock_timestamp()) / v_seconds) + v_step) * v_seconds);
        v_until := v_from + make_interval(secs => v_seconds);
        -- the retention may have changed meanwhile
        select greatest(v_from, max(p.until_at)) into v_from
        from pubsub_data.partitions p
        where p.parent = p_parent and p.from_at < v_until and p.until_at > v_from;
        continue when v_from >= v_until
            or v_from < clock_timestamp() + interval '5 seconds'
            -- after the retention was raised, many short ones may have to stay for long
            or (
                select count(*) from pubsub_data.partitions p
                where p.parent = p_parent
                    and p.until_at - p.from_at >= make_interval(secs => v_seconds / 2)
            ) >= 8;

        v_name := format('%s_%s', p_parent,
            to_char(v_from at time zone 'UTC', 'YYYYMMDD"t"HH24MISS'));
        execute format('create table pubsub_data.%I (like pubsub_data.%I including all)',
            v_name, p_parent);
        if p_parent = 'acked' then
            execute format('alter table pubsub_data.%I replica identity full', v_name);
        end if;
        execute format(
            'alter table pubsub_data.%I attach partition pubsub_data.%I for values from (%L) to (%L)',
            p_parent, v_name,
            case p_parent when 'messages' then pubsub.id_at(v_from)::text
                else to_char(v_from at time zone 'UTC', c_time) end,
            case p_parent when 'messages' then pubsub.id_at(v_until)::text
                else to_char(v_until at time zone 'UTC', c_time) end);
        insert into pubsub_data.partitions (parent, name, from_at, until_at)
        values (p_parent, v_name, v_from, v_until);
        v_made := v_made + 1;
    end loop;
    return v_made;
end
$$;

comment on function pubsub.make_partitions is
    'Make the next two partitions of messages or acked; returns how many were missing.';

/*
 * drop_acked_partition — drop the oldest partition of acked that lies wholly before a time.
 *
 * Out      how many messages it held; 0 when there is none
 */
create function pubsub.drop_acked_partition(p_before timestamptz)
returns bigint
language plpgsql volatile
set lock_timeout = '50ms'
as $$
declare
    v_partition record;
    v_messages bigint := 0;
begin
    for v_partition in
        delete from pubsub_data.partitions p
        where p.parent = 'acked' and p.until_at <= p_before
            and p.from_at = (
                select min(o.from_at) from pubsub_data.partitions o where o.parent = 'acked'
            )
        returning p.name
    loop
        execute format('lock table pubsub_data.%I in access exclusive mode', v_partition.name);
        execute format($dropped$
            with dropped as (
                select a.topic_key, a.subscription_key, sum(cardinality(a.message_ids)) as messages
                from pubsub_data.%I a
                group by a.topic_key, a.subscription_key
            ), counted as (
                insert into pubsub_data.counters (topic_key, subscription_key, acked, forgotten)
                select s.topic_key, s.subscription_key, -d.messages, d.messages
                from dropped d
                -- a deleted subscription has no counts
                join pubsub_data.subscriptions s
                    on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
            )
            select coalesce(sum(d.messages), 0) from dropped d
            $dropped$, v_partition.name) into v_messages;
        execute format('drop table pubsub_data.%I', v_partition.name);
    end loop;
    return v_messages;
end
$$;

comment on function pubsub.drop_acked_partition is
    'Drop the oldest partition of acked that ended before a time; returns how many messages it held.';

/*
 * longest_retention — for how many seconds partitions of messages are kept.
 *
 * In       p_default_seconds: of topics that do not say
 */
create function pubsub.longest_retention(p_default_seconds int)
returns int
language sql stable parallel safe
begin atomic
    select greatest(p_default_seconds, max(t.message_retention_seconds)) from pubsub_data.topics t;
end;

comment on function pubsub.longest_retention is
    'The longest message retention of all topics, in seconds, given that of topics without one.';

/*
 * messages_are_needed — whether a delivery of any subscription refers to an id in [p_from, p_until).
 */
create function pubsub.messages_are_needed(p_from uuid, p_until uuid)
returns boolean
language sql stable parallel safe
begin atomic
    select exists (
        select 1 from pubsub_data.subscriptions s
        where exists (
            select 1 from pubsub_data.deliveries d
            where d.topic_key = s.topic_key
                and d.subscription_key = s.subscription_key
                and d.message_id >= p_from and d.message_id < p_until
        ) or exists (
            -- all ids of a run have the time of its own
            select 1 from pubsub_data.runs r
            where r.topic_key = s.topic_key
                and r.subscription_key = s.subscription_key
                and r.run_id >= p_from and r.run_id < p_until
        )
    );
end;

comment on function pubsub.messages_are_needed is
    'Whether a delivery refers to a message id in a range.';

/*
 * drop_message_partitions — drop partitions of messages that nothing refers to any more.
 *
 * In       p_before: only partitions that ended before it
 * Out      how many were dropped
 * Locks    the partition, first, so that no publish into it is under way when it is looked at
 */
create function pubsub.drop_message_partitions(p_before timestamptz)
returns int
language plpgsql volatile
set lock_timeout = '50ms'
as $$
declare
    v_partition record;
    v_dropped int := 0;
begin
    for v_partition in
        select p.name, p.from_at, p.until_at
        from pubsub_data.partitions p
        where p.parent = 'messages' and p.until_at <= p_before
        order by p.from_at
        for update skip locked
    loop
        continue when pubsub.messages_are_needed(
            pubsub.id_at(v_partition.from_at), pubsub.id_at(v_partition.until_at));
        execute format('lock table pubsub_data.%I in access exclusive mode', v_partition.name);
        continue when pubsub.messages_are_needed(
            pubsub.id_at(v_partition.from_at), pubsub.id_at(v_partition.until_at));
        execute format('drop table pubsub_data.%I', v_partition.name);
        delete from pubsub_data.partitions p
        where p.parent = 'messages' and p.from_at = v_partition.from_at;
        v_dropped := v_dropped + 1;
    end loop;
    return v_dropped;
end
$$;

comment on function pubsub.drop_message_partitions is
    'Drop partitions of messages that nothing refers to any more; returns how many.';

/*
 * cleanup_default_messages — delete unneeded messages that no partition covers, a batch a call.
 *
 * In       p_before: messages published before it, or, of a topic with a retention of its own, before
 *          that
 * Out      how many were deleted
 * Locks    the messages, first, so that no reprocess of them is under way when they are looked at
 */
create function pubsub.cleanup_default_messages(p_before timestamptz, p_limit int default 10000)
returns bigint
language plpgsql volatile
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_before constant uuid := pubsub.id_at(p_before);
    -- no topic's messages may go that are not older
    v_before_some constant uuid := greatest(v_before, (
        select pubsub.id_at(v_now - make_interval(secs => min(t.message_retention_seconds)))
        from pubsub_data.topics t
    ));
    v_topic_keys bigint[];
    v_message_ids uuid[];
    v_deleted bigint;
begin
    with old as materialized (
        select m.topic_key, m.message_id
        from pubsub_data.messages_default m
        where m.message_id < v_before_some
            and m.message_id < coalesce((
                select pubsub.id_at(v_now - make_interval(secs => t.message_retention_seconds))
                from pubsub_data.topics t
                where t.topic_key = m.topic_key
            ), v_before)
            and not exists (
                select 1
                from pubsub_data.subscriptions s
                join pubsub_data.deliveries d on d.topic_key = s.topic_key
                    and d.subscription_key = s.subscription_key
                    and d.message_id = m.message_id
                where s.topic_key = m.topic_key
            )
            and not exists (
                select 1
                from pubsub_data.subscriptions s
                where s.topic_key = m.topic_key
                    and pubsub.is_in_run(s.topic_key, s.subscription_key, m.message_id)
            )
        limit p_limit
        for update of m skip locked
    )
    select array_agg(o.topic_key), array_agg(o.message_id)
    into v_topic_keys, v_message_ids
    from old o;

    -- a reprocess that committed since the statement above began has made deliveries
    delete from pubsub_data.messages_default m
    using unnest(v_topic_keys, v_message_ids) as o (topic_key, message_id)
    where m.topic_key = o.topic_key
        and m.message_id = o.message_id
        and not exists (
            select 1
            from pubsub_data.subscriptions s
            join pubsub_data.deliveries d on d.topic_key = s.topic_key
                and d.subscription_key = s.subscription_key
                and d.message_id = m.message_id
            where s.topic_key = m.topic_key
        )
        and not exists (
            select 1
            from pubsub_data.subscriptions s
            where s.topic_key = m.topic_key
                and pubsub.is_in_run(s.topic_key, s.subscription_key, m.message_id)
        );
    get diagnostics v_deleted = row_count;
    return v_deleted;
end
$$;

comment on function pubsub.cleanup_default_messages is
    'Delete unneeded messages from the default partition, a batch a call; returns how many.';
