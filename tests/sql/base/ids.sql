/* Message ids, and refusing arguments. */

do $$
declare
    c_proves constant text := 'id order is publish order, within a call and from call to call';
    v_ids uuid[] := pg_temp.stock('order', 300) || pg_temp.publish('order', 2)
        || pg_temp.publish('order', 300);
begin
    assert cardinality(v_ids) = 602, c_proves;
    assert v_ids = array(select i from unnest(v_ids) i order by i), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message id is a UUIDv7 of the variant of RFC 9562';
begin
    perform pg_temp.stock('version', 100);

    assert (
        select count(*) = 100 and bool_and(m.message_id::text
            ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$')
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'version'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'id_time reads the publish time from an id, to the millisecond';
begin
    perform pg_temp.stock('time', 10);

    assert (
        select bool_and(pubsub.id_time(m.message_id) = date_trunc('milliseconds', m.published_at))
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'time'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'id_at is the lowest id of its millisecond';
    v_from timestamptz := date_trunc('milliseconds', clock_timestamp());
    v_id uuid := (pg_temp.stock('lowest', 1))[1];
    v_until timestamptz := clock_timestamp() + interval '1 ms';
    v_at timestamptz;
begin
    assert v_id >= pubsub.id_at(v_from), c_proves;
    assert v_id < pubsub.id_at(v_until), c_proves;
    foreach v_at in array array[
        '1970-01-01 00:00:00Z', '1970-01-01 00:00:00.001Z', '2026-02-28 23:59:59.999Z',
        '2038-01-19 03:14:08Z', '2199-12-31 23:59:59.123Z'
    ]::timestamptz[] loop
        assert pubsub.id_time(pubsub.id_at(v_at)) = v_at, c_proves || ': ' || v_at;
        assert pubsub.id_at(v_at + interval '0.4 ms') = pubsub.id_at(v_at),
            c_proves || ': ' || v_at;
        assert pubsub.id_at(v_at + interval '1 ms') > pubsub.id_at(v_at),
            c_proves || ': ' || v_at;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'times before 1970 have the lowest uuid';
begin
    assert pubsub.id_at('1969-12-31 23:59:59Z') = '00000000-0000-0000-0000-000000000000', c_proves;
    assert pubsub.id_at('-infinity') = '00000000-0000-0000-0000-000000000000', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'null has no id and no time';
begin
    assert pubsub.id_at(null) is null, c_proves;
    assert pubsub.id_time(null) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publishes that are not committed lie above oldest_open_id';
begin
    assert pubsub.oldest_open_id() <= pubsub.id_at(clock_timestamp() - interval '10 seconds'), c_proves;
    assert pubsub.oldest_open_id() > pubsub.id_at(clock_timestamp() - interval '1 hour'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an id has 1 to 600 characters, none of them space or control';
begin
    assert pg_temp.refusal($q$select pubsub.check_id('topic', repeat('x', 601))$q$)
        = 'PS422(id) topic id must be 1 to 600 characters without space or control characters',
        c_proves;
    assert pg_temp.refusal($q$select pubsub.check_id('topic', e'a\tb')$q$) is not null, c_proves;
    assert pg_temp.refusal($q$select pubsub.check_id('topic', 'persistent://a/b/c')$q$) is null,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'all of a topic that were published by now lie below seek_end';
    v_ids uuid[] := pg_temp.stock('sought', 2);
    v_topic_key constant bigint := (select k.topic_key from pubsub.subscription_keys('sought') k);
begin
    assert v_ids[2] < pubsub.seek_end(v_topic_key), c_proves;
    assert pubsub.seek_end(v_topic_key) <= pubsub.id_at(clock_timestamp() + interval '1 ms'), c_proves;
    v_ids := pg_temp.before_the_step(v_ids);
    assert v_ids[2] < pubsub.seek_end(v_topic_key), c_proves || ': also before the clock was set back';
    assert pubsub.seek_end(v_topic_key) = pubsub.id_at(pubsub.id_time(v_ids[2]) + interval '1 ms'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'new_message_number lies between the numbers of the ids before and after it';
    v_before uuid := (pg_temp.stock('numbers', 1))[1];
    v_number text := pubsub.new_message_number();
    v_after uuid := (pg_temp.before_the_step(pg_temp.publish('numbers')))[1];
begin
    assert right(translate(v_before::text, '-', ''), 16) < v_number, c_proves;
    assert right(translate(v_after::text, '-', ''), 16) > v_number, c_proves;
end
$$;
