/* Counts of a subscription by state. */

do $$
declare
    c_proves constant text := 'every state is counted exactly';
    v_ids uuid[] := pg_temp.stock('counts', 20, 2);
    v_counts record;
begin
    perform pg_temp.claim('counts', 1);
    -- its ack deadline passes
    perform pg_temp.later('counts', '1 hour');
    perform pg_temp.reconnect('counts');
    assert pg_temp.claim('counts', 12) = v_ids[1:12], c_proves;
    perform pubsub.ack_messages('counts', v_ids[1:5]);
    perform pubsub.nack_messages('counts', v_ids[6:7]);
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = any(v_ids[8:11]);
    perform pubsub.nack_messages('counts', v_ids[8:11]);
    perform pubsub.extend_messages('counts', v_ids[12:12], array(
        select d.lease from pubsub_data.deliveries d where d.message_id = v_ids[12]), 900);
    perform pg_temp.later('counts', '200 seconds');
    -- those nacked are due again
    perform pg_temp.claim('counts', 2);
    perform pubsub.nack_messages('counts', v_ids[6:6]);
    perform pubsub.publish_messages('counts', array['{}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);

    select * into v_counts from pubsub.subscription_metrics('counts');

    assert v_counts.subscription_id = 'counts', c_proves;
    assert v_counts.available = 8, c_proves || ': ' || v_counts;
    assert v_counts.delivered = 2, c_proves || ': ' || v_counts;
    assert v_counts.scheduled = 1, c_proves || ': ' || v_counts;
    assert v_counts.acked = 5, c_proves || ': ' || v_counts;
    assert v_counts.dlq = 5, c_proves || ': ' || v_counts;
    assert pubsub.recount_messages('counts') = 0, c_proves || ': as recounted';
end
$$;

do $$
declare
    c_proves constant text := 'a lease that ended counts as available, and as dead once it is moved';
begin
    perform pg_temp.stock('spent', 1, 1);
    perform pg_temp.claim('spent');
    perform pg_temp.later('spent', '1 hour');

    assert (
        select m.delivered = 0 and m.available = 1 and m.dlq = 0
        from pubsub.subscription_metrics('spent') m
    ), c_proves;
    perform pubsub.cleanup_stuck_messages(null);
    assert (
        select m.delivered = 0 and m.available = 0 and m.dlq = 1
        from pubsub.subscription_metrics('spent') m
    ), c_proves;
    perform pubsub.reprocess_dlq_messages('spent', array(
        select l.message_id from pubsub.list_dlq_messages('spent') l));
    assert (
        select m.delivered = 0 and m.available = 1 and m.dlq = 0
        from pubsub.subscription_metrics('spent') m
    ), c_proves || ': reprocessed';
    perform pg_temp.claim('spent');
    perform pubsub.cleanup_stuck_messages(0);
    assert (
        select m.delivered = 0 and m.available = 0 and m.dlq = 1
        from pubsub.subscription_metrics('spent') m
    ), c_proves || ': stuck';
    assert pubsub.recount_messages('spent') = 0, c_proves || ': as recounted';
end
$$;

do $$
declare
    c_proves constant text := 'a subscription without messages has zeros, an unknown one is PS404';
begin
    perform pg_temp.stock('empty');

    assert (select m::text from pubsub.subscription_metrics('empty') m) 
        = '(empty,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0)',
        c_proves;
    assert pg_temp.refusal($q$select pubsub.subscription_metrics('none')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions of one topic are counted apart';
begin
    perform pg_temp.stock('apart');
    perform pubsub.create_subscription('apart-2', 'apart');
    perform pg_temp.publish('apart', 3);
    perform pubsub.ack_messages('apart', pg_temp.claim('apart', 1));

    assert (select m::text from pubsub.subscription_metrics('apart') m) 
        = '(apart,2,0,0,1,0,0,0,3,1,1,0,0,0,0,0,0)',
        c_proves;
    assert (select m::text from pubsub.subscription_metrics('apart-2') m) 
        = '(apart-2,3,0,0,0,0,0,0,3,0,0,0,0,0,0,0,0)',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the list has the same counts, of the first subscriptions by id';
begin
    assert (
        select array_agg(l::text order by l.subscription_id collate "C")
            = array_agg(m::text order by l.subscription_id collate "C")
            and count(*) = (select count(*) from pubsub_data.subscriptions)
        from pubsub.list_subscription_metrics() l
        cross join lateral pubsub.subscription_metrics(l.subscription_id) m
    ), c_proves;
    assert array(
        select l.subscription_id from pubsub.list_subscription_metrics(2) l
    ) = array['apart', 'apart-2'], c_proves;
    assert array(
        select l.subscription_id from pubsub.list_subscription_metrics(p_prefix => 'apart-') l
    ) = array['apart-2'], c_proves;
    assert (select count(*) from pubsub.list_subscription_metrics(p_prefix => 'apart%')) = 0, c_proves;
end
$$;

/*
 * totals — of a subscription: published, delivered, acked, nacked, rejected,
 * expired, dead_lettered, redelivered, extended; the same before and after its counters are folded and
 * recounted.
 */
create function pg_temp.totals(p_subscription text)
returns int[]
language plpgsql volatile
as $$
declare
    v_totals int[];
    v_again int[];
begin
    for v_n in 1..3 loop
        select array[m.published_total, m.delivered_total, m.acked_total, m.nacked_total,
            m.rejected_total, m.expired_total, m.dead_lettered_total, m.redelivered_total,
            m.extended_total]
        into v_again from pubsub.subscription_metrics(p_subscription) m;
        v_totals := coalesce(v_totals, v_again);
        assert v_again = v_totals, format('totals stay: %s, then %s', v_totals, v_again);
        if v_n = 1 then
            perform pubsub.fold_counters(0);
        else
            assert pubsub.recount_messages(p_subscription) = 0, 'counts agree with the messages';
        end if;
    end loop;
    return v_totals;
end
$$;

do $$
declare
    c_proves constant text := 'a publish, a claim, an ack of one are counted as one each';
    v_ids uuid[];
begin
    perform pg_temp.stock('one');
    for v_n in 1..3 loop
        perform pg_temp.publish('one');
        -- the first one looks thoroughly, the others find what is fresh
        v_ids := pg_temp.claim('one', 1);
        assert pg_temp.totals('one') = array[v_n, v_n, v_n - 1, 0, 0, 0, 0, 0, 0], c_proves;
        perform pubsub.ack_messages('one', v_ids);
    end loop;
    assert pg_temp.totals('one') = array[3, 3, 3, 0, 0, 0, 0, 0, 0], c_proves;
    perform pg_temp.publish('one');
    update pubsub_data.deliveries d set attempts = 1
    where d.subscription_key = (pubsub.subscription_keys('one')).subscription_key;
    perform pg_temp.claim('one', 1);
    assert pg_temp.totals('one') = array[4, 4, 3, 0, 0, 0, 0, 1, 0], c_proves || ', the second time too';
end
$$;

do $$
declare
    c_proves constant text := 'a merged claim counts what all its consumers got';
begin
    perform pg_temp.stock('merged', 5);
    perform pubsub.consume_messages_for('merged', array['a', 'b', 'c'], array[1, 3, 4]);

    assert pg_temp.totals('merged') = array[5, 5, 0, 0, 0, 0, 0, 0, 0], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs are counted by their messages, whole and in parts';
    v_ids uuid[] := pg_temp.stock_runs('run', 100);
begin

    v_ids := pg_temp.claim('run', 60);
    assert pg_temp.totals('run') = array[100, 60, 0, 0, 0, 0, 0, 0, 0], c_proves;
    perform pubsub.ack_messages('run', v_ids[1:20]);
    assert pg_temp.totals('run') = array[100, 60, 20, 0, 0, 0, 0, 0, 0], c_proves;
    perform pubsub.nack_messages('run', v_ids[21:30]);
    assert pg_temp.totals('run') = array[100, 60, 20, 10, 0, 0, 0, 0, 0], c_proves;
    perform pg_temp.claim('run', 40);
    assert pg_temp.totals('run') = array[100, 100, 20, 10, 0, 0, 0, 0, 0], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is delivered again is counted, after a nack and after a lease that ran out';
    v_ids uuid[] := pg_temp.stock('again', 3);
begin
    perform pg_temp.claim('again', 2);
    perform pubsub.nack_messages('again', v_ids[1:1]);
    perform pg_temp.later('again', '1 hour');
    perform pg_temp.reconnect('again');
    perform pg_temp.claim('again');

    assert pg_temp.totals('again') = array[3, 5, 0, 1, 0, 0, 0, 2, 0], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a nack that spends the attempts, a reject and a lost lease are dead letters';
    v_ids uuid[] := pg_temp.stock('dead', 4, 1);
    v_claimed record;
begin
    select array_agg(c.message_id) as ids, array_agg(c.lease) as leases into v_claimed
    from pubsub.consume_messages('dead', 'consumer', 4) c;
    perform pubsub.settle_messages('dead', v_claimed.ids[1:3], v_claimed.leases[1:3],
        array['nack', 'reject', 'extend'], array[0, null, 60]);
    assert pg_temp.totals('dead') = array[4, 4, 0, 1, 1, 0, 2, 0, 1], c_proves;
    perform pg_temp.later('dead', '1 hour');
    perform pubsub.cleanup_stuck_messages(null);
    assert pg_temp.totals('dead') = array[4, 4, 0, 1, 1, 0, 4, 0, 1], c_proves;

    perform pubsub.reprocess_dlq_messages('dead', v_ids[1:2]);
    perform pubsub.purge_dlq_messages('dead');
    perform pg_temp.claim('dead');
    assert pg_temp.totals('dead') = array[4, 6, 0, 1, 1, 0, 4, 0, 1],
        c_proves || ': those that come back were not published again';
end
$$;

do $$
declare
    c_proves constant text := 'what expires is counted, and as a dead letter where it becomes one';
    v_name text;
begin
    foreach v_name in array array['over', 'over-dead'] loop
        perform pubsub.create_topic(v_name);
        perform pubsub.create_subscription(v_name, v_name,
            json_build_object('dead_letter_expired', v_name = 'over-dead'));
        perform pubsub.publish_messages(v_name, array['{}', '{}']::jsonb[],
            p_expires_at => array[clock_timestamp() + interval '1 hour', null]);
        perform pg_temp.later(v_name, '2 hours');
        perform pg_temp.claim(v_name);
    end loop;

    assert pg_temp.totals('over') = array[2, 1, 0, 0, 0, 1, 0, 0, 0], c_proves;
    assert pg_temp.totals('over-dead') = array[2, 1, 0, 0, 0, 1, 1, 0, 0], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'extends and releases move no other total';
    v_claimed record;
begin
    perform pg_temp.stock('longer', 2);
    select array_agg(c.message_id) as ids, array_agg(c.lease) as leases into v_claimed
    from pubsub.consume_messages('longer', 'consumer', 2) c;
    perform pubsub.extend_messages('longer', v_claimed.ids, v_claimed.leases, 7200);
    perform pubsub.extend_messages('longer', v_claimed.ids[1:1], v_claimed.leases[1:1], 7200);
    assert pg_temp.totals('longer') = array[2, 2, 0, 0, 0, 0, 0, 0, 3], c_proves;

    perform pubsub.release_messages('longer', v_claimed.ids, v_claimed.leases);
    assert pg_temp.totals('longer') = array[2, 2, 0, 0, 0, 0, 0, 0, 3], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'acks that are forgotten or replayed stay counted, and nothing is published by that';
    v_ids uuid[] := pg_temp.stock('forgotten', 3);
begin
    perform pubsub.ack_messages('forgotten', pg_temp.claim('forgotten', 2));
    perform pubsub.redeliver_messages(s.topic_key, s.subscription_key, v_ids[1:1])
    from pubsub_data.subscriptions s where s.subscription_id = 'forgotten';
    assert pg_temp.totals('forgotten') = array[3, 2, 2, 0, 0, 0, 0, 0, 0], c_proves;
    perform pg_temp.claim('forgotten');
    update pubsub_data.acked a set acked_at = now() - interval '1 day';
    perform pubsub.cleanup_acked_messages(1);

    assert (select m.acked from pubsub.subscription_metrics('forgotten') m) < 2, c_proves;
    assert pg_temp.totals('forgotten') = array[3, 4, 2, 0, 0, 0, 0, 0, 0], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'who holds what is told apart, and totals stay when that is folded';
    v_keys record;
begin
    perform pubsub.create_topic('held');
    perform pubsub.create_subscription('held', 'held', '{"max_in_flight_per_consumer": 2}');
    perform pg_temp.publish('held', 4);
    perform pubsub.consume_messages_for('held', array['a', 'b'], array[2, 2]);
    perform pubsub.nack_messages('held', array(
        select d.message_id from pubsub_data.deliveries d where d.consumer_id = 'a'));
    perform pg_temp.later('held', '1 minute');
    perform pubsub.consume_messages('held', 'c', 2);
    v_keys := pubsub.subscription_keys('held');
    perform pubsub.fold_held(v_keys.topic_key, v_keys.subscription_key);

    assert pg_temp.totals('held') = array[4, 6, 0, 2, 0, 0, 0, 2, 0], c_proves;
end
$$;
