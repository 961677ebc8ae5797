/*
 * Seeking, as jobs. The arguments of a job:
 *   request          what was asked for
 *   settle_upto      deliveries up to this id are settled, or brought to the snapshot
 *   upto             messages after it, up to this id, are made available again
 *   snapshot_id, part  the snapshot, and how much of it is done
 *   filter           the messages to make available match it
 *   catch_up         of a new subscription, see catch_up_seek
 *
 * Messages published while the job runs are delivered by their publish, as ever, and lie after upto.
 */

/*
 * seek_end — the id up to which messages have been published by now.
 */
create function pubsub.seek_end()
returns uuid
language sql stable parallel safe
begin atomic
    select pubsub.id_at(clock_timestamp() + interval '1 ms');
end;

comment on function pubsub.seek_end is 'A message id above all that were published by now.';

/*
 * advance_seek — the next step of a job of kind seek or replay.
 *
 * Locks    the snapshot; the caller has locked the subscription and the job
 */
create function pubsub.advance_seek(p_job_id uuid, p_batch int)
returns void
language plpgsql volatile
as $$
declare
    v_job record;
    v_snapshot_id text;
    v_settle_upto uuid;
    v_upto uuid;
    v_step record;
    v_left bigint := p_batch;
begin
    select j.* into v_job from pubsub_data.jobs j where j.job_id = p_job_id;
    v_settle_upto := v_job.arguments ->> 'settle_upto';
    v_upto := v_job.arguments ->> 'upto';
    v_snapshot_id := v_job.arguments ->> 'snapshot_id';
    if v_snapshot_id is not null then
        perform 1 from pubsub_data.snapshots n where n.snapshot_id = v_snapshot_id for key share;
        if not found then
            raise exception 'the snapshot was deleted';
        end if;
    end if;

    while v_left > 0 and v_job.position < v_upto loop
        if v_job.position >= v_settle_upto then
            select s.reached, s.scanned, s.changed into v_step
            from pubsub.redeliver_range(v_job.topic_key, v_job.subscription_key, v_job.position,
                v_upto, v_left::int, v_job.arguments -> 'filter', v_snapshot_id,
                v_job.arguments ? 'catching_up') s;
        elsif v_snapshot_id is not null then
            select s.reached, s.scanned, s.changed, s.part into v_step
            from pubsub.settle_to_snapshot(v_job.topic_key, v_job.subscription_key, v_snapshot_id,
                (v_job.arguments ->> 'part')::int, v_job.position, v_settle_upto,
                v_left::int) s;
            v_job.arguments := v_job.arguments || jsonb_build_object('part', v_step.part);
        else
            select s.reached, s.settled as scanned, s.settled as changed into v_step
            from pubsub.settle_range(v_job.topic_key, v_job.subscription_key, v_job.position,
                v_settle_upto, v_left::int, '{}') s;
        end if;
        v_job.position := v_step.reached;
        v_job.scanned := v_job.scanned + v_step.scanned;
        v_job.changed := v_job.changed + v_step.changed;
        v_left := v_left - v_step.scanned;
    end loop;

    if v_job.position >= v_upto then
        v_job.arguments := pubsub.catch_up_seek(v_job.arguments);
        if v_job.arguments ? 'catching_up' and (v_job.arguments ->> 'upto')::uuid > v_upto then
            v_job.position := v_job.arguments ->> 'settle_upto';
        elsif not v_job.arguments ? 'catch_up' then
            v_job.state := 'done';
        end if;
    end if;
    update pubsub_data.jobs j
    set arguments = v_job.arguments, position = v_job.position, scanned = v_job.scanned,
        changed = v_job.changed, state = v_job.state, updated_at = clock_timestamp()
    where j.job_id = p_job_id;
end
$$;

comment on function pubsub.advance_seek is 'Make the next step of a seek or replay.';

/*
 * oldest_open_id — an id below which every publish has committed or rolled back.
 *
 * Out      the begin of the oldest transaction that has written and is open, and 10 s back at least:
 *          an id is older than its commit. It does not see transactions that pg_stat_activity hides
 *          from this role, nor prepared ones
 */
create function pubsub.oldest_open_id()
returns uuid
language sql volatile parallel restricted
as $$
    -- what is there now, not what this transaction saw when it first looked
    select pg_stat_clear_snapshot();
    select pubsub.id_at(least(clock_timestamp() - interval '10 seconds', min(a.xact_start)))
    from pg_stat_activity a
    where a.datname = current_database() and a.backend_xid is not null
        and a.pid <> pg_backend_pid()
$$;

comment on function pubsub.oldest_open_id is
    'A message id below which every publish has committed or rolled back.';

/*
 * catch_up_seek — for a new subscription, look once more at what publishers committed meanwhile.
 *
 * A publish that began before the subscription was committed does not know it, and what it publishes may
 * be committed after the job has passed its ids. So, at the end, the job waits until every transaction
 * that was open then is over, and looks again from the oldest of their ids on; what came in between by
 * an ordinary publish and was acked is left out.
 *
 * In       the arguments of a job that has come to its end
 * Out      the same, with a new stretch to go when it is time for it
 */
create function pubsub.catch_up_seek(p_arguments jsonb)
returns jsonb
language plpgsql stable parallel restricted
as $$
declare
    v_catch_up constant jsonb := p_arguments -> 'catch_up';
begin
    if v_catch_up is null
        -- not committed yet
        or v_catch_up ->> 'begun_by' = pg_current_xact_id_if_assigned()::text
    then
        return p_arguments;
    end if;
    if not v_catch_up ? 'horizon' then
        return jsonb_set(p_arguments, '{catch_up}', v_catch_up || jsonb_build_object(
            'horizon', pg_snapshot_xmax(pg_current_snapshot())::text,
            'upto', pubsub.seek_end(),
            -- a statement that began without a transaction id has one by then
            'not_before', clock_timestamp() + interval '5 seconds'));
    end if;
    -- one further ahead was noted before the clock was set back
    if (v_catch_up ->> 'not_before')::timestamptz
            between clock_timestamp() and clock_timestamp() + interval '5 seconds'
        or pg_snapshot_xmin(pg_current_snapshot()) < (v_catch_up ->> 'horizon')::xid8
    then
        return p_arguments;
    end if;
    return p_arguments - 'catch_up' || jsonb_build_object('catching_up', true,
        'settle_upto', v_catch_up -> 'from', 'upto', v_catch_up -> 'upto');
end
$$;

comment on function pubsub.catch_up_seek is
    'For a new subscription: when to look again at what publishers committed meanwhile.';

/*
 * start_subscription — give a new subscription the retained messages from a time on.
 *
 * In       p_time: at or after it; one in the future is now
 * Effects  begins a job, which ends a few seconds after this transaction at the earliest
 */
create function pubsub.start_subscription(p_subscription_id text, p_time timestamptz)
returns void
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_from constant uuid := pubsub.id_at(least(p_time, clock_timestamp()));
begin
    perform pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek', jsonb_build_object(
        'request', jsonb_build_object('start_from', p_time),
        'settle_upto', v_from, 'upto', pubsub.seek_end(),
        'catch_up', jsonb_build_object('from', greatest(v_from, pubsub.oldest_open_id()),
            'begun_by', pg_current_xact_id()::text)), v_from);
end
$$;

comment on function pubsub.start_subscription is
    'Give a new subscription the retained messages from a time on.';

/*
 * seek_subscription — go to a time: what was published at or after it and is retained is available
 * again, what is unsettled and was published before it is settled.
 *
 * In       p_time: to the millisecond; one in the future is now
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
begin
    if p_time is null then
        perform pubsub.fail_validation('time', 'time is required');
    end if;
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('request', jsonb_build_object('time', p_time),
                'settle_upto', pubsub.id_at(least(p_time, clock_timestamp())),
                'upto', pubsub.seek_end())) b;
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
    v_end constant uuid := pubsub.seek_end();
begin
    return query
        select b.*
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('request', jsonb_build_object('to', 'end'),
                'settle_upto', v_end, 'upto', v_end)) b;
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
                'settle_upto', v_snapshot.position, 'upto', pubsub.seek_end())) b;
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
    v_now constant timestamptz := clock_timestamp();
    v_from constant uuid := pubsub.id_at(
        least(coalesce(p_since, '-infinity'), v_now + interval '1 ms'));
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
                'upto', pubsub.id_at(least(p_until, v_now + interval '1 ms'))), v_from) b;
end
$$;

comment on function pubsub.replay_messages is
    'Make retained messages that match a filter available again, without settling others.';
