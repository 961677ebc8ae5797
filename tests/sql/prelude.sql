/*
 * What the assert files of this folder stand on. They run after it in the same transaction, which
 * is rolled back, on a session with an empty search_path.
 */

/* refusal — how a statement is refused: "PS404 text", "PS422(field) text"; null when it is not. */
create function pg_temp.refusal(p_statement text)
returns text
language plpgsql volatile
as $$
declare
    v_state text;
    v_column text;
    v_message text;
begin
    execute p_statement;
    return null;
exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_column = column_name,
        v_message = message_text;
    return v_state || coalesce('(' || nullif(v_column, '') || ')', '') || ' ' || v_message;
end
$$;

/* stock — a topic and a subscription of one name, and messages {"n": 1}, {"n": 2}, ... in them. */
create function pg_temp.stock(
    p_name text, p_messages int default 0, p_max_attempts int default 5,
    p_ack_deadline_seconds int default null
)
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name,
        json_build_object('max_delivery_attempts', p_max_attempts,
            'ack_deadline_seconds', p_ack_deadline_seconds));
    return pg_temp.publish(p_name, p_messages);
end
$$;

/* publish — messages {"n": 1}, {"n": 2}, ... in one call; their ids. */
create function pg_temp.publish(p_topic text, p_messages int default 1)
returns uuid[]
language sql volatile
as $$
    select coalesce(array_agg(p.message_id), '{}')
    from pubsub.publish_messages(p_topic, array(
        select jsonb_build_object('n', n) from generate_series(1, p_messages) n
    )) p
$$;

/* publish_in_lanes — a message for each lane, in one call; their ids. */
create function pg_temp.publish_in_lanes(p_topic text, p_lanes text[])
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[] := pg_temp.publish(p_topic, cardinality(p_lanes));
begin
    perform pubsub.break_up_range(s.topic_key, s.subscription_key,
        '00000000-0000-0000-0000-000000000000', v_ids[cardinality(v_ids)], 1000000)
    from pubsub_data.subscriptions s
    join pubsub_data.topics t using (topic_key)
    where t.topic_id = p_topic;
    update pubsub_data.deliveries d
    set lane = l.lane
    from unnest(v_ids, p_lanes) as l (id, lane)
    where d.message_id = l.id;
    update pubsub_data.messages m
    set ordering_key = l.lane, priority = case when l.lane ~ '^[1-9]$' then l.lane::smallint end
    from unnest(v_ids, p_lanes) as l (id, lane)
    where m.message_id = l.id;
    return v_ids;
end
$$;

/* republish_at — these messages were published at another time; their ids. */
create function pg_temp.republish_at(p_ids uuid[], p_time timestamptz)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_then text := left(pubsub.id_at(p_time)::text, 13);
begin
    update pubsub_data.messages m
    set message_id = overlay(m.message_id::text placing v_then from 1)::uuid
    where m.message_id = any(p_ids);
    update pubsub_data.deliveries d
    set message_id = overlay(d.message_id::text placing v_then from 1)::uuid
    where d.message_id = any(p_ids);
    return array(
        select overlay(i.id::text placing v_then from 1)::uuid
        from unnest(p_ids) with ordinality as i (id, position)
        order by i.position
    );
end
$$;

/* an_hour_ago — these messages were published an hour ago; their ids. */
create function pg_temp.an_hour_ago(p_ids uuid[])
returns uuid[]
language sql volatile
as $$
    select pg_temp.republish_at(p_ids, clock_timestamp() - interval '1 hour')
$$;

/* before_the_step — these messages were published before the clock was set back by an hour; their ids. */
create function pg_temp.before_the_step(p_ids uuid[])
returns uuid[]
language sql volatile
as $$
    select pg_temp.republish_at(p_ids, clock_timestamp() + interval '1 hour')
$$;

/* claim — consume; the message ids, in the order in which they were handed out. */
create function pg_temp.claim(p_subscription text, p_batch_size int default 1000)
returns uuid[]
language sql volatile
as $$
    select coalesce(array_agg(c.message_id), '{}')
    from pubsub.consume_messages(p_subscription, 'consumer', p_batch_size) c
$$;

/* reconnect — forget what claims of the subscription noted in this session. */
create function pg_temp.reconnect(p_subscription text)
returns void
language sql volatile
as $$
    select set_config(pubsub.hint_name(hints.name, s.subscription_key), '', false)
    from pubsub_data.subscriptions s
    cross join unnest(array['claim', 'urgent', 'ordered', 'fair']) as hints (name)
    where s.subscription_id = p_subscription
$$;

/* reread — claim as a new connection does that knows of no other's reading. */
create function pg_temp.reread(p_subscription text, p_batch_size int default 1000)
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pg_temp.reconnect(p_subscription);
    update pubsub_data.wakeups w set head = null;
    return pg_temp.claim(p_subscription, p_batch_size);
end
$$;

/* counts — what subscription_metrics says, once it is certain that it is true. */
create function pg_temp.counts(p_subscription text)
returns text
language plpgsql volatile
as $$
declare
    v_counts text := (
        select format('%s available, %s delivered, %s scheduled, %s acked, %s dlq', m.available,
            m.delivered, m.scheduled, m.acked, m.dlq)
        from pubsub.subscription_metrics(p_subscription) m
    );
begin
    assert pubsub.recount_messages(p_subscription) = 0, 'the counters of ' || p_subscription;
    return v_counts;
end
$$;

/* publish_apart — publish one message a call, a millisecond or more after the one before. */
create function pg_temp.publish_apart(p_topic text, p_messages int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[] := '{}';
begin
    for v_n in 1 .. p_messages loop
        perform pg_sleep(0.002);
        v_ids := v_ids || pg_temp.publish(p_topic);
    end loop;
    perform pg_sleep(0.002);
    return v_ids;
end
$$;

/* later — let time pass for a subscription, as a new connection finds it. */
create function pg_temp.later(p_subscription text, p_by interval)
returns void
language plpgsql volatile
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription);
begin
    update pubsub_data.deliveries d
    set visible_at = d.visible_at - p_by, leased_at = d.leased_at - p_by,
        expires_at = d.expires_at - p_by
    where d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key;
    update pubsub_data.runs r
    set ack_deadline = r.ack_deadline - p_by, leased_at = r.leased_at - p_by
    where r.topic_key = v_keys.topic_key and r.subscription_key = v_keys.subscription_key;
    update pubsub_data.wakeups w
    set due_at = w.due_at - p_by
    where w.topic_key = v_keys.topic_key and w.subscription_key = v_keys.subscription_key;
    update pubsub_data.counters c
    set due_at = c.due_at - p_by
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key;
    perform pg_temp.reconnect(p_subscription);
end
$$;

/* held_counts — what the counters say that consumers hold: "consumer count". */
create function pg_temp.held_counts(p_subscription text)
returns text[]
language sql volatile
as $$
    select array_agg(concat_ws(' ', h.consumer_id, h.held) order by h.consumer_id)
    from (
        select c.consumer_id, sum(c.leased) as held
        from pubsub_data.counters c
        cross join pubsub.subscription_keys(p_subscription) k
        where c.topic_key = k.topic_key and c.subscription_key = k.subscription_key
            and c.due_at > clock_timestamp()
        group by c.consumer_id
        having sum(c.leased) <> 0
    ) h
$$;

/* come_of_age — the first partition to come takes what is stored now, as if its time had come. */
create function pg_temp.come_of_age(p_parent text)
returns void
language plpgsql volatile
as $$
declare
    v_partition record;
    v_name text;
    v_from timestamptz := date_trunc('hour', clock_timestamp());
    v_until timestamptz := v_from + interval '1 day';
begin
    select p.* into strict v_partition
    from pubsub_data.partitions p
    where p.parent = p_parent and p.from_at > clock_timestamp()
    order by p.from_at
    limit 1;
    v_name := v_partition.name || '_of_age';
    execute format('alter table pubsub_data.%I detach partition pubsub_data.%I',
        p_parent, v_partition.name);
    -- another partition of the time it was made for has its name
    execute format('alter table pubsub_data.%I rename to %I', v_partition.name, v_name);
    execute format('alter table pubsub_data.%I attach partition pubsub_data.%I '
        'for values from (%L) to (%L)', p_parent, v_name,
        case p_parent when 'messages' then pubsub.id_at(v_from)::text else v_from::text end,
        case p_parent when 'messages' then pubsub.id_at(v_until)::text else v_until::text end);
    update pubsub_data.partitions p
    set name = v_name, from_at = v_from, until_at = v_until
    where p.parent = p_parent and p.name = v_partition.name;
end
$$;

/* filter_fault — where and why a filter is refused: "path message"; null when it is not. */
create function pg_temp.filter_fault(p_filter text)
returns text
language plpgsql
as $$
declare
    v_state text;
    v_column text;
    v_message text;
    v_path text;
begin
    perform pubsub.compile_filter(p_filter::jsonb);
    return null;
exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_column = column_name,
        v_message = message_text, v_path = pg_exception_detail;
    assert v_state = 'PS422' and v_column = 'filter', v_state || ' ' || v_message;
    return v_path || ' ' || v_message;
end
$$;

/* ids_at — the messages of places, in their order. */
create function pg_temp.ids_at(p_places tid[])
returns uuid[]
language sql volatile
as $$
    select coalesce(array_agg(d.message_id order by p.position), '{}')
    from unnest(p_places) with ordinality as p (place, position)
    join pubsub_data.deliveries d on d.ctid = p.place
$$;

/* run_in_hundreds — publish in runs of a hundred to the subscriptions whose ids are like it. */
create function pg_temp.run_in_hundreds(p_subscriptions text)
returns void
language sql volatile
as $$
    update pubsub_data.run_sizes z
    set run_size = 100
    from pubsub_data.subscriptions s
    where s.subscription_key = z.subscription_key and s.subscription_id like p_subscriptions
$$;

/* stock_runs — a subscription with so many messages of one publish, in runs; their ids. */
create function pg_temp.stock_runs(p_name text, p_messages int, p_settings json default '{}')
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name, p_settings);
    perform pg_temp.run_in_hundreds(p_name);
    return array(
        select p.message_id
        from pubsub.publish_messages(p_name, array(
            select jsonb_build_object('n', n) from generate_series(1, p_messages) n)) p
    );
end
$$;

/* runs — how many messages the runs of a subscription have, in order, and whose they are: "100 ready, 50 me". */
create function pg_temp.runs(p_name text)
returns text
language sql stable
as $$
    select coalesce(string_agg(cardinality(r.message_ids) || case when r.lease is null then ' ready'
        else ' ' || r.consumer_id end, ', ' order by r.run_id), '')
    from pubsub_data.runs r
    join pubsub_data.subscriptions s using (topic_key, subscription_key)
    where s.subscription_id = p_name
$$;

/* run_size — how long the runs of a subscription are made. */
create function pg_temp.run_size(p_subscription text)
returns int
language sql stable
as $$
    select z.run_size
    from pubsub_data.run_sizes z
    join pubsub_data.subscriptions s using (topic_key, subscription_key)
    where s.subscription_id = p_subscription
$$;
