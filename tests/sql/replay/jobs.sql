/* Jobs: steps, their bounds, being cancelled, failing. */

do $$
declare
    c_proves constant text := 'a job goes on step by step and shows how far it has come';
    v_ids uuid[] := pg_temp.stock('steps', 10);
    v_keys record := pubsub.subscription_keys('steps');
    v_job_id uuid;
    v_reached timestamptz;
    v_job record;
begin
    perform pubsub.ack_messages('steps', (pg_temp.claim('steps'))[3:10]);
    insert into pubsub_data.jobs (topic_key, subscription_key, kind, arguments, position)
    select v_keys.topic_key, v_keys.subscription_key, 'seek',
        jsonb_build_object('settle_upto', v_ids[1], 'upto', v_ids[8]), pubsub.id_at('2020-01-01')
    returning job_id into v_job_id;

    for v_step in 1 .. 3 loop
        if v_step = 1 then
            perform pubsub.advance_seek(v_job_id, 3);
        else
            assert pubsub.advance_job(v_job_id, 3), c_proves;
        end if;
        select g.* into v_job from pubsub.get_job(v_job_id) g;
        -- one settled and two looked at, three, two
        assert v_job.scanned = (array[3, 6, 8])[v_step] and v_job.changed = (array[2, 5, 7])[v_step],
            format('%s: step %s gives %s', c_proves, v_step, v_job);
        assert v_job.state = case v_step when 3 then 'done' else 'running' end, c_proves;
        assert v_job.reached >= v_reached or v_step = 1, c_proves;
        v_reached := v_job.reached;
    end loop;
    assert not pubsub.advance_job(v_job_id, 3), c_proves || ': done';
    assert pg_temp.counts('steps') = '6 available, 1 delivered, 0 scheduled, 8 acked, 0 dlq',
        c_proves || ': ' || pg_temp.counts('steps');
    assert pg_temp.reread('steps') = v_ids[3:8], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the first step is made at once, the rest by advance_jobs; one job at a time';
    v_ids uuid[];
    v_job record;
begin
    perform pg_temp.stock('rest');
    v_ids := pg_temp.publish('rest', 10001);
    select s.* into v_job from pubsub.seek_subscription_to_end('rest') s;
    assert v_job.state = 'running' and v_job.changed = 10000 and v_job.reached < v_job.until, c_proves;

    assert pg_temp.refusal($q$select pubsub.seek_subscription_to_end('rest')$q$)
        = 'PS409 Another job of this subscription is running', c_proves;
    assert (select count(*) from pubsub.list_jobs('rest')) = 1, c_proves || ': nothing of the other';
    -- new ones are none of its business
    perform pg_sleep(0.002);
    v_ids := pg_temp.publish('rest', 1);
    while (select g.state from pubsub.get_job(v_job.id) g) = 'running' loop
        assert pubsub.advance_jobs(), c_proves;
    end loop;
    assert (select g.state = 'done' and g.changed = 10001 and g.error is null
        from pubsub.get_job(v_job.id) g), c_proves;
    assert pg_temp.reread('rest') = v_ids, c_proves;
    assert (select s.state from pubsub.seek_subscription_to_end('rest') s) = 'done', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a job that is cancelled stops, keeps what it did, and frees the subscription';
    v_job record;
begin
    perform pg_temp.stock('cancel', 10005);
    select s.* into v_job from pubsub.seek_subscription_to_end('cancel') s;

    assert (select c.state = 'cancelled' and c.changed = 10000 from pubsub.cancel_job(v_job.id) c),
        c_proves;
    assert not pubsub.advance_job(v_job.id), c_proves;
    assert (select m.available from pubsub.subscription_metrics('cancel') m) = 5, c_proves;
    assert (select s.state = 'done' and s.changed = 5 from pubsub.seek_subscription_to_end('cancel') s),
        c_proves;
    select l.* into v_job from pubsub.list_jobs('cancel', 0, 1) l;
    assert (select c.state from pubsub.cancel_job(v_job.id) c) = 'done', c_proves || ': one that is over';
end
$$;

do $$
declare
    c_proves constant text := 'a step that cannot be made fails its job, which says why';
    v_keys record;
    v_job_id uuid;
begin
    perform pg_temp.stock('fail', 1);
    v_keys := pubsub.subscription_keys('fail');
    insert into pubsub_data.jobs (topic_key, subscription_key, kind, arguments, position)
    values (v_keys.topic_key, v_keys.subscription_key, 'seek',
        '{"upto": "x", "settle_upto": "x"}', pubsub.id_at(now()))
    returning job_id into v_job_id;

    assert pubsub.advance_job(v_job_id), c_proves;
    assert (
        select j.state = 'failed' and j.error like 'invalid input syntax for type uuid%'
        from pubsub_data.jobs j where j.job_id = v_job_id
    ), c_proves;
    assert not pubsub.advance_job(v_job_id), c_proves;
    -- so does the first
    assert (
        select b.state = 'failed' and b.error is not null
        from pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek',
            jsonb_build_object('settle_upto', '-', 'upto', gen_random_uuid())) b
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'jobs are listed, the newest first, by subscription or all';
    v_ids uuid[];
begin
    delete from pubsub_data.jobs;
    perform pg_temp.stock('list-a');
    perform pg_temp.stock('list-b');
    perform pubsub.seek_subscription_to_end('list-a');
    perform pubsub.seek_subscription_to_end('list-b');
    perform pubsub.replay_messages('list-a', null);

    assert array(select l.subscription_id || ' ' || l.kind from pubsub.list_jobs() l)
        = array['list-a replay', 'list-b seek', 'list-a seek'], c_proves;
    assert array(select l.kind from pubsub.list_jobs('list-a') l) = array['replay', 'seek'], c_proves;
    assert array(select l.kind from pubsub.list_jobs('list-a', 1, 1) l) = array['seek'], c_proves;
    assert array(select l.kind from pubsub.list_jobs('none') l) = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'jobs of a subscription go with it, and with their age';
begin
    update pubsub_data.jobs j set updated_at = now() - interval '8 days';
    perform pubsub.seek_subscription_to_end('list-a');
    assert (select count(*) from pubsub.list_jobs('list-a')) = 1, c_proves;
    assert (select count(*) from pubsub.list_jobs('list-b')) = 1, c_proves;
    perform pubsub.delete_subscription('list-b');
    assert (select count(*) from pubsub.list_jobs()) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown job is PS404, a batch out of range PS422';
begin
    assert pg_temp.refusal('select pubsub.get_job(gen_random_uuid())') = 'PS404 Job not found', c_proves;
    assert pg_temp.refusal('select pubsub.get_job(null)') = 'PS404 Job not found', c_proves;
    assert pg_temp.refusal('select pubsub.cancel_job(gen_random_uuid())') = 'PS404 Job not found', c_proves;
    assert not pubsub.advance_job(gen_random_uuid()), c_proves;
    assert pg_temp.refusal('select pubsub.advance_job(null, 0)') like 'PS422(batch) %', c_proves;
    assert pg_temp.refusal('select pubsub.advance_job(null, 100001)') like 'PS422(batch) %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the jobs that have ended lately can be listed, each once';
begin
    perform pg_temp.stock('ended', 3);
    perform pubsub.seek_subscription_to_end('ended');
    perform pubsub.advance_jobs();
    assert (
        select count(*) = 1 and bool_and(j.state = 'done' and j.kind = 'seek')
        from pubsub.list_ended_jobs(interval '1 minute') j where j.subscription_id = 'ended'
    ), c_proves;
    assert not exists (select from pubsub.list_ended_jobs(interval '0')), c_proves;
end
$$;
