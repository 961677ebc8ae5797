/* Claims of several subscriptions at once. */

do $$
declare
    c_proves constant text := 'several subscriptions are asked one after the other until there are enough';
    v_got text[];
begin
    for v_n in 1 .. 3 loop
        perform pg_temp.stock('from-' || v_n, v_n);
    end loop;
    perform pg_temp.stock('from-4', 0);
    select array_agg(c.subscription_id || ' ' || (c.payload ->> 'n')
        order by c.subscription_id, c.message_id)
    into v_got
    from pubsub.consume_messages_from(array['from-1', 'from-2', 'from-4', 'from-2'], 'me') c;
    assert v_got = array['from-1 1', 'from-2 1', 'from-2 2'], format('%s: %s', c_proves, v_got);
    assert (
        select count(*) = 2 and bool_and(c.subscription_id = 'from-3' and c.attempts = 1
            and c.lease is not null and c.ack_deadline > clock_timestamp() + interval '20 s')
        from pubsub.consume_messages_from(array['from-1', 'from-3'], 'me', 2, 30) c
    ), c_proves || ': no more than wanted';
    assert (
        select d.consumer_id = 'me' from pubsub_data.deliveries d
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'from-1'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'none waits for the others to be empty';
    v_first text[] := '{}';
begin
    perform pg_temp.stock('turn-' || n, 100) from generate_series(1, 3) n;
    for v_n in 1 .. 60 loop
        v_first := v_first || array(
            select c.subscription_id
            from pubsub.consume_messages_from(array['turn-1', 'turn-2', 'turn-3'], 'me', 1) c
        );
    end loop;
    v_first := array(select distinct f.id from unnest(v_first) as f (id) order by 1);
    assert v_first = array['turn-1', 'turn-2', 'turn-3'], format('%s: %s', c_proves, v_first);
    assert cardinality(pubsub.claim_order(array['turn-1', 'turn-2', 'turn-1'])) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'bytes are bounded in all, and only what is unseen comes if that is asked';
begin
    perform pg_temp.stock('bytes-1', 3);
    perform pg_temp.stock('bytes-2', 3);
    assert (
        select count(*) from pubsub.consume_messages_from(
            array['bytes-1', 'bytes-2'], 'me', 10, p_max_bytes => 1) c
    ) = 1, c_proves;
    perform pg_temp.later('bytes-1', '1 hour');
    perform pg_temp.later('bytes-2', '1 hour');
    assert (
        select count(*) from pubsub.consume_messages_from(
            array['bytes-1', 'bytes-2'], 'me', 10, p_only => 'unseen') c
    ) = 5, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown subscription is refused before anything is leased';
    v_case record;
begin
    perform pg_temp.stock('known', 1);
    for v_case in
        select * from (values
            ('PS404 Subscription not found', $q$array['known', 'unknown'], 'me'$q$),
            ('PS404 Subscription not found', $q$array['known', null], 'me'$q$),
            ('PS422(subscription_ids) subscription_ids must be 1 to 1000', $q$'{}', 'me'$q$),
            ('PS422(subscription_ids) subscription_ids must be 1 to 1000', $q$null, 'me'$q$),
            ('PS422(batch_size) batch_size must be 1 to 1000', $q$array['known'], 'me', 0$q$),
            ('PS422(batch_size) batch_size must be 1 to 1000', $q$array['known'], 'me', null$q$),
            ('PS422(consumer_id) consumer_id is required', $q$array['known'], null$q$)
        ) c (refusal, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.consume_messages_from(%s)', v_case.arguments))
            = v_case.refusal, c_proves || ': ' || v_case.arguments;
    end loop;
    -- also where it would not be come to
    for v_n in 1 .. 20 loop
        assert pg_temp.refusal($q$
            select pubsub.consume_messages_from(array['known', 'unknown'], 'me', 1)
        $q$) is not null, c_proves;
    end loop;
    assert cardinality(pg_temp.claim('known')) = 1, c_proves;
end
$$;
