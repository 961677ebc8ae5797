/* Snapshots: made, sought to, listed, deleted. */

do $$
declare
    c_proves constant text :=
        'a seek to a snapshot restores what was unsettled then, adds what came after, settles the rest';
    v_old uuid[];
    v_ids uuid[];
    v_job record;
begin
    perform pg_temp.stock('place');
    -- two from long before the snapshot''s margin, then fresh ones
    v_old := array[pubsub.id_at(clock_timestamp() - interval '2 hours'),
        pubsub.id_at(clock_timestamp() - interval '1 hour'),
        pubsub.id_at(clock_timestamp() - interval '30 minutes')];
    insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
    select k.topic_key, i.id, '{}', now()
    from pubsub.subscription_keys('place') k, unnest(v_old) as i (id);
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
    select k.topic_key, k.subscription_key, i.id
    from pubsub.subscription_keys('place') k, unnest(v_old) as i (id);
    perform pubsub.recount_messages('place');
    v_ids := pg_temp.publish_apart('place', 4);
    perform pubsub.ack_messages('place', array[v_old[1], v_ids[1]] || (pg_temp.claim('place', 4))[1:0]);

    assert (select c.id = 'snap' and c.subscription_id = 'place' and c.topic_id = 'place'
        from pubsub.create_snapshot('snap', 'place') c), c_proves;

    -- after it: old 2 and new 2 are acked; old 1 and new 1, which were, are sought back; one is new
    perform pubsub.ack_messages('place', array[v_old[2], v_ids[2]]);
    perform pubsub.replay_messages('place', null, null, pubsub.id_time(v_ids[2]));
    v_ids := v_ids || pg_temp.publish('place');
    perform pubsub.ack_messages('place', (pg_temp.reread('place'))[1:0] || v_ids[5:5]);

    select s.* into v_job from pubsub.seek_subscription_to_snapshot('place', 'snap') s;
    assert v_job.state = 'done' and v_job.request = '{"snapshot_id": "snap"}', c_proves;
    assert array(
        select d.message_id
        from pubsub_data.deliveries d
        join pubsub.subscription_keys('place') k on k.subscription_key = d.subscription_key
        order by d.message_id
    ) = v_old[2:3] || v_ids[2:5], c_proves;
    perform pg_temp.counts('place');
end
$$;

do $$
declare
    c_proves constant text := 'a message that was committed after the snapshot is not lost, whatever its id';
    v_ids uuid[] := pg_temp.stock('late', 3);
    v_keys record := pubsub.subscription_keys('late');
    v_late uuid := pubsub.id_at(clock_timestamp() - interval '5 seconds');
begin
    perform pubsub.ack_messages('late', pg_temp.claim('late'));
    perform pubsub.create_snapshot('late-snap', 'late');
    insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
    values (v_keys.topic_key, v_late, '{}', now());
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
    values (v_keys.topic_key, v_keys.subscription_key, v_late);
    perform pubsub.recount_messages('late');

    perform pubsub.seek_subscription_to_snapshot('late', 'late-snap');
    assert pg_temp.reread('late') = array[v_late], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a snapshot of many messages is sought to part by part';
    v_ids uuid[] := pg_temp.stock('parts', 3500);
    v_keys record := pubsub.subscription_keys('parts');
    v_wanted uuid[];
    v_job_id uuid;
    v_step record;
begin
    -- every third is settled
    v_wanted := array(select v_ids[n] from generate_series(1, 3500) n where n % 3 <> 0);
    perform pg_temp.claim('parts', 1000) from generate_series(1, 4);
    perform pubsub.ack_messages('parts', array(select v_ids[n] from generate_series(3, 3500, 3) n));
    perform pubsub.create_snapshot('parts', 'parts');
    -- as if it had been made a minute later
    delete from pubsub_data.snapshot_messages;
    insert into pubsub_data.snapshot_messages (snapshot_id, part, message_ids)
    select 'parts', (w.n - 1) / 1000 + 1, array_agg(w.id order by w.id)
    from unnest(v_wanted) with ordinality as w (id, n)
    group by 2;
    update pubsub_data.snapshots n set position = pubsub.seek_end(v_keys.topic_key)
    where n.snapshot_id = 'parts';
    -- then the first half is acked, and the settled ones come back
    perform pubsub.ack_messages('parts', v_ids[1:1750]);
    perform pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key,
        array(select v_ids[n] from generate_series(3, 3500, 3) n));

    select s.* into v_step from pubsub.settle_to_snapshot(v_keys.topic_key, v_keys.subscription_key,
        'parts', 1, pubsub.id_at('2020-01-01'), pubsub.seek_end(v_keys.topic_key), 10000) s;
    assert v_step.part = 2 and v_step.reached = v_wanted[1000] and v_step.scanned = 499 + 1000
        and v_step.changed = 499 + 1000, format('%s: %s', c_proves, v_step);
    insert into pubsub_data.jobs (topic_key, subscription_key, kind, arguments, position)
    select v_keys.topic_key, v_keys.subscription_key, 'seek', jsonb_build_object('part', 1,
        'snapshot_id', 'parts', 'settle_upto', n.position, 'upto', n.position),
        pubsub.id_at('2020-01-01')
    from pubsub_data.snapshots n where n.snapshot_id = 'parts'
    returning job_id into v_job_id;
    for v_step in 1 .. 50 loop
        exit when not pubsub.advance_job(v_job_id, 300);
    end loop;

    assert (select g.state = 'done' from pubsub.get_job(v_job_id) g), c_proves;
    assert array(
        select d.message_id from pubsub_data.deliveries d
        where d.subscription_key = v_keys.subscription_key order by d.message_id
    ) = v_wanted, c_proves;
    perform pg_temp.counts('parts');
end
$$;

do $$
declare
    c_proves constant text := 'another subscription of the topic may seek to a snapshot, of another may not';
begin
    perform pg_temp.stock('own', 2);
    perform pubsub.create_subscription('own-too', 'own');
    perform pg_temp.stock('foreign');
    perform pubsub.ack_messages('own', (pg_temp.claim('own'))[1:1]);
    perform pubsub.create_snapshot('own', 'own');

    perform pubsub.seek_subscription_to_snapshot('own-too', 'own');
    assert cardinality(pg_temp.reread('own-too')) = 1, c_proves;
    assert pg_temp.refusal($q$select pubsub.seek_subscription_to_snapshot('foreign', 'own')$q$)
        = 'PS422(snapshot_id) snapshot_id must be a snapshot of the subscription''s topic', c_proves;
    assert pg_temp.refusal($q$select pubsub.seek_subscription_to_snapshot('own', 'none')$q$)
        = 'PS404 Snapshot not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.seek_subscription_to_snapshot('none', 'own')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a snapshot has a valid id of its own and a subscription';
begin
    assert pg_temp.refusal($q$select pubsub.create_snapshot('own', 'own-too')$q$)
        = 'PS409 This snapshot already exists', c_proves;
    assert pg_temp.refusal($q$select pubsub.create_snapshot('s', 'none')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.create_snapshot('a b', 'own')$q$) like 'PS422(id) %', c_proves;
    assert pg_temp.refusal($q$select pubsub.create_snapshot(null, 'own')$q$) like 'PS422(id) %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'snapshots are listed by id, deleted by name or with their subscription';
begin
    delete from pubsub_data.snapshots;
    perform pubsub.create_snapshot(n.id, n.of)
    from (values ('b', 'own'), ('A', 'own-too'), ('a', 'own')) n (id, of);

    assert array(select l.id || ' ' || l.subscription_id from pubsub.list_snapshots() l)
        = array['A own-too', 'a own', 'b own'], c_proves;
    assert array(select l.id from pubsub.list_snapshots(1, 1) l) = array['a'], c_proves;
    perform pubsub.delete_snapshot('a');
    assert array(select l.id from pubsub.list_snapshots() l) = array['A', 'b'], c_proves;
    assert pg_temp.refusal($q$select pubsub.delete_snapshot('a')$q$) = 'PS404 Snapshot not found', c_proves;
    perform pubsub.delete_subscription('own');
    assert array(select l.id from pubsub.list_snapshots() l) = array['A'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a snapshot that a running job needs stays; a job whose snapshot is gone fails';
    v_job record;
begin
    perform pg_temp.stock('needed', 10001);
    perform pubsub.create_snapshot('needed', 'needed');
    select s.* into v_job from pubsub.seek_subscription_to_snapshot('needed', 'needed') s;
    assert v_job.state = 'running', c_proves;

    assert pg_temp.refusal($q$select pubsub.delete_snapshot('needed')$q$)
        = 'PS409 A running job seeks to this snapshot', c_proves;
    delete from pubsub_data.snapshots n where n.snapshot_id = 'needed';
    assert pubsub.advance_job(v_job.id), c_proves;
    assert (select g.state = 'failed' and g.error = 'the snapshot was deleted'
        from pubsub.get_job(v_job.id) g), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a snapshot made after the clock was set back has what was published before that';
    v_ids uuid[] := pg_temp.before_the_step(pg_temp.stock('step', 3));
begin
    perform pubsub.ack_messages('step', (pg_temp.claim('step'))[1:1]);
    perform pubsub.create_snapshot('step', 'step');
    perform pubsub.ack_messages('step', v_ids[2:3]);

    assert (select s.changed from pubsub.seek_subscription_to_snapshot('step', 'step') s) = 2, c_proves;
    assert pg_temp.reread('step') = v_ids[2:3], c_proves;
end
$$;
