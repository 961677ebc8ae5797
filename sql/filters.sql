/*
 * A filter is an object of fields, each with a list of values: {"country": ["BR", "US"]}. All fields
 * must match (AND), each with any of its values (OR), by JSON equality: 1 equals 1.0 but not "1". A
 * payload that lacks a field does not match; a payload array matches if any element does; an empty
 * list matches nothing; an empty filter matches everything. A filter has at most 1000 values, since
 * Postgres evaluates a predicate by recursion and would fail every publish at some ten thousand.
 */

/*
 * compile_filter — the filter as one jsonpath predicate over the payload.
 *
 * Out      null when every message matches
 * Errors   PS422 (filter) when the structure, a value or their number is not as above
 */
create function pubsub.compile_filter(p_filter jsonb)
returns jsonpath
language plpgsql immutable parallel safe
as $$
declare
    v_predicate text;
begin
    if p_filter is null or p_filter = '{}' then
        return null;
    end if;
    if jsonb_typeof(p_filter) <> 'object'
        or exists (
            select 1 from jsonb_each(p_filter) f
            where jsonb_typeof(f.value) <> 'array'
        )
        or exists (
            select 1 from jsonb_each(p_filter) f, jsonb_array_elements(f.value) v
            where jsonb_typeof(v.value) not in ('string', 'number', 'boolean')
        )
    then
        perform pubsub.fail_validation('filter', 'Invalid filter structure. Expected format: '
            '{"field": ["value", ...]} with strings, numbers or booleans as values');
    end if;

    if (
        select sum(greatest(jsonb_array_length(f.value), 1)) from jsonb_each(p_filter) f
    ) > 1000 then
        perform pubsub.fail_validation('filter', 'filter must have at most 1000 values');
    end if;

    -- a JSON string literal is a valid jsonpath string literal
    select string_agg('(' || coalesce(any_value.predicate, '1 == 2') || ')', ' && ')
    into v_predicate
    from jsonb_each(p_filter) f
    cross join lateral (
        select string_agg(format('$.%s == %s', to_jsonb(f.key), v.value), ' || ') as predicate
        from jsonb_array_elements(f.value) v
    ) any_value;
    return v_predicate::jsonpath;
end
$$;

comment on function pubsub.compile_filter is
    'The filter as a jsonpath predicate over the payload; null matches every message.';

/*
 * matches_filter — whether a payload would be delivered to a subscription with this filter.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.matches_filter(p_payload jsonb, p_filter jsonb)
returns boolean
language sql immutable parallel safe
as $$
    select coalesce(p_payload @@ f.path, f.path is null)
    from pubsub.compile_filter(p_filter) as f (path)
$$;

comment on function pubsub.matches_filter is
    'Try a filter on a payload: true when the message would be delivered.';
