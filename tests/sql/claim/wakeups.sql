/* Wake-ups, and leases that end. Functions that look at all subscriptions come first. */

do $$
declare
    c_proves constant text := 'release_leases looks at its own subscription only';
    v_keys record;
begin
    perform pg_temp.stock('one', 1);
    perform pg_temp.stock('other', 1);
    perform pg_temp.claim('one');
    perform pg_temp.claim('other');
    perform pg_temp.later('one', '1 hour');
    perform pg_temp.later('other', '1 hour');
    v_keys := pubsub.subscription_keys('one');

    assert pubsub.release_leases(v_keys.topic_key, v_keys.subscription_key, 5, null) = 1, c_proves;
    assert (select m.available from pubsub.subscription_metrics('other') m) = 1, c_proves;
    v_keys := pubsub.subscription_keys('other');
    assert pubsub.release_leases(v_keys.topic_key, v_keys.subscription_key, 5, null) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'what ran out on its last attempt is dead-lettered, what did not is left';
    v_ids uuid[] := pg_temp.stock('spent-alone', 4, 2);
begin
    perform pg_temp.claim('spent-alone', 3);
    perform pubsub.nack_messages('spent-alone', v_ids[3:3]);
    perform pg_temp.later('spent-alone', '1 hour');
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[1];

    assert pubsub.dead_letter_spent_messages() = 1, c_proves;
    assert pubsub.dead_letter_spent_messages() = 0, c_proves;

    assert (
        select array_agg(l.message_id) = v_ids[1:1]
            and bool_and(l.reason = 'consumer_lost')
        from pubsub.list_dlq_messages('spent-alone') l
    ), c_proves;
    assert pg_temp.claim('spent-alone') = v_ids[2:4], c_proves;
    -- their deadlines lie ahead
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = any(v_ids);
    assert pubsub.dead_letter_spent_messages() = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a last lease that was extended is left alone';
    v_ids uuid[] := pg_temp.stock('spent-extended', 1, 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('spent-extended', 'consumer') c);
    perform pubsub.extend_messages('spent-extended', v_ids, v_leases, 600);
    perform pg_temp.later('spent-extended', '100 seconds');

    assert pubsub.dead_letter_spent_messages() = 0, c_proves;
    assert pubsub.cleanup_stuck_messages(null) = 0, c_proves;
    assert (select m.delivered from pubsub.subscription_metrics('spent-extended') m) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'only leases that were due to end after p_since are looked at';
begin
    perform pg_temp.stock('spent-since', 1, 1);
    perform pubsub.consume_messages('spent-since', 'consumer', 10, 60);
    perform pg_temp.later('spent-since', '1 hour');

    assert pubsub.dead_letter_spent_messages(clock_timestamp() - interval '58 minutes') = 0,
        c_proves;
    assert pubsub.dead_letter_spent_messages(clock_timestamp() - interval '60 minutes') = 1,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what expires is counted, or a dead letter, though nobody claims';
begin
    perform pubsub.create_topic('unclaimed');
    perform pubsub.create_subscription('unclaimed', 'unclaimed');
    perform pubsub.create_subscription('undead', 'unclaimed', '{"dead_letter_expired": true}');
    perform pubsub.publish_messages('unclaimed', array['{"n": 1}']::jsonb[],
        p_expires_at => array[clock_timestamp() + interval '1 minute']);
    perform pg_temp.later('unclaimed', '2 minutes');
    perform pg_temp.later('undead', '2 minutes');

    assert pubsub.dead_letter_spent_messages() = 2, c_proves;

    assert (
        select m.available = 0 and m.expired = 1 from pubsub.subscription_metrics('unclaimed') m
    ), c_proves;
    assert (
        select l.reason = 'expired' from pubsub.list_dlq_messages('undead') l
    ), c_proves || ': dead letter';
    assert pubsub.recount_messages('unclaimed') = 0 and pubsub.recount_messages('undead') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'take_due sorts what is due by its fate';
    v_ids uuid[] := pg_temp.stock('fates', 5, 2);
    v_keys record := pubsub.subscription_keys('fates');
    v_now timestamptz;
    v_due record;
begin
    perform pg_temp.claim('fates');
    perform pg_temp.later('fates', '1 hour');
    v_now := clock_timestamp();
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[2];
    update pubsub_data.deliveries d set expires_at = v_now where d.message_id = v_ids[3];
    update pubsub_data.deliveries d set visible_at = v_now + interval '1 s'
    where d.message_id = v_ids[4];

    v_due := pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, '-infinity', v_now, 1, 2);

    assert array(
        select d.message_id from pubsub_data.deliveries d where d.ctid = any(v_due.ready)
    ) = v_ids[1:1], c_proves;
    assert v_due.last_due_at between v_now - interval '1 hour' and v_now, c_proves;
    assert array(
        select d.message_id from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    ) = array[v_ids[1], v_ids[4], v_ids[5]], c_proves;
    assert array(select l.message_id from pubsub.list_dlq_messages('fates') l) = v_ids[2:2],
        c_proves;
    assert array(
        select w.message_ids::text || ' ' || (w.due_at - v_now)
        from pubsub_data.wakeups w
        where w.topic_key = v_keys.topic_key and w.subscription_key = v_keys.subscription_key
        order by w.due_at
    ) = array[format('{%s} 00:00:00', v_ids[5]), format('{%s} 00:00:01', v_ids[4])], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'take_due leaves alone what is due before p_from or after p_now';
    v_keys record;
    v_now timestamptz := clock_timestamp();
begin
    perform pg_temp.stock('window', 1);
    v_keys := pubsub.subscription_keys('window');
    perform pg_temp.claim('window');
    perform pg_temp.later('window', '2 minutes');

    assert pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, v_now, v_now, 1, 5)::text
        = '(,,)', c_proves;
    assert pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, '-infinity',
        v_now - interval '5 minutes', 1, 5)::text = '(,,)', c_proves;
    assert cardinality(pg_temp.claim('window')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease that ran out is remembered when the message is leased again';
    v_ids uuid[] := pg_temp.stock('lost', 4);
    v_keys record := pubsub.subscription_keys('lost');
    v_leased timestamptz;
    v_deadline timestamptz;
begin
    perform pg_temp.claim('lost', 3);
    perform pubsub.nack_messages('lost', v_ids[1:1]);
    perform pubsub.ack_messages('lost', v_ids[2:2]);
    perform pg_temp.later('lost', '1 hour');
    select d.leased_at, d.visible_at into v_leased, v_deadline
    from pubsub_data.deliveries d where d.message_id = v_ids[3];

    assert array(select i.id from unnest(pg_temp.claim('lost')) as i (id) order by i.id)
        = array[v_ids[1], v_ids[3], v_ids[4]], c_proves;

    -- what nack notes of its own is not looked at here
    assert array(
        select format('%s %s %s %s %s %s', f.message_id, f.attempt, f.consumer_id,
            f.delivered_at = v_leased, f.ended_at = v_deadline, f.outcome)
        from pubsub_data.failures f
        where f.subscription_key = v_keys.subscription_key and f.outcome <> 'nacked'
    ) = array[format('%s 1 consumer t t consumer_lost', v_ids[3])], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a look-back that finds a lease that ran out remembers it too';
    v_ids uuid[] := pg_temp.stock('found', 2);
begin
    perform pg_temp.claim('found');
    update pubsub_data.deliveries d set visible_at = clock_timestamp()
    where d.message_id = v_ids[1];
    perform pg_temp.reconnect('found');

    assert pg_temp.claim('found') = v_ids[1:1], c_proves;
    assert (select count(*) from pubsub_data.failures f where f.message_id = any(v_ids)) = 1,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'expired messages are counted, remembered and gone';
    v_ids uuid[] := pg_temp.stock('expired', 3);
    v_keys record := pubsub.subscription_keys('expired');
    v_claimed uuid[];
begin
    v_claimed := pg_temp.claim('expired', 1);
    update pubsub_data.deliveries d set expires_at = clock_timestamp()
    where d.message_id = any(v_ids[:2]);
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_keys.topic_key, v_keys.subscription_key, clock_timestamp(), v_ids[2:2]);

    -- the lease of the first still runs
    assert pg_temp.claim('expired') = v_ids[3:], c_proves;
    assert (select f.message_id = v_ids[2] and f.attempt = 0 and f.outcome = 'expired'
        from pubsub_data.failures f where f.message_id = any(v_ids)), c_proves;
    perform pg_temp.later('expired', '1 hour');
    assert pg_temp.claim('expired') = v_ids[3:], c_proves;

    assert (select sum(c.expired) = 2 and sum(c.backlog) = 1
        from pubsub_data.counters c where c.subscription_key = v_keys.subscription_key), c_proves;
    assert array(
        select format('%s %s', f.attempt, f.consumer_id) from pubsub_data.failures f
        where f.message_id = any(v_ids) and f.outcome = 'expired' order by f.message_id
    ) = array['1 consumer', '0 '], c_proves;
    assert not exists (select from pubsub.list_dlq_messages('expired')), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what take_due hands out of a lane is in order, and nothing is lost';
    v_ids uuid[];
    v_keys record;
    v_due record;
    v_left uuid[] := '{}';
begin
    perform pg_temp.stock('orderly');
    v_keys := pubsub.subscription_keys('orderly');
    v_ids := pg_temp.publish_in_lanes('orderly', array['a', 'b', 'a']);
    -- the later one of its lane was due first
    update pubsub_data.deliveries d
    set visible_at = clock_timestamp() - interval '1 s' * array_position(v_ids, d.message_id)
    where d.message_id = any(v_ids);
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_keys.topic_key, v_keys.subscription_key, clock_timestamp(), v_ids);

    for i in 1 .. 3 loop
        v_due := pubsub.take_due(v_keys.topic_key, v_keys.subscription_key, '-infinity',
            clock_timestamp(), 1, 5);
        v_left := v_left || array(
            select d.message_id from pubsub_data.deliveries d where d.ctid = any(v_due.ready));
        update pubsub_data.deliveries d set visible_at = 'infinity'
        where d.ctid = any(v_due.ready);
    end loop;

    assert v_left = array[v_ids[2], v_ids[1], v_ids[3]], c_proves;
    assert not v_due.lost, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a claim of one does not judge all of a thousand that are due at once, and none is forgotten';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_due record;
    v_claimed uuid[] := '{}';
begin
    perform pg_temp.stock('thousand');
    v_ids := pg_temp.publish('thousand', 1000);
    v_claim := pubsub.claim_terms_of('thousand', null, 60);
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_claim.topic_key, v_claim.subscription_key, v_claim.now, v_ids);

    v_due := pubsub.take_due(
        v_claim.topic_key, v_claim.subscription_key, '-infinity', v_claim.now, 1, 5);
    assert cardinality(v_due.ready) = 1, c_proves;
    assert (
        select count(*) = 10 and max(cardinality(w.message_ids)) = 100
            and sum(cardinality(w.message_ids)) = 999
        from pubsub_data.wakeups w
        where w.topic_key = v_claim.topic_key and w.subscription_key = v_claim.subscription_key
    ), c_proves;
    assert (
        select count(*) = 100
        from pubsub_data.deliveries d
        where d.message_id = any(v_ids) and d.xmax <> 0
    ), c_proves || ': locked';
    -- what is left, claim by claim, without the one above
    for v_claim_number in 1 .. 111 loop
        v_due := pubsub.take_due(v_claim.topic_key, v_claim.subscription_key, '-infinity',
            clock_timestamp(), 9, 5);
        v_claimed := v_claimed || pg_temp.ids_at(v_due.ready);
    end loop;
    assert (select count(distinct c.id) = 999 from unnest(v_claimed) as c (id)), c_proves || ': all';
end
$$;
