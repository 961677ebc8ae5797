/* Filters: which payloads pass, and which filters are refused. */

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
    c_proves constant text := 'a filter of another form is refused, naming the field';
    v_filter text;
begin
    foreach v_filter in array array[
        '[]', '["a"]', '"a"', '1', 'true', 'null',
        '{"a": "b"}', '{"a": 1}', '{"a": true}', '{"a": null}', '{"a": {"b": ["c"]}}',
        '{"a": [null]}', '{"a": [["b"]]}', '{"a": [{"b": 1}]}', '{"a": ["b"], "c": "d"}',
        '{"a": ["b", null]}'
    ] loop
        assert pg_temp.refusal(format('select pubsub.compile_filter(%L)', v_filter))
            = 'PS422(filter) Invalid filter structure. Expected format: {"field": ["value", ...]} '
            'with strings, numbers or booleans as values', c_proves || ': ' || v_filter;
        assert pg_temp.refusal(format('select pubsub.matches_filter(%L, %L)', '{}', v_filter))
            like 'PS422(filter) %', c_proves || ': ' || v_filter;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a filter that passes everything compiles to null';
begin
    assert pubsub.compile_filter(null) is null, c_proves;
    assert pubsub.compile_filter('{}') is null, c_proves;
    assert pubsub.compile_filter('{"a": []}') is not null, c_proves;
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
    foreach v_more in array array['{"more": [1]}', '{"more": []}'] loop
        assert pg_temp.refusal(format('select pubsub.compile_filter(%L)',
            v_filter || v_more::jsonb)) = 'PS422(filter) filter must have at most 1000 values',
            c_proves || ': ' || v_more;
    end loop;
end
$$;
