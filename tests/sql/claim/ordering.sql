/* stock_ordered — an ordered subscription, and a message of each key; null stands for none. */
create function pg_temp.stock_ordered(p_name text, p_keys text[])
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pg_temp.stock(p_name);
    update pubsub_data.subscriptions s set enable_ordering = true where s.subscription_id = p_name;
    return pg_temp.publish_in_lanes(p_name, p_keys);
end
$$;

/* dealt — consume; the positions in p_ids of what was handed out, in order. */
create function pg_temp.dealt(p_subscription text, p_ids uuid[], p_batch_size int default 1000)
returns text
language sql volatile
as $$
    select coalesce(string_agg(array_position(p_ids, c.id)::text, ' ' order by c.position), '')
    from unnest(pg_temp.claim(p_subscription, p_batch_size)) with ordinality as c (id, position)
$$;

do $$
declare
    c_proves constant text := 'a key is handed out in order, and to nobody while it is in flight';
    v_ids uuid[] := pg_temp.stock_ordered('keys', array['a', 'b', 'a', null, 'a', 'b', null]);
begin
    assert pg_temp.dealt('keys', v_ids, 1) = '1', c_proves;
    assert pg_temp.dealt('keys', v_ids, 2) = '2 4', c_proves;
    assert pg_temp.dealt('keys', v_ids) = '7', c_proves;
    assert pg_temp.dealt('keys', v_ids) = '', c_proves;
    perform pubsub.ack_messages('keys', v_ids[1:1]);
    assert pg_temp.dealt('keys', v_ids) = '3 5', c_proves || ': several of a key in one claim';
    perform pubsub.ack_messages('keys', v_ids[2:2]);
    assert pg_temp.dealt('keys', v_ids) = '6', c_proves;
    perform pubsub.ack_messages('keys', v_ids);
    assert pg_temp.dealt('keys', v_ids) = '', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key goes to one consumer of a call for several';
    v_ids uuid[] := pg_temp.stock_ordered('several', array['a', 'a', 'b', 'a', 'b', 'c']);
    v_dealt text;
begin
    select string_agg(c.consumer || ':' || array_position(v_ids, c.message_id), ' ')
    into v_dealt
    from pubsub.consume_messages_for('several', array['x', 'y', 'z'], array[2, 2, 9]) c;

    assert v_dealt = '1:1 1:2 2:3 2:5 3:6', c_proves || ': ' || v_dealt;
end
$$;

do $$
declare
    c_proves constant text := 'a nack, a lease that ran out and a delay hold up their key alone';
    v_ids uuid[] := pg_temp.stock_ordered('held-up', array['a', 'b', 'c', 'a', 'b', 'c', 'd', null]);
begin
    update pubsub_data.deliveries d set visible_at = clock_timestamp() + interval '1 hour'
    where d.message_id = v_ids[3];
    assert pg_temp.dealt('held-up', v_ids, 2) = '1 2', c_proves;
    perform pubsub.nack_messages('held-up', v_ids[1:1]);
    assert pg_temp.dealt('held-up', v_ids) = '7 8', c_proves;
    update pubsub_data.deliveries d set visible_at = clock_timestamp() where d.message_id = v_ids[2];

    -- the lease of the second has run out, its wake-up is to come
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select d.topic_key, d.subscription_key, clock_timestamp(), v_ids[2:2]
    from pubsub_data.deliveries d where d.message_id = v_ids[2];
    assert pg_temp.dealt('held-up', v_ids, 1) = '2', c_proves;
    assert (select count(*) from pubsub_data.failures f
        where f.message_id = v_ids[2] and f.outcome = 'consumer_lost') = 1, c_proves;
    perform pg_temp.later('held-up', '2 hours');
    assert pg_temp.dealt('held-up', v_ids) = '1 2 3 4 5 6 7 8', c_proves || ': all in order later';
end
$$;

do $$
declare
    c_proves constant text := 'what was passed over is found when the holder leaves, however much it is';
    v_ids uuid[] := pg_temp.stock_ordered('passed', array_fill('a'::text, array[3000]) || array['b']);
begin
    assert pg_temp.dealt('passed', v_ids, 1) = '1', c_proves;
    assert pg_temp.dealt('passed', v_ids, 1) = '3001', c_proves || ': behind 2999 of another key';
    perform pubsub.ack_messages('passed', v_ids[1:1]);
    assert pg_temp.claim('passed', 100) = v_ids[2:101], c_proves;
    perform pubsub.ack_messages('passed', v_ids[2:101]);
    assert pg_temp.claim('passed', 1000) = v_ids[102:1101], c_proves;
    -- not the first of them
    perform pubsub.ack_messages('passed', v_ids[103:1101]);
    assert pg_temp.claim('passed', 1000) = '{}', c_proves;
    perform pubsub.ack_messages('passed', v_ids[102:102]);
    assert pg_temp.claim('passed', 10) = v_ids[1102:1111], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'one that is committed late waits for later ones of its key in flight';
    v_ids uuid[] := pg_temp.stock_ordered('straggler', array['a', 'b', 'a']);
    v_keys record := pubsub.subscription_keys('straggler');
    v_late int;
    v_until timestamptz;
    v_found text := '';
begin
    foreach v_late in array array[1, 60] loop
        delete from pubsub_data.deliveries d where d.message_id = v_ids[1];
        assert pg_temp.dealt('straggler', v_ids) = '2 3', c_proves;
        insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane)
        values (v_keys.topic_key, v_keys.subscription_key, v_ids[1], 'a');
        perform pg_temp.reconnect('straggler');
        assert pg_temp.dealt('straggler', v_ids) = '', c_proves;
        perform pubsub.ack_messages('straggler', v_ids[2:3]);
        v_until := clock_timestamp() + interval '15 s';
        v_found := '';
        while v_found = '' and clock_timestamp() < v_until loop
            v_found := pg_temp.dealt('straggler', v_ids);
            perform pg_sleep(0.01);
        end loop;
        assert v_found = '1', c_proves || ': ' || v_found;

        perform pubsub.ack_messages('straggler', v_ids[1:1]);
        v_ids := pg_temp.an_hour_ago(pg_temp.publish_in_lanes('straggler', array['a', 'b', 'a']));
        update pubsub_data.wakeups w set head = null
        where w.subscription_key = v_keys.subscription_key;
        perform pg_temp.reconnect('straggler');
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'what comes back to a key goes before what follows it';
    v_ids uuid[] := pg_temp.stock_ordered('rewound', array['a', 'a', 'a']);
    v_keys record := pubsub.subscription_keys('rewound');
begin
    v_ids := pg_temp.an_hour_ago(v_ids);
    assert pg_temp.dealt('rewound', v_ids, 2) = '1 2', c_proves;
    perform pubsub.ack_messages('rewound', v_ids[1:2]);
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane)
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[1], 'a');
    update pubsub_data.subscriptions s
    set rewinds = s.rewinds + 1, rewound_to = '00000000-0000-0000-0000-000000000000'
    where s.subscription_id = 'rewound';

    assert pg_temp.dealt('rewound', v_ids, 1) = '1', c_proves;
    assert pg_temp.dealt('rewound', v_ids, 1) = '', c_proves;
    perform pubsub.ack_messages('rewound', v_ids[1:1]);
    assert pg_temp.dealt('rewound', v_ids, 1) = '3', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a parked message holds its key, one that expired lets it go on';
    v_ids uuid[] := pg_temp.stock_ordered('parked', array['a', 'b', 'a', 'b']);
    v_keys record := pubsub.subscription_keys('parked');
begin
    update pubsub_data.deliveries d set visible_at = 'infinity' where d.message_id = v_ids[1];
    update pubsub_data.deliveries d set expires_at = clock_timestamp() where d.message_id = v_ids[2];
    assert pg_temp.dealt('parked', v_ids) = '', c_proves;
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_keys.topic_key, v_keys.subscription_key, clock_timestamp(), v_ids[2:2]);
    assert pg_temp.dealt('parked', v_ids) || pg_temp.dealt('parked', v_ids) = '4', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an ack has the next message of its key looked at, and no other';
    v_ids uuid[] := pg_temp.stock_ordered('woken', array['a', 'a', 'b', 'a', null]);
    v_keys record := pubsub.subscription_keys('woken');
begin
    assert pg_temp.claim('woken', 1) = v_ids[1:1], c_proves;
    perform pubsub.ack_messages('woken', v_ids[1:1]);
    assert array(
        select i.id from pubsub_data.wakeups w
        cross join unnest(w.message_ids) as i (id)
        where w.topic_key = v_keys.topic_key
            and w.subscription_key = v_keys.subscription_key
            and w.due_at <= clock_timestamp()
    ) = v_ids[2:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an ack of several has the next message of each key looked at';
    v_ids uuid[] := pg_temp.stock_ordered('woken.more', array['a', 'a', 'b', 'a', 'b', null, 'c']);
    v_keys record := pubsub.subscription_keys('woken.more');
begin
    assert pg_temp.claim('woken.more', 2) = v_ids[1:2], c_proves;
    assert pg_temp.claim('woken.more', 1) = v_ids[3:3], c_proves;
    assert pubsub.ack_messages('woken.more', v_ids[1:3]) = 3, c_proves;
    assert array(
        select i.id from pubsub_data.wakeups w
        cross join unnest(w.message_ids) as i (id)
        where w.topic_key = v_keys.topic_key
            and w.subscription_key = v_keys.subscription_key
            and w.due_at <= clock_timestamp()
        order by i.id
    ) = v_ids[4:5], c_proves;
end
$$;
