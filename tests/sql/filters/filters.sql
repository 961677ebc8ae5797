/* Filters: which messages pass, and which filters are refused. */

do $$
declare
    c_proves constant text := 'a filter passes what it says and nothing else';
    v_case record;
begin
    for v_case in
        select c.filter::jsonb, c.payload::jsonb, c.passes
        from (values
            -- any of the values of a field
            ('{"country": ["BR", "US"]}', '{"country": "US"}', true),
            ('{"country": ["BR", "US"]}', '{"country": "DE"}', false),
            -- all of the fields
            ('{"a": [1], "b": [2]}', '{"a": 1, "b": 2, "c": 3}', true),
            ('{"a": [1], "b": [2]}', '{"a": 1, "b": 3}', false),
            -- JSON equality
            ('{"n": [1]}', '{"n": 1.0}', true),
            ('{"n": [1.50]}', '{"n": 1.5}', true),
            ('{"n": [-1]}', '{"n": -1}', true),
            ('{"n": [-1e3]}', '{"n": -1000}', true),
            ('{"n": [0.001]}', '{"n": 1e-3}', true),
            ('{"n": [12345678901234567890123]}', '{"n": 12345678901234567890123}', true),
            ('{"n": [12345678901234567890123]}', '{"n": 12345678901234567890124}', false),
            ('{"n": [1]}', '{"n": "1"}', false),
            ('{"n": ["1"]}', '{"n": 1}', false),
            ('{"ok": [true]}', '{"ok": true}', true),
            ('{"ok": [true]}', '{"ok": "true"}', false),
            ('{"ok": [false]}', '{"ok": 0}', false),
            ('{"s": ["BR"]}', '{"s": "br"}', false),
            ('{"s": [""]}', '{"s": ""}', true),
            -- a field that is missing, null or of another kind
            ('{"f": ["x"]}', '{}', false),
            ('{"f": ["x"]}', '{"g": "x"}', false),
            ('{"f": ["x"]}', '{"f": null}', false),
            ('{"f": ["x"]}', '{"f": {"x": "x"}}', false),
            ('{"f": ["x"]}', '{"g": {"f": "x"}}', false),
            -- a payload array passes by any of its elements
            ('{"tags": ["b"]}', '{"tags": ["a", "b"]}', true),
            ('{"tags": ["c"]}', '{"tags": ["a", "b"]}', false),
            ('{"tags": ["b"]}', '{"tags": [{"x": 1}, null, 2, "b"]}', true),
            ('{"tags": ["b"]}', '{"tags": []}', false),
            -- nothing to match, nothing to ask
            ('{"f": []}', '{"f": "x"}', false),
            ('{"f": [], "g": ["x"]}', '{"f": "x", "g": "x"}', false),
            ('{}', '{}', true),
            (null, '{"f": 1}', true),
            -- what would end a string or mean something in a path
            ('{"f": ["a\"b\\c"]}', '{"f": "a\"b\\c"}', true),
            ('{"f": ["it''s <a & b>"]}', '{"f": "it''s <a & b>"}', true),
            ('{"f": ["\" || 1 == 1 || \""]}', '{"f": "x"}', false),
            ('{"x\" == 1 || $.\"y": [1]}', '{"y": 1}', false),
            ('{"x\"y": [1]}', '{"x\"y": 1}', true),
            ('{"a.b": [1]}', '{"a.b": 1}', true),
            ('{"a.b": [1]}', '{"a": {"b": 1}}', false),
            ('{"*": [1]}', '{"x": 1}', false),
            ('{"$": ["$"]}', '{"$": "$"}', true),
            ('{"": [1]}', '{"": 1}', true),
            ('{"f": ["tab\tline\nbell\u0007"]}', '{"f": "tab\tline\nbell\u0007"}', true),
            ('{"größe": ["日本", "\ud83d\ude00"]}', '{"größe": "😀"}', true)
        ) c (filter, payload, passes)
    loop
        assert pubsub.matches_filter(v_case.payload, v_case.filter) = v_case.passes,
            format('%s: %s on %s', c_proves, v_case.filter, v_case.payload);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'nested fields match within one object';
    v_case record;
begin
    for v_case in
        select c.filter::jsonb, c.payload::jsonb, c.passes
        from (values
            ('{"a": {"b": [1]}}', '{"a": {"b": 1}}', true),
            ('{"a": {"b": [1]}}', '{"a": {"b": 2}}', false),
            ('{"a": {"b": [1]}}', '{"a": {}}', false),
            ('{"a": {"b": [1]}}', '{"b": 1}', false),
            ('{"a": {"b": [1]}}', '{"a.b": 1}', false),
            ('{"a": {"b": [1]}}', '{"a": 1}', false),
            ('{"a": {"b": [1]}}', '{"a": null}', false),
            ('{"a": {"b": [1], "c": [2]}}', '{"a": {"b": 1, "c": 2}}', true),
            ('{"a": {"b": [1], "c": [2]}}', '{"a": {"b": 1, "c": 3}}', false),
            ('{"a": {"b": [1]}, "c": [2]}', '{"a": {"b": 1}, "c": 2}', true),
            ('{"a": {"b": [1]}, "c": [2]}', '{"a": {"b": 1}, "c": 1}', false),
            ('{"a": {"b": {"c": ["x", {"prefix": "y"}]}}}', '{"a": {"b": {"c": "yz"}}}', true),
            ('{"a": {"b": []}}', '{"a": {"b": 1}}', false),
            -- an object in an array: one of them has it all
            ('{"a": {"b": [1]}}', '{"a": [{"b": 2}, {"b": 1}]}', true),
            ('{"a": {"b": [1], "c": [2]}}', '{"a": [{"b": 1, "c": 2}]}', true),
            ('{"a": {"b": [1], "c": [2]}}', '{"a": [{"b": 1}, {"c": 2}]}', false),
            ('{"a": {"b": [1]}}', '{"a": [[{"b": 1}]]}', false),
            ('{"a": {"b": [1]}}', '{"a": [null, 3, {"b": [0, 1]}]}', true),
            ('{"a": {"b": {"c": [1]}}}', '{"a": [{"b": [{"c": 2}, {"c": 1}]}]}', true),
            ('{"a": {"b": {"c": [1], "d": [2]}}}', '{"a": [{"b": [{"c": 1}, {"d": 2}]}]}', false),
            -- where there is no object, its fields are missing
            ('{"a": {"b": [{"exists": false}]}}', '{}', true),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": {}}', true),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": 7}', true),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": []}', true),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": {"b": null}}', false),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": [{"b": 1}]}', false),
            ('{"a": {"b": [{"exists": false}]}}', '{"a": [{"b": 1}, {}]}', true),
            ('{"a": {"b": [{"exists": false}, 1]}}', '{}', true),
            ('{"a": {"b": [{"exists": false}], "c": [1]}}', '{}', false),
            ('{"a": {"b": {"c": [{"exists": false}]}}}', '{}', true),
            ('{"a": {"b": {"c": [{"exists": false}]}}}', '{"a": {"b": {"c": 1}}}', false),
            ('{"a": {"b": {"c": [{"exists": false}], "d": [{"exists": true}]}}}', '{"a": 1}', false)
        ) c (filter, payload, passes)
    loop
        assert pubsub.matches_filter(v_case.payload, v_case.filter) = v_case.passes,
            format('%s: %s on %s', c_proves, v_case.filter, v_case.payload);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'an object of attributes means the attributes of the message';
    v_case record;
begin
    for v_case in
        select c.filter::jsonb, c.payload::jsonb, c.attributes::jsonb, c.passes
        from (values
            ('{"attributes": {"k": ["x"]}}', '{}', '{"k": "x"}', true),
            ('{"attributes": {"k": ["x"]}}', '{}', '{"k": "y"}', false),
            ('{"attributes": {"k": ["x"]}}', '{}', '{}', false),
            ('{"attributes": {"k": ["x"]}}', '{}', null, false),
            ('{"attributes": {"k": ["x"]}}', '{"k": "x"}', '{"l": "x"}', false),
            ('{"attributes": {"k": ["x"]}}', '{"attributes": {"k": "x"}}', null, false),
            ('{"attributes": {"k": ["x"], "l": ["y"]}}', '{}', '{"k": "x", "l": "y"}', true),
            ('{"attributes": {"k": ["x"], "l": ["y"]}}', '{}', '{"k": "x"}', false),
            ('{"attributes": {"k": ["x"]}, "f": [1]}', '{"f": 1}', '{"k": "x"}', true),
            ('{"attributes": {"k": ["x"]}, "f": [1]}', '{"f": 2}', '{"k": "x"}', false),
            ('{"attributes": {"k": ["x"]}, "f": [1]}', '{"f": 1}', '{"k": "y"}', false),
            ('{"attributes": {"k": [{"exists": false}]}}', '{"k": 1}', null, true),
            ('{"attributes": {"k": [{"exists": false}]}}', '{}', '{"k": ""}', false),
            ('{"attributes": {"k": [{"exists": true}]}}', '{}', '{"k": ""}', true),
            ('{"attributes": {"k": [{"prefix": "eu-"}]}}', '{}', '{"k": "eu-west"}', true),
            ('{"attributes": {"k": [{"anything-but": ["x"]}]}}', '{}', '{"k": "y"}', true),
            ('{"attributes": {"k": [{"anything-but": ["x"]}]}}', '{}', null, false),
            -- attributes are strings
            ('{"attributes": {"k": [1]}}', '{}', '{"k": "1"}', false),
            ('{"attributes": {"k": [{"numeric": [">", 0]}]}}', '{}', '{"k": "1"}', false),
            -- a list was, and is, a filter on a payload field of that name; so is one further down
            ('{"attributes": ["x"]}', '{"attributes": "x"}', null, true),
            ('{"attributes": ["x"]}', '{"attributes": "y"}', '{"x": "x"}', false),
            ('{"attributes": [{"exists": false}]}', '{"attributes": 1}', null, false),
            ('{"a": {"attributes": {"k": ["x"]}}}', '{"a": {"attributes": {"k": "x"}}}', null, true)
        ) c (filter, payload, attributes, passes)
    loop
        assert pubsub.matches_filter(v_case.payload, v_case.filter, v_case.attributes)
            = v_case.passes, format('%s: %s on %s %s', c_proves, v_case.filter, v_case.payload,
                v_case.attributes);
    end loop;
    assert pg_temp.filter_fault('{"attributes": {"k": "x"}}') like '["attributes", "k"] Invalid %',
        c_proves;
    assert pg_temp.filter_fault('{"attributes": {}}')
        = '["attributes"] an object of fields must have at least one field', c_proves;
    assert pg_temp.filter_fault('{"attributes": "x"}') like '["attributes"] Invalid %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'plain values compile as they did before there were operators';
begin
    assert pubsub.compile_filter('{"b": ["x", 1, -2.5, true], "a": [], "long": ["\"\\"]}')::text
        = '((1 == 2 && ((($."b" == "x" || $."b" == 1) || $."b" == -2.5) || $."b" == true)) '
        '&& $."long" == "\"\\")', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the parts of a filter compile over the path they are given';
begin
    assert pubsub.compile_field('@."f"', '["x", {"exists": true}]', '[]')
        = '@."f" == "x" || exists(@."f")', c_proves;
    assert pubsub.compile_fields('{"f": ["x"]}', '@', '[]') = '(@."f" == "x")', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter of another form is refused, naming the place';
    v_case record;
begin
    for v_case in
        select c.filter, c.path
        from (values
            ('[]', '[]'), ('["a"]', '[]'), ('"a"', '[]'), ('1', '[]'), ('true', '[]'),
            ('null', '[]'),
            ('{"a": "b"}', '["a"]'), ('{"a": 1}', '["a"]'), ('{"a": true}', '["a"]'),
            ('{"a": null}', '["a"]'), ('{"a": ["b"], "c": "d"}', '["c"]'),
            ('{"a": [null]}', '["a", 0]'), ('{"a": [["b"]]}', '["a", 0]'),
            ('{"a": ["b", null]}', '["a", 1]'), ('{"a": [{"exists": true}, []]}', '["a", 1]'),
            ('{"a": {"b": "c"}}', '["a", "b"]'), ('{"a": {"b": [1, null]}}', '["a", "b", 1]'),
            ('{"a\"b": {"": 1}}', '["a\"b", ""]')
        ) c (filter, path)
    loop
        assert pg_temp.filter_fault(v_case.filter) = v_case.path || ' Invalid filter structure. '
            'Expected format: {"field": ["value", ...]} with strings, numbers, booleans or '
            'operators as values',
            format('%s: %s: %s', c_proves, v_case.filter, pg_temp.filter_fault(v_case.filter));
        assert pg_temp.refusal(format('select pubsub.matches_filter(%L, %L)', '{}', v_case.filter))
            like 'PS422(filter) %', c_proves || ': ' || v_case.filter;
    end loop;
    assert pg_temp.refusal($q$select pubsub.fail_filter_structure('[]')$q$)
        like 'PS422(filter) Invalid filter structure.%', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'limits are what they say, and one more is refused';
    v_long text := repeat('é', 1024);
    v_deep text := '{"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": %s}}}}}}}}';
    v_name text;
begin
    foreach v_name in array array['prefix', 'suffix'] loop
        assert pubsub.matches_filter(jsonb_build_object('f', v_long),
            format('{"f": [{"%s": "%s"}]}', v_name, v_long)::jsonb), c_proves;
        assert pg_temp.filter_fault(format('{"f": [{"%s": "%sx"}]}', v_name, v_long))
            = format('["f", 0, "%s"] %s must have at most 1024 characters', v_name, v_name),
            c_proves;
    end loop;

    assert pubsub.matches_filter(format(v_deep, 7)::jsonb, format(v_deep, '[7]')::jsonb), c_proves;
    assert not pubsub.matches_filter(format(v_deep, 8)::jsonb, format(v_deep, '[7]')::jsonb),
        c_proves;
    assert pg_temp.filter_fault(format(v_deep, '{"a": [7]}'))
        = '["a", "a", "a", "a", "a", "a", "a", "a"] fields must be nested at most 8 deep', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter that passes everything compiles to null';
begin
    assert pubsub.compile_filter(null) is null, c_proves;
    assert pubsub.compile_filter('{}') is null, c_proves;
    assert pubsub.compile_filter('{"a": []}') is not null, c_proves;
    assert pubsub.compile_filter('{"attributes": {"k": []}}') is null, c_proves;
    assert pubsub.compile_attribute_filter('{"attributes": {"k": []}}') is not null, c_proves;
    assert pubsub.compile_attribute_filter('{"attributes": ["x"], "a": [1]}') is null, c_proves;
    assert pubsub.compile_attribute_filter(null) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a filter of 1000 values works, one more is refused';
    v_filter jsonb := (
        select jsonb_object_agg('field_' || f, (
            select jsonb_agg('value ' || v) from generate_series(1, 50) v
        ))
        from generate_series(1, 20) f
    );
    v_payload jsonb := (
        select jsonb_object_agg('field_' || f, 'value ' || f) from generate_series(1, 20) f
    );
    v_more text;
begin
    assert pubsub.matches_filter(v_payload, v_filter), c_proves;
    assert not pubsub.matches_filter(v_payload || '{"field_20": "value 51"}', v_filter), c_proves;
    foreach v_more in array array[
        '{"more": [1]}', '{"more": []}', '{"more": [{"exists": true}]}', '{"more": {"than": [1]}}'
    ] loop
        assert pg_temp.refusal(format('select pubsub.compile_filter(%L)',
            v_filter || v_more::jsonb)) = 'PS422(filter) filter must have at most 1000 values',
            c_proves || ': ' || v_more;
    end loop;
end
$$;
