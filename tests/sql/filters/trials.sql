do $$
declare
    c_proves constant text := 'an explanation has a row for each field, tried alone';
    c_filter constant jsonb := '{"a": ["x"], "b": {"c": [{"prefix": "y"}], "d": {"e": [1]}},
        "attributes": {"k": ["v"]}}';
begin
    assert array(
        select e.path::text || e.matches
        from pubsub.explain_filter('{"a": "x", "b": {"c": "yz", "d": {"e": 2}}}', '{"k": "v"}',
            c_filter) e
    ) = array['{a}true', '{attributes}true', '{attributes,k}true', '{b}false', '{b,c}true',
        '{b,d}false', '{b,d,e}false'], c_proves;
    assert array(
        select e.path::text || e.matches from pubsub.explain_filter('{}', null, c_filter) e
    ) = array['{a}false', '{attributes}false', '{attributes,k}false', '{b}false', '{b,c}false',
        '{b,d}false', '{b,d,e}false'], c_proves;
    -- each in another element: only together they fail
    assert array(
        select e.path::text || e.matches
        from pubsub.explain_filter('{"a": [{"b": 1}, {"c": 2}]}', null,
            '{"a": {"b": [1], "c": [2]}}') e
    ) = array['{a}false', '{a,b}true', '{a,c}true'], c_proves;
    assert array(
        select e.path::text || e.matches
        from pubsub.explain_filter('{"x\"y": {"": 1}}', null, '{"x\"y": {"": [1]}}') e
    ) = array['{"x\"y"}true', '{"x\"y",""}true'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what passes everything needs no explanation, what is no filter has none';
begin
    assert not exists (select from pubsub.explain_filter('{"a": 1}', null, null)), c_proves;
    assert not exists (select from pubsub.explain_filter('{"a": 1}', null, '{}')), c_proves;
    assert pg_temp.refusal($q$select pubsub.explain_filter('{}', null, '{"a": 1}')$q$)
        like 'PS422(filter) Invalid filter structure%', c_proves;
    assert pg_temp.refusal($q$select pubsub.explain_filter('{}', null, '[]')$q$)
        like 'PS422(filter) Invalid filter structure%', c_proves;
end
$$;
