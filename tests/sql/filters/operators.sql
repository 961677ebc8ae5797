/* The operators of filters: which payloads pass, and which operators are refused. */

do $$
declare
    c_proves constant text := 'an operator passes what it says and nothing else';
    v_case record;
begin
    for v_case in
        select c.filter::jsonb, c.payload::jsonb, c.passes
        from (values
            -- prefix and suffix: strings only, by code points
            ('{"f": [{"prefix": "ab"}]}', '{"f": "ab"}', true),
            ('{"f": [{"prefix": "ab"}]}', '{"f": "abc"}', true),
            ('{"f": [{"prefix": "ab"}]}', '{"f": "Abc"}', false),
            ('{"f": [{"prefix": "ab"}]}', '{"f": "a"}', false),
            ('{"f": [{"prefix": "ab"}]}', '{"f": "xab"}', false),
            ('{"f": [{"prefix": "1"}]}', '{"f": 1}', false),
            ('{"f": [{"prefix": "t"}]}', '{"f": true}', false),
            ('{"f": [{"prefix": "n"}]}', '{"f": null}', false),
            ('{"f": [{"prefix": ""}]}', '{"f": ""}', true),
            ('{"f": [{"prefix": ""}]}', '{"f": 1}', false),
            ('{"f": [{"prefix": ""}]}', '{}', false),
            ('{"f": [{"prefix": "a"}]}', '{"f": ["x", "ab"]}', true),
            ('{"f": [{"prefix": "a"}]}', '{"f": [["ab"]]}', false),
            ('{"f": [{"prefix": "a"}]}', '{"f": {"a": "a"}}', false),
            ('{"f": [{"prefix": "a\"b\\c"}]}', '{"f": "a\"b\\cd"}', true),
            ('{"f": [{"prefix": ".*"}]}', '{"f": "xx"}', false),
            ('{"f": [{"prefix": "日本"}]}', '{"f": "日本語"}', true),
            ('{"f": [{"prefix": "e"}]}', '{"f": "é"}', false),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "abc"}', true),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "bc"}', true),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "bcd"}', false),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "abC"}', false),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "bc\n"}', false),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "bc\nx"}', false),
            ('{"f": [{"suffix": "bc"}]}', '{"f": "x\nbc"}', true),
            ('{"f": [{"suffix": "\n"}]}', '{"f": "bc\n"}', true),
            ('{"f": [{"suffix": "b\nc"}]}', '{"f": "ab\nc"}', true),
            ('{"f": [{"suffix": "1"}]}', '{"f": 1}', false),
            ('{"f": [{"suffix": ""}]}', '{"f": ""}', true),
            ('{"f": [{"suffix": ""}]}', '{"f": "a\n"}', true),
            ('{"f": [{"suffix": ""}]}', '{"f": null}', false),
            ('{"f": [{"suffix": "b"}]}', '{"f": ["x", "ab"]}', true),
            ('{"f": [{"suffix": "b"}]}', '{"f": [["ab"]]}', false),
            ('{"f": [{"suffix": "本"}]}', '{"f": "日本"}', true),
            ('{"f": [{"suffix": "😀"}]}', '{"f": "x😀"}', true),
            ('{"f": [{"suffix": "\u0301"}]}', '{"f": "é"}', false),
            ('{"f": [{"suffix": "it''s \"x\""}]}', '{"f": "it''s \"x\""}', true),
            -- anything-but: there, and equal to none; of an array, one element suffices
            ('{"f": [{"anything-but": ["x", "y"]}]}', '{"f": "z"}', true),
            ('{"f": [{"anything-but": ["x", "y"]}]}', '{"f": "y"}', false),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": "X"}', true),
            ('{"f": [{"anything-but": ["x"]}]}', '{}', false),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": null}', true),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": 1}', true),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": {}}', true),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": {"f": "x"}}', true),
            ('{"f": [{"anything-but": [1]}]}', '{"f": 1.0}', false),
            ('{"f": [{"anything-but": [1]}]}', '{"f": "1"}', true),
            ('{"f": [{"anything-but": [true]}]}', '{"f": true}', false),
            ('{"f": [{"anything-but": [true]}]}', '{"f": false}', true),
            ('{"f": [{"anything-but": ["x", 1, true]}]}', '{"f": 1}', false),
            ('{"f": [{"anything-but": ["x", 1, true]}]}', '{"f": "x"}', false),
            ('{"f": [{"anything-but": ["x", 1, true]}]}', '{"f": true}', false),
            ('{"f": [{"anything-but": ["x", 1, true]}]}', '{"f": 2}', true),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": ["x", "y"]}', true),
            ('{"f": [{"anything-but": ["x", "y"]}]}', '{"f": ["x", "y"]}', false),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": []}', false),
            ('{"f": [{"anything-but": ["x"]}]}', '{"f": [["x"]]}', true),
            ('{"f": [{"anything-but": ["\" || 1 == 1"]}]}', '{"f": "\" || 1 == 1"}', false),
            -- exists: the field itself, whatever it holds
            ('{"f": [{"exists": true}]}', '{"f": 0}', true),
            ('{"f": [{"exists": true}]}', '{"f": null}', true),
            ('{"f": [{"exists": true}]}', '{"f": []}', true),
            ('{"f": [{"exists": true}]}', '{"f": {}}', true),
            ('{"f": [{"exists": true}]}', '{"g": 0}', false),
            ('{"f": [{"exists": false}]}', '{"g": 0}', true),
            ('{"f": [{"exists": false}]}', '{}', true),
            ('{"f": [{"exists": false}]}', '{"f": null}', false),
            ('{"f": [{"exists": false}]}', '{"f": []}', false),
            ('{"f": [{"exists": false}, "x"]}', '{"f": "x"}', true),
            ('{"f": [{"exists": false}, "x"]}', '{}', true),
            ('{"f": [{"exists": false}, "x"]}', '{"f": "y"}', false),
            -- numeric: numbers only; both comparisons on the same element
            ('{"f": [{"numeric": ["=", 1]}]}', '{"f": 1.00}', true),
            ('{"f": [{"numeric": ["=", 1]}]}', '{"f": "1"}', false),
            ('{"f": [{"numeric": ["<", 1]}]}', '{"f": 0.999}', true),
            ('{"f": [{"numeric": ["<", 1]}]}', '{"f": 1}', false),
            ('{"f": [{"numeric": ["<=", 1]}]}', '{"f": 1}', true),
            ('{"f": [{"numeric": [">", -1.5]}]}', '{"f": -1}', true),
            ('{"f": [{"numeric": [">", -1]}]}', '{"f": -1}', false),
            ('{"f": [{"numeric": [">=", 10, "<", 20]}]}', '{"f": 10}', true),
            ('{"f": [{"numeric": [">=", 10, "<", 20]}]}', '{"f": 20}', false),
            ('{"f": [{"numeric": [">=", 10, "<", 20]}]}', '{"f": 9}', false),
            ('{"f": [{"numeric": ["<", 20, ">=", 10]}]}', '{"f": 15}', true),
            ('{"f": [{"numeric": ["<", 10, ">", 20]}]}', '{"f": 30}', false),
            ('{"f": [{"numeric": [">=", 10, "<", 20]}]}', '{"f": [5, 25]}', false),
            ('{"f": [{"numeric": [">=", 10, "<", 20]}]}', '{"f": ["x", null, 15]}', true),
            ('{"f": [{"numeric": [">=", 10]}]}', '{"f": [[15]]}', false),
            ('{"f": [{"numeric": [">=", 0]}]}', '{"f": null}', false),
            ('{"f": [{"numeric": [">=", 0]}]}', '{"f": true}', false),
            ('{"f": [{"numeric": [">=", 0]}]}', '{"f": "5"}', false),
            ('{"f": [{"numeric": [">=", 0]}]}', '{}', false),
            ('{"f": [{"numeric": [">", 12345678901234567890123]}]}',
                '{"f": 12345678901234567890124}', true),
            ('{"f": [{"numeric": ["=", 1e-7]}]}', '{"f": 0.0000001}', true),
            -- any of them, beside plain values
            ('{"f": ["x", {"prefix": "a"}, {"numeric": [">", 5]}]}', '{"f": "x"}', true),
            ('{"f": ["x", {"prefix": "a"}, {"numeric": [">", 5]}]}', '{"f": "ab"}', true),
            ('{"f": ["x", {"prefix": "a"}, {"numeric": [">", 5]}]}', '{"f": 6}', true),
            ('{"f": ["x", {"prefix": "a"}, {"numeric": [">", 5]}]}', '{"f": 5}', false),
            ('{"f": [{"prefix": "a"}], "g": [{"suffix": "z"}]}', '{"f": "a", "g": "z"}', true),
            ('{"f": [{"prefix": "a"}], "g": [{"suffix": "z"}]}', '{"f": "a", "g": "y"}', false)
        ) c (filter, payload, passes)
    loop
        assert pubsub.matches_filter(v_case.payload, v_case.filter) = v_case.passes,
            format('%s: %s on %s', c_proves, v_case.filter, v_case.payload);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'every character of a prefix or suffix stands for itself';
    v_character text;
    v_other text;
begin
    for v_character in select chr(c) from generate_series(1, 255) c loop
        v_other := case v_character when 'x' then 'y' else 'x' end;
        assert pubsub.matches_filter(jsonb_build_object('f', 'a' || v_character || 'b'),
            jsonb_build_object('f', jsonb_build_array(
                jsonb_build_object('suffix', v_character || 'b')))),
            format('%s: %s', c_proves, v_character);
        assert not pubsub.matches_filter(jsonb_build_object('f', 'a' || v_other || 'b'),
            jsonb_build_object('f', jsonb_build_array(
                jsonb_build_object('suffix', v_character || 'b')))),
            format('%s: %s', c_proves, v_character);
        assert pubsub.matches_filter(jsonb_build_object('f', v_character || 'ab'),
            jsonb_build_object('f', jsonb_build_array(
                jsonb_build_object('prefix', v_character || 'a')))),
            format('%s: %s', c_proves, v_character);
    end loop;
    foreach v_character in array array[
        '***=a', '***:a', '(?i)a', '\a', '\', '\\', '[a]', '[[:alpha:]]', '[.a.]', 'a{2}', 'a|b',
        '^a$', '(a', 'a)', '*a', '+', '?', '$', '^', 'a.b', '\y', '\1', '--', '/*', ''''
    ] loop
        assert pubsub.matches_filter(jsonb_build_object('f', 'x' || v_character),
            jsonb_build_object('f', jsonb_build_array(
                jsonb_build_object('suffix', v_character)))), c_proves || ': ' || v_character;
        assert not pubsub.matches_filter('{"f": "xA"}',
            jsonb_build_object('f', jsonb_build_array(
                jsonb_build_object('suffix', v_character)))), c_proves || ': ' || v_character;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'an operator of another form is refused, naming the place';
    c_form constant text :=
        'an operator is an object with one of prefix, suffix, anything-but, exists, numeric, routing-key';
    c_list constant text :=
        'anything-but must be a list of at least one string, number or boolean';
    c_pairs constant text := 'numeric must be one or two pairs of a comparison and a number';
    v_case record;
begin
    for v_case in
        select c.filter, c.fault
        from (values
            ('{"a": [{}]}', '["a", 0] ' || c_form),
            ('{"a": [{"b": 1}]}', '["a", 0, "b"] ' || c_form),
            ('{"a": ["x", {"Prefix": "x"}]}', '["a", 1, "Prefix"] ' || c_form),
            ('{"a": [{"prefix": "x", "suffix": "y"}]}', '["a", 0] ' || c_form),
            ('{"a": [{"prefix": 1}]}', '["a", 0, "prefix"] prefix must be a string'),
            ('{"a": [{"prefix": null}]}', '["a", 0, "prefix"] prefix must be a string'),
            ('{"a": {"b": [{"suffix": ["x"]}]}}',
                '["a", "b", 0, "suffix"] suffix must be a string'),
            ('{"a": [{"exists": "true"}]}', '["a", 0, "exists"] exists must be true or false'),
            ('{"a": [{"exists": null}]}', '["a", 0, "exists"] exists must be true or false'),
            ('{"a": [{"exists": 1}]}', '["a", 0, "exists"] exists must be true or false'),
            ('{"a": [{"anything-but": "x"}]}', '["a", 0, "anything-but"] ' || c_list),
            ('{"a": [{"anything-but": []}]}', '["a", 0, "anything-but"] ' || c_list),
            ('{"a": [{"anything-but": {"prefix": "x"}}]}', '["a", 0, "anything-but"] ' || c_list),
            ('{"a": [{"anything-but": ["x", null]}]}',
                '["a", 0, "anything-but", 1] anything-but lists strings, numbers or booleans'),
            ('{"a": [{"anything-but": [["x"]]}]}',
                '["a", 0, "anything-but", 0] anything-but lists strings, numbers or booleans'),
            ('{"a": [{"numeric": 1}]}', '["a", 0, "numeric"] ' || c_pairs),
            ('{"a": [{"numeric": []}]}', '["a", 0, "numeric"] ' || c_pairs),
            ('{"a": [{"numeric": ["="]}]}', '["a", 0, "numeric"] ' || c_pairs),
            ('{"a": [{"numeric": [">", 1, "<"]}]}', '["a", 0, "numeric"] ' || c_pairs),
            ('{"a": [{"numeric": [">", 1, "<", 2, "=", 1]}]}', '["a", 0, "numeric"] ' || c_pairs),
            ('{"a": [{"numeric": ["!=", 1]}]}',
                '["a", 0, "numeric", 0] a comparison of numeric is one of =, <, <=, >, >='),
            ('{"a": [{"numeric": [1, ">"]}]}',
                '["a", 0, "numeric", 0] a comparison of numeric is one of =, <, <=, >, >='),
            ('{"a": [{"numeric": [">", 1, null, 2]}]}',
                '["a", 0, "numeric", 2] a comparison of numeric is one of =, <, <=, >, >='),
            ('{"a": [{"numeric": [">", "1"]}]}',
                '["a", 0, "numeric", 1] numeric compares with a number'),
            ('{"a": [{"numeric": [">", 1, "<", null]}]}',
                '["a", 0, "numeric", 3] numeric compares with a number'),
            ('{"a": {}}', '["a"] an object of fields must have at least one field'),
            ('{"a": {"b": {}}}', '["a", "b"] an object of fields must have at least one field')
        ) c (filter, fault)
    loop
        assert pg_temp.filter_fault(v_case.filter) = v_case.fault,
            format('%s: %s: %s', c_proves, v_case.filter, pg_temp.filter_fault(v_case.filter));
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'each value inside an operator counts, and 1000 of them work';
    v_numbers jsonb := (select jsonb_agg(n) from generate_series(1, 1000) n);
    v_ranges jsonb := (
        select jsonb_agg(format('{"numeric": [">", %s, "<", %s]}', n, n + 1)::jsonb)
        from generate_series(1, 250) n
    );
    v_but jsonb := jsonb_build_object('a', jsonb_build_array(
        jsonb_build_object('anything-but', v_numbers)));
begin
    assert pubsub.matches_filter('{"a": 0}', v_but), c_proves;
    assert not pubsub.matches_filter('{"a": 1000}', v_but), c_proves;
    assert pubsub.matches_filter('{"a": 250.5}', jsonb_build_object('a', v_ranges)), c_proves;
    assert not pubsub.matches_filter('{"a": 250}', jsonb_build_object('a', v_ranges)), c_proves;
    assert pg_temp.refusal(format('select pubsub.compile_filter(%L)', v_but || '{"b": [1]}'))
        = 'PS422(filter) filter must have at most 1000 values', c_proves;
    assert pg_temp.refusal(format('select pubsub.compile_filter(%L)',
        jsonb_build_object('a', v_ranges || '["x"]'))) like 'PS422(filter) % 1000 values', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an operator compiles over the path it is given';
begin
    assert pubsub.compile_operator('$."f"', '{"exists": false}', '[]') = '!exists($."f")', c_proves;
    assert pubsub.compile_affix('$."f"', 'suffix', '"a.b"', '[]') = '$."f" like_regex "a\\.b$"',
        c_proves;
    assert pubsub.compile_anything_but('$."f"', '["x", 1]', '[]')
        = 'exists($."f" ? ((@.type() != "number" || (@ != 1)) '
        '&& (@.type() != "string" || (@ != "x"))))',
        c_proves;
    assert pubsub.compile_numeric('$."f"', '["=", 1]', '[]')
        = 'exists($."f" ? (@.type() == "number" && @ == 1))', c_proves;
end
$$;
