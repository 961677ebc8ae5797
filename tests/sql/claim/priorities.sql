/* dealt — consume; the positions in p_ids of what was handed out, in order. */
create function pg_temp.dealt(p_subscription text, p_ids uuid[], p_batch_size int default 1000)
returns text
language sql volatile
as $$
    select coalesce(string_agg(array_position(p_ids, c.id)::text, ' ' order by c.position), '')
    from unnest(pg_temp.claim(p_subscription, p_batch_size)) with ordinality as c (id, position)
$$;

/* look_back — have the next claim of this session read lanes again from a second ago, or none ever. */
create function pg_temp.look_back(p_subscription text, p_ever boolean)
returns void
language plpgsql volatile
as $$
declare
    v_setting text := (
        select pubsub.hint_name('urgent', s.subscription_key)
        from pubsub_data.subscriptions s where s.subscription_id = p_subscription
    );
    v_hint pubsub.urgent_hint := current_setting(v_setting)::pubsub.urgent_hint;
begin
    v_hint.look_back_at := case when p_ever then 0
        else pubsub.micros(clock_timestamp() + interval '50 s') end;
    perform set_config(v_setting, v_hint::text, false);
end
$$;

/* stock_urgent — a subscription that has priorities, and a message of each; null stands for 0. */
create function pg_temp.stock_urgent(p_name text, p_priorities text[])
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pg_temp.stock(p_name);
    update pubsub_data.subscriptions s set has_priorities = true where s.subscription_id = p_name;
    -- too old for a look-back to find them by chance
    return pg_temp.an_hour_ago(pg_temp.publish_in_lanes(p_name, p_priorities));
end
$$;

do $$
declare
    c_proves constant text := 'higher priorities are handed out first, the oldest first within one';
    v_ids uuid[] := pg_temp.stock_urgent('urgent',
        array[null, '1', '9', null, '5', '9', '1', null]);
begin
    assert pg_temp.dealt('urgent', v_ids, 1) = '3', c_proves;
    assert pg_temp.dealt('urgent', v_ids, 2) = '6 5', c_proves;
    -- the oldest, the eighth to tenth of the session, comes in its place
    assert pg_temp.dealt('urgent', v_ids) = '2 7 1 4 8', c_proves;

    v_ids := pg_temp.publish_in_lanes('urgent', array['2', null, '8']);
    assert pg_temp.dealt('urgent', v_ids) = '3 1 2', c_proves || ': later ones';
    assert pg_temp.dealt('urgent', v_ids) = '', c_proves || ': once';
end
$$;

do $$
declare
    c_proves constant text := 'several consumers of one call: the first gets the highest';
    v_ids uuid[] := pg_temp.stock_urgent('shared', array[null, '1', '9', null, '5']);
    v_dealt text;
begin
    select string_agg(c.consumer || ':' || array_position(v_ids, c.message_id), ' ')
    into v_dealt
    from pubsub.consume_messages_for('shared', array['a', 'b', 'c'], array[1, 2, 3]) c;

    assert v_dealt = '1:3 2:5 2:2 3:1 3:4', c_proves || ': ' || v_dealt;
end
$$;

do $$
declare
    c_proves constant text :=
        'a message with n older ones before it is handed out within 10 (n + 1) deliveries';
    v_batch int;
    v_old uuid[];
    v_ids uuid[];
    v_delivered int;
    v_at int[];
begin
    foreach v_batch in array array[1, 2, 3, 7, 10, 25, 100] loop
        v_old := pg_temp.stock_urgent('aged-' || v_batch, array[null, '1', null, '3', null]);
        v_delivered := 0;
        v_at := '{}';

        while cardinality(v_at) < 5 and v_delivered < 100 loop
            -- there is always more with a higher priority than is asked for
            perform pg_temp.publish_in_lanes('aged-' || v_batch, array_fill('9'::text, array[v_batch]));
            v_ids := pg_temp.claim('aged-' || v_batch, v_batch);
            assert cardinality(v_ids) = v_batch, c_proves;
            v_delivered := v_delivered + v_batch;
            v_at := v_at || array(
                select v_delivered from unnest(v_old) o (id) where o.id = any(v_ids));
        end loop;

        assert cardinality(v_at) = 5, format('%s: batches of %s: %s', c_proves, v_batch, v_at);
        for n in 0 .. 4 loop
            assert v_at[n + 1] <= ceil(10.0 * (n + 1) / v_batch) * v_batch,
                format('%s: batches of %s: %s', c_proves, v_batch, v_at);
            -- and no more often, which would be no priority
            assert v_at[n + 1] > 10 * (n + 1) - v_batch,
                format('%s: batches of %s: %s', 'only every tenth', v_batch, v_at);
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'retries that are due leave the oldest its turn, and come first else';
    v_ids uuid[] := pg_temp.stock_urgent('retried', array[null, '9', '9']);
    v_dealt text := '';
begin
    assert pg_temp.dealt('retried', v_ids, 2) = '2 3', c_proves;
    for turn in 1 .. 8 loop
        perform pubsub.nack_messages('retried', v_ids);
        update pubsub_data.deliveries d set attempts = 1, visible_at = clock_timestamp()
        where d.message_id = any(v_ids[2:]);
        update pubsub_data.wakeups w set due_at = clock_timestamp();
        v_dealt := v_dealt || pg_temp.dealt('retried', v_ids, 1) || ' ';
    end loop;

    assert v_dealt ~ '^([23] ){7}1 $', c_proves || ': ' || v_dealt;
end
$$;

do $$
declare
    c_proves constant text :=
        'one with a priority that was committed up to a second late goes before lower ones';
    v_late interval;
    v_id uuid;
    v_ids uuid[];
begin
    perform pg_temp.stock_urgent('late', array[null, '5']);
    perform pg_temp.claim('late', 1);
    foreach v_late in array array['10 ms', '500 ms']::interval[] loop
        -- the low ones keep the session's place down
        v_ids := pg_temp.publish_in_lanes('late', array[null, null, '5']);
        assert pg_temp.claim('late', 1) = v_ids[3:], c_proves || ': ' || v_late;
        v_id := overlay((pubsub.new_message_ids(1))[1]::text
            placing left(pubsub.id_at(clock_timestamp() - v_late)::text, 13) from 1);
        insert into pubsub_data.messages (topic_key, message_id, payload, priority, published_at)
        select m.topic_key, v_id, '{}', 5, clock_timestamp()
        from pubsub_data.messages m where m.message_id = v_ids[3];
        insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane)
        select d.topic_key, d.subscription_key, v_id, '5'
        from pubsub_data.deliveries d where d.message_id = v_ids[3];

        perform pg_temp.look_back('late', true);

        assert pg_temp.claim('late', 1) = array[v_id], c_proves || ': ' || v_late;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'what comes back to a lane after a rewind is handed out first again';
    v_ids uuid[] := pg_temp.stock_urgent('again', array[null, null, '9', '9', null]);
    v_keys record := pubsub.subscription_keys('again');
begin
    assert pg_temp.dealt('again', v_ids, 2) = '3 4', c_proves;
    perform pubsub.ack_messages('again', v_ids[3:4]);
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane)
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[3], '9');
    perform pg_temp.look_back('again', false);
    assert pg_temp.dealt('again', v_ids, 1) = '1', c_proves || ': not without one';
    update pubsub_data.subscriptions s set rewinds = s.rewinds + 1, rewound_to = v_ids[1]
    where s.subscription_id = 'again';

    assert pg_temp.dealt('again', v_ids, 1) = '3', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'choose_by_priority takes no more than it is asked for, and locks no more';
    v_ids uuid[] := pg_temp.stock_urgent('locked', array['9', '9', '4', '4', '4']);
    v_keys record := pubsub.subscription_keys('locked');
    v_chosen record;
begin
    v_chosen := pubsub.choose_by_priority(v_keys.topic_key, v_keys.subscription_key,
        clock_timestamp(), 3, 5, 0, '00000000-0000-0000-0000-000000000000', '{}');

    assert array(
        select d.message_id from pubsub_data.deliveries d where d.ctid = any(v_chosen.places)
        order by d.message_id
    ) = v_ids[:3], c_proves;
    assert array(
        select d.message_id from pubsub_data.deliveries d
        where d.message_id = any(v_ids) and d.xmax <> 0
        order by d.message_id
    ) = v_ids[:3], c_proves;
    assert not v_chosen.lost, c_proves;
end
$$;
