/*
 * A snapshot saves a subscription's place in its topic: which messages it had not settled, and from
 * where on messages came after it. It holds ids, not messages: those are there for as long as their
 * topic keeps them.
 *
 * A publish gets its ids before it commits. So the place is below the ids of all that were not committed
 * at the time (oldest_open_id). Of the messages up to there, those that were not
 * settled are listed (parts 1, 2, ...); of those after it, the ones that were (parts -1, -2, ...). What
 * is in neither list was not there yet, and counts as published later. Only a publish that oldest_open_id
 * does not see, more than 10 s before the snapshot and not committed by then, counts as settled.
 */

/*
 * create_snapshot — save a subscription's place.
 *
 * Errors   PS409 the id is taken · PS404 unknown subscription · PS422 (id) bad characters or length
 * Locks    nothing that a publish, claim or ack waits for
 */
create function pubsub.create_snapshot(p_snapshot_id text, p_subscription_id text)
returns table (id text, subscription_id text, topic_id text, created_at timestamptz)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    c_part_size constant int := 1000;
    v_position constant uuid := pubsub.oldest_open_id();
    v_keys record;
begin
    if p_snapshot_id is null or p_snapshot_id !~ '^[a-zA-Z0-9._-]{1,128}$' then
        perform pubsub.fail_validation('id',
            'snapshot id must be 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-"');
    end if;
    v_keys := pubsub.subscription_keys(p_subscription_id);
    -- a concurrent delete_subscription waits or is seen
    perform 1 from pubsub_data.subscriptions s
    where s.topic_key = v_keys.topic_key and s.subscription_key = v_keys.subscription_key
    for key share;
    if not found then
        perform pubsub.fail_gone(v_keys.topic_key, v_keys.subscription_key);
    end if;
    insert into pubsub_data.snapshots (snapshot_id, topic_key, subscription_key, position)
    values (p_snapshot_id, v_keys.topic_key, v_keys.subscription_key, v_position)
    on conflict (snapshot_id) do nothing;
    if not found then
        raise exception 'This snapshot already exists' using errcode = 'PS409';
    end if;
    -- one statement: both lists are of one moment
    with unsettled as (
        select (row_number() over (order by d.message_id) - 1) / c_part_size + 1 as part,
            d.message_id
        from (
            select x.message_id
            from pubsub_data.deliveries x
            where x.topic_key = v_keys.topic_key and x.subscription_key = v_keys.subscription_key
            union all
            select i.id
            from pubsub_data.runs x
            cross join unnest(x.message_ids) as i (id)
            where x.topic_key = v_keys.topic_key and x.subscription_key = v_keys.subscription_key
        ) d
        where d.message_id <= v_position
    ), settled as (
        select -1 - (row_number() over (order by m.message_id) - 1) / c_part_size as part,
            m.message_id
        from pubsub_data.messages m
        left join lateral (
            select true as found
            from pubsub_data.deliveries x
            where x.topic_key = v_keys.topic_key
                and x.subscription_key = v_keys.subscription_key
                and x.message_id = m.message_id
            limit 1
        ) d on true
        where m.topic_key = v_keys.topic_key and m.message_id > v_position and d.found is null
            and not pubsub.is_in_run(v_keys.topic_key, v_keys.subscription_key, m.message_id)
    )
    insert into pubsub_data.snapshot_messages (snapshot_id, part, message_ids)
    select p_snapshot_id, l.part, array_agg(l.message_id order by l.message_id)
    from (select u.* from unsettled u union all select s.* from settled s) l
    group by l.part;
    return query select l.* from pubsub.list_snapshots(0, 1, p_snapshot_id) l;
end
$$;

comment on function pubsub.create_snapshot is
    'Save which messages a subscription has not settled, to seek back to later.';

/*
 * list_snapshots — a page of snapshots in the byte order of their ids, or the one named.
 *
 * In       p_after: only ids after it, which need not be there; p_subscription_id: only of this one;
 *          p_allowed: only of those that match it (matches_any)
 */
create function pubsub.list_snapshots(
    p_offset bigint default 0, p_limit int default 10, p_snapshot_id text default null,
    p_after text default null, p_subscription_id text default null,
    p_allowed text[] default null
)
returns table (id text, subscription_id text, topic_id text, created_at timestamptz)
language sql stable parallel safe
as $$
    select n.snapshot_id, s.subscription_id, t.topic_id, n.created_at
    from pubsub_data.snapshots n
    join pubsub_data.subscriptions s
        on s.topic_key = n.topic_key and s.subscription_key = n.subscription_key
    join pubsub_data.topics t on t.topic_key = n.topic_key
    where n.snapshot_id > coalesce(p_after, '')
        and (p_snapshot_id is null or n.snapshot_id = p_snapshot_id)
        and (p_subscription_id is null or s.subscription_id = p_subscription_id)
        and pubsub.matches_any(s.subscription_id, p_allowed)
    order by n.snapshot_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_snapshots is 'A page of snapshots, ordered by id.';

/*
 * delete_snapshot
 *
 * In       p_allowed: only of a subscription that matches it (matches_any)
 * Errors   PS404 · PS409 a running job seeks to it
 */
create function pubsub.delete_snapshot(p_snapshot_id text, p_allowed text[] default null)
returns void
language plpgsql volatile
as $$
begin
    perform 1
    from pubsub_data.snapshots n
    join pubsub_data.subscriptions s
        on s.topic_key = n.topic_key and s.subscription_key = n.subscription_key
    where n.snapshot_id = p_snapshot_id and pubsub.matches_any(s.subscription_id, p_allowed)
    for update of n;
    if not found then
        raise exception 'Snapshot not found' using errcode = 'PS404';
    end if;
    if exists (
        select 1 from pubsub_data.jobs j
        where j.state = 'running' and j.arguments ->> 'snapshot_id' = p_snapshot_id
    ) then
        raise exception 'A running job seeks to this snapshot' using errcode = 'PS409';
    end if;
    delete from pubsub_data.snapshots n where n.snapshot_id = p_snapshot_id;
end
$$;

comment on function pubsub.delete_snapshot is 'Delete a snapshot.';
