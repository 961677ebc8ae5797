/* Replay: making messages available again, and settling them, without an ack. */

do $$
declare
    c_proves constant text := 'settled messages that are retained come back once, and are counted';
    v_ids uuid[] := pg_temp.stock('back', 4);
    v_keys record := pubsub.subscription_keys('back');
begin
    perform pubsub.ack_messages('back', (pg_temp.claim('back', 3))[1:2]);
    delete from pubsub_data.messages m where m.message_id = v_ids[2];

    -- acked, acked and gone, leased, unread
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids) = 1, c_proves;
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids) = 0, c_proves;
    assert pg_temp.counts('back') = '2 available, 1 delivered, 0 scheduled, 2 acked, 0 dlq',
        c_proves || ': ' || pg_temp.counts('back');
    assert pg_temp.reread('back') = array[v_ids[1], v_ids[4]], c_proves;
    assert (select bool_and(d.attempts = 1) from pubsub.subscription_messages d
        where d.subscription_id = 'back'), c_proves || ': with no attempts spent';
end
$$;

do $$
declare
    c_proves constant text := 'messages that do not match the filter, or the one asked for, stay away';
    v_keys record;
    v_ids uuid[];
begin
    perform pg_temp.stock('match');
    v_ids := array(
        select p.message_id from pubsub.publish_messages('match',
            array['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 3}']::jsonb[],
            array['{"a": "x"}', '{"a": "x"}', '{"a": "x"}', null]::jsonb[]) p);
    perform pubsub.ack_messages('match', pg_temp.claim('match'));
    v_keys := pubsub.subscription_keys('match');
    perform pubsub.update_subscription('match', '{"filter": {"n": [2, 3], "attributes": {"a": ["x"]}}}');

    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids,
        '{"n": [1, 2], "attributes": {"a": ["y"]}}') = 0, c_proves;
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids,
        '{"n": [1, 2]}') = 1, c_proves;
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids,
        '{"n": [3], "attributes": {"a": [{"exists": true}]}}') = 1, c_proves;
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids) = 0, c_proves;
    assert pg_temp.reread('match') = v_ids[2:3], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'dead letters stay dead letters';
    v_ids uuid[] := pg_temp.stock('dead', 2, 1);
    v_keys record := pubsub.subscription_keys('dead');
begin
    perform pg_temp.claim('dead');
    perform pubsub.nack_messages('dead', v_ids[1:1]);
    perform pubsub.ack_messages('dead', v_ids[2:2]);

    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids[1:1]) = 0, c_proves;
    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids) = 1, c_proves;
    assert pg_temp.counts('dead') = '1 available, 0 delivered, 0 scheduled, 1 acked, 1 dlq', c_proves;
    assert pubsub.reprocess_dlq_messages('dead', v_ids) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an expired message does not come back; the time of the others starts anew';
    v_now constant timestamptz := clock_timestamp();
    v_keys record;
    v_ids uuid[];
begin
    perform pg_temp.stock('expiry');
    v_ids := array(
        select p.message_id from pubsub.publish_messages('expiry',
            array['{}', '{}', '{}', '{}']::jsonb[],
            p_expires_at => array[null, null, v_now + interval '1 day', v_now + interval '9 days']) p);
    perform pubsub.ack_messages('expiry', pg_temp.claim('expiry'));
    update pubsub_data.messages m set expires_at = v_now where m.message_id = v_ids[2];
    v_keys := pubsub.subscription_keys('expiry');
    perform pubsub.update_subscription('expiry', '{"message_ttl_seconds": 172800}');
    delete from pubsub_data.wakeups;

    assert pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids) = 3, c_proves;
    assert array(
        select round(extract(epoch from d.expires_at - v_now) / 8640) / 10
        from pubsub_data.deliveries d
        where d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
        order by d.message_id
    ) = array[2, 1, 2]::numeric[], c_proves;
    -- a claim that has read past them finds the expired ones by these
    assert (
        select array_agg(i.id order by i.id) = array[v_ids[1], v_ids[3], v_ids[4]]
            and count(distinct w.due_at) = 2
        from pubsub_data.wakeups w cross join unnest(w.message_ids) as i (id)
        join pubsub_data.deliveries d on d.message_id = i.id and d.expires_at = w.due_at
    ), c_proves || ': wake-ups';
end
$$;

do $$
declare
    c_proves constant text := 'messages come back to the lane that the subscription gives them now';
    v_ids uuid[];
    v_case record;
    v_keys record;
begin
    perform pg_temp.stock('lanes');
    v_ids := pg_temp.publish('lanes', 2);
    update pubsub_data.messages m set ordering_key = 'key', priority = 7, attributes = '{"tenant": "acme"}'
    where m.message_id = v_ids[1];
    v_keys := pubsub.subscription_keys('lanes');
    for v_case in
        select *
        from (values
            ('{}', '7', null::text),
            ('{"fairness_key": "tenant"}', 'acme', ''),
            ('{"fairness_key": null, "enable_ordering": true}', 'key', null)
        ) c (changes, first, second)
    loop
        update pubsub_data.subscriptions s set has_priorities = false where s.subscription_id = 'lanes';
        perform pubsub.update_subscription('lanes', v_case.changes::json);
        delete from pubsub_data.deliveries;
        perform pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key, v_ids);
        assert (
            select array_agg(d.lane order by d.message_id) = array[v_case.first, v_case.second]
            from pubsub_data.deliveries d
        ), c_proves || ': ' || v_case.changes;
        assert (select s.has_priorities = (v_case.first = '7') from pubsub_data.subscriptions s
            where s.subscription_id = 'lanes'), c_proves || ': priorities';
    end loop;
    assert array(
        select l.lane from pubsub_data.fair_lanes l
        where l.subscription_key = v_keys.subscription_key order by l.lane
    ) = array['', 'acme'], c_proves || ': fair lanes';
end
$$;

do $$
declare
    c_proves constant text := 'what is settled is gone in every state, and a lease on it is lost';
    v_ids uuid[] := pg_temp.stock('settle', 6);
    v_keys record := pubsub.subscription_keys('settle');
    v_step record;
begin
    perform pg_temp.claim('settle', 4);
    perform pubsub.nack_messages('settle', v_ids[1:1]);
    perform pubsub.ack_messages('settle', v_ids[2:2]);

    -- scheduled, acked, leased, leased, unread
    select s.* into v_step from pubsub.settle_range(v_keys.topic_key, v_keys.subscription_key,
        pubsub.id_at('2020-01-01'), v_ids[5], 2, array[v_ids[4]]) s;
    assert v_step.settled = 2 and v_step.reached = v_ids[3], c_proves || ': the lowest first';
    select s.* into v_step from pubsub.settle_range(v_keys.topic_key, v_keys.subscription_key,
        v_step.reached, v_ids[5], 2, array[v_ids[4]]) s;
    assert v_step.settled = 1 and v_step.reached = v_ids[5], c_proves || ': up to the end';
    assert pg_temp.counts('settle') = '1 available, 1 delivered, 0 scheduled, 1 acked, 0 dlq',
        c_proves || ': ' || pg_temp.counts('settle');
    assert pubsub.ack_messages('settle', v_ids[3:4]) = 1, c_proves || ': the lease';
end
$$;

do $$
declare
    c_proves constant text := 'leases are counted back where they were counted, by consumer if limited';
    v_ids uuid[] := pg_temp.stock('limited', 2);
    v_keys record := pubsub.subscription_keys('limited');
begin
    perform pubsub.update_subscription('limited', '{"max_in_flight_per_consumer": 5}');
    perform pg_temp.claim('limited', 1);
    delete from pubsub_data.counters;
    perform pubsub.settle_range(v_keys.topic_key, v_keys.subscription_key,
        pubsub.id_at('2020-01-01'), v_ids[2], 10, '{}');

    assert (
        select array_agg(format('%s %s %s', c.consumer_id, c.backlog, c.leased) order by c.leased)
        from pubsub_data.counters c
    ) = array['consumer -1 -1', ' -1 0'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a range comes back the lowest first, a batch a call';
    v_ids uuid[] := pg_temp.stock('range', 5);
    v_keys record := pubsub.subscription_keys('range');
    v_step record;
begin
    perform pubsub.ack_messages('range', pg_temp.claim('range'));
    select r.* into v_step from pubsub.redeliver_range(v_keys.topic_key, v_keys.subscription_key,
        v_ids[1], v_ids[5], 3, null, null, false) r;
    assert v_step.scanned = 3 and v_step.changed = 3 and v_step.reached = v_ids[4], c_proves;
    select r.* into v_step from pubsub.redeliver_range(v_keys.topic_key, v_keys.subscription_key,
        v_step.reached, v_ids[5], 3, null, null, true) r;
    assert v_step.scanned = 1 and v_step.changed = 0 and v_step.reached = v_ids[5],
        c_proves || ': but what was acked';
    assert pg_temp.reread('range') = v_ids[2:4], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'in an ordered subscription, what waits behind what was settled goes on';
    v_ids uuid[];
    v_keys record;
begin
    perform pubsub.create_topic('ordered');
    perform pubsub.create_subscription('ordered', 'ordered', '{"enable_ordering": true}');
    v_keys := pubsub.subscription_keys('ordered');
    v_ids := array(
        select p.message_id from pubsub.publish_messages('ordered', array['{}', '{}', '{}']::jsonb[],
            p_ordering_keys => array['key', 'key', 'other']) p);
    assert (select array_agg(c.message_id) = v_ids[1:1]
        from pubsub.consume_messages('ordered', 'one', 1) c), c_proves;
    assert (select array_agg(c.message_id) = v_ids[3:3]
        from pubsub.consume_messages('ordered', 'other') c), c_proves;

    perform pubsub.settle_range(v_keys.topic_key, v_keys.subscription_key,
        pubsub.id_at('2020-01-01'), v_ids[1], 10, '{}');

    assert (select array_agg(c.message_id) = v_ids[2:2]
        from pubsub.consume_messages('ordered', 'other') c), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a delayed message that comes back waits for its time, whichever way it came';
    v_ids uuid[];
    v_id uuid;
    v_way text;
begin
    perform pg_temp.stock('delayed');
    perform pubsub.update_subscription('delayed', '{"message_ttl_seconds": 60}');
    v_ids := array(
        select p.message_id from pubsub.publish_messages('delayed', array_fill('{}'::jsonb, array[3]),
            p_deliver_at => array[clock_timestamp() + interval '1 hour', null,
                clock_timestamp() - interval '1 hour'],
            p_expires_at => array[clock_timestamp() + interval '2 hours', null, null]) p);
    assert (select array_agg(m.deliver_at is not null order by m.message_id) = '{t,f,f}'
        from pubsub_data.messages m where m.message_id = any(v_ids)), c_proves || ': only what waits';
    perform pubsub.create_snapshot('delayed', 'delayed');

    foreach v_way in array array[
        $q$select pubsub.seek_subscription('delayed', '2020-01-01')$q$,
        $q$select pubsub.replay_messages('delayed', '{}')$q$,
        $q$select pubsub.seek_subscription_to_snapshot('delayed', 'delayed')$q$,
        $q$select pubsub.delete_subscription('delayed');
            select pubsub.create_subscription('delayed', 'delayed',
                '{"message_ttl_seconds": 60}', '2020-01-01')$q$
    ] loop
        perform pubsub.seek_subscription_to_end('delayed');
        assert pg_temp.counts('delayed') like '0 available, 0 delivered, 0 scheduled%', c_proves;
        execute v_way;
        assert pg_temp.counts('delayed') like '2 available, 0 delivered, 1 scheduled%',
            c_proves || ': ' || v_way || ': ' || pg_temp.counts('delayed');
        assert pg_temp.reread('delayed') = v_ids[2:3], c_proves || ': ' || v_way;
        perform pubsub.ack_messages('delayed', v_ids[2:3]);
        assert (
            select d.expires_at between m.deliver_at and m.deliver_at + interval '61 s'
            from pubsub_data.deliveries d
            join pubsub_data.messages m on m.message_id = d.message_id
            join pubsub_data.subscriptions s on s.subscription_key = d.subscription_key
            where d.message_id = v_ids[1] and s.subscription_id = 'delayed'
        ), c_proves || ': its time to live begins then';
    end loop;

    -- without its wake-up a claim that has read past it would miss it
    assert pg_temp.claim('delayed') = '{}', c_proves;
    perform pg_temp.later('delayed', interval '3601 s');
    assert pg_temp.claim('delayed') = v_ids[1:1], c_proves || ': and is there then';
end
$$;
