/* Previews of filters. */

/* Trying filters on messages: previews and explanations. */

do $$
declare
    c_proves constant text := 'a preview counts and samples the newest messages, whoever they went to';
    v_ids uuid[] := pg_temp.stock('preview', 30);
    v_rows record;
begin
    perform pubsub.create_subscription('preview-late', 'preview', '{"filter": {"n": [0]}}');

    select array_agg(p.message_id order by p.message_id desc) as ids, min(p.scanned) as scanned,
        max(p.scanned) as same, max(p.matched) as matched, array_agg(p.payload ->> 'n') as numbers
    into v_rows
    from pubsub.preview_filter('preview-late', '{"n": [{"numeric": [">", 5]}]}') p;
    assert v_rows.scanned = 30 and v_rows.same = 30 and v_rows.matched = 25, c_proves;
    assert v_rows.numbers = '{30,29,28,27,26,25,24,23,22,21}', c_proves;
    assert v_rows.ids[1] = v_ids[30], c_proves;

    assert (
        select (p.scanned, p.matched, count(*) over ()) = (4, 3, 3)
        from pubsub.preview_filter('preview', '{"n": [{"numeric": [">", 27]}]}', 4) p limit 1
    ), c_proves;
    assert (
        select p.published_at = m.published_at and p.attributes is null
        from pubsub.preview_filter('preview', '{"n": [7]}') p
        join pubsub_data.messages m on m.message_id = p.message_id
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a preview without a match, or without a message, has its counts';
begin
    perform pg_temp.stock('unmatched', 3);
    perform pg_temp.stock('unpublished');

    assert (
        select row(p.*) is not distinct from row(3, 0, null, null, null, null)
        from pubsub.preview_filter('unmatched', '{"n": []}') p
    ), c_proves;
    assert (
        select row(p.*) is not distinct from row(0, 0, null, null, null, null)
        from pubsub.preview_filter('unpublished', null) p
    ), c_proves;
    assert (select max(p.matched) from pubsub.preview_filter('unmatched', null) p) = 3, c_proves;
    assert (select max(p.matched) from pubsub.preview_filter('unmatched', '{}', 2) p) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a preview looks at attributes and at its own topic only';
begin
    perform pg_temp.stock('elsewhere', 5);
    perform pg_temp.stock('attributed');
    perform pubsub.publish_messages('attributed', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[],
        array['{"k": "x"}', '{"k": "y"}', null]::jsonb[]);

    assert (
        select row(p.scanned, p.matched, p.payload, p.attributes)
            = row(3, 1, '{"n": 1}'::jsonb, '{"k": "x"}'::jsonb)
        from pubsub.preview_filter('attributed', '{"attributes": {"k": ["x"]}}') p
    ), c_proves;
    assert (
        select max(p.matched)
        from pubsub.preview_filter('attributed', '{"attributes": {"k": [{"exists": false}]}}') p
    ) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a preview refuses what it cannot try';
    v_last text;
begin
    assert pg_temp.refusal($q$select pubsub.preview_filter('nowhere', '{}')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.preview_filter('preview', '{"a": 1}')$q$)
        like 'PS422(filter) Invalid filter structure%', c_proves;
    foreach v_last in array array['0', '-1', '100001', 'null'] loop
        assert pg_temp.refusal(format('select pubsub.preview_filter(%L, null, %s)', 'preview', v_last))
            = 'PS422(last) last must be 1 to 100000', c_proves;
    end loop;
    assert pg_temp.refusal($q$select pubsub.preview_filter('preview', null, 100000)$q$) is null,
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a preview that may not go past the filter counts and shows what that lets pass';
begin
    perform pubsub.create_topic('narrow');
    perform pubsub.create_subscription('narrow', 'narrow', '{"filter": {"k": ["a"]}}');
    perform pubsub.publish_messages('narrow', array['{"k": "a"}', '{"k": "b"}', '{"k": "b"}']::jsonb[]);

    assert (
        select row(p.scanned, p.matched, p.payload) = row(3::bigint, 1::bigint, '{"k": "a"}'::jsonb)
        from pubsub.preview_filter('narrow', '{}', 10, false) p
    ), c_proves;
    assert (
        select max(p.matched) from pubsub.preview_filter('narrow', '{"k": ["b"]}', 10, false) p
    ) = 0, c_proves;
    assert (select max(p.matched) from pubsub.preview_filter('narrow', '{"k": ["b"]}', 10) p) = 2, c_proves;
end
$$;
