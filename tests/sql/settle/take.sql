/* Taking: claim and ack in one call. */

do $$
declare
    c_proves constant text := 'what is returned is settled, and nothing else';
    v_ids uuid[] := pg_temp.stock('taken', 5);
    v_taken record;
begin
    select array_agg(t.message_id order by t.message_id) as ids,
        array_agg(t.payload ->> 'n' order by t.message_id) as payloads,
        bool_and(t.attempts = 1 and t.published_at is not null) as are_first
    into v_taken
    from pubsub.take_messages('taken', 'me', 3) t;
    assert v_taken.ids = v_ids[:3] and v_taken.payloads = array['1', '2', '3'] and v_taken.are_first,
        c_proves;
    assert pg_temp.counts('taken') = '2 available, 0 delivered, 0 scheduled, 3 acked, 0 dlq', c_proves;
    assert array(
        select e.event || ' ' || e.consumer_id
        from pubsub.subscription_keys('taken') k
        cross join lateral pubsub.message_events(k.topic_key, k.subscription_key, v_ids[1]) e
    ) = array['delivered me', 'acked me'], c_proves || ': as a claim and its ack';
    assert pg_temp.claim('taken') = v_ids[4:], c_proves;
    assert not exists (select from pubsub.take_messages('taken', 'me')), c_proves;
    perform pg_temp.later('taken', '1 hour');
    assert (select count(*) from pubsub.take_messages('taken', 'me')) = 2, c_proves;
    assert pg_temp.counts('taken') = '0 available, 0 delivered, 0 scheduled, 5 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs are taken as they are, whole and in part';
    v_ids uuid[] := pg_temp.stock_runs('taken-runs', 250);
begin
    assert (select array_agg(t.message_id) from pubsub.take_messages('taken-runs', 'me', 130) t)
        = v_ids[:130], c_proves;
    assert pg_temp.runs('taken-runs') = '70 ready, 50 ready', c_proves;
    assert (select array_agg(t.message_id) from pubsub.take_messages('taken-runs', 'me', 2) t)
        = v_ids[131:132], c_proves;
    assert (select array_agg(t.message_id) from pubsub.take_messages('taken-runs', 'me', 500) t)
        = v_ids[133:], c_proves;
    assert pg_temp.counts('taken-runs') = '0 available, 0 delivered, 0 scheduled, 250 acked, 0 dlq',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'each consumer of take_messages_for gets its own, and is remembered';
    v_ids uuid[] := pg_temp.stock('taken-for', 5);
    v_got record;
begin
    select string_agg(t.consumer || ':' || array_position(v_ids, t.message_id), ' ') as dealt,
        (array_agg(t.head))[1] as head, (array_agg(t.rewinds))[1] as rewinds
    into v_got
    from pubsub.take_messages_for('taken-for', array['a', 'b'], array[2, 1]) t;
    assert v_got.dealt = '1:1 1:2 2:3' and v_got.head = v_ids[3] and v_got.rewinds = 0, c_proves;
    assert array(
        select a.consumer_id || ' ' || cardinality(a.message_ids) from pubsub_data.acked a
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'taken-for' order by 1
    ) = array['a 2', 'b 1'], c_proves;
    assert (
        select count(*) from pubsub.take_messages_for('taken-for', array['a'], array[9],
            p_max_bytes => 1) t where t.is_cut
    ) = 1, c_proves || ': as many bytes as it may';
    assert pg_temp.claim('taken-for') = v_ids[5:], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'taking and passing over what was seen go together';
    v_ids uuid[] := pg_temp.stock('taken-unseen', 4);
begin
    perform pubsub.consume_messages('taken-unseen', 'ann', 1);
    perform pubsub.consume_messages('taken-unseen', 'bob', 1);
    perform pg_temp.later('taken-unseen', '1 hour');
    assert (select array_agg(t.message_id) from pubsub.take_messages('taken-unseen', 'ann', 1,
        p_only => 'new') t) = v_ids[3:3], c_proves;
    assert (select array_agg(t.message_id) from pubsub.take_messages('taken-unseen', 'ann',
        p_only => 'unseen') t) = array[v_ids[2], v_ids[4]], c_proves;
    assert pg_temp.counts('taken-unseen') = '1 available, 0 delivered, 0 scheduled, 3 acked, 0 dlq',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the next message of a key follows one that was taken';
    v_ids uuid[];
begin
    perform pubsub.create_topic('taken-keys');
    perform pubsub.create_subscription('taken-keys', 'taken-keys',
        '{"enable_ordering": true, "max_in_flight": 1}');
    v_ids := pg_temp.publish_in_lanes('taken-keys', array['k', 'k', 'k']);
    for v_n in 1 .. 3 loop
        assert (select array_agg(t.message_id) from pubsub.take_messages('taken-keys', 'me', 1) t)
            = v_ids[v_n : v_n], c_proves;
    end loop;
    assert pubsub.recount_messages('taken-keys') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'several subscriptions are taken from until there are enough';
    v_got text[];
begin
    perform pg_temp.stock('take-1', 1);
    perform pg_temp.stock('take-2', 2);
    select array_agg(t.subscription_id || ' ' || (t.payload ->> 'n') order by 1) into v_got
    from (select x.* from pubsub.take_messages_from(array['take-1', 'take-2'], 'me') x
        order by x.subscription_id, x.message_id) t;
    assert v_got = array['take-1 1', 'take-2 1', 'take-2 2'], format('%s: %s', c_proves, v_got);
    assert pg_temp.counts('take-1') = '0 available, 0 delivered, 0 scheduled, 1 acked, 0 dlq'
        and pg_temp.counts('take-2') = '0 available, 0 delivered, 0 scheduled, 2 acked, 0 dlq',
        c_proves;
    assert not exists (select from pubsub.take_messages_from(array['take-1', 'take-2'], 'me')),
        c_proves;
    assert pg_temp.refusal($q$select pubsub.take_messages_from(array['take-1', 'no'], 'me')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be taken is refused, and what was not leased is not acked';
    v_ids uuid[] := pg_temp.stock('taken-refused', 1);
begin
    assert pg_temp.refusal($q$select pubsub.take_messages('no', 'me')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.take_messages('taken-refused', 'me', 1001)$q$)
        = 'PS422(batch_size) batch_size must be 1 to 1000', c_proves;
    assert pg_temp.refusal($q$select pubsub.take_messages('taken-refused', null)$q$)
        = 'PS422(consumer_id) consumer_id is required', c_proves;
    assert pg_temp.refusal(
        format('select pubsub.ack_taken(%L, array[%L]::uuid[], array[1])', 'taken-refused', v_ids[1]))
        = '40001 The subscription was purged meanwhile: call again', c_proves;
    assert pg_temp.claim('taken-refused') = v_ids, c_proves;
end
$$;
