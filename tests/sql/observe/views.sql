/* The views for people at a psql prompt. */

do $$
declare
    c_proves constant text := 'subscription_messages tells where each message is';
    v_ids uuid[] := pg_temp.stock('where', 5, 2);
    v_until timestamptz;
    v_message record;
begin
    perform pubsub.consume_messages('where', 'worker-1', 4, 600);
    perform pubsub.publish_messages('where', array['{"n": 6}', '{"n": 7}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour', null],
        p_expires_at => array[null, clock_timestamp() + interval '1 hour']);
    update pubsub_data.deliveries d
    set expires_at = clock_timestamp()
    where d.expires_at is not null and d.message_id > v_ids[5];
    v_until := clock_timestamp();
    perform pubsub.ack_messages('where', v_ids[1:1]);
    perform pubsub.nack_messages('where', v_ids[2:2]);
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[3];
    perform pubsub.nack_messages('where', v_ids[3:3]);

    assert array(
        select (m.payload ->> 'n') || ' ' || m.state || ' ' || m.attempts
        from pubsub.subscription_messages m
        where m.subscription_id = 'where'
        order by m.message_id
    ) = array['1 acked 1', '2 scheduled 1', '3 dlq 2', '4 delivered 1', '5 available 0',
        '6 scheduled 0', '7 expired 0'], c_proves;

    for v_message in
        select m.*, p.published_at as at
        from pubsub.subscription_messages m
        join pubsub_data.messages p on p.message_id = m.message_id
        where m.subscription_id = 'where'
    loop
        assert v_message.published_at = v_message.at, c_proves;
        case v_message.payload ->> 'n'
            when '1' then
                assert v_message.consumer_id = 'worker-1', c_proves || ': who acked it';
                assert v_message.settled_at between v_until and clock_timestamp(),
                    c_proves || ': when it was acked';
            when '2' then
                assert v_message.due_at between v_until + interval '5 s'
                    and clock_timestamp() + interval '5 s', c_proves || ': when it is retried';
                assert v_message.consumer_id is null, c_proves || ': nobody holds it';
            when '3' then
                assert v_message.reason = 'attempts', c_proves || ': why it died';
                assert v_message.consumer_id = 'worker-1', c_proves || ': who had it';
                assert v_message.settled_at between v_until and clock_timestamp(),
                    c_proves || ': when it died';
            when '4' then
                assert v_message.consumer_id = 'worker-1', c_proves || ': who holds it';
                assert v_message.ack_deadline between v_until + interval '599 s'
                    and v_until + interval '600 s', c_proves || ': until when';
                assert v_message.due_at is null, c_proves || ': not waiting';
            when '6' then
                assert v_message.due_at > clock_timestamp() + interval '59 minutes',
                    c_proves || ': when it is due';
            else
                assert num_nonnulls(v_message.consumer_id, v_message.ack_deadline,
                    v_message.due_at, v_message.reason, v_message.settled_at) = 0, c_proves;
        end case;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a message whose partition is gone is still shown';
    v_ids uuid[] := pg_temp.stock('gone', 2, 1);
begin
    perform pg_temp.claim('gone');
    perform pubsub.ack_messages('gone', v_ids[1:1]);
    perform pubsub.nack_messages('gone', v_ids[2:2]);
    delete from pubsub_data.messages m where m.message_id = any(v_ids);

    assert array(
        select m.state || ' ' || coalesce(m.payload::text, 'gone')
        from pubsub.subscription_messages m
        where m.subscription_id = 'gone'
        order by m.message_id
    ) = array['acked gone', 'dlq {"n": 2}'], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'subscriptions shows settings, backlog by state and the oldest message';
    v_ids uuid[] := pg_temp.stock('backlog', 6, 1);
    v_shown record;
begin
    perform pg_temp.claim('backlog', 4);
    perform pubsub.ack_messages('backlog', v_ids[1:1]);
    perform pubsub.nack_messages('backlog', v_ids[2:2]);
    perform pubsub.publish_messages('backlog', array['{}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);
    update pubsub_data.deliveries d
    set message_id = pubsub.id_at(clock_timestamp() - interval '1 hour')
    where d.message_id = v_ids[5];

    select * into v_shown from pubsub.subscriptions s where s.subscription_id = 'backlog';

    assert v_shown.topic_id = 'backlog' and v_shown.max_delivery_attempts = 1, c_proves;
    assert v_shown.backlog = 5 and v_shown.available = 2, c_proves;
    assert v_shown.in_flight = 2 and v_shown.scheduled = 1 and v_shown.dlq = 1, c_proves;
    assert v_shown.oldest_unacked_age between '1 hour' and '1 hour 10 s', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions agrees with subscription_metrics';
begin
    assert (
        select count(*) = (select count(*) from pubsub_data.subscriptions)
            and bool_and(s.available = m.available and s.in_flight = m.delivered
                and s.scheduled = m.scheduled and s.dlq = m.dlq)
        from pubsub.subscriptions s
        cross join lateral pubsub.subscription_metrics(s.subscription_id) m
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an idle subscription and an idle topic have no age and no rate';
begin
    perform pg_temp.stock('idle');

    assert (
        select s.backlog = 0 and s.oldest_unacked_age is null
        from pubsub.subscriptions s where s.subscription_id = 'idle'
    ), c_proves;
    assert (
        select t.published_last_minute = 0 and t.published_per_second = 0
            and t.last_published_at is null and t.last_published_age is null
        from pubsub.topics t where t.topic_id = 'idle'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'topics shows subscriptions, publish rate and the newest message';
    v_ids uuid[] := pg_temp.stock('rate', 90);
    v_shown record;
begin
    perform pubsub.create_subscription('rate-2', 'rate');
    -- as if it had been published two minutes ago
    insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
    select k.topic_key, pubsub.id_at(clock_timestamp() - interval '2 minutes'), '{}',
        clock_timestamp() - interval '2 minutes'
    from pubsub.subscription_keys('rate') k;

    select t.*, m.published_at as newest_at into v_shown
    from pubsub.topics t
    join pubsub_data.messages m on m.message_id = v_ids[90]
    where t.topic_id = 'rate';

    assert v_shown.subscriptions = 2, c_proves;
    assert v_shown.published_last_minute = 90 and v_shown.published_per_second = 1.5, c_proves;
    assert v_shown.last_published_at = v_shown.newest_at, c_proves;
    assert v_shown.last_published_age between '0 s' and '10 s', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'views have every setting that the functions and tables have';
    v_missing text[];
begin
    select array_agg(x.view || '.' || x.name) into v_missing
    from (
        select 'subscriptions', case k.key when 'id' then 'subscription_id'
            when 'push' then 'push_endpoint'
            -- here what was set has the name
            else regexp_replace(k.key, '^exact_', '') end
        from pubsub.get_subscription('where') g, jsonb_object_keys(to_jsonb(g)) k (key)
        union
        select 'subscriptions', case k.key when 'delivered' then 'in_flight' else k.key end
        from pubsub.subscription_metrics('where') m, jsonb_object_keys(to_jsonb(m)) k (key)
        union
        select 'topics', case k.key when 'id' then 'topic_id' else k.key end
        from pubsub.get_topic('where') g, jsonb_object_keys(to_jsonb(g)) k (key)
        union
        select 'subscription_messages', a.attname
        from pg_catalog.pg_attribute a
        where a.attrelid in ('pubsub_data.messages'::regclass, 'pubsub_data.dead_letters'::regclass)
            and a.attnum > 0 and not a.attisdropped
            -- settled_at is when a dead letter died, and its deliveries are the timeline's
            and a.attname not in ('topic_key', 'subscription_key', 'dead_at', 'deliveries')
    ) x (view, name)
    where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = ('pubsub.' || x.view)::regclass and a.attname = x.name
    );
    assert v_missing is null, format('%s: %s', c_proves, v_missing);
end
$$;
