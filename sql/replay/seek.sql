/*
 * Seeking, as jobs (jobs.sql), whose arguments seek_steps.sql explains.
 */

/*
 * seek_subscription — go to a time: what was published at or after it and is retained is available
 * again, what is unsettled and was published before it is settled.
 *
 * In       p_time: to the millisecond; one after the end (seek_end) is the end
 * Out      the job, whose first step is made; done when that was all
 * Errors   PS404 · PS409 another job of the subscription is running · PS422 (time) null
 */
create function pubsub.seek_subscription(p_subscription_id text, p_time timestamptz)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_end constant uuid := pubsub.seek_end(v_keys.topic_key);
begin
    if p_time is null then
        perform pubsub.fail_validation('time', 'time is required');
    end if;
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('request', jsonb_build_object('time', p_time),
                'settle_upto', pubsub.id_at(least(p_time, pubsub.id_time(v_end))),
                'upto', v_end, 'number_upto', pubsub.new_message_number())) b;
end
$$;

comment on function pubsub.seek_subscription is
    'Go to a time: messages from then on are available again, earlier ones settled.';

/*
 * seek_subscription_to_end — settle everything that is unsettled.
 *
 * Out      the job, whose first step is made; done when that was all
 * Errors   PS404 · PS409 another job of the subscription is running
 */
create function pubsub.seek_subscription_to_end(p_subscription_id text)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_end constant uuid := pubsub.seek_end(v_keys.topic_key);
begin
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('request', jsonb_build_object('to', 'end'),
                'settle_upto', v_end, 'upto', v_end,
                'number_upto', pubsub.new_message_number())) b;
end
$$;

comment on function pubsub.seek_subscription_to_end is
    'Settle everything that a subscription has not settled.';

/*
 * seek_subscription_to_snapshot — go to a snapshot: what was unsettled then and what was published
 * after it is available again, the rest is settled.
 *
 * In       p_snapshot_id: of this subscription or another one of its topic
 *          p_allowed: only of a subscription that matches it (matches_any)
 * Out      the job, whose first step is made; done when that was all
 * Errors   PS404 · PS409 another job of the subscription is running · PS422 (snapshot_id) another topic's
 * Locks    the subscription, then the snapshot
 */
create function pubsub.seek_subscription_to_snapshot(
    p_subscription_id text, p_snapshot_id text, p_allowed text[] default null
)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_snapshot record;
begin
    -- before the snapshot: who deletes the subscription locks it first
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    -- for key share: a concurrent delete_snapshot waits or is seen
    select n.topic_key, n.position into v_snapshot
    from pubsub_data.snapshots n
    join pubsub_data.subscriptions s
        on s.topic_key = n.topic_key and s.subscription_key = n.subscription_key
    where n.snapshot_id = p_snapshot_id and pubsub.matches_any(s.subscription_id, p_allowed)
    for key share of n;
    if not found then
        raise exception 'Snapshot not found' using errcode = 'PS404';
    end if;
    if v_snapshot.topic_key <> v_keys.topic_key then
        perform pubsub.fail_validation('snapshot_id',
            'snapshot_id must be a snapshot of the subscription''s topic');
    end if;
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('request', jsonb_build_object('snapshot_id', p_snapshot_id),
                'snapshot_id', p_snapshot_id, 'part', 1,
                'settle_upto', v_snapshot.position,
                'upto', pubsub.seek_end(v_keys.topic_key),
                'number_upto', pubsub.new_message_number())) b;
end
$$;

comment on function pubsub.seek_subscription_to_snapshot is
    'Go to a snapshot: what was unsettled then or came after it is available again.';

/*
 * replay_messages — make retained messages that match a filter available again; settle nothing.
 *
 * In       p_filter: beside the subscription's own, null for all; p_since: published at or after it;
 *          p_until: published before it
 * Out      the job, whose first step is made; done when that was all
 * Errors   PS404 · PS409 another job of the subscription is running · PS422 (filter), (until) before
 *          p_since
 */
create function pubsub.replay_messages(
    p_subscription_id text, p_filter json, p_since timestamptz default null,
    p_until timestamptz default null
)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_end constant timestamptz := pubsub.id_time(pubsub.seek_end(v_keys.topic_key));
    v_from constant uuid := pubsub.id_at(least(coalesce(p_since, '-infinity'), v_end));
begin
    perform pubsub.compile_filter(p_filter::jsonb);
    if p_until < p_since then
        perform pubsub.fail_validation('until', 'until must not be before since');
    end if;
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'replay',
            jsonb_build_object('request', jsonb_strip_nulls(jsonb_build_object('since', p_since,
                    'until', p_until)) || jsonb_build_object('filter', p_filter),
                'filter', coalesce(p_filter, '{}'), 'settle_upto', v_from,
                'upto', pubsub.id_at(least(p_until, v_end))), v_from) b;
end
$$;

comment on function pubsub.replay_messages is
    'Make retained messages that match a filter available again, without settling others.';
