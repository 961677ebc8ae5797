/* Consuming: order, arguments, leases, several consumers. */

do $$
declare
    c_proves constant text := 'messages are handed out in publish order, batch by batch, once';
    v_ids uuid[] := pg_temp.stock('order', 5) || pg_temp.publish('order', 5);
begin
    assert pg_temp.claim('order', 4) = v_ids[1:4], c_proves;
    assert pg_temp.claim('order', 4) = v_ids[5:8], c_proves;
    assert pg_temp.claim('order', 4) = v_ids[9:10], c_proves;
    assert pg_temp.claim('order', 4) = '{}', c_proves;
    v_ids := pg_temp.publish('order', 2);
    assert pg_temp.claim('order', 4) = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a claim tells all about its messages';
    v_started_at timestamptz := clock_timestamp();
    v_ids uuid[] := pg_temp.stock('columns', 2);
    v_claimed record;
begin
    for v_claimed in
        select c.*, m.published_at as at
        from pubsub.consume_messages('columns', 'consumer-1', 10, 30) c
        join pubsub_data.messages m on m.message_id = c.message_id
    loop
        assert v_claimed.payload = jsonb_build_object('n',
            array_position(v_ids, v_claimed.message_id)), c_proves;
        assert v_claimed.attempts = 1, c_proves;
        assert v_claimed.published_at = v_claimed.at, c_proves;
        assert v_claimed.ack_deadline between v_started_at + interval '30 s'
            and clock_timestamp() + interval '30 s', c_proves;
        assert v_claimed.attributes is null and v_claimed.ordering_key is null
            and v_claimed.priority is null, c_proves;
    end loop;
    assert (
        select count(*) = 2 and count(distinct d.lease) = 1
            and bool_and(d.consumer_id = 'consumer-1' and d.attempts = 1
                and d.leased_at between v_started_at and clock_timestamp()
                and d.visible_at = d.leased_at + interval '30 s')
        from pubsub_data.deliveries d where d.message_id = any(v_ids)
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'each claim has a lease number of its own';
    v_ids uuid[] := pg_temp.stock('leases', 3);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('leases', 'consumer', 1) c)
        || array(select c.lease from pubsub.consume_messages('leases', 'consumer', 2) c);

    assert v_leases[2] = v_leases[3], c_proves;
    assert v_leases[1] <> v_leases[2], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'the ack deadline is the claim''s, else the subscription''s, else the default';
    v_case record;
begin
    perform pg_temp.stock('deadline', 0);
    perform pg_temp.stock('deadline-own', 0, p_ack_deadline_seconds => 20);
    for v_case in
        select * from (values
            ('deadline', null, null, 60), ('deadline', null, 40, 40), ('deadline', 30, 40, 30),
            ('deadline-own', null, 40, 20), ('deadline-own', 30, 40, 30),
            ('deadline', 1, 40, 1), ('deadline', 43200, 40, 43200)
        ) c (subscription, for_claim, by_default, seconds)
    loop
        perform pg_temp.publish(v_case.subscription, 1);
        assert (
            select round(extract(epoch from c.ack_deadline - clock_timestamp())) = v_case.seconds
            from pubsub.consume_messages(v_case.subscription, 'consumer', 10, v_case.for_claim,
                coalesce(v_case.by_default, 60)) c
        ), c_proves || ': ' || v_case;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'an argument out of range is refused, naming the field';
    v_case record;
begin
    perform pg_temp.stock('ranges', 1);
    for v_case in
        select * from (values
            ('PS422(batch_size) batch_size must be 1 to 1000', $q$'ranges', 'c', 0$q$),
            ('PS422(batch_size) batch_size must be 1 to 1000', $q$'ranges', 'c', 1001$q$),
            ('PS422(batch_size) batch_size must be 1 to 1000', $q$'ranges', 'c', null$q$),
            ('PS422(consumer_id) consumer_id is required', $q$'ranges', null$q$),
            ('PS422(ack_deadline_seconds) ack_deadline_seconds must be 1 to 43200',
                $q$'ranges', 'c', 1, 0$q$),
            ('PS422(ack_deadline_seconds) ack_deadline_seconds must be 1 to 43200',
                $q$'ranges', 'c', 1, 43201$q$),
            ('PS422(ack_deadline_seconds) ack_deadline_seconds must be 1 to 43200',
                $q$'ranges', 'c', 1, null, null$q$),
            ('PS404 Subscription not found', $q$'none', 'c'$q$)
        ) c (refusal, arguments)
    loop
        assert pg_temp.refusal(format('select pubsub.consume_messages(%s)', v_case.arguments))
            = v_case.refusal, c_proves || ': ' || v_case.arguments;
    end loop;
    assert cardinality(pg_temp.claim('ranges', 1)) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an empty consumer id is allowed';
begin
    perform pg_temp.stock('anonymous', 1);

    assert (select count(*) from pubsub.consume_messages('anonymous', '')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'consume_messages_for leases what one consumer after the other would have got';
    v_ids uuid[] := pg_temp.stock('several', 6);
    v_dealt text;
begin
    -- one that is due again comes before the fresh ones
    perform pg_temp.claim('several', 1);
    perform pg_temp.later('several', '1 hour');

    select string_agg(format('%s:%s:%s', c.consumer, array_position(v_ids, c.message_id), c.attempts),
        ' ' order by position)
    into v_dealt
    from pubsub.consume_messages_for('several', array['a', 'b', 'c'], array[2, 3, 100])
        with ordinality as c (consumer, message_id, payload, attributes, ordering_key, priority,
            published_at, attempts, lease, ack_deadline, head, rewinds, position);

    assert v_dealt = '1:1:2 1:2:1 2:3:1 2:4:1 2:5:1 3:6:1', c_proves || ': ' || v_dealt;
    assert array(
        select d.consumer_id from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id
    ) = array['a', 'a', 'b', 'b', 'b', 'c'], c_proves || ': who holds them';
    assert not exists (
        select from pubsub.consume_messages_for('several', array['a', 'b'], array[1, 1])
    ), c_proves || ': none left';
end
$$;

do $$
declare
    c_proves constant text := 'every consumer of consume_messages_for needs a name and a batch size';
    v_arguments text;
begin
    foreach v_arguments in array array[
        $a$array['a', null], array[1, 1]$a$, $a$array[]::text[], array[]::int[]$a$, 'null, null'
    ] loop
        assert pg_temp.refusal(
            format('select pubsub.consume_messages_for(%L, %s)', 'several', v_arguments)
        ) = 'PS422(consumer_id) consumer_id is required', c_proves || ': ' || v_arguments;
    end loop;
    foreach v_arguments in array array[
        $a$array['a', 'b'], array[1]$a$, $a$array['a'], array[0]$a$, $a$array['a'], array[1001]$a$,
        $a$array['a'], array[null]::int[]$a$, $a$array['a'], null$a$
    ] loop
        assert pg_temp.refusal(
            format('select pubsub.consume_messages_for(%L, %s)', 'several', v_arguments)
        ) = 'PS422(batch_size) batch_size must be 1 to 1000', c_proves || ': ' || v_arguments;
    end loop;
end
$$;
