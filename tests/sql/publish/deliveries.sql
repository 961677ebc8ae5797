/* Ids of new messages, the lanes and lives of deliveries, and what claims are told of them. */

do $$
declare
    c_proves constant text := 'new ids are those of the present millisecond, and ascend';
    v_from constant timestamptz := date_trunc('milliseconds', clock_timestamp());
    v_ids constant uuid[] := pubsub.new_message_ids(100);
    v_published constant uuid[] := pg_temp.stock('present', 1);
begin
    assert v_ids = array(select distinct unnest(v_ids) order by 1), c_proves;
    assert pubsub.id_time(v_ids[1]) between v_from and clock_timestamp(), c_proves;
    assert pubsub.id_time(v_published[1]) between v_from and clock_timestamp(), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'deliveries added in another way are noted like published ones';
    v_keys record;
    v_ids uuid[];
begin
    v_ids := pg_temp.stock('by-hand', 2);
    v_keys := pubsub.subscription_keys('by-hand');
    update pubsub_data.deliveries d
    set visible_at = clock_timestamp() + interval '1 hour', lane = '7'
    where d.topic_key = v_keys.topic_key and d.message_id = v_ids[1];

    perform pubsub.note_deliveries(v_keys.topic_key, array[v_keys.subscription_key], v_ids);

    assert (
        select array_agg(w.message_ids) = array[v_ids[1:1]]
        from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key
    ), c_proves;
    assert (
        select s.has_priorities from pubsub_data.subscriptions s
        where s.subscription_id = 'by-hand'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription is told once that it has priorities';
    v_keys record;
    v_places tid[];
begin
    perform pg_temp.stock('first');
    v_keys := pubsub.subscription_keys('first');

    for v_waits in 0..1 loop
        perform pubsub.note_priorities(v_keys.topic_key, array[v_keys.subscription_key], v_waits = 1);
        v_places := v_places || array(
            select s.ctid from pubsub_data.subscriptions s
            where s.subscription_id = 'first' and s.has_priorities
        );
    end loop;

    assert v_places[1] = v_places[2], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what was checked elsewhere is published by key, under the ids given';
    v_topic_key bigint;
    v_ids constant uuid[] := pubsub.new_message_ids(2);
    v_published record;
begin
    perform pg_temp.stock('keyed');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'keyed';

    v_published := pubsub.insert_messages(v_topic_key, array['{}', '{}']::jsonb[],
        null, null, null, null, null, v_ids);

    assert v_published.message_ids = v_ids, c_proves;
    assert v_published.subscription_keys = array(
        select s.subscription_key from pubsub_data.subscriptions s
        where s.topic_key = v_topic_key
    ), c_proves;
    assert pg_temp.claim('keyed') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a delivery has the lane that its subscription asks for';
begin
    perform pubsub.create_topic('lanes');
    perform pubsub.create_subscription('lanes-1-none', 'lanes');
    perform pubsub.create_subscription('lanes-2-ordered', 'lanes', '{"enable_ordering": true}');
    perform pubsub.create_subscription('lanes-3-fair', 'lanes', '{"fairness_key": "tenant"}');
    perform pubsub.publish_messages('lanes', array['{}', '{}']::jsonb[],
        array['{"tenant": "a"}', null]::jsonb[], p_ordering_keys => array['k', null],
        p_priorities => array[null, 3]::smallint[]);
    perform pg_temp.publish('lanes');

    assert array(
        select format('%s %s', s.subscription_id, string_agg(coalesce('<' || d.lane || '>', '-'),
            '' order by d.message_id))
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s
            on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.subscription_id like 'lanes-%'
        group by s.subscription_id
        order by 1
    ) = array['lanes-1-none -<3>-', 'lanes-2-ordered <k>--', 'lanes-3-fair <a><><>'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the first priority above 0 is noted in the subscriptions it reaches';
begin
    perform pubsub.create_topic('ranked');
    perform pubsub.create_subscription('ranked-1-yes', 'ranked', '{"filter": {"n": [1]}}');
    perform pubsub.create_subscription('ranked-2-unmatched', 'ranked', '{"filter": {"n": [2]}}');
    perform pubsub.create_subscription('ranked-3-ordered', 'ranked', '{"enable_ordering": true}');
    perform pubsub.create_subscription('ranked-4-fair', 'ranked', '{"fairness_key": "n"}');

    perform pubsub.publish_messages('ranked', array['{"n": 1}']::jsonb[],
        p_priorities => array[0]::smallint[]);
    assert not exists (
        select from pubsub_data.subscriptions s
        where s.subscription_id like 'ranked-%' and s.has_priorities
    ), c_proves;
    perform pubsub.publish_messages('ranked', array['{"n": 1}']::jsonb[],
        p_priorities => array[1]::smallint[]);

    assert array(
        select s.subscription_id from pubsub_data.subscriptions s
        where s.subscription_id like 'ranked-%' and s.has_priorities
    ) = '{ranked-1-yes}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription that has had priorities is not written again';
    v_row tid;
begin
    perform pg_temp.stock('settled');
    perform pubsub.publish_messages('settled', array['{}']::jsonb[],
        p_priorities => array[1]::smallint[]);
    select s.ctid into v_row
    from pubsub_data.subscriptions s where s.subscription_id = 'settled';

    perform pubsub.publish_messages('settled', array['{}']::jsonb[],
        p_priorities => array[1]::smallint[]);

    assert v_row = (
        select s.ctid from pubsub_data.subscriptions s where s.subscription_id = 'settled'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the values of a fairness key are noted once each';
begin
    perform pubsub.create_topic('tenants');
    perform pubsub.create_subscription('tenants', 'tenants', '{"fairness_key": "tenant"}');
    perform pg_temp.publish('tenants', 2);
    perform pubsub.publish_messages('tenants', array['{}', '{}', '{}']::jsonb[],
        array['{"tenant": "a"}', '{"tenant": "b"}', '{"tenant": "a"}']::jsonb[]);
    perform pubsub.publish_messages('tenants', array['{}']::jsonb[],
        array['{"tenant": "b"}']::jsonb[]);

    assert array(
        select l.lane from pubsub_data.fair_lanes l
        join pubsub_data.subscriptions s
            on s.topic_key = l.topic_key and s.subscription_key = l.subscription_key
        where s.subscription_id = 'tenants'
        order by l.lane
    ) = array['', 'a', 'b'], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'message_ttl_seconds counts from when a message can be consumed; its own expiry may be earlier';
begin
    perform pubsub.create_topic('short');
    perform pubsub.create_subscription('short', 'short', '{"message_ttl_seconds": 60}');
    perform pubsub.publish_messages('short', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour', null, null],
        p_expires_at => array[null, clock_timestamp() + interval '10 s',
            clock_timestamp() + interval '1 day']);
    perform pg_temp.publish('short', 1);

    assert array(
        select round(extract(epoch from d.expires_at - m.published_at))
        from pubsub_data.deliveries d
        join pubsub_data.messages m on m.topic_key = d.topic_key and m.message_id = d.message_id
        join pubsub_data.subscriptions s
            on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.subscription_id = 'short'
        order by d.message_id
    ) = '{3660,10,60,60}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a plain message leaves a subscription at its message_ttl_seconds';
begin
    perform pubsub.create_topic('leaving');
    perform pubsub.create_subscription('leaving', 'leaving', '{"message_ttl_seconds": 60}');
    perform pubsub.create_subscription('leaving-not', 'leaving');
    perform pg_temp.publish('leaving', 2);
    assert cardinality(pg_temp.claim('leaving', 1)) = 1, c_proves;

    perform pg_temp.later('leaving', '61 seconds');
    perform pg_temp.later('leaving-not', '61 seconds');

    assert pg_temp.claim('leaving') = '{}', c_proves;
    assert cardinality(pg_temp.claim('leaving-not')) = 2, c_proves;
    assert (
        select s.backlog from pubsub.subscriptions s where s.subscription_id = 'leaving'
    ) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'payloads alone are stored, delivered and told of, and one that is missing refuses all';
    v_topic_key bigint;
    v_published record;
begin
    perform pg_temp.stock('alone');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'alone';

    v_published := pubsub.publish_to_topic(v_topic_key, array['{}', '7']::jsonb[],
        null, null, null, null, null, null, null, null, null);

    assert pg_temp.claim('alone') = v_published.message_ids, c_proves;
    assert cardinality(v_published.subscription_keys) = 1, c_proves;
    assert pg_temp.refusal(format(
        $q$select pubsub.publish_to_topic(%s, array['{}', null]::jsonb[],
            null, null, null, null, null, null, null, null, null)$q$, v_topic_key))
        like 'PS422(messages) %', c_proves;
end
$$;
