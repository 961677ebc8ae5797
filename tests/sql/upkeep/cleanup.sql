/* Cleaning up: stuck leases, acked messages, deleted subscriptions. */

do $$
declare
    c_proves constant text := 'cleanup ends leases whose deadline has passed, and counts them';
    v_ids uuid[] := pg_temp.stock('passed', 3);
begin
    perform pg_temp.claim('passed', 2);
    perform pg_temp.later('passed', '1 hour');
    perform pg_temp.claim('passed', 1);

    -- one of the first two is leased again, the other still waits for somebody to look
    assert pubsub.cleanup_stuck_messages(null) = 1, c_proves;
    assert pubsub.cleanup_stuck_messages(null) = 0, c_proves;
    assert (
        select m.available = 2 and m.delivered = 1 from pubsub.subscription_metrics('passed') m
    ), c_proves;
    assert pg_temp.claim('passed') = v_ids[2:3], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a released delivery keeps its attempts, and its old lease fits nothing';
    v_ids uuid[] := pg_temp.stock('released', 1);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('released', 'consumer') c);
    perform pg_temp.later('released', '1 hour');

    perform pubsub.cleanup_stuck_messages(null);

    assert pubsub.ack_messages('released', v_ids, v_leases) = 0, c_proves;
    assert pubsub.ack_messages('released', v_ids) = 0, c_proves;
    assert (
        select c.attempts = 2 and c.message_id = v_ids[1]
        from pubsub.consume_messages('released', 'consumer') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'cleanup dead-letters what was stuck on its last attempt, and counts it';
    v_ids uuid[] := pg_temp.stock('spent', 2, 1);
begin
    perform pg_temp.claim('spent');
    perform pg_temp.later('spent', '1 hour');

    assert pubsub.cleanup_stuck_messages() = 2, c_proves;

    assert (
        select array_agg(l.message_id) = v_ids
            and bool_and(l.reason = 'consumer_lost')
        from pubsub.list_dlq_messages('spent') l
    ), c_proves;
    assert pg_temp.claim('spent') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a lease older than the timeout is stuck, unless the subscription has its own deadline';
begin
    perform pg_temp.stock('timeout', 1);
    perform pg_temp.stock('timeout-own', 1, p_ack_deadline_seconds => 600);
    perform pubsub.consume_messages('timeout', 'consumer', 10, 600);
    perform pg_temp.claim('timeout-own');
    perform pg_temp.later('timeout', '100 seconds');
    perform pg_temp.later('timeout-own', '100 seconds');

    assert pubsub.cleanup_stuck_messages(null) = 0, c_proves;
    assert pubsub.cleanup_stuck_messages(101) = 0, c_proves;
    assert pubsub.cleanup_stuck_messages(100) = 1, c_proves;
    assert cardinality(pg_temp.claim('timeout')) = 1, c_proves;
    assert pg_temp.claim('timeout-own') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'cleanup leaves alone what waits for its time';
begin
    perform pg_temp.stock('waiting', 1);
    perform pubsub.nack_messages('waiting', pg_temp.claim('waiting'));
    perform pubsub.publish_messages('waiting', array['{}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);

    perform pubsub.cleanup_stuck_messages(0);

    assert (select m.scheduled from pubsub.subscription_metrics('waiting') m) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'acked messages older than the threshold are forgotten, and counted';
    v_ids uuid[] := pg_temp.stock('acked', 10);
begin
    perform pg_temp.claim('acked');
    perform pubsub.ack_messages('acked', v_ids[1:2]);
    perform pubsub.ack_messages('acked', v_ids[3:3]);
    perform pubsub.ack_messages('acked', v_ids[4:7]);
    update pubsub_data.acked a set acked_at = a.acked_at - interval '2 hours';
    perform pubsub.ack_messages('acked', v_ids[8:10]);

    assert pubsub.cleanup_acked_messages(7300) = 0, c_proves;
    assert pubsub.cleanup_acked_messages(p_limit => 3) = 3, c_proves;
    assert pubsub.cleanup_acked_messages() = 4, c_proves;
    assert pubsub.cleanup_acked_messages() = 0, c_proves;
    assert (select m.acked from pubsub.subscription_metrics('acked') m) = 3, c_proves;
    assert pubsub.cleanup_acked_messages(0) = 3, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'acked messages of a whole partition are forgotten in one call';
    v_ids uuid[] := pg_temp.stock('partition', 5);
begin
    delete from pubsub_data.acked;
    perform pubsub.make_partitions('acked', 4 * 2592000);
    perform pg_temp.come_of_age('acked');
    perform pg_temp.claim('partition');
    perform pubsub.ack_messages('partition', v_ids);
    update pubsub_data.partitions p
    set from_at = p.from_at - interval '90 days', until_at = p.until_at - interval '90 days'
    where p.parent = 'acked';

    assert pubsub.cleanup_acked_messages(p_limit => 1) = 5, c_proves;
    assert pubsub.cleanup_acked_messages() = 0, c_proves;
    assert (select m.acked from pubsub.subscription_metrics('partition') m) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a threshold or limit out of range is refused, naming the field';
    v_case record;
begin
    for v_case in
        select * from (values
            ('PS422(older_than_seconds) older_than_seconds must be 0 to 2147483647', '-1'),
            ('PS422(older_than_seconds) older_than_seconds must be 0 to 2147483647', 'null'),
            ('PS422(limit) limit must be 1 to 1000000', '0, 0'),
            ('PS422(limit) limit must be 1 to 1000000', '0, 1000001'),
            ('PS422(limit) limit must be 1 to 1000000', '0, null')
        ) c (refusal, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.cleanup_acked_messages(%s)', v_case.arguments))
            = v_case.refusal, c_proves || ': ' || v_case.arguments;
    end loop;
    assert pg_temp.refusal('select pubsub.cleanup_acked_messages(2147483647, 1000000)') is null,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'deleted subscriptions are purged batch by batch, and only they';
    v_ids uuid[] := pg_temp.stock('purged', 10, 1);
    v_keys record := pubsub.subscription_keys('purged');
    v_removed bigint := 0;
    v_rows bigint;
begin
    perform pg_temp.stock('purged-not', 4);
    perform pg_temp.claim('purged', 6);
    perform pubsub.nack_messages('purged', v_ids[1:4]);
    perform pg_temp.stock('purged-2', 4);
    perform pubsub.delete_subscription('purged');
    perform pubsub.delete_subscription('purged-2');

    -- 6 and 4 deliveries, 4 dead letters, the wake-up of the claim
    for v_step in 1 .. 20 loop
        v_rows := pubsub.purge_deleted_subscriptions(2);
        exit when v_rows = 0;
        assert v_rows <= 5, c_proves;
        v_removed := v_removed + v_rows;
    end loop;

    assert v_removed = 15, c_proves || ': ' || v_removed;
    assert not exists (
        select from pubsub_data.deliveries d where d.topic_key = v_keys.topic_key
        union all
        select from pubsub_data.dead_letters l where l.topic_key = v_keys.topic_key
        union all
        select from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key
    ), c_proves;
    assert cardinality(pg_temp.claim('purged-not')) = 4, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key is kept for an hour, for publishes that were under way';
    v_keys record;
begin
    perform pg_temp.stock('late');
    v_keys := pubsub.subscription_keys('late');
    perform pubsub.delete_topic('late');
    perform pubsub.purge_deleted_subscriptions();
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
    values (v_keys.topic_key, v_keys.subscription_key, gen_random_uuid());

    assert pubsub.purge_deleted_subscriptions() = 1, c_proves;
    update pubsub_data.deleted_subscriptions g set deleted_at = g.deleted_at - interval '59 minutes'
    where g.topic_key = v_keys.topic_key;
    perform pubsub.purge_deleted_subscriptions();
    assert exists (
        select from pubsub_data.deleted_subscriptions g where g.topic_key = v_keys.topic_key
    ), c_proves;
    update pubsub_data.deleted_subscriptions g set deleted_at = g.deleted_at - interval '2 minutes'
    where g.topic_key = v_keys.topic_key;
    perform pubsub.purge_deleted_subscriptions();
    assert not exists (
        select from pubsub_data.deleted_subscriptions g where g.topic_key = v_keys.topic_key
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a deleted subscription leaves no counters';
    v_keys record;
begin
    perform pg_temp.stock('uncounted', 2);
    v_keys := pubsub.subscription_keys('uncounted');
    perform pubsub.ack_messages('uncounted', pg_temp.claim('uncounted'));
    perform pubsub.delete_subscription('uncounted');
    perform pubsub.purge_deleted_subscriptions();

    perform pubsub.cleanup_acked_messages(0);

    assert not exists (
        select from pubsub_data.counters c
        where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease that cleanup ends is remembered as a lost consumer';
    v_ids uuid[] := pg_temp.stock('lost', 2, 2);
begin
    perform pg_temp.claim('lost');
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[2];
    perform pg_temp.later('lost', '1 hour');

    perform pubsub.cleanup_stuck_messages(null);

    assert array(
        select format('%s %s %s %s', f.attempt, f.consumer_id, f.outcome,
            f.ended_at - f.delivered_at between interval '1 hour' and interval '61 minutes')
        from pubsub_data.failures f where f.message_id = any(v_ids) order by f.message_id
    ) = array['1 consumer consumer_lost t', '2 consumer consumer_lost t'], c_proves;
    assert pubsub.recount_messages('lost') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease that was extended lately is not stuck, however old it is';
    v_ids uuid[] := pg_temp.stock('extended', 1);
begin
    perform pubsub.consume_messages('extended', 'consumer', 10, 600);
    perform pg_temp.later('extended', '100 seconds');
    update pubsub_data.deliveries d set extended_at = clock_timestamp() - interval '10 seconds'
    where d.message_id = v_ids[1];

    perform pubsub.cleanup_stuck_messages(60);
    assert (select m.delivered from pubsub.subscription_metrics('extended') m) = 1, c_proves;
    perform pubsub.cleanup_stuck_messages(10);
    assert (select m.available from pubsub.subscription_metrics('extended') m) = 1, c_proves;
    assert (
        select d.extended_at is null from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'failures are forgotten by age, the oldest first, batch by batch';
    v_ids uuid[] := pg_temp.stock('failures', 5);
begin
    delete from pubsub_data.failures;
    insert into pubsub_data.failures (
        topic_key, subscription_key, message_id, attempt, ended_at, outcome
    )
    select 1, 1, i.id, 1, clock_timestamp() - make_interval(hours => 6 - i.n::int), 'nacked'
    from unnest(v_ids) with ordinality i (id, n);

    assert pubsub.cleanup_failures(3 * 3600, 2) = 2, c_proves;
    assert array(select f.message_id from pubsub_data.failures f order by 1) = v_ids[3:5], c_proves;
    assert pubsub.cleanup_failures(3 * 3600, 2) = 1, c_proves;
    assert pubsub.cleanup_failures(3 * 3600, 2) = 0, c_proves;
    assert pubsub.cleanup_failures(0) = 2, c_proves;
    assert pg_temp.refusal('select pubsub.cleanup_failures(-1)') =
        'PS422(older_than_seconds) older_than_seconds must be 0 to 2147483647', c_proves;
    assert pg_temp.refusal('select pubsub.cleanup_failures(0, 0)') =
        'PS422(limit) limit must be 1 to 1000000', c_proves;
end
$$;
