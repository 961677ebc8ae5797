/* Publishing in runs. */

do $$
declare
    c_proves constant text := 'messages of one call are in runs of a hundred, whose ids follow one another';
    v_ids uuid[];
begin
    perform pubsub.create_topic('ran');
    perform pubsub.create_subscription('ran', 'ran');
    perform pg_temp.run_in_hundreds('ran');
    v_ids := array(select p.message_id
        from pubsub.publish_messages('ran', array_fill('{"n": 1}'::jsonb, array[250])) p);
    assert (
        select array_agg(cardinality(r.message_ids) order by r.run_id) = array[100, 100, 50]
            and bool_and(r.run_id = r.message_ids[1] and pubsub.run_start(r.message_ids[50]) = r.run_id)
        from pubsub_data.runs r where r.run_id = any(v_ids)
    ), c_proves;
    assert (
        select array_agg(i.id order by r.run_id, i.position) = v_ids
        from pubsub_data.runs r, unnest(r.message_ids) with ordinality as i (id, position)
        where r.run_id = any(v_ids)
    ), c_proves;
    assert v_ids = array(select i from unnest(v_ids) i order by i), c_proves;
    assert (select m.available = 250 from pubsub.subscription_metrics('ran') m), c_proves;
    assert not exists (select from pubsub_data.deliveries d where d.message_id = any(v_ids)), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what a subscription takes one by one, or few of, are single deliveries';
    v_ids uuid[];
begin
    perform pubsub.create_topic('mixed');
    perform pubsub.create_subscription('mixed-' || s.name, 'mixed', s.settings)
    from (values ('all', '{}'::json), ('ordered', '{"enable_ordering": true}'),
        ('fair', '{"fairness_key": "k"}'), ('expiring', '{"message_ttl_seconds": 60}'),
        ('half', '{"filter": {"half": [true]}}'), ('four', '{"filter": {"n": [1, 2, 3, 4]}}'),
        ('none', '{"filter": {"n": [0]}}')) s (name, settings);
    perform pg_temp.run_in_hundreds('mixed-%');
    v_ids := array(select p.message_id from pubsub.publish_messages('mixed', array(
        select jsonb_build_object('n', n, 'half', n % 2 = 0) from generate_series(1, 60) n)) p);
    assert (
        select array_agg(format('%s %s %s', s.subscription_id, coalesce(r.messages, 0),
            coalesce(d.messages, 0)) order by s.subscription_id) = array['mixed-all 60 0',
            'mixed-expiring 0 60', 'mixed-fair 0 60', 'mixed-four 0 4', 'mixed-half 30 0',
            'mixed-none 0 0', 'mixed-ordered 0 60']
        from pubsub_data.subscriptions s
        left join lateral (
            select sum(cardinality(x.message_ids)) as messages
            from pubsub_data.runs x where x.subscription_key = s.subscription_key
        ) r on true
        left join lateral (
            select count(*) as messages
            from pubsub_data.deliveries x where x.subscription_key = s.subscription_key
        ) d on true
        where s.subscription_id like 'mixed-%'
    ), c_proves;
    assert (
        select bool_and(pubsub.recount_messages(s.subscription_id) = 0)
        from pubsub_data.subscriptions s where s.subscription_id like 'mixed-%'
    ), c_proves;
    assert (
        select array_agg(c.message_id order by c.message_id) = (
            select array_agg(i.id order by i.id) from unnest(v_ids) with ordinality as i (id, n)
            where i.n % 2 = 0)
        from pubsub.consume_messages('mixed-half', 'c', 100) c
    ), c_proves;
    assert (
        select bool_and(d.expires_at is not null)
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s using (subscription_key)
        where s.subscription_id = 'mixed-expiring'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages with attributes are in runs, too';
    v_attributes constant jsonb[] := array(
        select case when n % 4 > 0 then jsonb_build_object('k', (n % 2)::text) end
        from generate_series(1, 40) n);
    v_payloads constant jsonb[] := array_fill('{}'::jsonb, array[40]);
    v_ids uuid[];
begin
    perform pubsub.create_topic('told');
    perform pubsub.create_subscription('told-' || s.name, 'told', s.settings)
    from (values ('all', '{}'::json), ('odd', '{"filter": {"attributes": {"k": ["1"]}}}'),
        ('fair', '{"fairness_key": "k"}')) s (name, settings);
    perform pg_temp.run_in_hundreds('told-%');
    v_ids := array(
        select p.message_id from pubsub.publish_messages('told', v_payloads, v_attributes) p);
    assert (
        select array_agg(cardinality(r.message_ids) order by s.subscription_id) = '{40,20}'
        from pubsub_data.runs r
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id like 'told-%'
    ), c_proves;
    assert (
        select count(*) = 40 and count(distinct d.lane) = 3
        from pubsub_data.deliveries d where d.message_id = any(v_ids)
    ), c_proves || ': lanes';
    assert (
        select array_agg(c.attributes order by c.message_id) = v_attributes
        from pubsub.consume_messages('told-all', 'c', 40) c
    ), c_proves;

    begin
        perform pubsub.publish_messages('told', v_payloads, v_attributes[1:39]);
        assert false, c_proves || ': too few of them';
    exception when sqlstate 'PS422' then
    end;
    begin
        perform pubsub.publish_messages('told', v_payloads, array_fill('{"k": 1}'::jsonb, array[40]));
        assert false, c_proves || ': not texts';
    exception when sqlstate 'PS422' then
    end;
    assert (select m.available = 40 from pubsub.subscription_metrics('told-fair') m), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs are as long as consumers asked for at least; before that there are none';
    v_ids uuid[];
begin
    perform pubsub.create_topic('sized');
    perform pubsub.create_subscription('sized', 'sized');
    v_ids := array(select p.message_id
        from pubsub.publish_messages('sized', array_fill('{"n": 1}'::jsonb, array[130])) p);
    assert not exists (select from pubsub_data.runs r where r.run_id = any(v_ids)), c_proves;
    assert cardinality(pg_temp.claim('sized', 30)) = 30, c_proves;
    v_ids := array(select p.message_id
        from pubsub.publish_messages('sized', array_fill('{"n": 1}'::jsonb, array[130])) p);
    assert (
        select array_agg(cardinality(r.message_ids) order by r.run_id) = array[30, 30, 30, 10, 30]
        from pubsub_data.runs r where r.run_id = any(v_ids)
    ), c_proves;
    -- a claim of a few makes single ones of those that come
    assert cardinality(pg_temp.reread('sized', 1)) = 1, c_proves;
    v_ids := array(select p.message_id
        from pubsub.publish_messages('sized', array_fill('{"n": 1}'::jsonb, array[130])) p);
    assert not exists (select from pubsub_data.runs r where r.run_id = any(v_ids)), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a call of more than 131072 messages takes more numbers than one';
    v_published record;
    v_topic_key bigint;
begin
    perform pubsub.create_topic('huge');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'huge';
    v_published := pubsub.publish_in_runs(v_topic_key, array_fill('{}'::jsonb, array[131080]),
        null, clock_timestamp(), left(translate(pubsub.id_at(clock_timestamp())::text, '-', ''), 12) || '7000');
    assert (
        select count(distinct i) = 131080 from unnest(v_published.message_ids) i
    ), c_proves;
    assert not v_published.to_note and v_published.subscription_keys = '{}', c_proves;
end
$$;
