do $$
declare
    c_proves constant text := 'the log has every message in publish order, delivered however or to nobody';
    v_ids uuid[];
    v_more uuid[];
begin
    perform pubsub.create_topic('nobody');
    v_ids := pg_temp.publish('nobody', 3);
    assert (select array_agg(l.message_id) from pubsub.read_messages('nobody') l) = v_ids, c_proves;
    assert (select array_agg(l.payload ->> 'n') from pubsub.read_messages('nobody') l)
        = array['1', '2', '3'], c_proves;

    v_ids := pg_temp.stock_runs('run', 250);
    assert pg_temp.runs('run') <> '', c_proves;
    perform pg_temp.claim('run', 100);
    select array_agg(p.message_id) into v_more
    from pubsub.publish_messages('run', array['{"a": 1}', '5']::jsonb[],
        p_attributes => array['{"c": "d"}', null]::jsonb[], p_ordering_keys => array['k', null],
        p_priorities => array[3, null]::smallint[]) p;
    assert (select array_agg(l.message_id) from pubsub.read_messages('run', p_limit => 1000) l)
        = v_ids || v_more, c_proves;
    assert (
        select format('%s %s %s %s %s', l.payload, l.attributes, l.ordering_key, l.priority,
            l.published_at <= clock_timestamp())
        from pubsub.read_messages('run', v_ids[250], 1) l
    ) = '{"a": 1} {"c": "d"} k 3 t', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'pages follow one another, from an id that need not be there or from a time';
    v_ids uuid[];
begin
    perform pubsub.create_topic('pages');
    v_ids := pg_temp.an_hour_ago(pg_temp.publish('pages', 3)) || pg_temp.publish('pages', 4);

    assert (select array_agg(l.message_id) from pubsub.read_messages('pages', v_ids[2], 3) l)
        = v_ids[3:5], c_proves;
    delete from pubsub_data.messages m where m.message_id = v_ids[2];
    assert (select array_agg(l.message_id) from pubsub.read_messages('pages', v_ids[2], 3) l)
        = v_ids[3:5], c_proves;
    assert not exists (select from pubsub.read_messages('pages', v_ids[7])), c_proves;
    assert (
        select array_agg(l.message_id)
        from pubsub.read_messages('pages', p_since => clock_timestamp() - interval '1 minute') l
    ) = v_ids[4:7], c_proves;
    assert (
        select array_agg(l.message_id)
        from pubsub.read_messages('pages', v_ids[5], p_since => clock_timestamp() - interval '1 minute') l
    ) = v_ids[6:7], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages of some ordering keys come in one order, others not';
    c_long constant text := repeat('é', 1024);
    v_ids uuid[];
    v_topic text;
    v_topic_key bigint;
begin
    perform pubsub.create_topic('keys');
    perform pubsub.create_topic('indexed-keys', p_index_ordering_keys => true);
    perform pubsub.create_topic('keys-of-others', p_index_ordering_keys => true);
    perform pubsub.publish_messages('keys-of-others', array['{}']::jsonb[], p_ordering_keys => array['a']);
    foreach v_topic in array array['keys', 'indexed-keys'] loop
        select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = v_topic;
        assert (v_topic_key < 0) = (v_topic = 'indexed-keys'), c_proves;
        select array_agg(p.message_id) into v_ids
        from pubsub.publish_messages(v_topic, array_fill('{}'::jsonb, array[7]),
            p_ordering_keys => array['a', 'b', null, 'a', c_long, 'c', 'b']) p;

        assert (select array_agg(l.message_id) from pubsub.read_messages(v_topic, p_ordering_keys => '{b}') l)
            = array[v_ids[2], v_ids[7]], c_proves;
        assert (
            select array_agg(l.message_id)
            from pubsub.read_messages(v_topic, p_ordering_keys => array['b', c_long, 'a', 'a', 'none']) l
        ) = array[v_ids[1], v_ids[2], v_ids[4], v_ids[5], v_ids[7]], c_proves;
        assert (
            select array_agg(l.message_id)
            from pubsub.read_messages(v_topic, v_ids[1], 2, array['b', 'a']) l
        ) = array[v_ids[2], v_ids[4]], c_proves;
        assert (select array_agg(l.message_id) from pubsub.log_page(v_topic_key, v_ids[1], v_ids[4], null, 10) l)
            = v_ids[2:3], c_proves;
    end loop;
    -- of the last topic, which has them indexed
    assert (select array_agg(k.message_id) from pubsub.key_page(v_topic_key, 'b', v_ids[1], v_ids[7], 10) k)
        = v_ids[2:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what has expired, or is not due yet, is not in the log';
    c_now constant timestamptz := clock_timestamp();
    v_ids uuid[];
    v_topic text;
begin
    perform pubsub.create_topic('times');
    perform pubsub.create_topic('indexed-times', p_index_ordering_keys => true);
    foreach v_topic in array array['times', 'indexed-times'] loop
        select array_agg(p.message_id) into v_ids
        from pubsub.publish_messages(v_topic, array_fill('{}'::jsonb, array[4]),
            p_deliver_at => array[null, c_now + interval '1 hour', c_now + interval '2 hours', null],
            p_expires_at => array[c_now + interval '1 day', null, null, c_now + interval '1 hour'],
            p_ordering_keys => array['k', 'k', 'k', 'k']) p;
        update pubsub_data.messages m set expires_at = c_now where m.message_id = v_ids[4];
        update pubsub_data.messages m set deliver_at = c_now where m.message_id = v_ids[3];

        assert (select array_agg(l.message_id) from pubsub.read_messages(v_topic) l)
            = array[v_ids[1], v_ids[3]], c_proves;
        assert (select array_agg(l.message_id) from pubsub.read_messages(v_topic, p_ordering_keys => '{k}') l)
            = array[v_ids[1], v_ids[3]], c_proves;
        assert (select l.expires_at = c_now + interval '1 day' from pubsub.read_messages(v_topic, null, 1) l),
            c_proves;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a page has no more bytes than it may, but for its first message';
    v_ids uuid[];
begin
    perform pubsub.create_topic('bytes');
    select array_agg(p.message_id) into v_ids
    from pubsub.publish_messages('bytes', array(
        select to_jsonb(repeat('x', 1998)) from generate_series(1, 5)),
        p_attributes => array_fill(jsonb_build_object('a', repeat('y', 991)), array[5])) p;

    assert (select array_agg(l.message_id) from pubsub.read_messages('bytes', p_max_bytes => 8000) l)
        = v_ids[1:2], c_proves;
    assert (select array_agg(l.message_id) from pubsub.read_messages('bytes', p_max_bytes => 7999) l)
        = v_ids[1:1], c_proves;
    assert (select array_agg(l.message_id) from pubsub.read_messages('bytes', v_ids[1], p_max_bytes => 1) l)
        = v_ids[2:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'complete: it ends where nothing can come below any more';
    v_ids uuid[];
begin
    perform pubsub.create_topic('complete');
    v_ids := pg_temp.an_hour_ago(pg_temp.publish('complete', 2)) || pg_temp.publish('complete', 2);

    assert (select array_agg(l.message_id) from pubsub.read_messages('complete', p_complete => true) l)
        = v_ids[1:2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the newest so many of a key begin at a message, or it has fewer';
    v_ids uuid[];
    v_topic text;
begin
    perform pubsub.create_topic('newest');
    perform pubsub.create_topic('indexed-newest', p_index_ordering_keys => true);
    foreach v_topic in array array['newest', 'indexed-newest'] loop
        v_ids := pg_temp.an_hour_ago(array(select p.message_id
            from pubsub.publish_messages(v_topic, array_fill('{}'::jsonb, array[1]),
                p_ordering_keys => '{a}') p));
        v_ids := v_ids || array(
            select p.message_id
            from pubsub.publish_messages(v_topic, array_fill('{}'::jsonb, array[5]),
                p_ordering_keys => array['a', 'b', 'a', null, 'b']) p);

        assert (select array_agg(format('%s %s', n.ordering_key, array_position(v_ids, n.message_id)))
            from pubsub.nth_newest_messages(v_topic, 2, '{b,a,a,none}') n) = '{a 2,b 3}', c_proves;
        assert (select array_agg(format('%s %s', n.ordering_key, array_position(v_ids, n.message_id)))
            from pubsub.nth_newest_messages(v_topic, 3, '{b,a}') n) = '{a 1}', c_proves;
        assert not exists (select from pubsub.nth_newest_messages(v_topic, 3, '{b,a}',
            clock_timestamp() - interval '1 minute')), c_proves;
        assert (select n.message_id = v_ids[2] and n.ordering_key is null
            from pubsub.nth_newest_messages(v_topic, 5) n), c_proves;
        assert not exists (select from pubsub.nth_newest_messages(v_topic, 7)), c_proves;
    end loop;
    -- of the last topic, which has them indexed
    assert pubsub.nth_newest_of_key(
        (select t.topic_key from pubsub_data.topics t where t.topic_id = v_topic), 'b', 1, v_ids[1])
        = v_ids[6], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be read is refused by name';
begin
    perform pubsub.create_topic('refused');

    assert pg_temp.refusal($q$select pubsub.read_messages('none')$q$) = 'PS404 Topic not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.nth_newest_messages('none', 1)$q$) = 'PS404 Topic not found',
        c_proves;
    assert (
        select bool_and(pg_temp.refusal(
                format('select pubsub.read_messages(%L, p_limit => %s)', 'refused', l.value))
            = 'PS422(limit) limit must be 1 to 1000')
        from unnest(array['0', '1001', 'null']) as l (value)
    ), c_proves;
    assert pg_temp.refusal($q$select pubsub.read_messages('refused', p_max_bytes => 0)$q$)
        = 'PS422(max_bytes) max_bytes must be at least 1', c_proves;
    assert pg_temp.refusal($q$select pubsub.read_messages('refused', p_ordering_keys => '{}')$q$)
        = 'PS422(ordering_key) ordering_key must be 1 to 100 keys', c_proves;
    assert pg_temp.refusal($q$select pubsub.read_messages('refused', p_ordering_keys => '{a,""}')$q$)
        = 'PS422(ordering_key) ordering_key must be 1 to 1024 characters', c_proves;
    assert pg_temp.refusal($q$select pubsub.check_log_keys('refused', '{null}')$q$)
        = 'PS422(ordering_key) ordering_key must be 1 to 1024 characters', c_proves;
    assert (
        select bool_and(pg_temp.refusal(
                format('select pubsub.nth_newest_messages(%L, %s)', 'refused', n.value))
            = 'PS422(n) n must be 1 to 10000000')
        from unnest(array['0', '10000001', 'null']) as n (value)
    ), c_proves;
end
$$;
