/*
 * A filter is an object of fields, all of which must match (AND). A field holds a list of values,
 * any of which may match (OR), or an object of the fields inside it: {"country": ["BR", "US"],
 * "price": {"net": [{"numeric": [">=", 10]}]}}. A value is a string, number or boolean, compared by
 * JSON equality (1 equals 1.0 but not "1"), or an operator: prefix, suffix, anything-but, exists,
 * numeric, routing-key.
 *
 * A payload array matches if any of its elements does; arrays in it are not looked into. A payload
 * that lacks a field matches nothing but {"exists": false}. An empty list matches nothing, an empty
 * filter everything. docs/filters.md has the whole language.
 *
 * The field "attributes", where it holds an object, means the attributes of the message. A list
 * there was a filter on a payload field of that name before attributes could be filtered, and is.
 *
 * A filter compiles to a jsonpath predicate over the payload and one over the attributes, which are
 * all that a publish looks at, but for long ones (sets.sql).
 */

/*
 * compile_field — what a field of a filter holds, as a predicate over p_subject, its jsonpath.
 *
 * In       p_path: where the field is in the filter
 * Errors   PS422 (filter)
 */
create function pubsub.compile_field(p_subject text, p_wanted jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    v_inside text;
begin
    if jsonb_typeof(p_wanted) = 'object' then
        v_inside := pubsub.compile_fields(p_wanted, '@', p_path);
        return format('exists(%s ? (@.type() == "object" && %s))', p_subject, v_inside)
            -- where there is no object, everything in it is missing
            || case when '{}' @@ format('exists($ ? (%s))', v_inside)::jsonpath
                then format(' || !exists(%s ? (@.type() == "object"))', p_subject) else '' end;
    end if;

    if jsonb_typeof(p_wanted) <> 'array' then
        perform pubsub.fail_filter_structure(p_path);
    end if;
    -- a JSON literal is a valid jsonpath literal
    return coalesce((
        select string_agg(case when jsonb_typeof(v.value) in ('string', 'number', 'boolean')
            then format('%s == %s', p_subject, v.value)
            else pubsub.compile_operator(p_subject, v.value, p_path || to_jsonb(v.position - 1))
            end, ' || ' order by v.position)
        from jsonb_array_elements(p_wanted) with ordinality v (value, position)
    ), '1 == 2');
end
$$;

comment on function pubsub.compile_field is
    'The values or inner fields of a field of a filter, as a jsonpath predicate.';

/*
 * compile_fields — an object of fields as a predicate over p_base, which is $ or @.
 *
 * In       p_path: where the object is in the filter
 * Errors   PS422 (filter)
 */
create function pubsub.compile_fields(p_fields jsonb, p_base text, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    c_max_depth constant int := 8;
begin
    if p_fields = '{}' then
        perform pubsub.fail_validation('filter',
            'an object of fields must have at least one field', p_path);
    end if;
    if jsonb_array_length(p_path) = c_max_depth then
        perform pubsub.fail_validation('filter',
            format('fields must be nested at most %s deep', c_max_depth), p_path);
    end if;
    return (
        select string_agg('(' || pubsub.compile_field(
            format('%s.%s', p_base, to_jsonb(f.key)), f.value, p_path || to_jsonb(f.key)
        ) || ')', ' && ')
        from jsonb_each(p_fields) f
    );
end
$$;

comment on function pubsub.compile_fields is
    'An object of fields of a filter as a jsonpath predicate: all of them match.';

/*
 * compile_attribute_filter — what a filter says of the attributes, as a jsonpath predicate over them.
 *
 * Out      null when all attributes match
 * Errors   PS422 (filter) for faults of this part; compile_filter looks at the whole
 */
create function pubsub.compile_attribute_filter(p_filter jsonb)
returns jsonpath
language sql immutable parallel safe
begin atomic
    select case when jsonb_typeof(p_filter -> 'attributes') = 'object'
        then pubsub.compile_fields(p_filter -> 'attributes', '$', '["attributes"]')::jsonpath end;
end;

comment on function pubsub.compile_attribute_filter is
    'The filter as a jsonpath predicate over the attributes; null matches all of them.';

/*
 * count_filter_values — how many values a filter has: those inside operators count too, and an empty
 * list as one.
 */
create function pubsub.count_filter_values(p_filter jsonb)
returns int
language sql immutable parallel safe
begin atomic
    -- not by rows of jsonb_path_query, whose cost grows with the square of their number
    select jsonb_array_length(jsonb_path_query_array(p_filter, 'strict $.** ?
        (@.type() != "object" && (@.type() != "array" || @.size() == 0))'));
end;

comment on function pubsub.count_filter_values is
    'How many values a filter has, operands and empty lists included.';

/*
 * count_wildcard_keys — how many routing keys with wildcards a filter has.
 */
create function pubsub.count_wildcard_keys(p_filter jsonb)
returns int
language sql immutable parallel safe
begin atomic
    select jsonb_array_length(jsonb_path_query_array(p_filter, 'strict $.** ?
        (@.type() == "object" && exists(@."routing-key"))."routing-key" ?
        (@.type() == "string" && @ like_regex "[*#]")'));
end;

comment on function pubsub.count_wildcard_keys is
    'How many routing keys with wildcards a filter has.';

/*
 * compile_filter — what a filter says of the payload, as a jsonpath predicate over it.
 *
 * Out      null when every payload matches
 * Errors   PS422 (filter) whose detail is the path of the fault
 */
create function pubsub.compile_filter(p_filter jsonb)
returns jsonpath
language plpgsql immutable parallel safe
as $$
declare
    -- Postgres evaluates a predicate by recursion and would fail every publish at some ten thousand
    c_max_values constant int := 1000;
    -- a session of Postgres keeps so many regular expressions compiled
    c_max_wildcard_keys constant int := 32;
begin
    if p_filter is null or p_filter = '{}' then
        return null;
    end if;
    if jsonb_typeof(p_filter) <> 'object' then
        perform pubsub.fail_filter_structure('[]');
    end if;
    if pubsub.count_filter_values(p_filter) > c_max_values then
        perform pubsub.fail_validation('filter',
            format('filter must have at most %s values', c_max_values));
    end if;
    if pubsub.count_wildcard_keys(p_filter) > c_max_wildcard_keys then
        perform pubsub.fail_validation('filter', format(
            'filter must have at most %s routing keys with wildcards', c_max_wildcard_keys));
    end if;
    if jsonb_typeof(p_filter -> 'attributes') = 'object' then
        perform pubsub.compile_attribute_filter(p_filter);
        p_filter := p_filter - 'attributes';
    end if;
    return case when p_filter <> '{}'
        then pubsub.compile_fields(p_filter, '$', '[]')::jsonpath end;
end
$$;

comment on function pubsub.compile_filter is
    'The filter as a jsonpath predicate over the payload; null matches every payload.';
