/* Publishing: who receives what, all or nothing. */

do $$
declare
    c_proves constant text := 'ids come in the order of the payloads, and each is its payload''s';
    v_ids uuid[];
begin
    v_ids := pg_temp.stock('positions', 200);

    assert v_ids = array(
        select m.message_id
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'positions'
        order by (m.payload ->> 'n')::int
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message is stored once and delivered to every subscription';
begin
    perform pg_temp.stock('fan');
    perform pubsub.create_subscription('fan-2', 'fan');
    perform pubsub.create_subscription('fan-3', 'fan');
    perform pg_temp.publish('fan', 4);

    assert (
        select count(*) from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'fan'
    ) = 4, c_proves;
    assert cardinality(pg_temp.claim('fan')) = 4, c_proves;
    assert cardinality(pg_temp.claim('fan-2')) = 4, c_proves;
    assert cardinality(pg_temp.claim('fan-3')) = 4, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription receives what matches its filter';
begin
    perform pubsub.create_topic('filtered');
    perform pubsub.create_subscription('filtered-all', 'filtered', '{"filter": {}}');
    perform pubsub.create_subscription('filtered-br', 'filtered', '{"filter": {"country": ["BR"]}}');
    perform pubsub.create_subscription('filtered-none', 'filtered', '{"filter": {"country": []}}');
    perform pubsub.publish_messages('filtered', array[
        '{"country": "BR"}', '{"country": "US"}', '{"country": null}', '{}'
    ]::jsonb[]);

    assert cardinality(pg_temp.claim('filtered-all')) = 4, c_proves;
    assert array(
        select c.payload from pubsub.consume_messages('filtered-br', 'consumer') c
    ) = array['{"country": "BR"}']::jsonb[], c_proves;
    assert pg_temp.claim('filtered-none') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter may select by attributes, beside or instead of the payload';
begin
    perform pubsub.create_topic('tagged');
    perform pubsub.create_subscription('tagged-eu', 'tagged',
        '{"filter": {"attributes": {"region": [{"prefix": "eu-"}]}}}');
    perform pubsub.create_subscription('tagged-eu-1', 'tagged',
        '{"filter": {"attributes": {"region": [{"prefix": "eu-"}]}, "n": [1]}}');
    perform pubsub.create_subscription('tagged-not', 'tagged',
        '{"filter": {"attributes": {"region": [{"exists": false}]}}}');
    perform pubsub.publish_messages('tagged',
        array['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}']::jsonb[],
        array['{"region": "eu-1"}', '{"region": "eu-2"}', '{"region": "us"}', null]::jsonb[]);
    perform pubsub.publish_messages('tagged', array['{"n": 5}']::jsonb[]);

    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('tagged-eu', 'consumer') c
    ) = '{1,2}', c_proves;
    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('tagged-eu-1', 'consumer') c
    ) = '{1}', c_proves;
    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('tagged-not', 'consumer') c
    ) = '{4,5}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'topics do not receive each other''s messages';
begin
    perform pg_temp.stock('apart-1', 1);
    perform pg_temp.stock('apart-2', 2);

    assert cardinality(pg_temp.claim('apart-1')) = 1, c_proves;
    assert cardinality(pg_temp.claim('apart-2')) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a new subscription receives nothing that was published before it';
begin
    perform pg_temp.stock('before', 2);

    perform pubsub.create_subscription('before-late', 'before');
    perform pg_temp.publish('before', 1);

    assert cardinality(pg_temp.claim('before-late')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'payloads and attributes arrive as they were given';
    v_got record;
begin
    perform pg_temp.stock('content');
    perform pubsub.publish_messages('content',
        array['{"a": {"b": [1, 2.50, null, "<&>"]}}', '{}']::jsonb[],
        array['{"trace": "x"}', null]::jsonb[]);

    select array_agg(c.payload order by c.message_id) as payloads,
        array_agg(c.attributes order by c.message_id) as attributes
    into v_got
    from pubsub.consume_messages('content', 'consumer') c;

    assert v_got.payloads::text[] = array['{"a": {"b": [1, 2.50, null, "<&>"]}}', '{}'], c_proves;
    assert v_got.attributes = array['{"trace": "x"}', null]::jsonb[], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'one message that is not there refuses all of them';
begin
    perform pg_temp.stock('atomic');
    assert pg_temp.refusal(
        $q$select pubsub.publish_messages('atomic', array['{"n": 1}', null, '{}']::jsonb[])$q$)
        = 'PS422(messages) every message must be a JSON value', c_proves;

    assert (select t.last_published_at is null from pubsub.topics t where t.topic_id = 'atomic'),
        c_proves;
    assert pg_temp.claim('atomic') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publishing nothing stores nothing';
begin
    perform pg_temp.stock('nothing');

    assert (select count(*) from pubsub.publish_messages('nothing', '{}')) = 0, c_proves;
    assert (select count(*) from pubsub.publish_messages('nothing', null)) = 0, c_proves;
    assert pg_temp.claim('nothing') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown topic is PS404, whatever is published';
begin
    assert pg_temp.refusal($q$select pubsub.publish_messages('none', '{}')$q$)
        = 'PS404 Topic not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.publish_messages('none', array['[]']::jsonb[])$q$)
        = 'PS404 Topic not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publishing to a topic without subscriptions is not an error';
begin
    perform pubsub.create_topic('unheard');

    assert cardinality(pg_temp.publish('unheard', 2)) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publish rolls back with its transaction';
    v_published int := 0;
begin
    perform pg_temp.stock('rollback');
    begin
        v_published := cardinality(pg_temp.publish('rollback', 3));
        raise exception using errcode = 'ZZ001';
    exception when sqlstate 'ZZ001' then
        null;
    end;

    assert v_published = 3, c_proves;
    assert (select t.last_published_at is null from pubsub.topics t where t.topic_id = 'rollback'),
        c_proves;
    assert (
        select s.backlog = 0 from pubsub.subscriptions s where s.subscription_id = 'rollback'
    ), c_proves;
    assert pg_temp.claim('rollback') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'deliver_at holds a message back until its time, and only that one';
    v_ids uuid[];
begin
    perform pg_temp.stock('delayed');
    v_ids := array(
        select p.message_id
        from pubsub.publish_messages('delayed', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[],
            p_deliver_at => array[clock_timestamp() + interval '1 hour', null,
                clock_timestamp() - interval '1 hour']) p
    );

    assert pg_temp.claim('delayed') = v_ids[2:3], c_proves;
    perform pubsub.ack_messages('delayed', v_ids);
    perform pg_temp.later('delayed', '59 minutes 59 seconds');
    assert pg_temp.claim('delayed') = '{}', c_proves;
    perform pg_temp.later('delayed', '1 second');
    assert pg_temp.claim('delayed') = v_ids[1:1], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a message is never handed out after expires_at, and leaves by itself';
    v_ids uuid[];
begin
    perform pg_temp.stock('expiring');
    v_ids := array(
        select p.message_id
        from pubsub.publish_messages('expiring', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[],
            p_expires_at => array[clock_timestamp() + interval '1 hour', null,
                clock_timestamp() + interval '1 minute']) p
    );

    perform pg_temp.later('expiring', '1 hour');

    assert pg_temp.claim('expiring') = v_ids[2:2], c_proves;
    assert (
        select s.backlog from pubsub.subscriptions s where s.subscription_id = 'expiring'
    ) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message is handed out before its expires_at';
    v_ids uuid[];
begin
    perform pg_temp.stock('fresh');
    v_ids := array(
        select p.message_id
        from pubsub.publish_messages('fresh', array['{}']::jsonb[],
            p_expires_at => array[clock_timestamp() + interval '1 hour']) p
    );

    perform pg_temp.later('fresh', '59 minutes');

    assert pg_temp.claim('fresh') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'delays and expiries are noted only for subscriptions that match';
begin
    perform pubsub.create_topic('noted');
    perform pubsub.create_subscription('noted-yes', 'noted', '{"filter": {"n": [1]}}');
    perform pubsub.create_subscription('noted-no', 'noted', '{"filter": {"n": [2]}}');
    perform pubsub.publish_messages('noted', array['{"n": 1}', '{"n": 1}']::jsonb[],
        p_deliver_at => array_fill(clock_timestamp() + interval '1 hour', array[2]));

    assert array(
        select s.subscription_id || ' ' || cardinality(w.message_ids)
        from pubsub_data.wakeups w
        join pubsub_data.subscriptions s on s.subscription_key = w.subscription_key
            and s.topic_key = w.topic_key
        where s.subscription_id like 'noted-%'
    ) = array['noted-yes 2'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an array of another length than the messages is refused by name';
    v_argument record;
begin
    perform pg_temp.stock('lengths');
    for v_argument in
        select * from (
            values ('attributes', 'p_attributes => array[''{}'', ''{}'', ''{}'']::jsonb[]'),
                ('deliver_at', 'p_deliver_at => array[null]::timestamptz[]'),
                ('expires_at', 'p_expires_at => ''{}'''),
                ('ordering_key', 'p_ordering_keys => array[''k'']'),
                ('priority', 'p_priorities => ''{1,2,3}'''),
                ('idempotency_key', 'p_idempotency_keys => ''{a,b,c}''')
        ) as v (field, argument)
    loop
        assert pg_temp.refusal(format(
            $q$select pubsub.publish_messages('lengths', array['{}', '{}']::jsonb[], %s)$q$,
            v_argument.argument
        )) like format('PS422(%1$s) %1$s must be null or have one element per message: %%',
            v_argument.field), format('%s: %s', c_proves, v_argument.field);
    end loop;
    assert pg_temp.refusal($q$select pubsub.check_cardinality('priority', 2, 2)$q$) is null,
        c_proves;
    assert pg_temp.refusal($q$select pubsub.check_cardinality('priority', null, 2)$q$) is null,
        c_proves;
    assert pg_temp.claim('lengths') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what a message carries is stored with it';
    v_until constant timestamptz := clock_timestamp() + interval '1 hour';
begin
    perform pg_temp.stock('carried');
    perform pubsub.publish_messages('carried', array['{"n": 1}', '{"n": 2}']::jsonb[],
        array['{"a": "b"}', null]::jsonb[], array[v_until, null], array[null, v_until],
        array[null, 'k'], array[9, null]::smallint[]);

    assert array(
        select format('%s %s %s %s', m.attributes, m.ordering_key, m.priority,
            m.expires_at = v_until)
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'carried'
        order by m.message_id
    ) = array['{"a": "b"}  9 ', ' k  t'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a server learns the ids, the duplicates and who got any';
    v_answer record;
begin
    perform pubsub.create_topic('told');
    perform pubsub.create_subscription('told-1', 'told', '{"filter": {"n": [1]}}');
    perform pubsub.create_subscription('told-2', 'told', '{"filter": {"n": [2]}}');
    perform pubsub.create_subscription('told-3', 'told');

    select * into v_answer from pubsub.publish_messages_for('told', array['{"n": 1}']::jsonb[]);
    assert cardinality(v_answer.message_ids) = 1 and v_answer.duplicates is null, c_proves;
    assert array(select unnest(v_answer.subscription_ids) order by 1) = '{told-1,told-3}', c_proves;

    select * into v_answer from pubsub.publish_messages_for('told', array['{"n": 2}']::jsonb[],
        p_idempotency_keys => '{a}');
    assert array(select unnest(v_answer.subscription_ids) order by 1) = '{told-2,told-3}', c_proves;
    select * into v_answer from pubsub.publish_messages_for('told', array['{"n": 2}']::jsonb[],
        p_idempotency_keys => '{a}');
    assert v_answer.duplicates = '{t}' and v_answer.subscription_ids = '{}',
        c_proves;
    select * into v_answer from pubsub.publish_messages_for('told', array['{}']::jsonb[],
        p_tell_subscriptions => false);
    assert v_answer.subscription_ids is null, c_proves;
    assert pg_temp.refusal($q$select pubsub.publish_messages_for('none', '{}')$q$)
        = 'PS404 Topic not found', c_proves;
    assert (select b.message_ids = '{}' from pubsub.publish_to_topic(
            (select t.topic_key from pubsub_data.topics t where t.topic_id = 'told'), '{}', '{}', '{}', null,
        null, null, null, null, null, null) b), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'a payload is any JSON value; a filter on its fields lets none pass that is no object';
    v_payloads constant jsonb[] :=
        array['[]', '[{"n": 1}]', '"x"', '1', 'true', 'null', '{"n": 1}'];
    v_ids uuid[];
begin
    perform pg_temp.stock('values');
    perform pubsub.create_subscription('values-n', 'values', '{"filter": {"n": [1]}}');
    perform pubsub.create_subscription('values-no-m', 'values',
        '{"filter": {"m": [{"exists": false}]}}');
    perform pubsub.create_subscription('values-eu', 'values',
        '{"filter": {"attributes": {"region": ["eu"]}}}');
    perform pubsub.create_subscription('values-long', 'values', json_build_object('filter',
        jsonb_build_object('n', (select jsonb_agg(n) from generate_series(1, 1000) n))));

    v_ids := array(select p.message_id from pubsub.publish_messages('values', v_payloads) p)
        || array(select p.message_id from pubsub.publish_messages('values', v_payloads,
            array_fill('{"region": "eu"}'::jsonb, array[cardinality(v_payloads)])) p);

    assert (select array_agg(c.payload order by c.message_id) = v_payloads || v_payloads
        from pubsub.consume_messages('values', 'c', 1000) c), c_proves;
    assert pg_temp.claim('values-n') = array[v_ids[7], v_ids[14]], c_proves;
    assert pg_temp.claim('values-no-m') = array[v_ids[7], v_ids[14]], c_proves;
    assert pg_temp.claim('values-eu') = v_ids[8:], c_proves;
    assert pg_temp.claim('values-long') = array[v_ids[7], v_ids[14]], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a payload that is no object lives and dies as others do';
    v_ids uuid[];
begin
    perform pg_temp.stock('scalar', 0, 1);
    perform pubsub.create_subscription('scalar-n', 'scalar', '{"filter": {"n": [1]}}');
    v_ids := array(select p.message_id from pubsub.publish_messages('scalar',
        array['null', '[{"n": 1}]']::jsonb[]) p);
    perform pg_temp.claim('scalar');
    perform pubsub.nack_messages('scalar', v_ids);

    assert (select array_agg(l.payload) = array['null', '[{"n": 1}]']::jsonb[]
        from pubsub.list_dlq_messages('scalar') l), c_proves;
    assert (select r.reprocessed = 0 and r.remaining = 0
        from pubsub.reprocess_matching_dlq_messages('scalar', '{"n": [1]}') r), c_proves;
    assert (select r.reprocessed = 2 from pubsub.reprocess_matching_dlq_messages('scalar') r), c_proves;
    assert (select p.scanned = 2 and p.matched = 0
        from pubsub.preview_filter('scalar', '{"n": [1]}') p), c_proves;
    assert (select array_agg(t.reason) filter (where t.subscription_id = 'scalar-n')
            = array['does not match the filter: n']
        from pubsub.message_timeline(v_ids[2]) t), c_proves;
    assert (select count(*) = 2 from pubsub.subscription_messages m
        where m.subscription_id = 'scalar'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is more than payloads is checked, and stored with the rest';
    v_topic_key bigint;
    v_published record;
begin
    perform pg_temp.stock('extras');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'extras';

    v_published := pubsub.publish_with_extras(v_topic_key, array['{}', '7']::jsonb[],
        array['{"a": "b"}', null]::jsonb[], null, null, null, null, null, null, null, null);

    assert pg_temp.claim('extras') = v_published.message_ids, c_proves;
    assert pg_temp.refusal(format($q$select pubsub.publish_with_extras(%s, array['{}']::jsonb[],
        array['{"a": 1}']::jsonb[], null, null, null, null, null, null, null, null)$q$, v_topic_key))
        like 'PS422(attributes) %', c_proves;
end
$$;
