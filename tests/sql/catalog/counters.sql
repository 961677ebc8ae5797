/* Counters: folded and recounted, they say the same. */

do $$
declare
    c_proves constant text := 'counter_time is never later, by less than 0.1 s';
begin
    assert pubsub.counter_time('2026-01-01 00:00:00.19999+00') = '2026-01-01 00:00:00.1+00',
        c_proves;
    assert pubsub.counter_time('2026-01-01 00:00:00.2+00') = '2026-01-01 00:00:00.2+00', c_proves;
    assert pubsub.counter_time('-infinity') = '-infinity', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'folded counters give the same counts, in fewer rows';
    v_ids uuid[] := pg_temp.stock('fold', 10, 1);
    v_before text;
begin
    perform pg_temp.claim('fold', 1);
    perform pg_temp.later('fold', '1 hour');
    for v_step in 1 .. 4 loop
        perform pg_temp.claim('fold', 1);
    end loop;
    perform pubsub.ack_messages('fold', v_ids[2:2]);
    perform pubsub.nack_messages('fold', v_ids[3:3]);
    perform pubsub.publish_messages('fold', array['{}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);
    v_before := (select m::text from pubsub.subscription_metrics('fold') m);

    assert pubsub.fold_counters(1000) = 0, c_proves || ': few enough';
    assert pubsub.fold_counters(0) > 0, c_proves;
    assert (select m::text from pubsub.subscription_metrics('fold') m) = v_before, c_proves;
    assert pubsub.fold_counters(0) = 0, c_proves || ': nothing left to fold';
    assert pubsub.recount_messages('fold') = 0, c_proves || ': as recounted';
    perform pubsub.ack_messages('fold', v_ids[4:4]);
    perform pg_temp.later('fold', '2 hours');
    perform pubsub.fold_counters(0);
    assert pubsub.recount_messages('fold') = 0, c_proves || ': as recounted later';
end
$$;

do $$
declare
    c_proves constant text := 'expired messages are counted, and folded with the rest';
    v_keys record := pubsub.subscription_keys('fold');
    v_before bigint := (select m.expired from pubsub.subscription_metrics('fold') m);
begin
    insert into pubsub_data.counters (topic_key, subscription_key, expired)
    values (v_keys.topic_key, v_keys.subscription_key, 2),
        (v_keys.topic_key, v_keys.subscription_key, 3);

    assert (select m.expired from pubsub.subscription_metrics('fold') m) = v_before + 5, c_proves;
    assert pubsub.fold_counters(0) > 0, c_proves;
    assert (select m.expired from pubsub.subscription_metrics('fold') m) = v_before + 5, c_proves;
    assert pubsub.recount_messages('fold') = 0, c_proves || ': nothing to recount them by';
end
$$;

do $$
declare
    c_proves constant text := 'what consumers hold is folded and recounted by consumer';
    v_keys record;
    v_held text[];
begin
    perform pg_temp.stock('holders');
    v_keys := pubsub.subscription_keys('holders');
    update pubsub_data.subscriptions s set max_in_flight_per_consumer = 3
    where s.subscription_id = 'holders';
    perform pg_temp.publish('holders', 10);
    perform count(*) from pubsub.consume_messages_for('holders', '{a,b,a}', '{2,5,2}', 60);
    v_held := pg_temp.held_counts('holders');

    assert v_held = '{a 3,b 3}', c_proves || v_held::text;
    assert pubsub.recount_messages('holders') = 0, c_proves;
    perform pubsub.fold_counters(0);
    assert pg_temp.held_counts('holders') = v_held, c_proves;
    assert (
        select count(*) from pubsub_data.counters c
        where c.subscription_key = v_keys.subscription_key
    ) = 3, c_proves || ': a row each, and one for the rest';
    assert pubsub.recount_messages('holders') = 0, c_proves;
    delete from pubsub_data.counters c
    where c.subscription_key = v_keys.subscription_key and c.consumer_id = 'a';
    assert pubsub.recount_messages('holders') = 3, c_proves;
    assert pg_temp.held_counts('holders') = v_held, c_proves || ': mended';
end
$$;

do $$
declare
    c_proves constant text := 'leases that have just ended are not folded away';
    v_keys record;
    v_ended timestamptz := pubsub.counter_time(clock_timestamp());
begin
    perform pg_temp.stock('ending');
    v_keys := pubsub.subscription_keys('ending');
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased)
    select v_keys.topic_key, v_keys.subscription_key, v_ended - ended.ago, 1
    from (values (interval '0 s'), (interval '1 hour')) as ended (ago);

    perform pubsub.fold_counters(0);

    assert array(
        select c.due_at::text from pubsub_data.counters c
        where c.subscription_key = v_keys.subscription_key and c.leased <> 0
    ) = array[v_ended::text], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'recount_messages mends counts that do not agree with the messages, and keeps totals';
    v_keys record := pubsub.subscription_keys('fold');
    v_before text := (select m::text from pubsub.subscription_metrics('fold') m);
begin
    insert into pubsub_data.counters (
        topic_key, subscription_key, due_at, backlog, leased, waiting, acked, dlq, delivered,
        forgotten
    )
    values (v_keys.topic_key, v_keys.subscription_key, clock_timestamp() + interval '1 hour',
        -1, 2, -3, 4, -5, 0, -4);

    assert pubsub.recount_messages('fold') = 15, c_proves;
    assert (select m::text from pubsub.subscription_metrics('fold') m) = v_before, c_proves;
    assert pubsub.recount_messages('fold') = 0, c_proves;
    assert pg_temp.refusal($q$select pubsub.recount_messages('none')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'folding keeps what expired, and who holds how much where consumers are limited';
    v_keys record;
begin
    perform pubsub.create_topic('folded-holders');
    perform pubsub.create_subscription('folded-holders', 'folded-holders',
        '{"max_in_flight_per_consumer": 10}');
    perform pg_temp.publish('folded-holders', 3);
    perform pubsub.consume_messages('folded-holders', 'first', 2);
    perform pubsub.consume_messages('folded-holders', 'second', 1);
    perform pubsub.recount_messages('folded-holders');
    v_keys := pubsub.subscription_keys('folded-holders');
    insert into pubsub_data.counters (topic_key, subscription_key, expired)
    select v_keys.topic_key, v_keys.subscription_key, 2 from generate_series(1, 2);

    perform pubsub.fold_counters(0);

    assert array(
        select format('%s %s', c.consumer_id, sum(c.leased))
        from pubsub_data.counters c
        where c.topic_key = v_keys.topic_key and c.due_at > clock_timestamp()
        group by c.consumer_id having sum(c.leased) <> 0
        order by c.consumer_id
    ) = array['first 2', 'second 1'], c_proves;
    assert (select m.expired from pubsub.subscription_metrics('folded-holders') m) = 4, c_proves;
    assert pubsub.recount_messages('folded-holders') = 0, c_proves;
end
$$;
