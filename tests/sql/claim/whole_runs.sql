/* Runs in claims. */

do $$
declare
    c_proves constant text := 'who wants all of a run gets it as it is, who wants a part of it a run of that';
    v_ids uuid[] := pg_temp.stock_runs('parts', 300);
begin
    assert pg_temp.claim('parts', 100) = v_ids[1:100], c_proves;
    assert pg_temp.runs('parts') = '100 consumer, 100 ready, 100 ready', c_proves;
    assert pg_temp.claim('parts', 130) = v_ids[101:230], c_proves;
    assert pg_temp.runs('parts') = '100 consumer, 100 consumer, 30 consumer, 70 ready', c_proves;
    -- too few for a run of their own
    assert pg_temp.claim('parts', 2) = v_ids[231:232], c_proves;
    assert pg_temp.runs('parts') = '100 consumer, 100 consumer, 30 consumer', c_proves;
    assert pg_temp.claim('parts', 100) = v_ids[233:300], c_proves;
    assert pg_temp.claim('parts', 100) = '{}', c_proves;
    assert pubsub.recount_messages('parts') = 0, c_proves;
    assert pubsub.ack_messages('parts', v_ids) = 300, c_proves;
    assert pubsub.recount_messages('parts') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'several consumers get parts, each in the order of ids';
    v_ids uuid[] := pg_temp.stock_runs('dealt', 150);
    v_got record;
begin
    select array_agg(c.message_id) filter (where c.consumer = 1) as first,
        array_agg(c.message_id) filter (where c.consumer = 2) as second,
        array_agg(c.message_id) filter (where c.consumer = 3) as third
    into v_got
    from pubsub.consume_messages_for('dealt', array['a', 'b', 'c'], array[40, 50, 60]) c;
    assert v_got.first = v_ids[1:40] and v_got.second = v_ids[41:90] and v_got.third = v_ids[91:150],
        c_proves;
    assert pg_temp.runs('dealt') = '40 a, 50 b, 10 c, 50 c', c_proves;
    assert pubsub.recount_messages('dealt') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'single messages and runs are handed out in the order of ids';
    v_ids uuid[] := pg_temp.stock_runs('between', 10);
begin
    v_ids := v_ids || pg_temp.publish('between', 3)
        || array(select p.message_id
            from pubsub.publish_messages('between', array_fill('{}'::jsonb, array[20])) p)
        || pg_temp.publish('between', 1);
    assert pg_temp.claim('between', 12) = v_ids[1:12], c_proves;
    assert pg_temp.claim('between', 1000) = v_ids[13:34], c_proves;
    assert pubsub.recount_messages('between') = 0, c_proves;
    v_ids := array(select p.message_id
            from pubsub.publish_messages('between', array_fill('{}'::jsonb, array[20])) p)
        || pg_temp.publish('between', 1);
    for v_n in 1 .. 21 loop
        assert pg_temp.claim('between', 1) = v_ids[v_n : v_n], c_proves || ': one by one';
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a run whose lease has ended comes back as a whole, with two attempts';
    v_ids uuid[] := pg_temp.stock_runs('ended', 100, '{"max_delivery_attempts": 2}');
begin
    assert pg_temp.claim('ended', 100) = v_ids, c_proves;
    perform pg_temp.later('ended', '1 hour');
    assert (
        select array_agg(c.message_id order by c.message_id) = v_ids and bool_and(c.attempts = 2)
        from pubsub.consume_messages('ended', 'other', 1000) c
    ), c_proves;
    assert (
        select count(*) = 100 and bool_and(f.outcome = 'consumer_lost' and f.consumer_id = 'consumer')
        from pubsub_data.failures f where f.message_id = any(v_ids)
    ), c_proves;
    perform pubsub.recount_messages('ended');
    perform pg_temp.later('ended', '1 hour');
    assert pg_temp.claim('ended', 1000) = '{}', c_proves;
    assert (
        select count(*) = 100 from pubsub_data.dead_letters l where l.message_id = any(v_ids)
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'leases of runs that are stuck, or spent, are ended by upkeep';
    v_ids uuid[] := pg_temp.stock_runs('stuck', 100);
    v_spent uuid[] := pg_temp.stock_runs('once', 100, '{"max_delivery_attempts": 1}');
begin
    perform pg_temp.claim('stuck', 100);
    perform pg_temp.claim('once', 100);
    assert pubsub.cleanup_stuck_messages(0) >= 200, c_proves;
    assert (select count(*) = 100 from pubsub_data.dead_letters l where l.message_id = any(v_spent)), c_proves;
    assert (select array_agg(i order by i) = v_ids from unnest(pg_temp.claim('stuck', 100)) i), c_proves;
    assert pubsub.recount_messages('stuck') = 0 and pubsub.recount_messages('once') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an answer that is bounded in bytes has of a run what fits';
    v_ids uuid[];
begin
    perform pubsub.create_topic('bounded');
    perform pubsub.create_subscription('bounded', 'bounded');
    perform pg_temp.run_in_hundreds('bounded');
    v_ids := array(select p.message_id from pubsub.publish_messages('bounded',
        array_fill(jsonb_build_object('t', repeat('x', 10000)), array[20])) p);
    assert (select bool_and(r.is_large) from pubsub_data.runs r where r.run_id = v_ids[1]), c_proves;
    assert (
        select array_agg(c.message_id) = v_ids[1:9]
        from pubsub.consume_messages('bounded', 'c', 20, p_max_bytes => 100000) c
    ), c_proves;
    assert (
        select array_agg(c.message_id) = v_ids[10:20]
        from pubsub.consume_messages('bounded', 'c', 20, p_max_bytes => 1000000) c
    ), c_proves;
    assert pubsub.run_bytes_of(-1, v_ids, true) = 0, c_proves;
    assert pubsub.run_bytes_of(-1, v_ids, false) = 80000, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions that treat messages one by one break runs up';
    v_ids uuid[];
    v_case record;
begin
    for v_case in
        select * from (values
            ('limit', '{"max_in_flight": 30}'::json), ('order', '{"enable_ordering": true}'),
            ('share', '{"fairness_key": "k"}')) as c (name, settings)
    loop
        v_ids := pg_temp.stock_runs(v_case.name, 100);
        perform pubsub.update_subscription(v_case.name, v_case.settings);
        assert cardinality(pg_temp.claim(v_case.name, 20)) = 20, c_proves || ': ' || v_case.name;
        assert pg_temp.runs(v_case.name) = '', c_proves || ': ' || v_case.name;
        assert pubsub.recount_messages(v_case.name) = 0, c_proves || ': ' || v_case.name;
    end loop;
    v_ids := pg_temp.stock_runs('urgent', 100);
    perform pubsub.publish_messages('urgent', array['{}']::jsonb[], p_priorities => array[9::smallint]);
    assert cardinality(pg_temp.claim('urgent', 20)) = 20, c_proves;
    assert pg_temp.runs('urgent') = '', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs get shorter at once and longer once a minute';
begin
    perform pg_temp.stock('fit', 5);
    perform pg_temp.claim('fit', 40);
    assert (select pg_temp.run_size('fit') = 40), c_proves;
    perform pg_temp.publish('fit', 5);
    perform pg_temp.reread('fit', 100);
    assert (select pg_temp.run_size('fit') = 40), c_proves;
    perform pg_temp.reread('fit', 3);
    assert pg_temp.run_size('fit') = 40, c_proves || ': a claim that finds nothing';
    perform pg_temp.publish('fit', 5);
    perform pg_temp.reconnect('fit');
    perform pubsub.consume_messages_for('fit', array['a', 'b'], array[50, 10]);
    assert (select pg_temp.run_size('fit') = 10), c_proves;
    update pubsub_data.run_sizes z set noted_at = clock_timestamp() - interval '61 s'
    where z.subscription_key = (pubsub.subscription_keys('fit')).subscription_key;
    perform pg_temp.publish('fit', 5);
    perform pg_temp.reread('fit', 1000);
    assert (select pg_temp.run_size('fit') = 100), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'no runs are made for claims that never take one as it is: by priority, within limits';
begin
    perform pg_temp.stock_runs('no-runs', 100);
    perform pubsub.publish_messages('no-runs', array['{}']::jsonb[], p_priorities => array[9::smallint]);
    perform pg_temp.claim('no-runs', 20);
    assert pg_temp.run_size('no-runs') = 1, c_proves;

    perform pg_temp.stock_runs('no-runs-2', 100);
    perform pubsub.update_subscription('no-runs-2', '{"max_in_flight": 50}');
    perform pg_temp.claim('no-runs-2', 20);
    assert pg_temp.run_size('no-runs-2') = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages that follow one another go to who has room, in order';
begin
    assert (select p.consumers = '{1}' and p.sizes = '{7}' from pubsub.parts_of_run('{10}', 7) p), c_proves;
    assert (
        select p.consumers = '{1,3,4}' and p.sizes = '{5,10,3}'
        from pubsub.parts_of_run('{5,0,10,20}', 18) p
    ), c_proves;
    assert (pubsub.nothing_chosen('{3}')).sizes = '{3}', c_proves;
end
$$;
