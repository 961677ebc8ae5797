/* Topics: create, get, list, delete. */

do $$
declare
    c_proves constant text := 'a created topic is returned, found and listed alike';
    v_started_at timestamptz := clock_timestamp();
    v_created record;
    v_got record;
begin
    select * into v_created from pubsub.create_topic('user-events');
    select * into v_got from pubsub.get_topic('user-events');

    assert v_created.id = 'user-events', c_proves;
    assert v_created.created_at between v_started_at and clock_timestamp(), c_proves;
    assert v_got = v_created, c_proves;
    assert (
        select l.created_at from pubsub.list_topics() l where l.id = 'user-events'
    ) = v_created.created_at, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic id is taken once';
begin
    perform pubsub.create_topic('once');

    assert pg_temp.refusal($q$select pubsub.create_topic('once')$q$)
        = 'PS409 This topic already exists', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an id of other characters or length is refused, naming the field';
    v_id text;
begin
    foreach v_id in array array[
        null, '', ' ', 'a b', E'a\n', E'\na', E'a\tb', E'a\u007f', repeat('ä', 601)
    ] loop
        assert pg_temp.refusal(format('select pubsub.create_topic(%L)', v_id))
            = 'PS422(id) topic id must be 1 to 600 characters without space or control characters',
            format('%s: %L', c_proves, v_id);
    end loop;
    foreach v_id in array array[
        'a', '-', 'Az0._-', 'a/b', 'a''b', '%', '$"\{}*', 'ä', repeat('ä', 600)
    ] loop
        assert pg_temp.refusal(format('select pubsub.create_topic(%L)', v_id)) is null,
            format('%s: %L', c_proves, v_id);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'ids that differ in case are different topics';
begin
    perform pubsub.create_topic('Case');
    perform pubsub.create_topic('case');

    assert (select g.id from pubsub.get_topic('Case') g) = 'Case', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown topic is PS404 for get and delete';
begin
    assert pg_temp.refusal($q$select pubsub.get_topic('none')$q$) = 'PS404 Topic not found',
        c_proves;
    assert pg_temp.refusal($q$select pubsub.delete_topic('none')$q$) = 'PS404 Topic not found',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'topics are listed in the byte order of their ids, page by page';
    c_ids constant text[] := array['-', '.', '0', 'B', 'Z', '_', 'a', 'b'];
    v_id text;
begin
    delete from pubsub_data.subscriptions;
    delete from pubsub_data.topics;
    foreach v_id in array array['b', 'Z', '_', '0', 'a', '.', 'B', '-'] loop
        perform pubsub.create_topic(v_id);
    end loop;

    assert array(select l.id from pubsub.list_topics() l) = c_ids, c_proves;
    assert array(select l.id from pubsub.list_topics(0, 3) l) = c_ids[1:3], c_proves;
    assert array(select l.id from pubsub.list_topics(3, 3) l) = c_ids[4:6], c_proves;
    assert array(select l.id from pubsub.list_topics(p_offset => 7) l) = c_ids[8:8], c_proves;
    assert array(select l.id from pubsub.list_topics(8, 3) l) = '{}', c_proves;
    assert array(select l.id from pubsub.list_topics(9223372036854775807, 3) l) = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'deleting a topic deletes its subscriptions, and no others';
begin
    perform pg_temp.stock('doomed', 2);
    perform pubsub.create_subscription('doomed-too', 'doomed');
    perform pg_temp.stock('spared', 2);

    perform pubsub.delete_topic('doomed');

    assert pg_temp.refusal($q$select pubsub.get_topic('doomed')$q$) like 'PS404 %', c_proves;
    assert pg_temp.refusal($q$select pubsub.get_subscription('doomed')$q$) like 'PS404 %', c_proves;
    assert pg_temp.refusal($q$select pubsub.get_subscription('doomed-too')$q$) like 'PS404 %',
        c_proves;
    assert cardinality(pg_temp.claim('spared')) = 2, c_proves;
    assert (select count(*) from pubsub_data.deleted_subscriptions) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic that is created again starts empty';
begin
    perform pg_temp.stock('again', 3);

    perform pubsub.delete_topic('again');
    perform pg_temp.stock('again');

    assert pg_temp.claim('again') = '{}', c_proves;
    assert (select m.available from pubsub.subscription_metrics('again') m) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic has a retention, none, or a new one';
    v_case record;
begin
    perform pubsub.create_topic('retained', 31536000);
    perform pubsub.create_topic('unretained');
    perform pubsub.create_topic('at-once', 0);

    assert (select g.message_retention_seconds from pubsub.get_topic('retained') g) = 31536000, c_proves;
    assert (select l.message_retention_seconds from pubsub.list_topics(0, 100) l
        where l.id = 'retained') = 31536000, c_proves;
    assert (select g.message_retention_seconds from pubsub.get_topic('unretained') g) is null, c_proves;
    for v_case in
        select *
        from (values ('{"message_retention_seconds": 60}', 60), ('{}', 60),
            ('{"message_retention_seconds": 0}', 0), ('{"message_retention_seconds": null}', null)
        ) c (changes, retention)
    loop
        assert (
            select u.message_retention_seconds is not distinct from v_case.retention
            from pubsub.update_topic('retained', v_case.changes::json) u
        ), c_proves || ': ' || v_case.changes;
        assert (
            select g.message_retention_seconds is not distinct from v_case.retention
            from pubsub.get_topic('retained') g
        ), c_proves || ': ' || v_case.changes;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a retention out of range is refused, as is what is no setting';
    v_case record;
begin
    for v_case in
        select *
        from (values
            ('message_retention_seconds', $q$create_topic('r', -1)$q$),
            ('message_retention_seconds', $q$create_topic('r', 31536001)$q$),
            ('message_retention_seconds',
                $q$update_topic('retained', '{"message_retention_seconds": -1}')$q$),
            ('message_retention_seconds',
                $q$update_topic('retained', '{"message_retention_seconds": 1.5}')$q$),
            ('message_retention_seconds',
                $q$update_topic('retained', '{"message_retention_seconds": "60"}')$q$),
            ('id', $q$update_topic('retained', '{"id": "other"}')$q$),
            ('settings', $q$update_topic('retained', '[]')$q$),
            ('settings', $q$update_topic('retained', null)$q$)
        ) c (field, call)
    loop
        assert pg_temp.refusal('select pubsub.' || v_case.call)
            like format('PS422(%s) %%', v_case.field), c_proves || ': ' || v_case.call;
    end loop;
    assert pg_temp.refusal('select pubsub.check_message_retention(0.5)')
        like 'PS422(message_retention_seconds) %', c_proves;
    assert pg_temp.refusal($q$select pubsub.update_topic('none', '{}')$q$) = 'PS404 Topic not found',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic is added where there is none, and one that is there is not touched';
begin
    assert pubsub.add_topic('added', 5), c_proves;
    assert pubsub.add_topic('added-with-keys', 5, true), c_proves;
    assert not pubsub.add_topic('added', 6, true), c_proves;
    assert not pubsub.add_topic('added-with-keys', 6), c_proves;
    assert not pubsub.add_topic('added', 6), c_proves;
    assert (select g.message_retention_seconds = 5 from pubsub.get_topic('added') g), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'whether the ordering keys of a topic are indexed is shown, and stays';
begin
    assert (select c.index_ordering_keys from pubsub.create_topic('indexed', 7, true) c), c_proves;
    assert not (select c.index_ordering_keys from pubsub.create_topic('not-indexed') c), c_proves;
    assert (select g.index_ordering_keys from pubsub.get_topic('indexed') g), c_proves;
    assert (select array_agg(l.index_ordering_keys order by l.id) = '{t,f}'
        from pubsub.list_topics(p_limit => 1000) l where l.id in ('indexed', 'not-indexed')), c_proves;
    assert (select u.index_ordering_keys
        from pubsub.update_topic('indexed', '{"message_retention_seconds": 9}') u), c_proves;
    assert (select array_agg(t.index_ordering_keys order by t.topic_id) = '{t,f}'
        from pubsub.topics t where t.topic_id in ('indexed', 'not-indexed')), c_proves;
    assert pg_temp.refusal($q$select pubsub.update_topic('indexed', '{"index_ordering_keys": false}')$q$)
        like 'PS422(index_ordering_keys) %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic with indexed ordering keys publishes, delivers, replays and is deleted as any';
    v_ids uuid[];
    v_got uuid[];
begin
    perform pubsub.create_topic('all-indexed', p_index_ordering_keys => true);
    perform pubsub.create_subscription('ordered', 'all-indexed', '{"enable_ordering": true}');
    perform pubsub.create_subscription('plain', 'all-indexed');
    select array_agg(p.message_id order by p.message_id) into v_ids
    from pubsub.publish_messages('all-indexed', array_fill('{}'::jsonb, array[4]),
        p_ordering_keys => array['a', 'a', null, 'b']) p;
    assert cardinality(pg_temp.claim('plain', 10)) = 4, c_proves;
    select array_agg(c.message_id) into v_got from pubsub.consume_messages('ordered', 'me', 10) c;
    perform pubsub.ack_messages('ordered', v_got);
    assert cardinality(v_got) = 4, c_proves;
    perform pubsub.seek_subscription('ordered', '-infinity');
    assert cardinality(pg_temp.claim('ordered', 10)) = 4, c_proves;
    perform pubsub.delete_topic('all-indexed');
    assert pg_temp.refusal($q$select pubsub.read_messages('all-indexed')$q$) = 'PS404 Topic not found', c_proves;
end
$$;
