/* Seeking to a time, to the end, and replaying what matches a filter. */

do $$
declare
    c_proves constant text :=
        'a seek back makes what was published from then on available, and settles what was before';
    v_ids uuid[];
    v_job record;
begin
    perform pg_temp.stock('back');
    v_ids := pg_temp.publish_apart('back', 6);
    -- acked: 1, 4, 6; unread: 2, 3, 5
    perform pg_temp.claim('back');
    perform pubsub.ack_messages('back', array[v_ids[1], v_ids[4], v_ids[6]]);
    perform pubsub.nack_messages('back', array[v_ids[3]]);

    select s.* into v_job from pubsub.seek_subscription('back', pubsub.id_time(v_ids[3])) s;

    assert v_job.state = 'done' and v_job.kind = 'seek' and v_job.subscription_id = 'back', c_proves;
    assert v_job.scanned = 1 + 4 and v_job.changed = 1 + 2, format('%s: %s', c_proves, v_job);
    assert v_job.request ->> 'time' is not null and v_job.error is null, c_proves;
    assert v_job.reached = v_job.until and v_job.until > pubsub.id_time(v_ids[6]), c_proves;
    assert pg_temp.counts('back') = '2 available, 1 delivered, 1 scheduled, 3 acked, 0 dlq',
        c_proves || ': ' || pg_temp.counts('back');
    assert pg_temp.reread('back') = array[v_ids[4], v_ids[6]], c_proves;
    assert pubsub.ack_messages('back', array[v_ids[2], v_ids[5]]) = 1, c_proves || ': lease lost';
end
$$;

do $$
declare
    c_proves constant text := 'a seek to the end settles everything but dead letters; what follows is new';
    v_ids uuid[] := pg_temp.stock('end', 5, 1);
    v_job record;
begin
    perform pg_temp.claim('end', 2);
    perform pubsub.nack_messages('end', v_ids[1:1]);

    select s.* into v_job from pubsub.seek_subscription_to_end('end') s;
    assert v_job.state = 'done' and v_job.changed = 4 and v_job.request = '{"to": "end"}', c_proves;
    assert pg_temp.counts('end') = '0 available, 0 delivered, 0 scheduled, 0 acked, 1 dlq', c_proves;
    perform pg_sleep(0.002);
    v_ids := pg_temp.publish('end', 2);
    assert pg_temp.claim('end') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a seek to a time to come is one to the end, to one long ago is one to all';
    v_ids uuid[];
begin
    perform pg_temp.stock('extremes');
    v_ids := pg_temp.publish_apart('extremes', 3);
    assert (select s.changed from pubsub.seek_subscription('extremes', '9999-12-31') s) = 3, c_proves;
    assert (select s.changed from pubsub.seek_subscription('extremes', '-infinity') s) = 3, c_proves;
    assert (select s.changed from pubsub.seek_subscription('extremes', 'infinity') s) = 3, c_proves;
    assert (select s.changed from pubsub.seek_subscription('extremes', '0044-03-15 BC') s) = 3, c_proves;
    assert pg_temp.reread('extremes') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a replay brings back what matches and settles nothing';
    v_ids uuid[];
    v_job record;
    v_case record;
begin
    perform pg_temp.stock('replay');
    v_ids := pg_temp.publish_apart('replay', 2);
    v_ids := v_ids || array(select p.message_id from pubsub.publish_messages('replay', array['{"n": 2}']::jsonb[]) p);
    perform pg_sleep(0.002);
    v_ids := v_ids || pg_temp.publish_apart('replay', 2);
    perform pg_temp.claim('replay');
    perform pubsub.ack_messages('replay', v_ids[2:5]);

    select s.* into v_job from pubsub.replay_messages('replay', '{"n": [2]}') s;
    assert v_job.state = 'done' and v_job.kind = 'replay' and v_job.scanned = 5 and v_job.changed = 1
        and v_job.request = '{"filter": {"n": [2]}}', format('%s: %s', c_proves, v_job);
    assert pg_temp.counts('replay') = '1 available, 1 delivered, 0 scheduled, 4 acked, 0 dlq', c_proves;
    for v_case in
        select *
        from (values (4, 5, 1), (1, 1, 0), (1, 3, 1), (2, null, 1)) c (first, upto, changed)
    loop
        select s.* into v_job from pubsub.replay_messages('replay', null,
            pubsub.id_time(v_ids[v_case.first]), pubsub.id_time(v_ids[v_case.upto])) s;
        assert v_job.changed = v_case.changed, format('%s: %s gives %s', c_proves, v_case, v_job);
    end loop;
    assert pg_temp.reread('replay') = v_ids[2:5], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be sought is refused';
    v_case record;
begin
    perform pg_temp.stock('refused', 1);
    for v_case in
        select *
        from (values
            ($q$seek_subscription('none', now())$q$, 'PS404 Subscription not found'),
            ($q$seek_subscription_to_end('none')$q$, 'PS404 Subscription not found'),
            ($q$replay_messages('none', null)$q$, 'PS404 Subscription not found'),
            ($q$seek_subscription('refused', null)$q$, 'PS422(time) time is required'),
            ($q$replay_messages('refused', '{"a": 1}')$q$, 'PS422(filter) %'),
            ($q$replay_messages('refused', null, now(), now() - interval '1 s')$q$,
                'PS422(until) until must not be before since')
        ) c (call, refusal)
    loop
        assert pg_temp.refusal('select pubsub.' || v_case.call) like v_case.refusal,
            c_proves || ': ' || v_case.call;
    end loop;
    assert pg_temp.refusal($q$select pubsub.start_subscription('none', now())$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'what was published before the clock was set back is sought to, settled and replayed';
    v_ids uuid[] := pg_temp.before_the_step(pg_temp.stock('step', 3));
    v_time timestamptz := pubsub.id_time(v_ids[1]);
    v_new uuid[];
    v_case record;
begin
    assert (select s.changed from pubsub.seek_subscription_to_end('step') s) = 3, c_proves || ': to the end';
    assert pg_temp.reread('step') = '{}', c_proves || ': to the end';
    assert (select s.changed from pubsub.seek_subscription('step', now() - interval '1 hour') s) = 3,
        c_proves || ': to a time before';
    v_new := pg_temp.publish('step', 1);
    assert (select s.changed from pubsub.seek_subscription('step', v_time) s) = 1,
        c_proves || ': to their time';
    assert pg_temp.reread('step') = v_ids, c_proves || ': to their time';
    assert (select s.changed from pubsub.seek_subscription('step', 'infinity') s) = 3,
        c_proves || ': to a time to come';
    for v_case in
        select *
        from (values
            (v_time + interval '1 ms', null, 0), (null, v_time, 1), (v_time, null, 3),
            (null, null, 0)
        ) c (since, until, changed)
    loop
        assert (select s.changed from pubsub.replay_messages('step', null, v_case.since, v_case.until) s)
            = v_case.changed, format('%s: %s', c_proves, v_case);
    end loop;
    assert pg_temp.reread('step') = v_new || v_ids, c_proves || ': by a replay';
end
$$;
