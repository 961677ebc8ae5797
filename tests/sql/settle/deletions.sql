/* Deleting messages that are not settled, whatever state they are in. */

do $$
declare
    c_proves constant text := 'messages are deleted in every state, and what was not there is not told';
    v_ids uuid[] := pg_temp.stock('states', 5, 1);
    v_lease bigint;
begin
    select c.lease into strict v_lease from pubsub.consume_messages('states', 'me', 1) c;
    update pubsub_data.deliveries d
    set visible_at = clock_timestamp() + interval '1 hour' where d.message_id = v_ids[2];
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, waiting)
    select k.topic_key, k.subscription_key, pubsub.counter_time(d.visible_at), 1
    from pubsub.subscription_keys('states') k, pubsub_data.deliveries d where d.message_id = v_ids[2];

    assert pubsub.delete_messages('states', v_ids[1:3] || v_ids[1] || gen_random_uuid() || null::uuid)
        = v_ids[1:3], c_proves;
    assert pg_temp.counts('states')
        = '2 available, 0 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
    assert pubsub.ack_messages('states', v_ids[1:1], array[v_lease]) = 0,
        c_proves || ': its holder has lost the lease';
    assert pubsub.delete_messages('states', v_ids[1:3]) = '{}', c_proves || ': once';
    assert pubsub.delete_messages('states', '{}') = '{}'
        and pubsub.delete_messages('states', null) = '{}', c_proves;
    assert pg_temp.claim('states') = v_ids[4:5], c_proves || ': the others stay';
    assert pg_temp.refusal($r$select pubsub.delete_messages('nowhere', '{}')$r$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the timeline of a deleted message says so';
    v_ids uuid[] := pg_temp.stock('told', 2);
begin
    perform pg_temp.claim('told', 1);
    perform pubsub.delete_messages('told', v_ids);

    assert (
        select string_agg(format('%s %s %s %s', t.state, t.event, t.attempt, t.reason), ', ')
            = 'skipped published  , skipped delivered 1 , skipped skipped 1 deleted'
        from pubsub.message_timeline(v_ids[1]) t
    ), c_proves;
    assert (
        select string_agg(format('%s %s %s', t.event, t.attempt, t.reason), ', ')
            = 'published  , skipped 0 deleted'
        from pubsub.message_timeline(v_ids[2]) t
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages are deleted out of runs, ready or leased, half of which are acked';
    v_ids uuid[] := pg_temp.stock_runs('runs', 400);
    v_left uuid[];
begin
    perform pubsub.consume_messages('runs', 'me', 200);
    perform pubsub.ack_messages('runs', v_ids[51:100]);

    assert pubsub.delete_messages('runs', v_ids[1:60] || v_ids[150:155] || v_ids[290:310])
        = v_ids[1:50] || v_ids[150:155] || v_ids[290:310], c_proves;
    assert pg_temp.counts('runs')
        = '179 available, 94 delivered, 0 scheduled, 50 acked, 0 dlq', c_proves || pg_temp.counts('runs');
    assert pg_temp.runs('runs') = '', c_proves || ': what they were in is broken up: ' || pg_temp.runs('runs');
    v_left := v_ids[201:289] || v_ids[311:400];
    assert pg_temp.claim('runs') = v_left, c_proves || ': what is left is handed out in order';
    assert pubsub.ack_messages('runs', v_ids) = 94 + 179, c_proves;
    assert pg_temp.counts('runs')
        = format('0 available, 0 delivered, 0 scheduled, %s acked, 0 dlq', 50 + 94 + 179), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs that hold none of the messages stay';
    v_ids uuid[] := pg_temp.stock_runs('stay', 300);
begin
    perform pubsub.delete_messages('stay', v_ids[150:150]);

    assert pg_temp.runs('stay') = '100 ready, 100 ready', c_proves || ': ' || pg_temp.runs('stay');
    perform pubsub.break_up_around(k.topic_key, k.subscription_key, v_ids[1:1])
    from pubsub.subscription_keys('stay') k;
    assert pg_temp.runs('stay') = '100 ready', c_proves;
    assert pg_temp.claim('stay') = v_ids[1:149] || v_ids[151:300], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the next message of an ordering key goes on when the one before it is deleted';
    v_ids uuid[];
begin
    perform pubsub.create_topic('ordered');
    perform pubsub.create_subscription('ordered', 'ordered', '{"enable_ordering": true}');
    v_ids := pg_temp.publish_in_lanes('ordered', array['a', 'a', 'a']);
    assert pg_temp.claim('ordered', 1) = v_ids[1:1], c_proves;
    assert pg_temp.claim('ordered') = '{}', c_proves;
    perform pubsub.delete_messages('ordered', v_ids[1:1]);

    assert pg_temp.claim('ordered', 1) = v_ids[2:2], c_proves;
    perform pubsub.delete_messages('ordered', v_ids[2:2]);
    assert pg_temp.claim('ordered') = v_ids[3:3], c_proves;
    assert pg_temp.counts('ordered')
        = '0 available, 1 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a parked message that is deleted lets its key go on';
    v_ids uuid[];
    v_keys record;
begin
    perform pubsub.create_topic('parks');
    perform pubsub.create_subscription('parks', 'parks',
        '{"max_delivery_attempts": 1, "enable_ordering": true, "ordering_failure": "park"}');
    v_keys := pubsub.subscription_keys('parks');
    v_ids := pg_temp.publish_in_lanes('parks', array['a', 'a']);
    perform pg_temp.claim('parks', 1);
    perform pubsub.nack_messages('parks', v_ids[1:1]);
    assert pg_temp.claim('parks') = '{}', c_proves;
    assert pubsub.delete_messages('parks', v_ids[1:1]) = v_ids[1:1], c_proves;

    assert pg_temp.claim('parks') = v_ids[2:2], c_proves;
    assert (select m.parked = 0 from pubsub.subscription_metrics('parks') m), c_proves;
    assert pubsub.recount_messages('parks') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is deleted makes room for a consumer that held as much as it may';
    v_ids uuid[];
begin
    perform pubsub.create_topic('limited');
    perform pubsub.create_subscription('limited', 'limited', '{"max_in_flight_per_consumer": 2}');
    v_ids := pg_temp.publish('limited', 5);
    assert pg_temp.claim('limited') = v_ids[1:2], c_proves;
    assert pg_temp.claim('limited') = '{}', c_proves;
    perform pubsub.delete_messages('limited', v_ids[1:1]);

    assert pg_temp.held_counts('limited') = array['consumer 1'], c_proves;
    assert pg_temp.claim('limited') = v_ids[3:3], c_proves;
    assert pubsub.recount_messages('limited') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'fair subscriptions and those with priorities go on without what was deleted';
    v_ids uuid[];
begin
    perform pubsub.create_topic('fair');
    perform pubsub.create_subscription('fair', 'fair', '{"fairness_key": "who"}');
    select array_agg(p.message_id) into v_ids
    from pubsub.publish_messages('fair', array_fill('{}'::jsonb, array[4]),
        (select array_agg(jsonb_build_object('who', w)) from unnest(array['a', 'a', 'b', 'b']) w)) p;
    perform pubsub.delete_messages('fair', array[v_ids[1], v_ids[3]]);
    assert (select array_agg(i order by i) from unnest(pg_temp.claim('fair')) i)
        = array[v_ids[2], v_ids[4]], c_proves;
    assert pubsub.recount_messages('fair') = 0, c_proves;

    perform pubsub.create_topic('urgent');
    perform pubsub.create_subscription('urgent', 'urgent');
    select array_agg(p.message_id) into v_ids
    from pubsub.publish_messages('urgent', array_fill('{}'::jsonb, array[4]),
        p_priorities => array[0, 9, 9, 0]::smallint[]) p;
    perform pubsub.delete_messages('urgent', array[v_ids[2], v_ids[4]]);
    assert (select array_agg(i order by i) from unnest(pg_temp.claim('urgent')) i)
        = array[v_ids[1], v_ids[3]], c_proves;
    assert pubsub.recount_messages('urgent') = 0, c_proves;
end
$$;
