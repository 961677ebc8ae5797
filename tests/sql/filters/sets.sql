/* Long filters on long messages: sets say what the predicates say, at a cost of the sum. */

do $$
declare
    c_proves constant text := 'a list of any operators matches by sets as by its predicate';
    v_payloads jsonb[] := array['{"f": "a"}', '{"f": "abc"}', '{"f": ""}', '{"f": "é"}', '{"f": 1.0}',
        '{"f": 2}', '{"f": -0.5}', '{"f": true}', '{"f": false}', '{"f": null}', '{"f": {}}',
        '{"f": {"g": 1}}', '{"f": []}', '{"f": [[]]}', '{"f": [["a"]]}', '{"f": ["x", 2, null]}',
        '{"f": [1, "abc"]}', '{"f": [true, {}]}', '{"g": 1}', '{}']::jsonb[];
    v_lists jsonb[] := array['[]', '["a"]', '[1]', '[true]', '["a", 1, false, "é"]',
        '[{"prefix": ""}]', '[{"prefix": "ab"}, {"prefix": "abcd"}]', '[{"suffix": "c"}, 7]',
        '[{"suffix": "é"}, {"suffix": "bc"}]', '[{"exists": true}]', '[{"exists": false}]',
        '[{"exists": false}, 2]', '[{"numeric": [">", 1]}]', '[{"numeric": [">=", 1, "<", 2]}]',
        '[{"numeric": ["<=", -0.5]}, {"numeric": ["=", 2.0]}]', '[{"numeric": [">", 2, "<", 1]}]',
        '[{"anything-but": ["a"]}]', '[{"anything-but": [1, true]}]',
        '[{"anything-but": ["a", 2]}, {"anything-but": ["a", 1]}]',
        '[{"anything-but": ["a"]}, {"anything-but": [1]}]', '[{"anything-but": ["a"]}, "a"]',
        '[{"anything-but": ["abc"]}, {"prefix": "ab"}]']::jsonb[];
    v_list jsonb;
    v_filter jsonb;
begin
    foreach v_list in array v_lists loop
        foreach v_filter in array array[
            jsonb_build_object('f', v_list), jsonb_build_object('f', jsonb_build_object('g', v_list)),
            jsonb_build_object('f', v_list, 'h', '[{"exists": false}]'::jsonb)
        ] loop
            assert pubsub.match_objects(v_payloads, v_filter) = array(
                select pubsub.matches_filter(p.payload, v_filter)
                from unnest(v_payloads) with ordinality as p (payload, position)
                order by p.position
            ) and array_position(pubsub.match_objects(v_payloads, v_filter), null) is null,
                format('%s: %s', c_proves, v_filter);
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a filter of 1000 values sees every element of an array of 10000';
    v_plain jsonb := (select jsonb_agg('v' || n) from generate_series(1, 1000) n);
    v_texts jsonb := (select jsonb_agg('z' || n) from generate_series(1, 10000) n);
    v_numbers jsonb := (select jsonb_agg(n) from generate_series(1001, 11000) n);
    v_objects jsonb := (
        select jsonb_agg(jsonb_build_object('b', 'z' || n % 7)) from generate_series(1, 10000) n);
    v_case record;
begin
    for v_case in
        select c.list, c.misses, c.hit
        from (values
            (v_plain, v_texts, '"v1000"'::jsonb),
            ((select jsonb_agg(n) from generate_series(1, 1000) n), v_numbers, '1000.0'),
            ((select jsonb_agg(jsonb_build_object('prefix', 'v' || n))
                from generate_series(1, 1000) n), v_texts, '"v1000x"'),
            ((select jsonb_agg(jsonb_build_object('suffix', n || 'v'))
                from generate_series(1, 1000) n), v_texts, '"x1000v"'),
            ((select jsonb_agg(jsonb_build_object('suffix', repeat('v', n)))
                from generate_series(1, 1000) n), v_texts, '"zv"'),
            ((select jsonb_agg(format('{"numeric": [">", %s, "<", %s]}', n, n + 1)::jsonb)
                from generate_series(1, 250) n), v_numbers, '250.5'),
            (jsonb_build_array(jsonb_build_object('anything-but',
                (select jsonb_agg('z' || n) from generate_series(1, 1000) n))),
                (select jsonb_agg('z' || n % 1000 + 1) from generate_series(1, 10000) n), '"z"'),
            ((select jsonb_agg('{"anything-but": ["z"]}'::jsonb) from generate_series(1, 1000) n),
                (select jsonb_agg('z'::text) from generate_series(1, 10000) n), 'null')
        ) c (list, misses, hit)
    loop
        assert not pubsub.matches_filter(jsonb_build_object('a', v_case.misses),
            jsonb_build_object('a', v_case.list)), format('%s: %s', c_proves, left(v_case.list::text, 80));
        assert pubsub.matches_filter(jsonb_build_object('a', v_case.misses || v_case.hit),
            jsonb_build_object('a', v_case.list)), format('%s: %s', c_proves, left(v_case.list::text, 80));
    end loop;

    assert not pubsub.matches_filter(jsonb_build_object('a', v_objects),
        jsonb_build_object('a', jsonb_build_object('b', v_plain))), c_proves;
    assert pubsub.matches_filter(jsonb_build_object('a', v_objects || '[{"b": ["x", "v1"]}]'),
        jsonb_build_object('a', jsonb_build_object('b', v_plain))), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter of 1000 fields sees every object of an array of 10000';
    v_fields jsonb := (
        select jsonb_object_agg('f' || n, '[{"exists": false}]'::jsonb) from generate_series(2, 1000) n);
    v_objects jsonb := (
        select jsonb_agg(jsonb_build_object('g' || n % 7, n)) from generate_series(1, 10000) n);
    v_filter jsonb := jsonb_build_object('a', v_fields || '{"f1": [1]}');
begin
    assert not pubsub.matches_filter(jsonb_build_object('a', v_objects), v_filter), c_proves;
    assert pubsub.matches_filter(jsonb_build_object('a', v_objects || '{"f1": 1}'), v_filter), c_proves;
    assert not pubsub.matches_filter(
        jsonb_build_object('a', v_objects || '{"f1": 1, "f1000": 1}'), v_filter), c_proves;
    -- in one and the same object
    assert (
        select count(*) filter (where e.matches) = 1000 and count(*) = 1001
        from pubsub.explain_filter(
            jsonb_build_object('a', v_objects || '{"f1": 1, "f1000": 1}'), null, v_filter) e
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'publishing, replaying and redriving look at long messages by sets';
    v_payload jsonb := jsonb_build_object('a', (
        select jsonb_agg('z' || n) from generate_series(1, 5000) n));
    v_filter json := json_build_object('a', (select jsonb_agg('v' || n) from generate_series(1, 1000) n));
    v_ids uuid[];
begin
    perform pubsub.create_topic('long');
    perform pubsub.create_subscription('long-' || n,
        'long', json_build_object('filter', v_filter)) from generate_series(1, 5) n;
    perform pubsub.create_subscription('long-all', 'long');
    v_ids := array(select p.message_id from pubsub.publish_messages('long',
        array[v_payload, v_payload || '{"a": ["v7"]}', v_payload || '{"b": 1}']) p);
    assert (
        select count(*) = 5 and count(*) filter (where d.message_id = v_ids[2]) = 5
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s using (subscription_key)
        where s.subscription_id like 'long-_'
    ), c_proves;
    -- what was stored is compressed
    perform pubsub.create_subscription('long-late', 'long',
        json_build_object('filter', v_filter), now() - interval '1 hour');
    perform pubsub.advance_jobs();
    assert (select m.available = 1 from pubsub.subscription_metrics('long-late') m), c_proves;
    assert (
        select p.scanned = 3 and p.matched = 1 and p.message_id = v_ids[2]
        from pubsub.preview_filter('long-all', v_filter) p
    ), c_proves;
    assert (
        select count(*) filter (where t.state = 'not_matched') = 6
        from pubsub.message_timeline(v_ids[1]) t
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the parts of a list become sets';
    v_sets record;
begin
    select * into v_sets from pubsub.list_sets('{"f": ["a", 1, {"prefix": "b"}, {"numeric": [">", 1]},
        {"exists": true}], "g": {"h": [1]}}');
    assert v_sets.field = 'f' and v_sets.there and not v_sets.missing and not v_sets.others, c_proves;
    assert v_sets.strings = '{"a": null}' and v_sets.prefixes = '{"b": null}', c_proves;
    assert v_sets.numbers = '{[1,)}', c_proves;
    assert pubsub.number_ranges('anything-but', '["x", 1, 2]') = '{(,1),(1,2),(2,)}', c_proves;
    assert (
        select array_agg(f.object || ':' || f.matches order by f.object) = array['1:true', '3:false']
        from pubsub.field_matches(array['{"a": 1}', '{}', '{"a": 2}']::jsonb[], '{"a": [1]}') f
    ), c_proves;
    assert pubsub.passes_without('{"a": {"b": [{"exists": false}, 1]}}'), c_proves;
    assert not pubsub.passes_without('{"a": [{"exists": false}], "b": [1]}'), c_proves;
    assert pubsub.match_long_filter('{"a": 1}', '$.a == 1', '{"a": [1]}', 1), c_proves;
    assert pubsub.payload_passes('{"a": 1}', '$.a == 1', '{"a": [1]}', 1), c_proves;
    assert pubsub.count_filter_values('{"a": [1, {"anything-but": [2, 3]}], "b": []}') = 4, c_proves;
    assert (
        select array_agg(e.path::text || e.matches order by e.path)
        from pubsub.explain_fields(array['{"a": 1}']::jsonb[], false, '{"a": [1], "b": [2]}', '{}') e
    ) = array['{a}true', '{b}false'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message passes a filter by payload and attributes; no filter lets all pass';
    c_filter constant jsonb := '{"n": [1], "attributes": {"region": ["eu"]}}';
begin
    assert (
        select array_agg(pubsub.passes_filter(m.payload, m.attributes, pubsub.compile_filter(c_filter),
            c_filter, 2, pubsub.compile_attribute_filter(c_filter)) order by m.position)
        from (values
            (1, '{"n": 1}'::jsonb, '{"region": "eu"}'::jsonb), (2, '{"n": 1}', null),
            (3, '{"n": 2}', '{"region": "eu"}'), (4, '[{"n": 1}]', '{"region": "eu"}')
        ) m (position, payload, attributes)
    ) = array[true, false, false, false], c_proves;
    assert pubsub.passes_filter('[]', null, null, null, null, null), c_proves;
end
$$;
