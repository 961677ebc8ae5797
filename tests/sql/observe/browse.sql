/* Looking at what a subscription has not settled. */

/* browsed — what browse_messages shows, by the numbers of the messages: "1 delivered, 2 available". */
create function pg_temp.browsed(
    p_name text, p_state text default null, p_after uuid default null, p_limit int default 1000,
    p_offset int default 0, p_ids uuid[] default null
)
returns text
language sql stable
as $$
    select coalesce(string_agg((b.payload ->> 'n') || ' ' || b.state, ', '), '')
    from pubsub.browse_messages(p_name, p_state, p_after, p_limit, p_offset, p_ids) b
$$;

do $$
declare
    c_proves constant text := 'what is not settled is shown with its state, its holder and its times, and stays';
    v_ids uuid[] := pg_temp.stock('shown', 5);
    v_handle record;
    v_shown record;
begin
    select c.* into strict v_handle from pubsub.consume_messages('shown', 'me', 1) c;
    perform pubsub.publish_messages('shown', array['{"n": 6}']::jsonb[], array['{"a": "b"}']::jsonb[],
        array[clock_timestamp() + interval '1 hour'], p_ordering_keys => array['key'],
        p_priorities => array[3]::smallint[]);

    assert pg_temp.browsed('shown')
        = '1 delivered, 2 available, 3 available, 4 available, 5 available, 6 scheduled', c_proves;
    select b.* into strict v_shown from pubsub.browse_messages('shown', 'delivered') b;
    assert (v_shown.message_id, v_shown.lease, v_shown.ack_deadline, v_shown.attempts,
            v_shown.consumer_id, v_shown.available_at)
        is not distinct from (v_ids[1], v_handle.lease, v_handle.ack_deadline, 1, 'me', null), c_proves;
    select b.* into strict v_shown from pubsub.browse_messages('shown', 'scheduled') b;
    assert v_shown.available_at > clock_timestamp() and v_shown.attributes = '{"a": "b"}'
        and v_shown.ordering_key = 'key' and v_shown.priority = 3 and v_shown.lease is null
        and v_shown.ack_deadline is null and v_shown.published_at <= clock_timestamp(), c_proves;
    assert pg_temp.claim('shown', 4) = v_ids[2:5], c_proves || ': nothing was leased';
end
$$;

do $$
declare
    c_proves constant text := 'pages go by offset or by the last id, through single messages and runs alike';
    v_ids uuid[] := pg_temp.stock_runs('pages', 250);
    v_seen text[] := '{}';
    v_after uuid;
    v_page record;
begin
    v_ids := v_ids || pg_temp.publish('pages', 3);
    perform pubsub.consume_messages('pages', 'me', 130);
    perform pubsub.ack_messages('pages', v_ids[101:103]);
    for v_number in 1 .. 40 loop
        select array_agg(b.payload ->> 'n') as numbers, (array_agg(b.message_id))[cardinality(
            array_agg(b.message_id))] as last
        into v_page
        from pubsub.browse_messages('pages', p_after => v_after, p_limit => 7) b;
        exit when v_page.last is null;
        v_seen := v_seen || v_page.numbers;
        v_after := v_page.last;
    end loop;
    assert v_seen = array(
        select n::text from generate_series(1, 250) n where n not between 101 and 103)
        || array['1', '2', '3'], c_proves;
    for v_offset in 0 .. 250 by 25 loop
        assert (
            select array_agg(b.payload ->> 'n') = v_seen[v_offset + 1 : v_offset + 25]
            from pubsub.browse_messages('pages', p_limit => 25, p_offset => v_offset) b
        ) is not false, c_proves;
    end loop;
    assert pg_temp.browsed('pages', 'available', null, 2, 1) = '132 available, 133 available', c_proves;
    assert pg_temp.browsed('pages', 'available', v_ids[199], 3)
        = '200 available, 201 available, 202 available', c_proves;
    assert pg_temp.browsed('pages', null, null, 10, 0, array[v_ids[131], v_ids[100], v_ids[102], v_ids[100]])
        = '100 delivered, 131 available', c_proves || ': or only some';
    assert pg_temp.browsed('pages', 'available', null, 10, 0, v_ids[100:131]) = '131 available', c_proves;
    assert pg_temp.browsed('pages', null, v_ids[130], 1, 1, v_ids[130:135]) = '132 available', c_proves;
    assert (select count(*) = 253 - 3 from pubsub.browse_messages('pages', p_message_ids => v_ids)),
        c_proves || ': all that are named unless a limit says otherwise';
    assert (select count(*) = 10 from pubsub.browse_messages('pages')), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease that ended reads as available, in runs as well';
    v_ids uuid[] := pg_temp.stock_runs('ended', 101);
begin
    perform pg_temp.claim('ended');
    assert pg_temp.browsed('ended', 'available') = '', c_proves;
    perform pg_temp.later('ended', interval '1 hour');

    assert (
        select count(*) = 101 and count(b.lease) = 0 and count(b.consumer_id) = 0
            and count(b.ack_deadline) = 0
        from pubsub.browse_messages('ended', 'available', p_limit => 1000) b
    ), c_proves;
    assert pg_temp.browsed('ended', 'delivered') = '', c_proves;
    assert cardinality(pg_temp.claim('ended')) = 101, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is parked and what is expired is shown as that';
    v_ids uuid[];
begin
    perform pubsub.create_topic('parks');
    perform pubsub.create_subscription('parks', 'parks',
        '{"max_delivery_attempts": 1, "enable_ordering": true, "ordering_failure": "park"}');
    v_ids := pg_temp.publish_in_lanes('parks', array['a', 'a', 'b']);
    perform pg_temp.claim('parks', 1);
    perform pubsub.nack_messages('parks', v_ids[1:1]);
    update pubsub_data.deliveries d set expires_at = clock_timestamp() where d.message_id = v_ids[3];

    assert pg_temp.browsed('parks') = '1 parked, 2 available, 3 expired', c_proves;
    assert pg_temp.browsed('parks', 'parked') = '1 parked', c_proves;
    assert pg_temp.browsed('parks', 'expired') = '3 expired', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message whose payload was removed by hand is shown without it';
    v_ids uuid[] := pg_temp.stock('bare', 1);
begin
    delete from pubsub_data.messages m where m.message_id = v_ids[1];

    assert (
        select b.payload is null and b.published_at = pubsub.id_time(v_ids[1])
        from pubsub.browse_messages('bare') b
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what cannot be browsed is refused';
    v_case record;
begin
    for v_case in
        select * from (values
            ($r$'nowhere'$r$, 'PS404 Subscription not found'),
            ($r$'shown', 'acked'$r$,
                'PS422(state) state must be available, delivered, scheduled, parked or expired'),
            ($r$'shown', p_limit => 0$r$, 'PS422(limit) limit must be 1 to 1000'),
            ($r$'shown', p_limit => 1001$r$, 'PS422(limit) limit must be 1 to 1000'),
            ($r$'shown', p_offset => -1$r$, 'PS422(offset) offset must be 0 to 1000000000')
        ) c (arguments, refused)
    loop
        assert pg_temp.refusal(format('select * from pubsub.browse_messages(%s)', v_case.arguments))
            = v_case.refused, c_proves || ': ' || v_case.arguments;
    end loop;
    assert pg_temp.refusal($r$select pubsub.backlog_bytes('nowhere')$r$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a page costs what it shows, not the backlog';
    v_ids uuid[] := pg_temp.stock('deep', 0);
    v_keys record := pubsub.subscription_keys('deep');
    v_plan json;
    v_blocks bigint;
begin
    insert into pubsub_data.deliveries (topic_key, subscription_key, message_id)
    select v_keys.topic_key, v_keys.subscription_key,
        ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
    from generate_series(1, 30000) n;
    execute format('explain (analyze, buffers, format json) select * from pubsub.unsettled_page(%s, %s, 5, %L, %L, 10)',
        v_keys.topic_key, v_keys.subscription_key, 'available', '01900000-0000-7000-8000-000000004000') into v_plan;
    v_blocks := (v_plan #>> '{0,Plan,Shared Hit Blocks}')::bigint;
    assert v_blocks < 200, c_proves || ': blocks ' || v_blocks;
    assert (
        select count(*) = 2 from pubsub.unsettled_among(v_keys.topic_key, v_keys.subscription_key, 5,
            array['01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000002',
                '01900000-0000-7000-8000-00000000ffff']::uuid[])
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the bytes of a backlog are those of its payloads and attributes as text';
    v_ids uuid[] := pg_temp.stock_runs('bytes', 100);
    v_of_text bigint := (
        select sum(octet_length(format('{"n": %s}', n))) from generate_series(1, 100) n);
begin
    assert pubsub.backlog_bytes('bytes') = v_of_text, c_proves;
    perform pubsub.publish_messages('bytes', array['"text"']::jsonb[], array['{"a": "b"}']::jsonb[]);
    assert pubsub.backlog_bytes('bytes') = v_of_text + 6 + 10, c_proves;
    perform pg_temp.claim('bytes');
    assert pubsub.backlog_bytes('bytes') = v_of_text + 16, c_proves || ': held or not';
    perform pubsub.ack_messages('bytes', v_ids);
    assert pubsub.backlog_bytes('bytes') = 16, c_proves || ': not of what is settled';
end
$$;

do $$
declare
    c_proves constant text := 'beyond ten thousand messages the oldest stand for the rest';
    v_each constant jsonb := '{"n": "0123456789"}';
begin
    perform pg_temp.stock('many');
    perform pubsub.publish_messages('many', array_fill(v_each, array[10000]));
    assert pubsub.backlog_bytes('many') = 10000 * 19, c_proves;
    perform pubsub.publish_messages('many', array_fill('{}'::jsonb, array[2000]));
    assert pubsub.backlog_bytes('many') = 12000 * 19, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'of messages that are large together fewer are looked at';
begin
    perform pg_temp.stock('huge');
    -- 80 MB as they are stored
    perform pubsub.publish_messages('huge', array_agg(to_jsonb(b.bytes)))
    from (
        select string_agg(md5(random()::text), '') as bytes
        from generate_series(1, 31250 * 2) with ordinality as n (n, position)
        group by n % 2
    ) b
    cross join generate_series(1, 40);
    assert pubsub.backlog_bytes('huge') = 80 * (1000000 + 2), c_proves || ': ' || pubsub.backlog_bytes('huge');
end
$$;

do $$
declare
    c_proves constant text := 'the summary of a queue has its bytes and its times';
    v_summary record;
begin
    perform pubsub.create_queue('summed');
    select * into v_summary from pubsub.queue_summary('summed');
    assert v_summary.bytes = 0 and v_summary.last_published_at is null, c_proves;
    assert v_summary.created_at = (select t.created_at from pubsub.get_topic('summed') t), c_proves;
    perform pg_temp.publish('summed', 3);

    select * into v_summary from pubsub.queue_summary('summed');
    assert v_summary.bytes = pubsub.backlog_bytes('summed') and v_summary.bytes > 0, c_proves;
    assert v_summary.last_published_at >= v_summary.created_at, c_proves;
    assert pg_temp.refusal($s$select * from pubsub.queue_summary('no')$s$) = 'PS404 Queue not found',
        c_proves;
end
$$;
