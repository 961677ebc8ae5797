/*
 * Long filters on long messages. A jsonpath predicate compares each value of a list with each element
 * of an array, so its cost is their product. Here lists are sets, in which an element is looked up,
 * and the objects of an array are looked at together, so that the cost is the sum. The overhead pays
 * from some thousand comparisons on; payload_passes chooses. Both ways say the same.
 */

/*
 * number_ranges — the numbers that a value or an operator of a filter accepts.
 *
 * In       p_name: of the operator, or equals
 */
create function pubsub.number_ranges(p_name text, p_operand jsonb)
returns nummultirange
-- a function in SQL would be planned anew by each statement that calls it
language plpgsql immutable parallel safe
as $$
begin
    return case
        when p_name = 'equals' and jsonb_typeof(p_operand) = 'number'
        then nummultirange(numrange(p_operand::numeric, p_operand::numeric, '[]'))
        when p_name = 'anything-but'
        then '{(,)}'::nummultirange - coalesce((
            select range_agg(numrange(v.value::numeric, v.value::numeric, '[]'))
            from jsonb_array_elements(p_operand) v
            where jsonb_typeof(v.value) = 'number'
        ), '{}')
        when p_name = 'numeric'
        then nummultirange((
            select range_intersect_agg(case p.comparison
                when '=' then numrange(p.bound, p.bound, '[]')
                when '<' then numrange(null, p.bound, '()')
                when '<=' then numrange(null, p.bound, '(]')
                when '>' then numrange(p.bound, null, '()')
                else numrange(p.bound, null, '[)')
            end)
            from generate_series(0, jsonb_array_length(p_operand) / 2 - 1) n
            cross join lateral (
                select p_operand ->> 2 * n, (p_operand -> 2 * n + 1)::numeric
            ) p (comparison, bound)
        ))
        else '{}'::nummultirange
    end;
end
$$;

comment on function pubsub.number_ranges is
    'The numbers that a value or an operator of a filter accepts.';

/*
 * list_sets — what the lists among fields of a filter accept, a row each.
 *
 * Out      there, missing: {"exists": true}, {"exists": false} is listed · strings, prefixes, suffixes:
 *          objects whose keys are the texts, for these are found by binary search; their
 *          lengths ascend · routing_keys: those with wildcards, as regular expressions, which are few ·
 *          others: whether null, objects, arrays and all strings but but_strings are
 */
create function pubsub.list_sets(p_fields jsonb)
returns table (
    field text, there boolean, missing boolean, strings jsonb, prefixes jsonb, prefix_lengths int[],
    suffixes jsonb, suffix_lengths int[], routing_keys text[], numbers nummultirange,
    accepts_true boolean, accepts_false boolean, others boolean, but_strings jsonb
)
language plpgsql immutable parallel safe
set enable_nestloop = off
set enable_hashjoin = on
set enable_mergejoin = on
set enable_hashagg = on
set from_collapse_limit = 8
set join_collapse_limit = 8
set geqo_threshold = 12
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
    return query
        with listed as materialized (
            select f.key as field, v.position, k.name,
                case when k.name = 'exists' and o.name <> 'exists' then 'true' else o.operand
                end as operand, o.operand #>> '{}' as text
            from jsonb_each(p_fields) f
            cross join lateral jsonb_array_elements(
                case jsonb_typeof(f.value) when 'array' then f.value else '[]' end
            ) with ordinality v (value, position)
            cross join lateral jsonb_each(case jsonb_typeof(v.value)
                when 'object' then v.value else jsonb_build_object('equals', v.value) end
            ) o (name, operand)
            cross join lateral (
                select case o.name when 'routing-key' then pubsub.routing_key_operator(
                    string_to_array(o.operand #>> '{}', '.')) else o.name end
            ) k (name)
        ), ranges as (
            select l.field, range_agg(r.numbers) as numbers
            from listed l
            cross join lateral unnest(pubsub.number_ranges(l.name, l.operand)) r (numbers)
            group by l.field
        ), buts as (
            -- what one of them does not list is accepted
            select b.field, jsonb_object_agg(b.text, null) as strings
            from (
                select l.field, v.value #>> '{}' as text, count(distinct l.position) as listed
                from listed l
                cross join lateral jsonb_array_elements(
                    case l.name when 'anything-but' then l.operand else '[]' end) v
                where jsonb_typeof(v.value) = 'string'
                group by 1, 2
            ) b
            join (
                select l.field, count(*) as buts
                from listed l
                where l.name = 'anything-but'
                group by l.field
            ) c on c.field = b.field and c.buts = b.listed
            group by b.field
        )
        select s.*, b.strings
        from (
            select l.field,
                bool_or(l.name = 'exists' and l.operand = 'true'),
                bool_or(l.name = 'exists' and l.operand = 'false'),
                jsonb_object_agg(l.text, null)
                    filter (where l.name = 'equals' and jsonb_typeof(l.operand) = 'string'),
                jsonb_object_agg(l.text, null) filter (where l.name = 'prefix'),
                array_agg(distinct length(l.text)) filter (where l.name = 'prefix'),
                jsonb_object_agg(l.text, null) filter (where l.name = 'suffix'),
                array_agg(distinct length(l.text)) filter (where l.name = 'suffix'),
                array_agg(pubsub.routing_key_regex(string_to_array(l.text, '.')))
                    filter (where l.name = 'routing-key'),
                (select r.numbers from ranges r where r.field = l.field),
                bool_or(l.name = 'equals' and l.operand = 'true'
                    or l.name = 'anything-but' and not l.operand @> 'true'),
                bool_or(l.name = 'equals' and l.operand = 'false'
                    or l.name = 'anything-but' and not l.operand @> 'false'),
                bool_or(l.name = 'anything-but')
            from listed l
            group by l.field
        ) s
        left join buts b on b.field = s.field;
end
$$;

comment on function pubsub.list_sets is
    'What the lists among fields of a filter accept, as sets: of strings, prefixes, numbers.';

/*
 * field_matches — which of many objects have a field that matches.
 *
 * Out      a row for each object, by its position, and field that it has; a field that holds fields
 *          counts as had where it is an object or has objects in it
 */
create function pubsub.field_matches(p_objects jsonb[], p_fields jsonb)
returns table (object bigint, field text, matches boolean)
language plpgsql immutable parallel safe
set enable_nestloop = off
set enable_hashjoin = on
set enable_mergejoin = on
set enable_hashagg = on
set from_collapse_limit = 8
set join_collapse_limit = 8
set geqo_threshold = 12
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
    return query
        with fields as materialized (
            select f.key as field, jsonb_typeof(f.value) as form from jsonb_each(p_fields) f
        ), had as materialized (
            select o.position, f.field, f.form, case jsonb_typeof(h.value)
                when 'array' then h.value else jsonb_build_array(h.value) end as elements
            from unnest(p_objects) with ordinality o (object, position)
            cross join lateral jsonb_each(o.object) h
            join fields f on f.field = h.key
        ), inner_objects as (
            select h.field, array_agg(h.position) as positions, array_agg(e.value) as objects
            from had h
            cross join lateral jsonb_array_elements(h.elements) e
            where h.form = 'object' and jsonb_typeof(e.value) = 'object'
            group by h.field
        )
        -- the sets stay in the subquery: a sort would copy them for each element
        select h.position, h.field, s.there or coalesce((
            select bool_or(case jsonb_typeof(e.value)
                when 'number' then s.numbers @> e.value::numeric
                when 'boolean' then case when e.value = 'true'
                    then s.accepts_true else s.accepts_false end
                when 'string' then s.strings ? t.text
                    or s.others and coalesce(not s.but_strings ? t.text, true)
                    or s.prefixes is not null and exists (
                        select from unnest(s.prefix_lengths[
                            :width_bucket(length(t.text), s.prefix_lengths)]) n
                        where s.prefixes ? left(t.text, n))
                    or s.suffixes is not null and exists (
                        select from unnest(s.suffix_lengths[
                            :width_bucket(length(t.text), s.suffix_lengths)]) n
                        where s.suffixes ? right(t.text, n))
                    or s.routing_keys is not null and exists (
                        select from unnest(s.routing_keys) k (regex) where t.text ~ k.regex)
                else s.others
            end)
            from jsonb_array_elements(h.elements) e
            cross join lateral (select e.value #>> '{}') t (text)
        ), false)
        from had h
        join pubsub.list_sets(p_fields) s on s.field = h.field
        union all
        select m.position, m.field, bool_or(m.matches)
        from (
            select unnest(i.positions) as position, i.field,
                unnest(pubsub.match_objects(i.objects, p_fields -> i.field)) as matches
            from inner_objects i
        ) m
        group by m.position, m.field;
end
$$;

comment on function pubsub.field_matches is
    'For many objects and the fields of a filter that they have, whether the field matches.';

/*
 * passes_without — whether a field of a filter, or all of those inside it, match what lacks them.
 */
create function pubsub.passes_without(p_wanted jsonb)
returns boolean
language plpgsql immutable parallel safe
as $$
begin
    return case when jsonb_typeof(p_wanted) = 'array' then p_wanted @> '[{"exists": false}]'
        else (select bool_and(pubsub.passes_without(f.value)) from jsonb_each(p_wanted) f) end;
end
$$;

comment on function pubsub.passes_without is
    'Whether what a filter wants of a field is met where there is no such field.';

/*
 * match_objects — which of many objects match all fields of a filter.
 *
 * Out      one element per object, in their order
 */
create function pubsub.match_objects(p_objects jsonb[], p_fields jsonb)
returns boolean[]
language plpgsql immutable parallel safe
set enable_nestloop = off
set enable_hashjoin = on
set enable_mergejoin = on
set enable_hashagg = on
set from_collapse_limit = 8
set join_collapse_limit = 8
set geqo_threshold = 12
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
    return (
        with fields as materialized (
            select f.key as field, pubsub.passes_without(f.value) as passes_without
            from jsonb_each(p_fields) f
        ), told as (
            select m.object,
                count(*) filter (where m.matches and not f.passes_without) as met,
                bool_or(not m.matches and f.passes_without) as fails
            from pubsub.field_matches(p_objects, p_fields) m
            join fields f on f.field = m.field
            group by m.object
        ), needed as (
            select count(*) filter (where not f.passes_without) as met from fields f
        )
        select array_agg(coalesce(t.met, 0) = n.met and not coalesce(t.fails, false)
            order by o.position)
        from generate_series(1, cardinality(p_objects)) o (position)
        cross join needed n
        left join told t on t.object = o.position
    );
end
$$;

comment on function pubsub.match_objects is
    'Which of many objects match all fields of a filter, at a cost of their sum.';

/*
 * match_long_filter — the payload's part of a filter, the cheaper way.
 *
 * In       p_values: how many the filter has
 */
create function pubsub.match_long_filter(
    p_payload jsonb, p_path jsonpath, p_filter jsonb, p_values int
)
returns boolean
language plpgsql immutable parallel safe
as $$
declare
    -- comparisons, of some 0.1 us
    c_few constant int := 100000;
begin
    -- into an array, not rows: Postgres takes each off the front of a list of all, by moving the rest
    if p_values * (
        select coalesce(sum(e.value::bigint), 1)
        from jsonb_array_elements(jsonb_path_query_array(
            p_payload, 'strict $.** ? (@.type() == "array").size()')) e
    ) <= c_few then
        return p_payload @@ p_path;
    end if;
    return jsonb_typeof(p_payload) = 'object' and (pubsub.match_objects(array[p_payload],
        case when jsonb_typeof(p_filter -> 'attributes') = 'object'
            then p_filter - 'attributes' else p_filter end))[1];
end
$$;

comment on function pubsub.match_long_filter is
    'Whether a payload matches a filter of many values, at a cost of their sum.';

/*
 * payload_passes — whether a payload matches a compiled filter, which none does that is no object.
 * Attributes need no choice: they are few, and no arrays.
 *
 * In       p_path: of compile_filter, not null · p_values: of count_filter_values
 */
create function pubsub.payload_passes(
    p_payload jsonb, p_path jsonpath, p_filter jsonb, p_values int
)
returns boolean
-- no SET, no strict: it is inlined
language sql stable parallel safe
begin atomic
    select case
        when p_values < 8
            -- at least four bytes an element, or unknown
            or p_values::bigint * pg_column_size(p_payload) < 1000000
                and pg_column_compression(p_payload) is null
        then p_payload @@ p_path
        else pubsub.match_long_filter(p_payload, p_path, p_filter, p_values)
    end
    -- a path looks into the elements of an array, too
    and jsonb_typeof(p_payload) = 'object';
end;

comment on function pubsub.payload_passes is
    'Whether a payload matches a compiled filter; the cost is the sum of both, not the product.';

/*
 * passes_filter — whether a message matches a compiled filter.
 *
 * In       the columns of a subscription that has it, or what compile_filter, count_filter_values and
 *          compile_attribute_filter say of one; a null path lets everything pass
 */
create function pubsub.passes_filter(
    p_payload jsonb, p_attributes jsonb, p_path jsonpath, p_filter jsonb, p_values int,
    p_attribute_path jsonpath
)
returns boolean
-- no SET, no strict: it is inlined
language sql stable parallel safe
begin atomic
    select (p_path is null or pubsub.payload_passes(p_payload, p_path, p_filter, p_values))
        and (p_attribute_path is null or coalesce(p_attributes, '{}') @@ p_attribute_path);
end;

comment on function pubsub.passes_filter is
    'Whether a message matches a compiled filter, payload and attributes.';
