/*
 * A run is one row that stands for the deliveries of many messages: those of one publish call, in one
 * subscription, that nobody has treated differently yet. It is a promise of single deliveries: whoever wants
 * to lease, settle or look at some of them alone breaks it up first. So only publishing, claims that want the
 * whole of it, and acks of the whole of it know runs; everything else calls single_out or break_up_runs.
 *
 * The ids of a publish call that makes runs follow one another: they end in a multiple of 131072 and the
 * numbers after it. A run never has messages of two hundreds of them. So the run of a message is the last one
 * that begins between the begin of its hundred (run_start) and itself, if it is in one.
 *
 * Lock order: runs before deliveries, both in id order.
 */

/* least_run — fewer messages of a subscription than this become single deliveries. */
create function pubsub.least_run()
returns int
language sql immutable parallel safe
begin atomic
    select 5;
end;

comment on function pubsub.least_run is 'The fewest messages of a run.';

/*
 * run_start — the lowest id of the hundred of a message.
 */
create function pubsub.run_start(p_message_id uuid)
returns uuid
language sql immutable parallel safe
begin atomic
    -- without a from clause, which would keep Postgres from inlining it
    select (left(p_message_id::text, 31) || lpad(to_hex(
        ('x' || right(p_message_id::text, 5))::bit(20)::int
            - ('x' || right(p_message_id::text, 5))::bit(20)::int % 131072 % 100), 5, '0'))::uuid;
end;

comment on function pubsub.run_start is 'The lowest id with which a run of a message may begin.';

/*
 * break_up_runs — make single deliveries of runs.
 *
 * Out      the messages of them
 * Locks    skips those that others hold
 * Effects  a wake-up at the ack deadline of those that are leased
 */
create function pubsub.break_up_runs(
    p_topic_key bigint, p_subscription_key bigint, p_run_ids uuid[]
)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_places constant tid[] := array(
        select r.ctid
        from unnest(p_run_ids) as i (run_id)
        cross join lateral (
            select x.ctid
            from pubsub_data.runs x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.run_id = i.run_id
            limit 1
            for update skip locked
        ) r
    );
    v_ids uuid[];
begin
    if v_places = '{}' then
        return '{}';
    end if;
    with broken as (
        delete from pubsub_data.runs r
        where r.ctid = any(v_places)
        returning r.message_ids, r.is_large, r.lease, r.leased_at, r.ack_deadline, r.consumer_id
    ), woken as (
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_topic_key, p_subscription_key, b.ack_deadline, b.message_ids
        from broken b
        where b.lease is not null
    ), single as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, visible_at, attempts, lease, leased_at,
            consumer_id, is_large
        )
        select p_topic_key, p_subscription_key, i.id, coalesce(b.ack_deadline, '-infinity'),
            (b.lease is not null)::int, b.lease, b.leased_at, b.consumer_id, nullif(b.is_large, false)
        from broken b
        cross join unnest(b.message_ids) as i (id)
        returning message_id
    )
    select array_agg(s.message_id) into v_ids from single s;
    return v_ids;
end
$$;

comment on function pubsub.break_up_runs is
    'Make single deliveries of runs; returns the messages of them.';

/*
 * single_out — make sure that messages that are leased have single deliveries.
 *
 * Locks    the runs that hold them, in id order; waits for those that others hold
 */
create function pubsub.single_out(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[]
)
returns void
language plpgsql volatile
as $$
declare
    v_sorted constant uuid[] := array(
        select i.id from unnest(p_message_ids) as i (id) where i.id is not null order by i.id);
    v_run_ids uuid[];
begin
    -- most have none
    if v_sorted = '{}' or not exists (
        select from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(v_sorted[1])
            and r.run_id <= v_sorted[cardinality(v_sorted)]
            and r.lease is not null
    ) then
        return;
    end if;
    v_run_ids := array(
        select distinct r.run_id
        from unnest(v_sorted) as i (id)
        cross join lateral (
            select x.run_id
            from pubsub_data.runs x
            where x.topic_key = p_topic_key
                and x.subscription_key = p_subscription_key
                and x.run_id >= pubsub.run_start(i.id)
                and x.run_id <= i.id
                and x.lease is not null
                and i.id = any(x.message_ids)
            limit 1
        ) r
        order by r.run_id
    );
    -- nobody cuts those that are leased: whoever held one has made single deliveries of it, or settled it
    perform 1
    from unnest(v_run_ids) as i (run_id)
    cross join lateral (
        select
        from pubsub_data.runs x
        where x.topic_key = p_topic_key
            and x.subscription_key = p_subscription_key
            and x.run_id = i.run_id
        limit 1
        for update
    ) r;
    perform pubsub.break_up_runs(p_topic_key, p_subscription_key, v_run_ids);
end
$$;

comment on function pubsub.single_out is
    'Make sure that messages that are leased have single deliveries.';

/*
 * first_run — the first run that has messages in a range of ids.
 *
 * In       above p_after, up to p_upto
 */
create function pubsub.first_run(
    p_topic_key bigint, p_subscription_key bigint, p_after uuid, p_upto uuid
)
returns uuid
language plpgsql stable
as $$
begin
    return (
        select r.run_id
        from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(p_after)
            and r.run_id <= p_upto
            and r.message_ids[cardinality(r.message_ids)] > p_after
        order by r.run_id
        limit 1
    );
end
$$;

comment on function pubsub.first_run is 'The first run that has messages in a range of ids.';

/*
 * break_up_range — make single deliveries of the first runs in a range of ids.
 *
 * In       above p_after, up to p_upto; p_limit: of so many messages at least, where there are so many
 * Locks    the runs, one after the other in id order; waits for those that others hold
 */
create function pubsub.break_up_range(
    p_topic_key bigint, p_subscription_key bigint, p_after uuid, p_upto uuid, p_limit int
)
returns void
language plpgsql volatile
as $$
declare
    v_from uuid := p_after;
    v_ids uuid[];
    v_locked uuid[] := '{}';
    v_left int := p_limit;
begin
    while v_left > 0 loop
        v_from := pubsub.first_run(p_topic_key, p_subscription_key, v_from, p_upto);
        exit when v_from is null;
        v_ids := null;
        select r.message_ids into v_ids
        from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id = v_from
        for update;
        if v_ids is not null then
            v_locked := v_locked || v_from;
            v_left := v_left - cardinality(v_ids);
            v_from := v_ids[cardinality(v_ids)];
        end if;
    end loop;
    perform pubsub.break_up_runs(p_topic_key, p_subscription_key, v_locked);
end
$$;

comment on function pubsub.break_up_range is
    'Make single deliveries of the first runs in a range of message ids.';

/*
 * break_up_ready — make single deliveries of runs in a range of ids that nobody holds, one after the other, until
 * that are as many messages as are wanted.
 *
 * In       above p_after, up to p_upto
 * Locks    only what it breaks up; skips those that others hold
 */
create function pubsub.break_up_ready(
    p_topic_key bigint, p_subscription_key bigint, p_after uuid, p_upto uuid, p_wanted int
)
returns void
language plpgsql volatile
as $$
declare
    v_left int := p_wanted;
    v_run_id uuid;
begin
    while v_left > 0 loop
        select y.run_id into v_run_id
        from pubsub_data.runs y
        where y.topic_key = p_topic_key
            and y.subscription_key = p_subscription_key
            and y.run_id >= pubsub.run_start(p_after)
            and y.run_id <= p_upto
            and y.lease is null
        order by y.run_id
        limit 1
        for update skip locked;
        exit when not found;
        v_left := v_left - cardinality(
            pubsub.break_up_runs(p_topic_key, p_subscription_key, array[v_run_id]));
    end loop;
end
$$;

comment on function pubsub.break_up_ready is
    'Make single deliveries of runs in a range of message ids that nobody holds.';

/*
 * oldest_unsettled — the lowest message of a subscription that is not settled.
 */
create function pubsub.oldest_unsettled(p_topic_key bigint, p_subscription_key bigint)
returns uuid
language sql stable parallel safe
begin atomic
    select least((
        select d.message_id
        from pubsub_data.deliveries d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
        order by d.message_id
        limit 1
    ), (
        select r.run_id
        from pubsub_data.runs r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        order by r.run_id
        limit 1
    ));
end;

comment on function pubsub.oldest_unsettled is 'The lowest message of a subscription that is not settled.';

/*
 * is_in_run — whether a message is in a run of a subscription, and so not settled.
 */
create function pubsub.is_in_run(p_topic_key bigint, p_subscription_key bigint, p_message_id uuid)
returns boolean
language sql stable parallel safe
begin atomic
    select exists (
        select from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(p_message_id)
            and r.run_id <= p_message_id
            and p_message_id = any(r.message_ids)
    );
end;

comment on function pubsub.is_in_run is 'Whether a message is in a run of a subscription.';
