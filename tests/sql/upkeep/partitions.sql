/* Partitions of messages and acked: made, used, dropped when nothing needs them. */

do $$
declare
    c_proves constant text := 'what no partition covers goes to the default partition';
    v_ids uuid[] := pg_temp.stock('default', 2);
begin
    perform pg_temp.claim('default');
    perform pubsub.ack_messages('default', v_ids);

    assert (
        select bool_and(m.tableoid = 'pubsub_data.messages_default'::regclass)
        from pubsub_data.messages m where m.message_id = any(v_ids)
    ), c_proves;
    assert (
        select bool_and(a.tableoid = 'pubsub_data.acked_default'::regclass)
        from pubsub_data.acked a where a.message_ids @> v_ids
    ), c_proves;
    delete from pubsub_data.acked;
    delete from pubsub_data.messages;
    delete from pubsub_data.deliveries;
end
$$;

do $$
declare
    c_proves constant text := 'make_partitions makes the next two partitions, once, and none for now';
    v_parent text;
begin
    foreach v_parent in array array['messages', 'acked'] loop
        assert pubsub.make_partitions(v_parent, 4 * 2592000) = 2, c_proves || ': ' || v_parent;
        assert pubsub.make_partitions(v_parent, 4 * 2592000) = 0, c_proves || ': ' || v_parent;
        assert (
            select count(*) = 2
                and bool_and(p.until_at - p.from_at = interval '30 days')
                and min(p.from_at) between clock_timestamp()
                    and clock_timestamp() + interval '30 days'
                and max(p.from_at) = min(p.until_at)
                and bool_and(to_regclass('pubsub_data.' || p.name) is not null)
            from pubsub_data.partitions p where p.parent = v_parent
        ), c_proves || ': ' || v_parent;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'messages and acks go to the partition of their time';
    v_ids uuid[];
begin
    perform pg_temp.come_of_age('messages');
    perform pg_temp.come_of_age('acked');

    v_ids := pg_temp.stock('current', 2);
    perform pg_temp.claim('current');
    perform pubsub.ack_messages('current', v_ids);

    assert (
        select count(*) = 2 and bool_and(m.tableoid = format('pubsub_data.%I', p.name)::regclass)
        from pubsub_data.messages m, pubsub_data.partitions p
        where m.message_id = any(v_ids) and p.parent = 'messages'
            and clock_timestamp() between p.from_at and p.until_at
    ), c_proves;
    assert (
        select count(*) = 1 and bool_and(a.tableoid = format('pubsub_data.%I', p.name)::regclass)
        from pubsub_data.acked a, pubsub_data.partitions p
        where a.message_ids @> v_ids and p.parent = 'acked'
            and clock_timestamp() between p.from_at and p.until_at
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the range of a partition is the range of its ids, to the edges';
    v_partition record;
    v_topic_key bigint := (pubsub.subscription_keys('current')).topic_key;
    v_id uuid;
begin
    select p.* into v_partition
    from pubsub_data.partitions p where p.parent = 'messages' order by p.from_at desc limit 1;
    foreach v_id in array array[
        pubsub.id_at(v_partition.from_at), pubsub.id_at(v_partition.until_at - interval '1 ms')
    ] loop
        insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
        values (v_topic_key, v_id, '{}', clock_timestamp());
        assert (
            select m.tableoid = format('pubsub_data.%I', v_partition.name)::regclass
            from pubsub_data.messages m where m.message_id = v_id
        ), c_proves || ': ' || v_id;
        delete from pubsub_data.messages m where m.message_id = v_id;
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'a partition of messages goes when no delivery and no kept ack refers to it, not before';
    v_later constant timestamptz := clock_timestamp() + interval '90 days';
    v_ids uuid[];
    v_name text := (
        select p.name from pubsub_data.partitions p
        where p.parent = 'messages' order by p.from_at limit 1
    );
begin
    delete from pubsub_data.acked;
    v_ids := pg_temp.publish('current', 2);

    assert pubsub.drop_message_partitions(clock_timestamp()) = 0, c_proves || ': not over yet';
    -- the next one is empty
    assert pubsub.drop_message_partitions(v_later) = 1, c_proves || ': next';
    assert pubsub.drop_message_partitions(v_later) = 0, c_proves || ': unacked';
    perform pg_temp.claim('current');
    perform pubsub.ack_messages('current', v_ids[1:1]);
    assert pubsub.drop_message_partitions(v_later) = 0, c_proves || ': leased';
    perform pubsub.ack_messages('current', v_ids);
    assert to_regclass('pubsub_data.' || v_name) is not null, c_proves;
    assert pubsub.drop_message_partitions(v_later) = 1, c_proves || ': settled';

    assert to_regclass('pubsub_data.' || v_name) is null, c_proves;
    assert not exists (select from pubsub_data.partitions p where p.parent = 'messages'), c_proves;
    assert not exists (select from pubsub_data.messages), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'dead letters and deleted subscriptions keep no partition, and lose nothing by that';
    v_ids uuid[];
begin
    perform pubsub.make_partitions('messages', 4 * 2592000);
    perform pg_temp.come_of_age('messages');
    v_ids := pg_temp.stock('dead', 1, 1);
    perform pubsub.nack_messages('dead', pg_temp.claim('dead'));
    perform pg_temp.stock('deleted', 2);
    perform pubsub.delete_topic('deleted');

    assert pubsub.drop_message_partitions(clock_timestamp() + interval '90 days') = 2, c_proves;

    assert pubsub.reprocess_dlq_messages('dead', v_ids) = 1, c_proves;
    assert (
        select c.message_id = v_ids[1] and c.payload = '{"n": 1}'
        from pubsub.consume_messages('dead', 'consumer') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'cleanup_default_messages deletes what nothing needs, batch by batch';
    v_later constant timestamptz := clock_timestamp() + interval '1 day';
    v_ids uuid[];
begin
    delete from pubsub_data.deliveries;
    delete from pubsub_data.messages;
    v_ids := pg_temp.stock('by-row', 6);
    perform pg_temp.claim('by-row', 5);
    perform pubsub.ack_messages('by-row', v_ids[1:1]);
    perform pg_temp.stock('by-row-deleted', 1);
    perform pubsub.delete_topic('by-row-deleted');

    assert pubsub.cleanup_default_messages(clock_timestamp() - interval '1 minute') = 0,
        c_proves || ': too young';
    assert pubsub.cleanup_default_messages(v_later) = 2,
        c_proves || ': acked, and of a deleted topic';
    assert pubsub.cleanup_default_messages(v_later) = 0, c_proves || ': leased';
    perform pubsub.ack_messages('by-row', v_ids[2:5]);
    assert pubsub.cleanup_default_messages(v_later, 3) = 3, c_proves || ': a batch';
    assert pubsub.cleanup_default_messages(v_later, 3) = 1, c_proves || ': the rest';
    assert array(select m.message_id from pubsub_data.messages_default m) = v_ids[6:6], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the default partition goes by the retention of each topic';
    v_now constant timestamptz := clock_timestamp();
    v_topic_keys bigint[];
begin
    delete from pubsub_data.deliveries;
    delete from pubsub_data.messages;
    perform pubsub.create_topic('keep-default');
    perform pubsub.create_topic('keep-long', 7200);
    perform pubsub.create_topic('keep-none', 0);
    v_topic_keys := array(select t.topic_key from pubsub_data.topics t
        where t.topic_id like 'keep-%' order by t.topic_id);
    insert into pubsub_data.messages (topic_key, message_id, payload, published_at)
    select k.topic_key, pubsub.id_at(v_now - age.age), '{}', v_now - age.age
    from unnest(v_topic_keys) as k (topic_key),
        (values (interval '1 minute'), ('90 minutes'), ('3 hours')) as age (age);

    assert pubsub.cleanup_default_messages(v_now - interval '1 hour') = 2 + 1 + 3, c_proves;
    assert array(
        select t.topic_id || ' ' || (v_now - pubsub.id_time(m.message_id) > interval '1 hour')
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        order by 1
    ) = array['keep-default false', 'keep-long false', 'keep-long true'], c_proves;
    delete from pubsub_data.messages;
end
$$;

do $$
declare
    c_proves constant text := 'partitions go by the longest retention of all topics';
begin
    assert pubsub.longest_retention(3600) = 7200, c_proves;
    assert pubsub.longest_retention(86400) = 86400, c_proves;
    perform pubsub.update_topic('keep-long', '{"message_retention_seconds": 31536000}');
    assert pubsub.longest_retention(3600) = 31536000, c_proves;
    delete from pubsub_data.subscriptions;
    delete from pubsub_data.topics;
    assert pubsub.longest_retention(3600) = 3600, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'partitions do not overlap when the retention changes';
    v_retention int;
begin
    delete from pubsub_data.deliveries;
    delete from pubsub_data.messages;
    foreach v_retention in array array[3600, 36000, 1, 3600, 604800] loop
        perform pubsub.make_partitions('messages', v_retention);
        perform pubsub.make_partitions('acked', v_retention);
        assert not exists (
            select from pubsub_data.partitions p
            join pubsub_data.partitions o on o.parent = p.parent and o.from_at < p.from_at
                and o.until_at > p.from_at
        ), c_proves || ': ' || v_retention;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'no more than eight partitions of one length are made of a table';
begin
    delete from pubsub_data.deliveries;
    perform pubsub.drop_message_partitions('infinity');
    insert into pubsub_data.partitions (parent, name, from_at, until_at)
    select 'messages', 'old_' || n, v.at, v.at + interval '1 hour'
    from generate_series(1, 7) n,
        lateral (select timestamptz '2020-01-01' + n * interval '1 hour') v (at);

    assert pubsub.make_partitions('messages', 4 * 3600) = 1, c_proves;
    assert pubsub.make_partitions('messages', 4 * 3600) = 0, c_proves;
    -- the retention is raised
    assert pubsub.make_partitions('messages', 8 * 2592000) = 2, c_proves || ': longer ones';
end
$$;

do $$
declare
    c_proves constant text := 'drop_acked_partition drops the oldest one that is over, and counts';
    v_ids uuid[];
begin
    delete from pubsub_data.acked;
    perform pubsub.drop_acked_partition('infinity')
    from generate_series(1, 8);
    assert pubsub.make_partitions('acked', 4 * 2592000) = 2, c_proves;
    perform pg_temp.come_of_age('acked');
    perform pg_temp.stock('drop-acked', 3);
    v_ids := pg_temp.claim('drop-acked');
    perform pubsub.ack_messages('drop-acked', v_ids);

    assert pubsub.drop_acked_partition(clock_timestamp()) = 0, c_proves || ': not over yet';
    assert (select count(*) from pubsub_data.partitions p where p.parent = 'acked') = 2, c_proves;
    assert pubsub.drop_acked_partition('infinity') = 3, c_proves || ': current';
    assert (select count(*) from pubsub_data.partitions p where p.parent = 'acked') = 1, c_proves;
    assert pubsub.drop_acked_partition('infinity') = 0, c_proves || ': next, empty';
    assert pubsub.drop_acked_partition('infinity') = 0, c_proves || ': none';
    assert not exists (select from pubsub_data.partitions p where p.parent = 'acked'), c_proves;
    assert not exists (select from pubsub_data.acked), c_proves;
    assert (select m.acked = 0 and m.acked_total = 3 from pubsub.subscription_metrics('drop-acked') m),
        c_proves || ': what is forgotten was acked';
end
$$;

do $$
declare
    c_proves constant text :=
        'messages_are_needed tells of a range, from its first id to before its last';
    v_ids uuid[] := pg_temp.stock('needed', 3);
begin
    perform pg_temp.claim('needed', 1);
    perform pubsub.ack_messages('needed', v_ids[1:1]);

    assert not pubsub.messages_are_needed(v_ids[1], v_ids[2]), c_proves || ': acked';
    assert pubsub.messages_are_needed(v_ids[2], v_ids[3]), c_proves || ': the first';
    assert pubsub.messages_are_needed(v_ids[3], pubsub.id_at('2100-01-01')),
        c_proves || ': unacked';
    delete from pubsub_data.deliveries d where d.message_id = v_ids[2];
    assert not pubsub.messages_are_needed(v_ids[1], v_ids[3]), c_proves || ': not the last';
end
$$;
