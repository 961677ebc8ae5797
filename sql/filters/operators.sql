/*
 * The operators of filters, as AWS EventBridge and SNS name them, each compiled to a jsonpath
 * predicate over the path of a field. p_path says where in the filter it is, for its errors.
 *
 * In a predicate, a comparison with a value of another kind is unknown, and so is its negation. So
 * nothing is negated but exists(), and what has to hold for one and the same element of an array is
 * asked inside a ? (...), which looks at the elements one by one.
 */

/*
 * fail_filter_structure — refuse what is neither an object of fields, a list nor a value.
 *
 * Errors   PS422 (filter) always
 */
create function pubsub.fail_filter_structure(p_path jsonb)
returns void
language sql immutable parallel safe
begin atomic
    select pubsub.fail_validation('filter', 'Invalid filter structure. Expected format: '
        '{"field": ["value", ...]} with strings, numbers, booleans or operators as values', p_path);
end;

comment on function pubsub.fail_filter_structure is
    'Raise PS422 for a part of a filter that is of no known form.';

/*
 * compile_affix — {"prefix": text} or {"suffix": text}: the string begins or ends with it.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.compile_affix(p_subject text, p_name text, p_affix jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    c_max_characters constant int := 1024;
begin
    if jsonb_typeof(p_affix) <> 'string' then
        perform pubsub.fail_validation('filter', format('%s must be a string', p_name), p_path);
    end if;
    if length(p_affix #>> '{}') > c_max_characters then
        perform pubsub.fail_validation('filter',
            format('%s must have at most %s characters', p_name, c_max_characters), p_path);
    end if;
    if p_name = 'prefix' then
        return format('%s starts with %s', p_subject, p_affix);
    end if;
    return format('%s like_regex %s', p_subject, to_jsonb(
        pubsub.quote_regex(p_affix #>> '{}') || '$'));
end
$$;

comment on function pubsub.compile_affix is
    'The operators prefix and suffix of a filter as a jsonpath predicate over a field.';

/*
 * compile_anything_but — {"anything-but": [value, ...]}: there, and equal to none of them.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.compile_anything_but(p_subject text, p_values jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    v_fault int;
begin
    if jsonb_typeof(p_values) <> 'array' or p_values = '[]' then
        perform pubsub.fail_validation('filter',
            'anything-but must be a list of at least one string, number or boolean', p_path);
    end if;
    select min(v.position) - 1 into v_fault
    from jsonb_array_elements(p_values) with ordinality v (value, position)
    where jsonb_typeof(v.value) not in ('string', 'number', 'boolean');
    if v_fault is not null then
        perform pubsub.fail_validation('filter',
            'anything-but lists strings, numbers or booleans', p_path || to_jsonb(v_fault));
    end if;
    -- each kind is compared with its own, so that no comparison is unknown
    return format('exists(%s ? (%s))', p_subject, (
        select string_agg(format('(@.type() != "%s" || (%s))', k.kind, k.differs), ' && '
            order by k.kind)
        from (
            select jsonb_typeof(v.value) as kind,
                string_agg(format('@ != %s', v.value), ' && ') as differs
            from jsonb_array_elements(p_values) v
            group by jsonb_typeof(v.value)
        ) k
    ));
end
$$;

comment on function pubsub.compile_anything_but is
    'The operator anything-but of a filter as a jsonpath predicate over a field.';

/*
 * compile_numeric — {"numeric": [comparison, number, ...]}: a number, for which all of them hold.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.compile_numeric(p_subject text, p_pairs jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    v_fault int;
begin
    if jsonb_typeof(p_pairs) <> 'array' or jsonb_array_length(p_pairs) not in (2, 4) then
        perform pubsub.fail_validation('filter',
            'numeric must be one or two pairs of a comparison and a number', p_path);
    end if;
    select min(v.position) - 1 into v_fault
    from jsonb_array_elements(p_pairs) with ordinality v (value, position)
    where not case when v.position % 2 = 1
        then v.value in ('"="', '"<"', '"<="', '">"', '">="')
        else jsonb_typeof(v.value) = 'number' end;
    if v_fault is not null then
        perform pubsub.fail_validation('filter', case when v_fault % 2 = 0
            then 'a comparison of numeric is one of =, <, <=, >, >='
            else 'numeric compares with a number' end, p_path || to_jsonb(v_fault));
    end if;
    return format('exists(%s ? (@.type() == "number" && %s))', p_subject, (
        select string_agg(format('@ %s %s',
            case when p_pairs ->> (2 * n) = '=' then '==' else p_pairs ->> (2 * n) end,
            p_pairs -> (2 * n + 1)), ' && ')
        from generate_series(0, jsonb_array_length(p_pairs) / 2 - 1) n
    ));
end
$$;

comment on function pubsub.compile_numeric is
    'The operator numeric of a filter as a jsonpath predicate over a field.';

/*
 * compile_operator — any operator: an object with its name and its operand.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.compile_operator(p_subject text, p_operator jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    c_form constant text :=
        'an operator is an object with one of prefix, suffix, anything-but, exists, numeric, '
        'routing-key';
    v_name text;
    v_operand jsonb;
    v_path jsonb;
begin
    if jsonb_typeof(p_operator) <> 'object' then
        perform pubsub.fail_filter_structure(p_path);
    end if;
    if (select count(*) from jsonb_object_keys(p_operator)) <> 1 then
        perform pubsub.fail_validation('filter', c_form, p_path);
    end if;
    select o.key, o.value, p_path || to_jsonb(o.key)
    into v_name, v_operand, v_path
    from jsonb_each(p_operator) o;

    case v_name
        when 'prefix', 'suffix' then
            return pubsub.compile_affix(p_subject, v_name, v_operand, v_path);
        when 'anything-but' then
            return pubsub.compile_anything_but(p_subject, v_operand, v_path);
        when 'numeric' then
            return pubsub.compile_numeric(p_subject, v_operand, v_path);
        when 'routing-key' then
            return pubsub.compile_routing_key(p_subject, v_operand, v_path);
        when 'exists' then
            if jsonb_typeof(v_operand) <> 'boolean' then
                perform pubsub.fail_validation('filter', 'exists must be true or false', v_path);
            end if;
            return case when v_operand = 'true' then '' else '!' end
                || format('exists(%s)', p_subject);
        else
            perform pubsub.fail_validation('filter', c_form, v_path);
    end case;
end
$$;

comment on function pubsub.compile_operator is
    'An operator of a filter, such as {"prefix": "a"}, as a jsonpath predicate over a field.';
