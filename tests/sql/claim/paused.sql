/* Subscriptions that are paused, whatever way their claims choose. */

do $$
declare
    c_proves constant text := 'while a subscription is paused nothing is handed out, and all else goes on';
    v_settings jsonb;
    v_name text;
    v_ids uuid[];
    v_more uuid[];
    v_leases bigint[];
    v_look record;
begin
    for v_settings in
        select s.value
        from jsonb_array_elements('[{}, {"enable_ordering": true}, {"fairness_key": "k"}, {"max_in_flight": 100},
            {"max_in_flight_per_consumer": 50}, {"max_rate": 1000}]') s
    loop
        v_name := 'pause' || md5(v_settings::text);
        perform pubsub.create_topic(v_name);
        perform pubsub.create_subscription(v_name, v_name, v_settings::json);
        v_ids := pg_temp.publish(v_name, 6);
        v_leases := array(select c.lease from pubsub.consume_messages(v_name, 'consumer', 4) c);

        assert (select u.paused from pubsub.update_subscription(v_name, '{"paused": true}') u), c_proves;
        v_more := pg_temp.publish(v_name, 2);

        assert pg_temp.claim(v_name, 1) = '{}', format('%s: %s', c_proves, v_settings);
        assert pg_temp.claim(v_name) = '{}', format('%s: %s', c_proves, v_settings);
        assert not exists (
            select from pubsub.consume_messages_for(v_name, '{a,b}', '{1,100}')), c_proves;
        assert pg_temp.reread(v_name) = '{}', c_proves;
        assert (
            select pubsub.claim_allowances(k.topic_key, k.subscription_key, '{a,b}', '{1,5}') = '{0,0}'
            from pubsub.subscription_keys(v_name) k
        ), c_proves || ': a claim that waited for those before it';
        select * into strict v_look
        from pubsub.ready_subscriptions(array[v_name], array[v_ids[1]], '{0}');
        assert not v_look.is_ready and v_look.due_at is null, c_proves || ': who waits goes on waiting';
        assert pubsub.ack_messages(v_name, v_ids[1:1], v_leases[1:1]) = 1, c_proves;
        assert pubsub.nack_messages(v_name, v_ids[2:2], v_leases[2:2]) = 1, c_proves;
        assert pubsub.extend_messages(v_name, v_ids[3:3], v_leases[3:3], 900) = 1, c_proves;
        assert pg_temp.counts(v_name) = '4 available, 2 delivered, 1 scheduled, 1 acked, 0 dlq',
            format('%s: %s: %s', c_proves, v_settings, pg_temp.counts(v_name));
        -- the lease of the fourth and the backoff of the second end
        perform pg_temp.later(v_name, '2 minutes');
        assert pg_temp.claim(v_name) = '{}', c_proves || ': leases that ran out';
        assert pg_temp.counts(v_name) = '6 available, 1 delivered, 0 scheduled, 1 acked, 0 dlq',
            format('%s: %s: %s', c_proves, v_settings, pg_temp.counts(v_name));
        assert pubsub.ack_messages(v_name, v_ids[4:4], v_leases[4:4]) = 1, c_proves || ': late acks';

        perform pubsub.update_subscription(v_name, '{"paused": false}');
        select * into strict v_look
        from pubsub.ready_subscriptions(array[v_name], array[v_more[2]], '{0}');
        assert v_look.is_ready, c_proves || ': who waits is woken';
        assert array(select i from unnest(pg_temp.claim(v_name)) i order by i)
            = v_ids[2:2] || v_ids[5:6] || v_more, format('%s: %s', c_proves, v_settings);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'runs of a paused subscription stay whole, and are handed out after it';
    v_ids uuid[] := pg_temp.stock_runs('pause-runs', 250);
begin
    assert pg_temp.claim('pause-runs', 100) = v_ids[:100], c_proves;
    perform pubsub.update_subscription('pause-runs', '{"paused": true}');
    assert pg_temp.claim('pause-runs', 100) = '{}', c_proves;
    assert pg_temp.runs('pause-runs') like '%100 ready%50 ready', c_proves || pg_temp.runs('pause-runs');
    perform pubsub.update_subscription('pause-runs', '{"paused": false}');
    assert pg_temp.claim('pause-runs', 1000) = v_ids[101:], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a new subscription may be paused, and a claim of one that is paused is checked';
    v_ids uuid[];
begin
    perform pubsub.create_topic('born');
    assert (select c.paused from pubsub.create_subscription('born', 'born', '{"paused": true}') c), c_proves;
    v_ids := pg_temp.publish('born', 3);
    assert pg_temp.claim('born') = '{}', c_proves;
    assert pg_temp.refusal($q$select pubsub.consume_messages('born', 'c', 0)$q$) like 'PS422(batch_size) %',
        c_proves;
    assert (select l.paused from pubsub.list_subscriptions(p_topic_id => 'born') l), c_proves;
    assert (select v.paused from pubsub.subscriptions v where v.subscription_id = 'born'), c_proves;
    -- a second pause, and a change of something else, bring nothing back
    perform pubsub.update_subscription('born', '{"paused": true}');
    perform pubsub.update_subscription('born', '{"max_rate": 9}');
    assert (select s.rewinds from pubsub_data.subscriptions s where s.subscription_id = 'born') = 0,
        c_proves;
    perform pubsub.update_subscription('born', '{"paused": false, "max_rate": null}');
    assert (
        select r.is_ready and r.rewinds = 1 from pubsub.ready_subscriptions('{born}', v_ids[3:3], '{0}') r
    ), c_proves || ': who has seen all is woken';
    assert pg_temp.claim('born') = v_ids, c_proves;
end
$$;
