/* Facts about the health of the database; what takes two sessions is in tests/health.rs. */

do $$
declare
    c_proves constant text := 'every fact has a value, a unit and a meaning, and nothing is wrong at first';
    v_wrong text;
begin
    perform pg_temp.stock('quiet', 3);

    -- an age that nobody knows yet is no row's first value
    select string_agg(h::text, e'\n') into v_wrong
    from pubsub.health h
    where (h.value is null and h.name <> 'table_autovacuum_age_seconds'
            and h.name <> 'replication_slot_horizon_age_transactions')
        or h.value < 0 or h.unit is null or h.meaning is null or h.warning is not null
        or (h.subject is null) <> (h.subject_kind is null);
    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
    assert (
        select h.value = 0 from pubsub.health h where h.name = 'oldest_snapshot_age_seconds'
    ), c_proves;
    assert (
        select h.value > 0 from pubsub.health h where h.name = 'wraparound_age_transactions'
    ), c_proves;
    assert (
        select array_agg(l::text order by l::text) = (
            select array_agg(h::text order by h::text) from pubsub.health h
            where h.name not like '%\_seconds'
        )
        from pubsub.list_health() l
        where l.name not like '%\_seconds'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'tables are shown once, their partitions with them';
    v_before float8;
begin
    perform pubsub.make_partitions('messages', 3600);
    assert array(
        select h.subject from pubsub.health h where h.name = 'table_bytes'
        intersect select h.subject from pubsub.health h where h.name = 'index_bytes'
        order by 1
    ) = array(
        select t.relname::text from pg_class t
        where t.relnamespace = 'pubsub_data'::regnamespace
            and t.relkind in ('r', 'p') and not t.relispartition
        order by 1
    ), c_proves;

    select h.value into v_before
    from pubsub.health h where h.name = 'table_bytes' and h.subject = 'messages';
    perform pg_temp.stock('many', 5000);
    assert (
        select h.value > v_before + 5000 * 40
        from pubsub.health h where h.name = 'table_bytes' and h.subject = 'messages'
    ), c_proves || ': what is in a partition counts';
end
$$;

do $$
declare
    c_proves constant text := 'the age of the oldest unacked message is that of its publishing';
    v_ids uuid[] := pg_temp.stock('waiting', 2);
    v_old uuid := pubsub.id_at(clock_timestamp() - interval '2 hours');
    v_fact record;
begin
    update pubsub_data.deliveries d set message_id = v_old where d.message_id = v_ids[1];
    update pubsub_data.messages m set message_id = v_old where m.message_id = v_ids[1];
    select h.* into v_fact from pubsub.health h
    where h.name = 'oldest_unacked_age_seconds' and h.subject = 'waiting';
    assert v_fact.value between 7200 and 7260, format('%s: %s', c_proves, v_fact);
    assert v_fact.warning is null, c_proves;

    perform pg_temp.reconnect('waiting');
    perform pubsub.ack_messages('waiting', array_agg(c.message_id))
    from pubsub.consume_messages('waiting', 'c', 10) c;
    assert (
        select h.value = 0 from pubsub.health h
        where h.name = 'oldest_unacked_age_seconds' and h.subject = 'waiting'
    ), c_proves || ': none is left';
end
$$;

do $$
declare
    c_proves constant text := 'a value past its bound is warned of, and a setting moves the bound';
    v_ids uuid[] := pg_temp.stock('forgotten', 1);
    v_warning constant text :=
        'select h.warning is not null from pubsub.health h where h.subject = ''forgotten''';
    v_warned boolean;
begin
    update pubsub_data.deliveries d
    set message_id = pubsub.id_at(clock_timestamp() - interval '25 hours')
    where d.message_id = v_ids[1];
    execute v_warning into v_warned;
    assert v_warned, c_proves;

    perform set_config('pubsub.warn_oldest_unacked_age_seconds', '100000', true);
    execute v_warning into v_warned;
    assert not v_warned, c_proves || ': higher';
    perform set_config('pubsub.warn_oldest_unacked_age_seconds', '60', true);
    execute v_warning into v_warned;
    assert v_warned, c_proves || ': lower';
    perform set_config('pubsub.warn_oldest_unacked_age_seconds', '', true);
end
$$;

do $$
declare
    c_proves constant text := 'a slot that nobody reads is warned of by the WAL that it keeps';
    v_name constant text := 'health_' || pg_backend_pid();
    v_facts text[];
    v_bounded text[];
    v_facts_of constant text := 'select array_agg(format(''%s %s %s'', h.name, h.value > 0,
        h.warning like ''%pg_drop_replication_slot%'') order by h.name)
        from pubsub.health h where h.subject = $1';
begin
    perform pg_create_physical_replication_slot(v_name, true);
    -- so that some WAL is kept
    perform pg_temp.stock('wal', 100);
    execute v_facts_of into v_facts using v_name;
    perform set_config('pubsub.warn_replication_slot_retained_bytes', '1', true);
    execute v_facts_of into v_bounded using v_name;
    -- before anything can fail: it would outlive the transaction
    perform pg_drop_replication_slot(v_name);
    perform set_config('pubsub.warn_replication_slot_retained_bytes', '', true);

    assert v_facts = array['replication_slot_active f ',
        'replication_slot_horizon_age_transactions  ', 'replication_slot_retained_bytes t '],
        format('%s: %s', c_proves, v_facts);
    assert v_bounded[3] = 'replication_slot_retained_bytes t t',
        format('%s: %s', c_proves, v_bounded);
end
$$;

do $$
declare
    c_proves constant text := 'no more than a thousand subscriptions are probed';
begin
    insert into pubsub_data.subscriptions (topic_key, subscription_id, max_delivery_attempts,
        backoff_min_seconds, backoff_max_seconds)
    select t.topic_key, 'many-' || i, 5, 5, 5
    from pubsub_data.topics t, generate_series(1, 1100) as i
    where t.topic_id = 'quiet';

    assert (
        select count(*) = 1000 from pubsub.health h where h.name = 'oldest_unacked_age_seconds'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a role that was granted the views alone may read them';
begin
    create role health_reader;
    grant usage on schema pubsub to health_reader;
    grant select on pubsub.health, pubsub.horizon_holders to health_reader;
    grant execute on function pubsub.id_time to health_reader;
    set local role health_reader;
    assert (select count(*) > 10 from pubsub.health), c_proves;
    assert (select count(*) >= 0 from pubsub.horizon_holders), c_proves;
    reset role;
end
$$;
