/*
 * Jobs: work that goes over many messages. A job moves in steps, each a transaction of its own over a
 * bounded number of messages, so that it blocks nobody for long, shows how far it has come and can be
 * cancelled. What a step has done stays done. The server makes the steps; from psql, advance_jobs does.
 *
 *   running    steps are to come
 *   done       all of them were made
 *   cancelled  by cancel_job
 *   failed     a step could not be made, error says why
 */

/*
 * begin_job — note a job of a subscription and make its first step.
 *
 * In       p_arguments: request is what the caller asked for, the rest is for the steps;
 *          p_position: the message id it starts after
 * Out      the job, after that step
 * Errors   PS409 another job of the subscription is running
 * Locks    the subscription's row, so that of two callers one is refused
 */
create function pubsub.begin_job(
    p_topic_key bigint, p_subscription_key bigint, p_kind text, p_arguments jsonb,
    p_position uuid default '00000000-0000-0000-0000-000000000000'
)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
declare
    v_job_id uuid;
begin
    perform pubsub.lock_subscription(p_topic_key, p_subscription_key);
    if exists (
        select 1 from pubsub_data.jobs j
        where j.topic_key = p_topic_key and j.subscription_key = p_subscription_key
            and j.state = 'running'
    ) then
        raise exception 'Another job of this subscription is running' using errcode = 'PS409';
    end if;
    delete from pubsub_data.jobs j
    where j.topic_key = p_topic_key and j.subscription_key = p_subscription_key
        and j.updated_at < clock_timestamp() - interval '7 days';
    insert into pubsub_data.jobs (topic_key, subscription_key, kind, arguments, position)
    values (p_topic_key, p_subscription_key, p_kind, p_arguments, p_position)
    returning job_id into v_job_id;
    perform pubsub.advance_job(v_job_id);
    return query select g.* from pubsub.get_job(v_job_id) g;
end
$$;

comment on function pubsub.begin_job is
    'Note a job of a subscription and make its first step; returns it.';

/*
 * advance_job — make the next step of a job.
 *
 * In       p_batch: how many messages a step may look at
 * Out      whether it made one: not when the job is over, or another session holds the subscription
 * Errors   PS422 (batch 1 to 100000). One in the step makes the job failed, unless it goes by itself
 */
create function pubsub.advance_job(p_job_id uuid, p_batch int default 10000)
returns boolean
language plpgsql volatile
set lock_timeout = '2s'
as $$
declare
    v_kind text;
begin
    if p_batch is null or p_batch not between 1 and 100000 then
        perform pubsub.fail_validation('batch', 'batch must be 1 to 100000');
    end if;
    perform 1
    from pubsub_data.jobs j
    join pubsub_data.subscriptions s
        on s.topic_key = j.topic_key and s.subscription_key = j.subscription_key
    where j.job_id = p_job_id and j.state = 'running'
    for no key update of s skip locked;
    if not found then
        return false;
    end if;
    select j.kind into v_kind
    from pubsub_data.jobs j
    where j.job_id = p_job_id and j.state = 'running'
    for update skip locked;
    if not found then
        return false;
    end if;
    begin
        if v_kind in ('seek', 'replay') then
            perform pubsub.advance_seek(p_job_id, p_batch);
        end if;
    exception
        when lock_not_available or deadlock_detected or serialization_failure then
            -- somebody else's transaction was in the way: the next call makes this step
            update pubsub_data.jobs j set updated_at = clock_timestamp() where j.job_id = p_job_id;
        when others then
            update pubsub_data.jobs j
            set state = 'failed', error = sqlerrm, updated_at = clock_timestamp()
            where j.job_id = p_job_id;
    end;
    return true;
end
$$;

comment on function pubsub.advance_job is
    'Make the next step of a job; whether there was one to make.';

/*
 * advance_jobs — make the next step of one of the jobs that are running.
 *
 * Out      whether there was one to make: call it until there is not
 * Errors   PS422 (batch 1 to 100000)
 */
create function pubsub.advance_jobs(p_batch int default 10000)
returns boolean
language plpgsql volatile
as $$
declare
    v_job_id uuid;
begin
    for v_job_id in
        select j.job_id from pubsub_data.jobs j
        where j.state = 'running' and j.kind in ('seek', 'replay')
        -- one whose steps are cut off every time must not keep the others from theirs
        order by random()
    loop
        if pubsub.advance_job(v_job_id, p_batch) then
            return true;
        end if;
    end loop;
    return false;
end
$$;

comment on function pubsub.advance_jobs is
    'Make the next step of one of the running jobs; whether there was one to make.';

/*
 * list_jobs — a page of the jobs of a subscription, or of all, the newest first.
 *
 * In       p_after: only those that come after this job; p_allowed: only of subscriptions that match it
 *          (matches_any)
 * Out      request: what was asked for · reached, until: how far in time the job has come, and how far
 *          it goes · scanned: messages looked at · changed: made available or settled
 * Errors   PS422 (after) no such job
 */
create function pubsub.list_jobs(
    p_subscription_id text default null, p_offset bigint default 0, p_limit int default 10,
    p_job_id uuid default null, p_after uuid default null, p_allowed text[] default null
)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql stable parallel safe
as $$
declare
    v_after timestamptz;
begin
    select j.created_at into v_after
    from pubsub_data.jobs j
    join pubsub_data.subscriptions s
        on s.topic_key = j.topic_key and s.subscription_key = j.subscription_key
    where j.job_id = p_after and pubsub.matches_any(s.subscription_id, p_allowed);
    if p_after is not null and not found then
        perform pubsub.fail_validation('after', 'after must be the id of a job');
    end if;
    return query
        select j.job_id, s.subscription_id, j.kind, j.state,
            coalesce(j.arguments -> 'request', '{}'),
            nullif(pubsub.id_time(j.position), '1970-01-01 00:00:00+00'),
            pubsub.id_time((j.arguments ->> 'upto')::uuid), j.scanned, j.changed, j.error,
            j.created_at, j.updated_at
        from pubsub_data.jobs j
        join pubsub_data.subscriptions s
            on s.topic_key = j.topic_key and s.subscription_key = j.subscription_key
        where (p_subscription_id is null or s.subscription_id = p_subscription_id)
            and (p_job_id is null or j.job_id = p_job_id)
            and pubsub.matches_any(s.subscription_id, p_allowed)
            and (p_after is null or j.created_at < v_after
                or j.created_at = v_after and j.job_id > p_after)
        order by j.created_at desc, j.job_id
        offset p_offset limit p_limit;
end
$$;

comment on function pubsub.list_jobs is 'A page of jobs, the newest first.';

/*
 * get_job — list_jobs of one job.
 *
 * In       p_allowed: only of a subscription that matches it (matches_any)
 * Errors   PS404
 */
create function pubsub.get_job(p_job_id uuid, p_allowed text[] default null)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql stable parallel safe
as $$
begin
    return query
        select l.*
        from pubsub.list_jobs(null, 0, 1, coalesce(p_job_id, gen_random_uuid()),
            p_allowed => p_allowed) l;
    if not found then
        raise exception 'Job not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.get_job is 'One job by its id.';

/*
 * cancel_job — stop a job after the step that is being made; what was done stays done.
 *
 * In       p_allowed: only of a subscription that matches it (matches_any)
 * Out      the job; one that is over stays as it is
 * Errors   PS404
 * Locks    waits for the step
 */
create function pubsub.cancel_job(p_job_id uuid, p_allowed text[] default null)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language plpgsql volatile
as $$
begin
    perform 1 from pubsub.get_job(p_job_id, p_allowed);
    update pubsub_data.jobs j
    set state = 'cancelled', updated_at = clock_timestamp()
    where j.job_id = p_job_id and j.state = 'running';
    return query select g.* from pubsub.get_job(p_job_id) g;
end
$$;

comment on function pubsub.cancel_job is
    'Stop a job after its current step, keeping what was done; returns it.';

/*
 * list_ended_jobs — the jobs that have ended lately, in the order in which they did.
 */
create function pubsub.list_ended_jobs(p_within interval)
returns table (
    id uuid, subscription_id text, kind text, state text, request jsonb, reached timestamptz,
    until timestamptz, scanned bigint, changed bigint, error text, created_at timestamptz,
    updated_at timestamptz
)
language sql stable parallel safe
as $$
    select l.*
    from pubsub_data.jobs j
    cross join lateral pubsub.list_jobs(null, 0, 1, j.job_id) l
    where j.state <> 'running' and j.updated_at > clock_timestamp() - p_within
    order by j.updated_at
$$;

comment on function pubsub.list_ended_jobs is 'The jobs that have ended lately, for the log.';
