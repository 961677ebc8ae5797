/*
 * Deleting messages of a subscription, whatever state they are in. The other subscriptions of the topic and
 * replays still have them; who holds one has lost its lease.
 */

/*
 * break_up_around — make single deliveries of the runs that hold some messages, leased or not.
 *
 * In       p_message_ids: in their order
 * Locks    the runs, one after the other in id order; waits for those that others hold
 */
create function pubsub.break_up_around(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[]
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_id uuid;
    v_run_id uuid;
    -- the messages of the run that was locked last
    v_in uuid[] := '{}';
    v_locked uuid[] := '{}';
begin
    if not exists (
        select from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id >= pubsub.run_start(p_message_ids[1])
            and r.run_id <= p_message_ids[cardinality(p_message_ids)]
    ) then
        return;
    end if;
    foreach v_id in array p_message_ids loop
        while v_id <> all(v_in) loop
            select r.run_id into v_run_id
            from pubsub_data.runs r
            where r.topic_key = p_topic_key
                and r.subscription_key = p_subscription_key
                and r.run_id >= pubsub.run_start(v_id)
                and r.run_id <= v_id
                and v_id = any(r.message_ids)
            limit 1;
            exit when not found;
            select r.message_ids into v_in
            from pubsub_data.runs r
            where r.topic_key = p_topic_key
                and r.subscription_key = p_subscription_key
                and r.run_id = v_run_id
            for update;
            -- who held it may have left the message in another run, which is the next one to lock
            v_in := coalesce(v_in, '{}');
            if v_id = any(v_in) then
                v_locked := v_locked || v_run_id;
            end if;
        end loop;
    end loop;
    perform pubsub.break_up_runs(p_topic_key, p_subscription_key, v_locked);
end
$$;

comment on function pubsub.break_up_around is
    'Make single deliveries of the runs that hold some messages, leased or not.';

/*
 * delete_messages — take messages from a subscription that it has not settled: available, delivered, scheduled
 * or parked.
 *
 * Out      those that were deleted, in publish order; unknown and settled ones and dead letters are not
 * Errors   PS404
 * Locks    the runs that hold them, then the deliveries, each in id order
 * Effects  a failure each, which timelines tell; the next messages of their ordering keys are woken
 */
create function pubsub.delete_messages(p_subscription_id text, p_message_ids uuid[])
returns uuid[]
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_sorted constant uuid[] := array(
        select distinct i.id from unnest(p_message_ids) as i (id) where i.id is not null order by i.id);
    v_places tid[];
    v_ids uuid[];
begin
    if v_sorted = '{}' then
        return '{}';
    end if;
    perform pubsub.break_up_around(v_keys.topic_key, v_keys.subscription_key, v_sorted);
    select array_agg(d.place), array_agg(d.message_id order by d.message_id) into v_places, v_ids
    from unnest(v_sorted) as i (id)
    cross join lateral (
        select x.ctid as place, x.message_id
        from pubsub_data.deliveries x
        where x.topic_key = v_keys.topic_key
            and x.subscription_key = v_keys.subscription_key
            and x.message_id = i.id
        limit 1
        for update
    ) d;
    if v_places is null then
        return '{}';
    end if;
    insert into pubsub_data.failures (
        topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at, outcome,
        reason
    )
    select v_keys.topic_key, v_keys.subscription_key, d.message_id, d.attempts, d.consumer_id,
        d.leased_at, clock_timestamp(), 'skipped', 'deleted'
    from pubsub_data.deliveries d
    where d.ctid = any(v_places);
    perform pubsub.drop_deliveries(v_keys.topic_key, v_keys.subscription_key, v_places);
    return v_ids;
end
$$;

comment on function pubsub.delete_messages is
    'Take unsettled messages from a subscription, held or not; returns those that were.';
