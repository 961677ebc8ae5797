/*
 * Trying a filter on a message: whether it would let it pass, and why not.
 */

/*
 * matches_filter — whether a message would be delivered to a subscription with this filter.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.matches_filter(
    p_payload jsonb, p_filter jsonb, p_attributes jsonb default null
)
returns boolean
language sql immutable parallel safe
begin atomic
    select coalesce(pubsub.passes_filter(p_payload, p_attributes, f.path, p_filter,
        pubsub.count_filter_values(p_filter), a.path), false)
    from pubsub.compile_filter(p_filter) as f (path),
        pubsub.compile_attribute_filter(p_filter) as a (path);
end;

comment on function pubsub.matches_filter is
    'Try a filter on a payload and attributes: true when the message would be delivered.';

/*
 * explain_fields — explain_filter for the fields of a filter that are inside p_path, and the objects of
 * a message that are there.
 *
 * In       p_gaps: whether there is none where one could be
 */
create function pubsub.explain_fields(
    p_objects jsonb[], p_gaps boolean, p_fields jsonb, p_path text[]
)
returns table (path text[], matches boolean)
language plpgsql immutable parallel safe
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
    return query
        select p_path || f.key, coalesce(m.any_matches, false)
            or pubsub.passes_without(f.value)
                and (p_gaps or coalesce(m.objects, 0) < cardinality(p_objects))
        from jsonb_each(p_fields) f
        left join (
            select x.field, count(*) as objects, bool_or(x.matches) as any_matches
            from pubsub.field_matches(p_objects, p_fields) x
            group by x.field
        ) m on m.field = f.key;
    return query
        with inner_objects as (
            select h.key, array_agg(x.value) as objects, count(distinct o.position) as having_any
            from unnest(p_objects) with ordinality o (object, position)
            cross join lateral jsonb_each(o.object) h
            join (
                select f.key from jsonb_each(p_fields) f where jsonb_typeof(f.value) = 'object'
            ) f on f.key = h.key
            cross join lateral jsonb_array_elements(case jsonb_typeof(h.value)
                when 'array' then h.value else jsonb_build_array(h.value) end) x
            where jsonb_typeof(x.value) = 'object'
            group by h.key
        )
        select e.path, e.matches
        from jsonb_each(p_fields) f
        left join inner_objects i on i.key = f.key
        cross join lateral pubsub.explain_fields(coalesce(i.objects, '{}'),
            p_gaps or coalesce(i.having_any, 0) < cardinality(p_objects), f.value,
            p_path || f.key) e
        where jsonb_typeof(f.value) = 'object';
end
$$;

comment on function pubsub.explain_fields is
    'What explain_filter says of the fields inside a field, over all objects that are there.';

/*
 * explain_filter — which fields of a filter a message matches.
 *
 * Out      a row for each field, also for those inside a field, each tried alone; the message matches
 *          the filter if and only if every row does. A field that holds an object has a row of its
 *          own, for in an array each field inside it may match in another element
 * Errors   PS422 (filter)
 */
create function pubsub.explain_filter(p_payload jsonb, p_attributes jsonb, p_filter jsonb)
returns table (path text[], matches boolean)
language plpgsql immutable parallel safe
as $$
declare
    v_of_attributes boolean := jsonb_typeof(p_filter -> 'attributes') = 'object';
begin
    -- what is not a filter is refused, not explained
    perform pubsub.compile_filter(p_filter);
    return query
        select e.path, e.matches and part.is_object
        from (
            values (p_payload, jsonb_typeof(p_payload) = 'object', case when v_of_attributes
                    then p_filter - 'attributes' else p_filter end),
                (jsonb_build_object('attributes', coalesce(p_attributes, '{}')), true,
                    case when v_of_attributes
                        then jsonb_build_object('attributes', p_filter -> 'attributes') end)
        ) part (object, is_object, fields)
        cross join lateral pubsub.explain_fields(
            array[case when part.is_object then part.object else '{}' end], false, part.fields,
            '{}') e
        order by e.path;
end
$$;

comment on function pubsub.explain_filter is
    'Why a message matches a filter or not: for each field of the filter, whether it does.';
