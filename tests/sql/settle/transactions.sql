/* Acks and publishes in one step. Two at once are in tests/engine/transactions.rs. */

/* leases — consume; the lease numbers in the order of the messages. */
create function pg_temp.leases(p_subscription text, p_batch_size int default 1000)
returns bigint[]
language sql volatile
as $$
    select array_agg(c.lease order by c.message_id)
    from pubsub.consume_messages(p_subscription, 'consumer', p_batch_size) c
$$;

/* stale — the detail of the refusal of a transaction that only acks. */
create function pg_temp.stale(p_subscriptions text[], p_ids uuid[], p_leases bigint[])
returns jsonb
language plpgsql volatile
as $$
declare
    v_detail text;
begin
    perform pubsub.apply_transaction(p_subscriptions, p_ids, p_leases);
    return null;
exception when sqlstate 'PS409' then
    get stacked diagnostics v_detail = pg_exception_detail;
    return v_detail;
end
$$;

do $$
declare
    c_proves constant text := 'acks and publishes are done together, and the ids come in order';
    v_one uuid[] := pg_temp.stock('step-one', 3);
    v_two uuid[] := pg_temp.stock('step-two', 2);
    v_leases bigint[];
    v_ids uuid[];
begin
    v_leases := pg_temp.leases('step-two') || pg_temp.leases('step-one', 2);
    perform pg_temp.stock('step-out');

    v_ids := array(
        select t.message_id
        from pubsub.apply_transaction(
            array['step-two', 'step-two', 'step-one', 'step-one'], v_two || v_one[1:2], v_leases,
            array['step-out', 'step-one', 'step-out'],
            array['{"n": 10}', '{"n": 11}', '{"n": 12}']::jsonb[],
            array[null, null, '{"a": "b"}']::jsonb[]
        ) t
    );

    assert array(
        select c.message_id from pubsub.consume_messages('step-out', 'consumer') c
    ) = array[v_ids[1], v_ids[3]], c_proves;
    assert array(
        select c.payload from pubsub.consume_messages('step-one', 'consumer') c
    ) = array['{"n": 3}', '{"n": 11}']::jsonb[], c_proves;
    assert (select m.attributes from pubsub_data.messages m where m.message_id = v_ids[3])
        = '{"a": "b"}', c_proves;
    assert (
        select sum(m.acked) from pubsub.list_subscription_metrics() m
        where m.subscription_id in ('step-one', 'step-two')
    ) = 4, c_proves;
    assert pubsub.recount_messages('step-one') = 0 and pubsub.recount_messages('step-two') = 0
        and pubsub.recount_messages('step-out') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'one stale lease undoes all, and all stale ones are named';
    v_ids uuid[] := pg_temp.stock('stale', 4);
    v_leases bigint[];
    v_refusal text;
begin
    v_leases := pg_temp.leases('stale', 3);
    perform pubsub.ack_messages('stale', v_ids[2:2]);

    v_refusal := pg_temp.refusal(format($q$
        select pubsub.apply_transaction(array['stale', 'stale', 'stale', 'stale'], %L, %L,
            array['stale'], array['{"n": 9}']::jsonb[])
        $q$, v_ids, array[v_leases[1], v_leases[2], v_leases[3] + 1, null]));

    assert v_refusal = 'PS409 3 of 4 leases to ack are stale; nothing was done',
        c_proves || ': ' || v_refusal;
    assert pg_temp.stale(array['stale', 'stale', 'stale', 'stale'], v_ids,
        array[v_leases[1], v_leases[2], v_leases[3] + 1, null]) = jsonb_build_array(
            jsonb_build_object('position', 1, 'subscription_id', 'stale', 'message_id', v_ids[2]),
            jsonb_build_object('position', 2, 'subscription_id', 'stale', 'message_id', v_ids[3]),
            jsonb_build_object('position', 3, 'subscription_id', 'stale', 'message_id', v_ids[4])
        ), c_proves;
    assert (
        select m.acked = 1 and m.delivered = 2 and m.available = 1
        from pubsub.subscription_metrics('stale') m
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease fits its own subscription only, and null fits any lease';
    v_ids uuid[] := pg_temp.stock('own-lease', 2);
    v_leases bigint[];
begin
    perform pubsub.create_subscription('own-lease-2', 'own-lease');
    v_ids := v_ids || pg_temp.publish('own-lease', 1);
    v_leases := pg_temp.leases('own-lease');

    assert jsonb_array_length(pg_temp.stale(array['own-lease-2'], v_ids[3:3], v_leases[3:3])) = 1,
        c_proves;
    perform pubsub.apply_transaction(array['own-lease', 'own-lease', 'own-lease'],
        v_ids[1:2] || v_ids[1], array[v_leases[1], null, v_leases[1]]);
    assert (
        select m.acked = 2 and m.delivered = 1 from pubsub.subscription_metrics('own-lease') m
    ), c_proves || ': named twice is acked once';
end
$$;

do $$
declare
    c_proves constant text := 'lock_acks locks without acking';
    v_ids uuid[] := pg_temp.stock('locked', 1);
begin
    assert (
        select l.topic_keys = array[k.topic_key] and l.subscription_keys = array[k.subscription_key]
        from pubsub.lock_acks(array['locked'], v_ids, pg_temp.leases('locked')) l
        cross join pubsub.subscription_keys('locked') k
    ), c_proves;
    assert (select m.delivered from pubsub.subscription_metrics('locked') m) = 1, c_proves;
    assert pg_temp.refusal($q$select pubsub.lock_acks(array['locked', 'nowhere'],
        array[gen_random_uuid(), gen_random_uuid()], array[1, 1])$q$)
        = 'PS404 Subscription not found: nowhere', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'nothing to do is done, and publishing alone is fine';
begin
    perform pg_temp.stock('alone');
    assert not exists (select from pubsub.apply_transaction()), c_proves;
    assert (
        select count(*) = 1
        from pubsub.apply_transaction(p_topic_ids => array['alone'],
            p_payloads => array['{}']::jsonb[])
    ), c_proves;
    assert cardinality(pg_temp.claim('alone')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is unknown or too much is refused, and names itself';
    v_ids uuid[] := pg_temp.stock('refused', 1);
    v_leases bigint[] := pg_temp.leases('refused');
    v_case record;
begin
    for v_case in
        select * from (values
            ('PS404 Subscription not found: nowhere',
                $q$array['refused', 'nowhere'], array_fill(gen_random_uuid(), array[2]),
                array[1, 1]$q$),
            ('PS404 Topic not found: nowhere',
                $q$p_topic_ids => array['refused', 'nowhere'], p_payloads => array['{}', '{}']::jsonb[]$q$),
            ('PS422(acks) acks must have a subscription, a message and a lease each',
                $q$array['refused'], '{}', '{}'$q$),
            ('PS422(acks) acks must have a subscription, a message and a lease each',
                $q$array['refused'], array[gen_random_uuid()], '{}'$q$),
            ('PS422(acks) acks must have a subscription, a message and a lease each',
                $q$array[null], array[gen_random_uuid()], array[1]$q$),
            ('PS422(acks) acks must have a subscription, a message and a lease each',
                $q$array['refused'], array[null]::uuid[], array[1]$q$),
            ('PS422(publishes) publishes must have a topic each, and one element per message in '
                'every array', $q$p_payloads => array['{}']::jsonb[]$q$),
            ('PS422(publishes) publishes must have a topic each, and one element per message in '
                'every array', $q$p_topic_ids => array['refused'], p_payloads => array['{}']::jsonb[],
                p_attributes => '{}'$q$),
            ('PS422(publishes) a transaction has at most 1000 acks and messages in sum',
                $q$p_topic_ids => array_fill('refused'::text, array[1001]),
                p_payloads => array_fill('{}'::jsonb, array[1001])$q$)
        ) c (refusal, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.apply_transaction(%s)', v_case.arguments))
            = v_case.refusal, c_proves || ': ' || v_case.arguments || ': '
            || pg_temp.refusal(format('select pubsub.apply_transaction(%s)', v_case.arguments));
    end loop;
    assert pg_temp.refusal(format($q$select pubsub.apply_transaction(array['refused'], %L, %L,
        array['refused'], array[null]::jsonb[])$q$, v_ids, v_leases)) like 'PS422(%', c_proves;
    assert (
        select m.acked = 0 and m.delivered = 1 from pubsub.subscription_metrics('refused') m
    ), c_proves || ': a bad message undoes the acks';
end
$$;

do $$
declare
    c_proves constant text := 'what has a name now is not what had it before';
    v_keys record;
begin
    perform pg_temp.stock('again');
    v_keys := pubsub.subscription_keys('again');
    perform pubsub.check_still_there(array['again'], array[v_keys.topic_key], array['again'],
        array[v_keys.subscription_key]);
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    perform pubsub.delete_topic('again');
    perform pg_temp.stock('again');

    assert pg_temp.refusal(format('select pubsub.check_still_there(%L, %L, null, null)',
        array['again'], array[v_keys.topic_key])) = 'PS404 Topic not found: again', c_proves;
    assert pg_temp.refusal(format('select pubsub.check_still_there(null, null, %L, %L)',
        array['again'], array[v_keys.subscription_key])) = 'PS404 Subscription not found: again',
        c_proves;
    assert pg_temp.refusal(format('select pubsub.lock_subscription(%L, %L)', v_keys.topic_key,
        v_keys.subscription_key)) = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'arrays that do not fit each other are refused, null ones are not looked at';
begin
    assert pg_temp.refusal($q$select pubsub.check_transaction('{}', '{}', '{}', '{t}', 1, '{2}')$q$)
        like 'PS422(publishes) %', c_proves;
    assert pg_temp.refusal($q$select pubsub.check_transaction('{}', '{}', '{}', '{t}', 1, '{1,null}')$q$)
        is null, c_proves;
end
$$;
