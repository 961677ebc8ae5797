/* Purging: everything unsettled goes at once. */

do $$
declare
    c_proves constant text := 'a purge drops what waits, what is held and what is scheduled, and no other''s';
    v_ids uuid[] := pg_temp.stock_runs('purged', 300);
    v_handles record;
    v_later uuid[];
begin
    perform pubsub.create_subscription('beside', 'purged');
    v_ids := v_ids || pg_temp.publish('purged', 3);
    select array_agg(c.message_id) as ids, array_agg(c.lease) as leases into v_handles
    from pubsub.consume_messages('purged', 'me', 150) c;
    perform pubsub.nack_messages('purged', v_handles.ids[1:10], v_handles.leases[1:10]);
    perform pubsub.ack_messages('purged', v_handles.ids[11:20], v_handles.leases[11:20]);
    perform pubsub.purge_subscription('purged');

    assert pg_temp.counts('purged')
        = '0 available, 0 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
    assert not exists (select from pubsub.browse_messages('purged')), c_proves;
    assert pubsub.backlog_bytes('purged') = 0, c_proves;
    assert pg_temp.claim('purged') = '{}', c_proves;
    assert pubsub.ack_messages('purged', v_handles.ids, v_handles.leases) = 0,
        c_proves || ': old receipts are of lost leases';
    assert (
        select array_agg(distinct s.status) = array['lease_lost']
        from pubsub.settle_messages('purged', v_handles.ids[30:31], v_handles.leases[30:31],
            array['ack', 'nack']) s
    ), c_proves;
    v_later := pg_temp.publish('purged', 5);
    assert pg_temp.claim('purged') = v_later, c_proves || ': later publishes arrive';
    assert pg_temp.claim('beside') = v_ids[301:303] || v_later, c_proves;
    assert pg_temp.counts('purged')
        = '0 available, 5 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'totals since ever do not fall at a purge';
    v_before text;
    v_metrics record;
begin
    perform pg_temp.stock('totals', 5);
    perform pubsub.settle_messages('totals', array_agg(c.message_id), array_agg(c.lease),
        array['ack', 'nack', 'reject'], array[null, 0, null])
    from pubsub.consume_messages('totals', 'me', 3) c;
    perform pg_temp.claim('totals');
    select (m.published_total, m.delivered_total, m.acked_total, m.nacked_total, m.rejected_total,
        m.dead_lettered_total, m.redelivered_total)::text
    into v_before
    from pubsub.subscription_metrics('totals') m;
    assert v_before = '(5,6,1,1,1,1,1)', c_proves || v_before;
    perform pubsub.purge_subscription('totals');
    perform pubsub.fold_counters(0);

    select * into v_metrics from pubsub.subscription_metrics('totals') m;
    assert (v_metrics.published_total, v_metrics.delivered_total, v_metrics.acked_total,
        v_metrics.nacked_total, v_metrics.rejected_total, v_metrics.dead_lettered_total,
        v_metrics.redelivered_total)::text = v_before, c_proves;
    assert (v_metrics.acked, v_metrics.available, v_metrics.dlq) = (0, 0, 1), c_proves;
    assert pubsub.recount_messages('totals') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'settings, run lengths, dead letters, what expired and what a rate counts outlive a purge';
    v_ids uuid[];
begin
    perform pubsub.create_topic('keeps');
    perform pubsub.create_subscription('keeps', 'keeps',
        '{"max_delivery_attempts": 1, "max_rate": 3, "filter": {"n": [1, 2, 3, 4]}}');
    v_ids := pg_temp.publish('keeps', 4);
    perform pubsub.settle_messages('keeps', array_agg(c.message_id), array_agg(c.lease),
        array['reject', 'reject', 'ack'])
    from pubsub.consume_messages('keeps', 'me', 3) c;
    insert into pubsub_data.counters (topic_key, subscription_key, expired)
    select k.topic_key, k.subscription_key, 7 from pubsub.subscription_keys('keeps') k;
    perform pg_temp.run_in_hundreds('keeps');
    perform pubsub.purge_subscription('keeps');

    assert (
        select (m.available, m.dlq, m.expired, m.acked) = (0, 2, 7, 0)
        from pubsub.subscription_metrics('keeps') m
    ), c_proves;
    assert pubsub.recount_messages('keeps') = 0, c_proves;
    assert (
        select array_agg(l.message_id) = v_ids[1:2] from pubsub.list_dlq_messages('keeps') l
    ), c_proves;
    assert (
        select (g.max_rate, g.filter::text) = (3, '{"n": [1, 2, 3, 4]}')
        from pubsub.get_subscription('keeps') g
    ), c_proves;
    assert pg_temp.run_size('keeps') = 100, c_proves;
    perform pg_temp.publish('keeps', 4);
    assert pg_temp.claim('keeps') = '{}', c_proves || ': three were handed out in this second';
    perform pubsub.reprocess_dlq_messages('keeps', v_ids[1:1]);
    update pubsub_data.handed_out h set handed_out_at = h.handed_out_at - interval '2 seconds';
    assert (pg_temp.claim('keeps'))[1] = v_ids[1], c_proves || ': dead letters can come back';
end
$$;

do $$
declare
    c_proves constant text := 'a purge ends running jobs, and what it dropped can be brought back';
    v_ids uuid[] := pg_temp.an_hour_ago(pg_temp.stock('back', 5));
    v_job uuid;
begin
    perform pubsub.create_snapshot('before-purge', 'back');
    insert into pubsub_data.jobs (topic_key, subscription_key, kind, arguments, position)
    select k.topic_key, k.subscription_key, 'seek', '{}', pubsub.id_at(now())
    from pubsub.subscription_keys('back') k
    returning job_id into v_job;
    perform pubsub.purge_subscription('back');

    assert (
        select (g.state, g.subscription_id) = ('cancelled', 'back') from pubsub.get_job(v_job) g
    ), c_proves;
    assert (
        select l.subscription_id = 'back' from pubsub.list_snapshots(p_snapshot_id => 'before-purge') l
    ), c_proves;
    assert (
        select s.state = 'done' from pubsub.seek_subscription_to_snapshot('back', 'before-purge') s
    ), c_proves;
    assert pg_temp.claim('back') = v_ids, c_proves || ': by the snapshot';
    perform pubsub.purge_subscription('back');
    perform pubsub.seek_subscription('back', clock_timestamp() - interval '2 hours');
    assert pg_temp.claim('back') = v_ids, c_proves || ': by a seek';
    assert pg_temp.counts('back')
        = '0 available, 5 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions that order, share, limit or have priorities go on after a purge';
    v_ids uuid[];
    v_name text;
begin
    perform pubsub.create_topic('modes');
    perform pubsub.create_subscription('m-ordered', 'modes', '{"enable_ordering": true}');
    perform pubsub.create_subscription('m-fair', 'modes', '{"fairness_key": "who"}');
    perform pubsub.create_subscription('m-limited', 'modes', '{"max_in_flight": 3}');
    perform pubsub.create_subscription('m-plain', 'modes');
    for v_round in 1 .. 3 loop
        select array_agg(p.message_id order by p.message_id) into v_ids
        from pubsub.publish_messages('modes', array_fill('{}'::jsonb, array[3]),
            array['{"who": "a"}', '{"who": "a"}', '{"who": "b"}']::jsonb[],
            p_ordering_keys => array['a', 'a', 'b'], p_priorities => array[0, 9, 0]::smallint[]) p;
        foreach v_name in array array['m-ordered', 'm-fair', 'm-limited', 'm-plain'] loop
            assert (select array_agg(i order by i) from unnest(pg_temp.claim(v_name)) i) = v_ids,
                format('%s: %s, round %s', c_proves, v_name, v_round);
            perform pubsub.purge_subscription(v_name);
            assert pg_temp.counts(v_name)
                = '0 available, 0 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'what a purge left behind is cleaned up, and its key is never given again';
    v_ids uuid[] := pg_temp.stock_runs('left', 300);
    v_old record := pubsub.subscription_keys('left');
    v_rows bigint;
begin
    perform pubsub.purge_subscription('left');
    assert (
        select g.is_purged from pubsub_data.deleted_subscriptions g
        where g.topic_key = v_old.topic_key and g.subscription_key = v_old.subscription_key
    ), c_proves;
    perform pubsub.purge_deleted_subscriptions();
    assert not exists (
        select from pubsub_data.runs r where r.subscription_key = v_old.subscription_key
    ) and not exists (
        select from pubsub_data.counters c where c.subscription_key = v_old.subscription_key
    ), c_proves;
    perform pg_temp.publish('left', 2);
    assert cardinality(pg_temp.claim('left')) = 2, c_proves;

    perform setval('pubsub_data.subscriptions_subscription_key_seq', v_old.subscription_key, false);
    assert pg_temp.refusal($r$select pubsub.purge_subscription('left')$r$) like 'PS503 %', c_proves;
    perform pubsub.reset_sequences();
    assert pg_temp.refusal($r$select pubsub.purge_subscription('nowhere')$r$)
        = 'PS404 Subscription not found', c_proves;
end
$$;
