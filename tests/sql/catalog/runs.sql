/* Runs: one row for the deliveries of many messages, until somebody treats one of them differently. */

/* singles — how many single deliveries a subscription has. */
create function pg_temp.singles(p_name text)
returns bigint
language sql stable
as $$
    select count(*)
    from pubsub_data.deliveries d
    join pubsub_data.subscriptions s using (topic_key, subscription_key)
    where s.subscription_id = p_name
$$;

do $$
declare
    c_proves constant text := 'a run begins with an id of its hundred';
begin
    assert pubsub.run_start('01a22882-aaf9-7000-8000-0000000200c9')
        = '01a22882-aaf9-7000-8000-0000000200c8', c_proves;
    assert pubsub.run_start('01a22882-aaf9-7000-8000-000000060063')
        = '01a22882-aaf9-7000-8000-000000060000', c_proves;
    assert pubsub.run_start('01a22882-aaf9-7000-8000-00000007869f')
        = '01a22882-aaf9-7000-8000-00000007863c', c_proves;
    assert pubsub.least_run() between 2 and 100, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a ready run that is broken up is deliveries that nobody ever had';
    v_ids uuid[] := pg_temp.stock_runs('ready', 100);
    v_keys record := pubsub.subscription_keys('ready');
begin
    assert pg_temp.runs('ready') = '100 ready', c_proves;
    -- what settles looks for leases alone
    assert pubsub.ack_messages('ready', v_ids[3:50]) = 0, c_proves;
    perform pubsub.single_out(v_keys.topic_key, v_keys.subscription_key, v_ids);
    assert pg_temp.runs('ready') = '100 ready', c_proves;
    assert pubsub.first_run(v_keys.topic_key, v_keys.subscription_key, v_ids[99], v_ids[100])
        = v_ids[1], c_proves;
    assert pubsub.first_run(v_keys.topic_key, v_keys.subscription_key, v_ids[100],
        'ffffffff-ffff-ffff-ffff-ffffffffffff') is null, c_proves;
    assert (
        select array_agg(b order by b) = v_ids
        from unnest(pubsub.break_up_runs(
            v_keys.topic_key, v_keys.subscription_key, v_ids[1:1])) b
    ), c_proves;
    assert pg_temp.runs('ready') = '' and (
        select count(*) = 100 and bool_and(d.visible_at = '-infinity' and d.attempts = 0
            and d.lease is null and d.is_large is null)
        from pubsub_data.deliveries d
        where d.message_id = any(v_ids)
    ), c_proves;
    assert pubsub.recount_messages('ready') = 0, c_proves;
    assert pg_temp.claim('ready') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a leased run that is broken up is deliveries of the same lease';
    v_ids uuid[] := pg_temp.stock_runs('held', 100);
    v_keys record := pubsub.subscription_keys('held');
    v_lease bigint;
    v_deadline timestamptz;
begin
    select max(c.lease), max(c.ack_deadline) into v_lease, v_deadline
    from pubsub.consume_messages('held', 'me', 100) c;
    assert pg_temp.runs('held') = '100 me', c_proves;
    for v_call in 1 .. 2 loop
        perform pubsub.single_out(v_keys.topic_key, v_keys.subscription_key, v_ids[7:7]);
        assert pg_temp.runs('held') = '' and pg_temp.singles('held') = 100, c_proves || v_call;
    end loop;
    assert (
        select count(*) = 100 and bool_and(d.visible_at = v_deadline and d.attempts = 1
            and d.lease = v_lease and d.consumer_id = 'me' and d.leased_at is not null)
        from pubsub_data.deliveries d
        where d.message_id = any(v_ids)
    ), c_proves;
    assert (
        select bool_or(w.message_ids = v_ids)
        from pubsub_data.wakeups w
        where w.subscription_key = v_keys.subscription_key and w.due_at = v_deadline
    ), c_proves || ': a wake-up';
    assert pubsub.recount_messages('held') = 0, c_proves;
    assert pubsub.ack_messages('held', v_ids, array_fill(v_lease, array[100])) = 100, c_proves;
    assert pubsub.recount_messages('held') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is done to one message of a run is done to no other';
    v_action text;
    v_name text;
    v_ids uuid[];
    v_lease bigint;
begin
    foreach v_action in array array['ack', 'ack by id', 'nack', 'extend', 'release', 'settle ack',
        'settle nack', 'settle reject', 'settle extend', 'transaction'] loop
        v_name := replace('one.' || v_action, ' ', '.');
        v_ids := pg_temp.stock_runs(v_name, 250);
        select max(c.lease) into v_lease from pubsub.consume_messages(v_name, 'c', 200) c;
        assert pg_temp.runs(v_name) = '100 c, 100 c, 50 ready', c_proves;
        case
            when v_action = 'ack' then
                assert pubsub.ack_messages(v_name, v_ids[5:5], array[v_lease]) = 1, c_proves;
            when v_action = 'ack by id' then
                assert pubsub.ack_messages(v_name, v_ids[5:5]) = 1, c_proves;
            when v_action = 'nack' then
                assert pubsub.nack_messages(v_name, v_ids[5:5], array[v_lease]) = 1, c_proves;
            when v_action = 'extend' then
                assert pubsub.extend_messages(v_name, v_ids[5:5], array[v_lease], 600) = 1, c_proves;
            when v_action = 'release' then
                assert pubsub.release_messages(v_name, v_ids[5:5], array[v_lease]) = 1, c_proves;
            when v_action = 'transaction' then
                perform pubsub.apply_transaction(p_ack_subscription_ids => array[v_name],
                    p_ack_message_ids => v_ids[5:5], p_ack_leases => array[v_lease]);
            else
                assert (
                    select s.status <> 'lease_lost'
                    from pubsub.settle_messages(v_name, v_ids[5:5], array[v_lease],
                        array[split_part(v_action, ' ', 2)],
                        case v_action when 'settle extend' then array[600] end) s
                ), c_proves || ': ' || v_action;
        end case;
        assert pg_temp.runs(v_name) = '100 c, 50 ready', c_proves || ': ' || v_action;
        assert (
            select count(*) = 99 and bool_and(d.lease = v_lease)
            from pubsub_data.deliveries d
            where d.message_id = any(v_ids[1:4] || v_ids[6:100])
        ), c_proves || ': ' || v_action;
        assert pubsub.recount_messages(v_name) = 0, c_proves || ': counts, ' || v_action;
        -- the holder settles the others, those of both runs in one call
        assert pubsub.ack_messages(v_name, v_ids[1:4] || v_ids[6:200],
            array_fill(v_lease, array[199])) = 199, c_proves || ': ' || v_action;
        assert pubsub.recount_messages(v_name) = 0, c_proves || ': counts, ' || v_action;
        assert pg_temp.runs(v_name) = '50 ready', c_proves || ': ' || v_action;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a stale lease settles nothing of a run';
    v_ids uuid[] := pg_temp.stock_runs('stale', 100);
    v_lease bigint;
begin
    select max(c.lease) into v_lease from pubsub.consume_messages('stale', 'c', 100) c;
    assert pubsub.ack_messages('stale', v_ids, array_fill(v_lease - 1, array[100])) = 0, c_proves;
    assert pubsub.ack_messages('stale', v_ids,
        array_fill(v_lease, array[99]) || (v_lease - 1)) = 99, c_proves;
    assert pubsub.recount_messages('stale') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs of a range are broken up, the first of them, as many as are wanted';
    v_ids uuid[] := pg_temp.stock_runs('range', 450);
    v_keys record := pubsub.subscription_keys('range');
begin
    perform pubsub.consume_messages('range', 'c', 100);
    perform pubsub.break_up_ready(
        v_keys.topic_key, v_keys.subscription_key, v_ids[1], v_ids[450], 120);
    assert pg_temp.runs('range') = '100 c, 100 ready, 50 ready', c_proves || pg_temp.runs('range');
    assert pg_temp.singles('range') = 200, c_proves;
    perform pubsub.break_up_range(v_keys.topic_key, v_keys.subscription_key, v_ids[50], v_ids[300],
        1000);
    assert pg_temp.runs('range') = '100 ready, 50 ready', c_proves || pg_temp.runs('range');
    assert pubsub.is_in_run(v_keys.topic_key, v_keys.subscription_key, v_ids[301]), c_proves;
    assert not pubsub.is_in_run(v_keys.topic_key, v_keys.subscription_key, v_ids[300]), c_proves;
    assert pubsub.oldest_unsettled(v_keys.topic_key, v_keys.subscription_key) = v_ids[1], c_proves;
    perform pubsub.ack_messages('range', v_ids[1:100]);
    assert pubsub.oldest_unsettled(v_keys.topic_key, v_keys.subscription_key) = v_ids[101], c_proves;
    assert pubsub.recount_messages('range') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'seeks, snapshots and replays see the messages of runs';
    v_ids uuid[] := pg_temp.stock_runs('sought', 250);
    v_keys record := pubsub.subscription_keys('sought');
begin
    perform pubsub.consume_messages('sought', 'c', 100);
    perform pubsub.ack_messages('sought', v_ids[1:100]);
    perform pubsub.create_snapshot('runs', 'sought');
    assert (
        select coalesce(sum(cardinality(m.message_ids)), 0) = 100
        from pubsub_data.snapshot_messages m where m.snapshot_id = 'runs'
    ), c_proves || ': those that were settled after the position';
    perform pubsub.seek_subscription_to_end('sought');
    while pubsub.advance_jobs() loop end loop;
    assert pg_temp.runs('sought') = '' and pg_temp.singles('sought') = 0, c_proves || ': the end';
    assert pubsub.recount_messages('sought') = 0, c_proves;
    perform pubsub.seek_subscription_to_snapshot('sought', 'runs');
    while pubsub.advance_jobs() loop end loop;
    assert pg_temp.singles('sought') = 150, c_proves || ': back to the snapshot';
    assert (select array_agg(i order by i) = v_ids[101:250] from unnest(pg_temp.claim('sought')) i),
        c_proves;
    assert pubsub.recount_messages('sought') = 0, c_proves;

    v_ids := pg_temp.stock_runs('replayed', 120);
    perform pubsub.consume_messages('replayed', 'c', 100);
    perform pubsub.ack_messages('replayed', v_ids[1:100]);
    perform pubsub.seek_subscription('replayed', '-infinity');
    while pubsub.advance_jobs() loop end loop;
    assert (select array_agg(i order by i) = v_ids from unnest(pg_temp.claim('replayed')) i), c_proves;
    assert pubsub.recount_messages('replayed') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a run keeps its messages, and leaves with its subscription';
    v_ids uuid[] := pg_temp.stock_runs('kept', 100);
begin
    assert pubsub.messages_are_needed(pubsub.id_at(clock_timestamp() - interval '1 minute'),
        pubsub.id_at(clock_timestamp() + interval '1 minute')), c_proves;
    perform pubsub.cleanup_default_messages(clock_timestamp() + interval '1 hour');
    assert (select count(*) = 100 from pubsub_data.messages m where m.message_id = any(v_ids)), c_proves;
    perform pubsub.delete_subscription('kept');
    perform pubsub.purge_deleted_subscriptions();
    assert not exists (select from pubsub_data.runs r where r.run_id = any(v_ids)), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the view and the timeline tell messages of runs as those of deliveries';
    v_ids uuid[] := pg_temp.stock_runs('seen', 150);
begin
    perform pubsub.consume_messages('seen', 'me', 100);
    assert (
        select array_agg(s.told order by s.told) = array['available 50 0 -', 'delivered 100 1 me']
        from (
            select format('%s %s %s %s', m.state, count(*), m.attempts, coalesce(m.consumer_id, '-')) as told
            from pubsub.subscription_messages m
            where m.subscription_id = 'seen'
            group by m.state, m.attempts, m.consumer_id
        ) s
    ), c_proves;
    assert (
        select array_agg(t.state || ' ' || t.event order by t.at) = array['delivered published',
            'delivered delivered']
        from pubsub.message_timeline(v_ids[3]) t
    ), c_proves;
    assert (
        select array_agg(t.state || ' ' || t.event) = array['available published']
        from pubsub.message_timeline(v_ids[130]) t
    ), c_proves;
end
$$;
