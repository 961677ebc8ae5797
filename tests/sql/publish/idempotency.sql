/* Idempotency keys: what was published under one is not published again, for a while. */

do $$
declare
    c_proves constant text :=
        'a message under a key that was used is not stored again; its answer is the first one''s id';
    v_first uuid[];
    v_again record;
begin
    perform pg_temp.stock('once');
    v_first := array(
        select p.message_id from pubsub.publish_messages('once', array['{"n": 1}', '{"n": 2}']::jsonb[],
            p_idempotency_keys => '{a,b}') p
    );

    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_again
    from pubsub.publish_messages('once',
        array['{"n": 0}', '{"n": 2}', '{"n": 3}', '{"n": 1}']::jsonb[],
        p_idempotency_keys => '{null,b,c,a}') p;

    assert v_again.ids[2] = v_first[2] and v_again.ids[4] = v_first[1], c_proves;
    assert v_again.duplicates = '{f,t,f,t}', c_proves;
    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('once', 'consumer', 100) c
    ) = '{1,2,0,3}', c_proves;
    assert (
        select count(*) from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'once'
    ) = 4, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key that comes twice in one call publishes the first';
    v_answer record;
begin
    perform pg_temp.stock('twice');

    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_answer
    from pubsub.publish_messages('twice', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[],
        p_priorities => array[1, 2, 3]::smallint[], p_idempotency_keys => '{b,b,a}') p;

    assert v_answer.ids[1] = v_answer.ids[2] and v_answer.ids[1] <> v_answer.ids[3], c_proves;
    assert v_answer.duplicates = '{f,t,f}', c_proves;
    assert array(
        select (m.payload ->> 'n') || ' ' || m.priority
        from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'twice'
        order by m.message_id
    ) = array['1 1', '3 3'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a call of nothing but duplicates publishes nothing';
begin
    perform pg_temp.stock('none-new');
    perform pubsub.publish_messages('none-new', array['{}']::jsonb[], p_idempotency_keys => '{a}');

    assert (
        select bool_and(p.duplicate)
        from pubsub.publish_messages('none-new', array['{}', '{}']::jsonb[],
            p_idempotency_keys => '{a,a}') p
    ), c_proves;
    assert cardinality(pg_temp.claim('none-new')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the same key in another topic is another key';
begin
    perform pg_temp.stock('key-1');
    perform pg_temp.stock('key-2');
    perform pubsub.publish_messages('key-1', array['{}']::jsonb[], p_idempotency_keys => '{a}');

    assert (
        select not p.duplicate
        from pubsub.publish_messages('key-2', array['{}']::jsonb[], p_idempotency_keys => '{a}') p
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'after its window a key is free again, and its window starts anew';
    v_ids uuid[];
begin
    perform pg_temp.stock('window');
    for v_try in 1..3 loop
        v_ids := v_ids || array(
            select p.message_id
            from pubsub.publish_messages('window', array['{}']::jsonb[],
                p_idempotency_keys => '{a}', p_request_key => 'r' || v_try,
                p_idempotency_window_seconds => 60) p
        );
        update pubsub_data.idempotency_keys i
        set created_at = i.created_at - interval '31 s'
        where i.idempotency_key = 'a';
    end loop;

    assert v_ids[1] = v_ids[2] and v_ids[2] <> v_ids[3], c_proves;
    assert cardinality(pg_temp.claim('window')) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the window is 60 s to 7 days';
    v_seconds text;
begin
    perform pg_temp.stock('windows');
    foreach v_seconds in array '{59,604801,null}'::text[] loop
        assert pg_temp.refusal(format(
            $q$select pubsub.publish_messages('windows', array['{}']::jsonb[],
                p_idempotency_keys => '{a}', p_idempotency_window_seconds => %s)$q$,
            coalesce(v_seconds, 'null')
        )) = 'PS422(idempotency_window_seconds) '
            'idempotency_window_seconds must be 60 to 604800', c_proves;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a retry is a duplicate even when its times have passed meanwhile';
    v_first uuid;
    v_again record;
begin
    perform pg_temp.stock('late');
    select p.message_id into v_first
    from pubsub.publish_messages('late', array['{}']::jsonb[],
        p_expires_at => array[clock_timestamp() + interval '1 hour'],
        p_idempotency_keys => '{a}') p;

    select p.* into v_again
    from pubsub.publish_messages('late', array['{}']::jsonb[],
        p_expires_at => array[clock_timestamp() - interval '1 s'],
        p_idempotency_keys => '{a}') p;

    assert v_again.message_id = v_first and v_again.duplicate, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a publish that is refused leaves its key free';
begin
    perform pg_temp.stock('refused');
    assert pg_temp.refusal($q$select pubsub.publish_messages('refused', array[null]::jsonb[],
        p_idempotency_keys => '{a}')$q$) like 'PS422(messages)%', c_proves;

    assert (
        select not p.duplicate
        from pubsub.publish_messages('refused', array['{}']::jsonb[],
            p_idempotency_keys => '{a}') p
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a request under a key that was used gets the first answer''s ids';
    v_first uuid[];
    v_again record;
begin
    perform pg_temp.stock('request');
    v_first := array(
        select p.message_id
        from pubsub.publish_messages('request', array['{"n": 1}', '{"n": 2}']::jsonb[],
            p_request_key => 'r') p
    );
    assert (
        select not p.duplicate
        from pubsub.publish_messages('request', array['{}']::jsonb[],
            p_idempotency_keys => '{r}') p
    ), c_proves || ': the key of a message is another one';

    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_again
    from pubsub.publish_messages('request', array['{"n": 1}', '{"n": 2}']::jsonb[],
        p_request_key => 'r') p;

    assert v_again.ids = v_first and v_again.duplicates = '{t,t}', c_proves;
    assert cardinality(pg_temp.claim('request')) = 3, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a request''s answer keeps the ids of its own duplicates';
    v_message uuid;
    v_first uuid[];
begin
    perform pg_temp.stock('mixed');
    select p.message_id into v_message
    from pubsub.publish_messages('mixed', array['{}']::jsonb[], p_idempotency_keys => '{a}') p;
    for v_try in 1..2 loop
        v_first := array(
            select p.message_id
            from pubsub.publish_messages('mixed', array['{}', '{}']::jsonb[],
                p_idempotency_keys => '{null,a}', p_request_key => 'r') p
        );
        assert v_first[2] = v_message, format('%s: try %s', c_proves, v_try);
    end loop;
    assert cardinality(pg_temp.claim('mixed')) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'another request under a used key is refused';
    v_other text;
begin
    perform pg_temp.stock('other');
    perform pubsub.publish_messages('other', array['{"n": 1}']::jsonb[], p_request_key => 'r');
    foreach v_other in array array[
        $q$array['{"n": 2}']::jsonb[]$q$,
        $q$array['{"n": 1}', '{"n": 1}']::jsonb[]$q$,
        $q$array['{"n": 1}']::jsonb[], array['{"a": "b"}']::jsonb[]$q$,
        $q$array['{"n": 1}']::jsonb[], p_deliver_at => array['2001-01-01'::timestamptz]$q$,
        $q$array['{"n": 1}']::jsonb[], p_expires_at => array['2901-01-01'::timestamptz]$q$,
        $q$array['{"n": 1}']::jsonb[], p_ordering_keys => '{k}'$q$,
        $q$array['{"n": 1}']::jsonb[], p_priorities => '{1}'$q$,
        $q$array['{"n": 1}']::jsonb[], p_idempotency_keys => '{k}'$q$,
        $q$array['{"n": 1}']::jsonb[], p_request_fingerprint => 'f'$q$
    ] loop
        assert pg_temp.refusal(format(
            $q$select pubsub.publish_messages('other', %s, p_request_key => 'r')$q$, v_other
        )) = 'PS422(idempotency_key) idempotency_key was used for another request',
            format('%s: %s', c_proves, v_other);
    end loop;
    assert pg_temp.refusal(
        $q$select pubsub.publish_messages('other', '{}', p_request_key => '')$q$
    ) = 'PS422(idempotency_key) idempotency_key must be 1 to 256 characters', c_proves;
    assert cardinality(pg_temp.claim('other')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a fingerprint does not depend on the session';
    v_arguments constant text := $q$array['{"b": 1, "a": 2}']::jsonb[], null,
        array['2001-01-01 00:00+00'::timestamptz], null, null, null, null$q$;
    v_first text;
    v_second text;
begin
    execute 'select pubsub.request_fingerprint(' || v_arguments || ')' into v_first;
    perform set_config('timezone', 'Asia/Tokyo', true);
    perform set_config('datestyle', 'German', true);
    execute 'select pubsub.request_fingerprint(' || v_arguments || ')' into v_second;
    perform set_config('timezone', 'UTC', true);
    perform set_config('datestyle', 'ISO', true);

    assert v_first = v_second and v_first ~ '^[0-9a-f]{32}$', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'keys are claimed by whoever comes first';
    v_topic_key bigint;
    v_ids constant uuid[] := pubsub.new_message_ids(2);
    v_others constant uuid[] := pubsub.new_message_ids(2);
    v_claimed record;
begin
    perform pg_temp.stock('claims');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'claims';

    v_claimed := pubsub.claim_idempotency_keys(v_topic_key, '{a,null}', v_ids, 60);
    assert v_claimed.message_ids = v_ids and v_claimed.duplicates = '{f,f}', c_proves;
    v_claimed := pubsub.claim_idempotency_keys(v_topic_key, '{null,a}', v_others, 60);
    assert v_claimed.message_ids = array[v_others[1], v_ids[1]], c_proves;
    assert v_claimed.duplicates = '{f,t}', c_proves;

    assert pubsub.claim_request_key(v_topic_key, 'a', v_ids, 'f', 60) is null, c_proves;
    assert pubsub.claim_request_key(v_topic_key, 'a', v_others, 'f', 60) = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'keys older than a threshold are forgotten, a batch a call';
begin
    perform pg_temp.stock('forgotten');
    perform pubsub.publish_messages('forgotten', array_fill('{}'::jsonb, array[5]),
        p_idempotency_keys => '{a,b,c,d,e}');
    update pubsub_data.idempotency_keys i
    set created_at = i.created_at - interval '2 hours'
    from pubsub_data.topics t
    where t.topic_key = i.topic_key and t.topic_id = 'forgotten'
        and i.idempotency_key in ('a', 'b', 'c');

    assert pubsub.cleanup_idempotency_keys(3600, 2) = 2, c_proves;
    assert pubsub.cleanup_idempotency_keys(3600, 2) = 1, c_proves;
    assert pubsub.cleanup_idempotency_keys(3600, 2) = 0, c_proves;
    assert array(
        select p.duplicate
        from pubsub.publish_messages('forgotten', array['{}', '{}']::jsonb[],
            p_idempotency_keys => '{a,d}') p
    ) = '{f,t}', c_proves;
    assert pg_temp.refusal('select pubsub.cleanup_idempotency_keys(59)')
        = 'PS422(older_than_seconds) older_than_seconds must be 60 to 604800', c_proves;
    assert pg_temp.refusal('select pubsub.cleanup_idempotency_keys(60, 0)')
        = 'PS422(limit) limit must be 1 to 1000000', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a window is a minute to a week';
begin
    assert pg_temp.refusal('select pubsub.check_idempotency_window(59)')
        like 'PS422(idempotency_window_seconds) %', c_proves;
    assert pg_temp.refusal('select pubsub.check_idempotency_window(null)') is not null, c_proves;
    assert pg_temp.refusal('select pubsub.check_idempotency_window(604800)') is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publish_once stores what has no key, or a free one, and tells the rest by its first id';
    v_topic_key bigint;
    v_first record;
    v_second record;
begin
    perform pg_temp.stock('some');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'some';

    v_first := pubsub.publish_once(v_topic_key, array['1', '2']::jsonb[], null, null, null, null,
        null, array['a', null], null, null, 60);
    v_second := pubsub.publish_once(v_topic_key, array['1', '3']::jsonb[], null, null, null, null,
        null, array['a', null], 'request', null, 60);

    assert v_first.duplicates = array[false, false] and v_second.duplicates = array[true, false]
        and v_second.message_ids[1] = v_first.message_ids[1], c_proves;
    assert pg_temp.claim('some') = v_first.message_ids || v_second.message_ids[2], c_proves;
    assert (select i.message_ids = v_second.message_ids from pubsub_data.idempotency_keys i
        where i.topic_key = v_topic_key and i.scope = 'request'), c_proves;
end
$$;
