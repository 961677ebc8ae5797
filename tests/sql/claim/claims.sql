/* What a claim finds: what is due, stragglers, fresh ones, what came back. */

do $$
declare
    c_proves constant text := 'a delivery comes back when its ack deadline passes, not before';
    v_ids uuid[] := pg_temp.stock('expired', 2);
    v_again record;
    v_lease bigint;
begin
    v_lease := (select max(c.lease) from pubsub.consume_messages('expired', 'one', 10, 30) c);
    perform pg_temp.later('expired', '29 seconds');
    assert pg_temp.claim('expired') = '{}', c_proves;
    perform pg_temp.later('expired', '1 second');

    select array_agg(c.message_id) as ids, min(c.attempts) as attempts, max(c.lease) as lease
    into v_again
    from pubsub.consume_messages('expired', 'two') c;

    assert v_again.ids = v_ids and v_again.attempts = 2, c_proves;
    assert v_again.lease <> v_lease, c_proves;
    assert pg_temp.claim('expired') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the same connection finds an expired delivery too';
    v_ids uuid[] := pg_temp.stock('same', 2);
    v_found uuid[] := '{}';
    v_until timestamptz := clock_timestamp() + interval '10 s';
begin
    perform pubsub.consume_messages('same', 'consumer', 10, 1);

    while v_found = '{}' and clock_timestamp() < v_until loop
        v_found := pg_temp.claim('same');
        perform pg_sleep(0.01);
    end loop;

    assert v_found = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a claim dead-letters what expired on its last attempt, instead of handing it out';
    v_ids uuid[] := pg_temp.stock('spent', 2, 2);
begin
    perform pg_temp.claim('spent');
    perform pg_temp.later('spent', '1 hour');
    assert pg_temp.claim('spent') = v_ids, c_proves;
    perform pg_temp.later('spent', '1 hour');

    assert pg_temp.claim('spent') = '{}', c_proves;
    assert (
        select array_agg(l.message_id) = v_ids and bool_and(l.attempts = 2
            and l.reason = 'consumer_lost')
        from pubsub.list_dlq_messages('spent') l
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'retries do not keep fresh messages back, nor fresh ones them';
    v_old uuid[] := pg_temp.stock('mixed', 3);
    v_new uuid[];
begin
    perform pg_temp.claim('mixed');
    v_new := pg_temp.publish('mixed', 3);
    perform pg_temp.later('mixed', '1 hour');

    assert pg_temp.claim('mixed', 5) = v_old || v_new[1:2], c_proves;
    assert pg_temp.claim('mixed', 5) = v_new[3:3], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'more that is due than a batch holds is handed out batch by batch';
    v_ids uuid[] := pg_temp.stock('due', 10);
    v_first uuid[];
    v_second uuid[];
begin
    perform pg_temp.claim('due');
    perform pg_temp.later('due', '1 hour');

    v_first := pg_temp.claim('due', 6);
    v_second := pg_temp.claim('due', 6);

    assert v_first || v_second = v_ids, c_proves;
    assert cardinality(v_first) = 6, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'many more wake-ups than one claim looks at are all worked off';
    v_ids uuid[] := pg_temp.stock('wakeups', 200);
    v_found uuid[] := '{}';
    v_id uuid;
begin
    foreach v_id in array v_ids loop
        perform pg_temp.claim('wakeups', 1);
    end loop;
    perform pg_temp.later('wakeups', '1 hour');

    for v_step in 1 .. 200 loop
        v_found := v_found || pg_temp.claim('wakeups', 7);
        exit when cardinality(v_found) >= 200;
    end loop;

    assert array(select f from unnest(v_found) f order by f) = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a claim that is rolled back gives its messages back at once';
    v_ids uuid[] := pg_temp.stock('undone', 3);
    v_claimed uuid[];
begin
    begin
        v_claimed := pg_temp.claim('undone');
        raise exception using errcode = 'ZZ001';
    exception when sqlstate 'ZZ001' then
        null;
    end;

    assert v_claimed = v_ids, c_proves;
    assert (
        select array_agg(c.message_id) = v_ids and bool_and(c.attempts = 1)
        from pubsub.consume_messages('undone', 'consumer') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a new connection hands out what is left, and nothing twice';
    v_ids uuid[] := pg_temp.stock('reconnected', 6);
begin
    assert pg_temp.claim('reconnected', 2) = v_ids[1:2], c_proves;
    perform pg_temp.reconnect('reconnected');
    assert pg_temp.claim('reconnected', 2) = v_ids[3:4], c_proves;
    perform pubsub.ack_messages('reconnected', v_ids);
    perform pg_temp.reconnect('reconnected');
    assert pg_temp.claim('reconnected') = v_ids[5:6], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message that was committed late is found';
    v_late interval;
    v_id uuid;
    v_found uuid[] := '{}';
    v_until timestamptz;
begin
    perform pg_temp.stock('late', 1);
    perform pg_temp.claim('late');
    foreach v_late in array array['10 ms', '500 ms', '3 s', '10 minutes']::interval[] loop
        -- as if its publish had begun that long ago
        v_id := overlay((pg_temp.publish('late'))[1]::text
            placing left(pubsub.id_at(clock_timestamp() - v_late)::text, 13) from 1);
        with moved as (
            update pubsub_data.deliveries d set message_id = v_id
            from pubsub_data.subscriptions s
            where s.subscription_id = 'late' and d.subscription_key = s.subscription_key
                and d.topic_key = s.topic_key and d.lease is null
            returning d.topic_key
        )
        insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
        select m.topic_key, v_id, '{}', clock_timestamp() from moved m;
        v_found := '{}';
        v_until := clock_timestamp() + interval '15 s';

        while v_found = '{}' and clock_timestamp() < v_until loop
            v_found := pg_temp.claim('late');
            perform pg_sleep(0.005);
        end loop;

        assert v_found = array[v_id], c_proves || ' after ' || v_late;
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'the first claim of a connection finds what was committed up to a second late';
    v_id uuid;
begin
    perform pg_temp.stock('near', 1);
    perform pg_temp.claim('near');
    v_id := (pg_temp.publish('near'))[1];
    update pubsub_data.wakeups w set head = pubsub.id_at(clock_timestamp() + interval '1 ms');
    perform pg_temp.reconnect('near');

    assert pg_temp.claim('near') = array[v_id], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'wrong hints of a session lose no message';
    v_hints text;
    v_ids uuid[] := pg_temp.stock('hints');
    v_setting text := (
        select pubsub.hint_name('claim', s.subscription_key)
        from pubsub_data.subscriptions s where s.subscription_id = 'hints'
    );
    v_found uuid[] := '{}';
    v_until timestamptz;
begin
    foreach v_hints in array array[
        '', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '00000000-0000-0000-0000-000000000000',
        '(9,0,ffffffff-ffff-ffff-ffff-ffffffffffff,9,9,9,9,9,00000000-0000-0000-0000-000000000000,1,0)'
    ] loop
        v_ids := pg_temp.publish('hints', 2);
        perform set_config(v_setting, v_hints, false);
        v_found := '{}';
        v_until := clock_timestamp() + interval '10 s';

        while cardinality(v_found) < 2 and clock_timestamp() < v_until loop
            v_found := v_found || pg_temp.claim('hints', 1);
            perform pg_sleep(0.005);
        end loop;

        assert v_found = v_ids, c_proves || ': ' || v_hints;
        perform pubsub.ack_messages('hints', v_ids);
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'what is acked, nacked or dead is not handed out when its wake-up is due';
    v_ids uuid[] := pg_temp.stock('settled', 3);
begin
    perform pg_temp.claim('settled');
    perform pubsub.ack_messages('settled', v_ids[1:1]);
    perform pubsub.nack_messages('settled', v_ids[2:2]);
    update pubsub_data.deliveries d set visible_at = 'infinity' where d.message_id = v_ids[2];

    perform pg_temp.later('settled', '1 hour');

    assert pg_temp.claim('settled') = v_ids[3:3], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what comes back below what was read is handed out at the next claim';
    v_ids uuid[] := pg_temp.stock('rewound', 4);
    v_keys record := pubsub.subscription_keys('rewound');
    v_setting text := pubsub.hint_name('claim', v_keys.subscription_key);
    v_hint pubsub.claim_hint;
    v_session text;
    v_case record;
    v_found uuid[];
begin
    -- too old for a look-back to find it by chance
    perform pg_temp.an_hour_ago(v_ids);
    perform pg_temp.publish('rewound');
    v_ids := pg_temp.claim('rewound');
    perform pubsub.ack_messages('rewound', v_ids);
    -- a session that has read all and looks for no stragglers
    perform pg_temp.claim('rewound');
    v_hint := current_setting(v_setting);
    v_hint.near_at := v_hint.noted_at + 50000000;
    v_hint.far_at := v_hint.noted_at + 50000000;

    for v_case in
        select * from (values
            -- by how much the subscription is ahead of the session; what the call passes
            ('no rewind', 0, null::uuid, null::int, false),
            ('the same session', 1, null, null, true),
            ('a session that missed one', 2, null, null, true),
            ('a new session', null, null, null, true),
            ('a head of old rewinds', 1, pubsub.id_at(clock_timestamp()), -1, true),
            ('a head without rewinds', 1, pubsub.id_at(clock_timestamp()), null, true),
            ('no rewind, a head of these', 0, pubsub.id_at(clock_timestamp()), 0, false)
        ) as c (name, behind, head, head_behind, found)
    loop
        insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
        values (v_keys.topic_key, v_keys.subscription_key, v_ids[2]);
        update pubsub_data.subscriptions s
        set rewinds = s.rewinds + coalesce(v_case.behind, 1),
            -- of several, that of the last
            rewound_to = case when v_case.behind = 2 then v_ids[5] else v_ids[1] end
        where s.subscription_id = 'rewound';
        v_session := v_hint::text;
        perform set_config(v_setting, case when v_case.behind is null then '' else v_session end,
            false);
        select coalesce(array_agg(c.message_id), '{}'), max(c.rewinds)::text
        into v_found, v_session
        from pubsub.consume_messages_for('rewound', array['c'], array[10],
            p_head => v_case.head,
            p_rewinds => (select s.rewinds + v_case.head_behind from pubsub_data.subscriptions s
                where s.subscription_id = 'rewound')) c;

        if v_case.found then
            assert v_found = v_ids[2:2], c_proves || ': ' || v_case.name;
            assert v_session = (select s.rewinds::text from pubsub_data.subscriptions s
                where s.subscription_id = 'rewound'), c_proves || ': the rewinds of the head';
        else
            assert v_found = '{}', c_proves || ': ' || v_case.name;
        end if;
        delete from pubsub_data.deliveries d where d.message_id = v_ids[2];
        v_hint.rewinds := (select s.rewinds from pubsub_data.subscriptions s
            where s.subscription_id = 'rewound');
    end loop;
    assert exists (
        select from pubsub_data.wakeups w
        where w.subscription_key = v_keys.subscription_key and w.rewinds > 0 and w.head is not null
    ), c_proves || ': wake-ups say of which rewinds their head is';
end
$$;

do $$
declare
    c_proves constant text := 'a key goes to one consumer only, and the next one has what is left';
    v_ids uuid[];
    v_consumers int[];
    v_claimed uuid[];
begin
    perform pg_temp.stock('turns');
    update pubsub_data.subscriptions s set enable_ordering = true where s.subscription_id = 'turns';
    v_ids := pg_temp.publish_in_lanes('turns', '{a,a,a,b,b}');

    select array_agg(c.consumer), array_agg(c.message_id) into v_consumers, v_claimed
    from pubsub.consume_messages_for('turns', '{x,y}', '{2,2}') c;

    assert v_consumers = array[1, 1, 2, 2]
        and v_claimed = array[v_ids[1], v_ids[2], v_ids[4], v_ids[5]],
        format('%s: %s %s of %s', c_proves, v_consumers, v_claimed, v_ids);
end
$$;

do $$
declare
    c_proves constant text := 'a call may be for many consumers who want much';
begin
    perform pg_temp.stock('many');
    for v_call in 1 .. 2 loop
        perform pg_temp.publish('many', 10);
        assert (
            select count(*) = 10 and max(c.consumer) = 1
            from pubsub.consume_messages_for('many', array_fill('c'::text, array[600]),
                array_fill(1000, array[600]), p_max_bytes => 1000000) c
        ), c_proves;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a hint with impossible numbers is forgotten';
    v_setting text;
    v_hint pubsub.claim_hint;
begin
    perform pg_temp.stock('impossible');
    v_setting := pubsub.hint_name('claim', (pubsub.subscription_keys('impossible')).subscription_key);
    for v_case in 1 .. 5 loop
        perform pg_temp.publish('impossible');
        perform pubsub.consume_messages('impossible', 'c', 1);
        v_hint := current_setting(v_setting);
        -- else the next claim might be one that does not look back
        v_hint.near_at := 0;
        case v_case
            when 1 then v_hint.near_at := 9223372036854775807;
            when 2 then v_hint.far_at := 9223372036854775807;
            when 3 then v_hint.due_from := -9223372036854775808;
            when 4 then v_hint.far_millis := -1;
            else v_hint.far_millis := 2147483647;
        end case;
        perform set_config(v_setting, v_hint::text, false);
        perform pg_temp.publish('impossible');
        assert cardinality(pg_temp.claim('impossible', 1)) = 1, format('%s: %s', c_proves, v_case);
        assert cardinality(pg_temp.claim('impossible', 9)) = 0, format('%s: %s', c_proves, v_case);
        assert (current_setting(v_setting)::pubsub.claim_hint).far_millis > 0
            or v_case < 4, format('%s: %s', c_proves, v_case);
    end loop;
end
$$;
