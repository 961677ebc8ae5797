/*
 * The steps of seeks and replays, which are jobs. The arguments of such a job:
 *   request          what was asked for
 *   settle_upto      deliveries up to this id are settled, or brought to the snapshot
 *   number_upto      of them, those that end in a higher one are left (new_message_number)
 *   upto             messages after it, up to this id, are made available again
 *   snapshot_id, part  the snapshot, and how much of it is done
 *   filter           the messages to make available match it
 *   catch_up         of a new subscription, see catch_up_seek
 *
 * Messages published while the job runs are delivered by their publish, as ever, and lie after upto; or
 * before it, once the clock was set back, but then above number_upto.
 */

/*
 * advance_seek — the next step of a job of kind seek or replay.
 *
 * Locks    the snapshot, runs, deliveries; the caller has locked the subscription and the job
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

    -- of what is to be settled, all runs before the first delivery, as everybody locks them; what comes to be in
    -- the way meanwhile is the next call's
    perform pubsub.break_up_range(v_job.topic_key, v_job.subscription_key, v_job.position,
        case when v_snapshot_id is null then v_settle_upto else v_upto end, p_batch);
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
                v_left::int, v_job.arguments ->> 'number_upto') s;
            v_job.arguments := v_job.arguments || jsonb_build_object('part', v_step.part);
        else
            select s.reached, s.settled as scanned, s.settled as changed into v_step
            from pubsub.settle_range(v_job.topic_key, v_job.subscription_key, v_job.position,
                v_settle_upto, v_left::int, '{}', v_job.arguments ->> 'number_upto') s;
        end if;
        exit when v_step.reached = v_job.position;
        v_job.position := v_step.reached;
        v_job.scanned := v_job.scanned + v_step.scanned;
        v_job.changed := v_job.changed + v_step.changed;
        v_left := v_left - v_step.scanned;
    end loop;

    if v_job.position >= v_upto then
        v_job.arguments := pubsub.catch_up_seek(v_job.topic_key, v_job.arguments);
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
 * catch_up_seek — for a new subscription, look once more at what publishers committed meanwhile.
 *
 * A publish that began before the subscription was committed does not know it, and what it publishes may
 * be committed after the job has passed its ids. So, at the end, the job waits until every transaction
 * that was open then is over, and looks again from the oldest of their ids on; what came in between by
 * an ordinary publish and was acked is left out.
 *
 * In       p_arguments: of a job that has come to its end
 * Out      the same, with a new stretch to go when it is time for it
 */
create function pubsub.catch_up_seek(p_topic_key bigint, p_arguments jsonb)
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
            'upto', pubsub.seek_end(p_topic_key),
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
