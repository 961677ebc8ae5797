/*
 * Trying filters on messages that are there: what a filter would let pass, and why it does not.
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
    select coalesce(pubsub.payload_passes(p_payload, f.path, p_filter,
            pubsub.count_filter_values(p_filter)), f.path is null)
        and coalesce(coalesce(p_attributes, '{}') @@ a.path, a.path is null)
    from pubsub.compile_filter(p_filter) as f (path),
        pubsub.compile_attribute_filter(p_filter) as a (path);
end;

comment on function pubsub.matches_filter is
    'Try a filter on a payload and attributes: true when the message would be delivered.';

/*
 * preview_filter — a filter on the newest retained messages of a subscription's topic.
 *
 * In       p_last: how many messages to look at; p_past_filter: also at those that the subscription's own
 *          filter does not let pass
 * Out      at least one row; each has how many messages were scanned and matched, and one of the
 *          ten newest that match, the newest first
 * Errors   PS404 · PS422 (filter, last 1 to 100000)
 */
create function pubsub.preview_filter(
    p_subscription_id text, p_filter json, p_last int default 1000,
    p_past_filter boolean default true
)
returns table (
    scanned bigint, matched bigint, message_id uuid, payload jsonb, attributes jsonb,
    published_at timestamptz
)
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
declare
    c_samples constant int := 10;
    v_topic_key bigint;
    v_own record;
    v_path jsonpath := pubsub.compile_filter(p_filter::jsonb);
    v_values int := pubsub.count_filter_values(p_filter::jsonb);
    v_attribute_path jsonpath := pubsub.compile_attribute_filter(p_filter::jsonb);
begin
    if p_last is null or p_last not between 1 and 100000 then
        perform pubsub.fail_validation('last', 'last must be 1 to 100000');
    end if;
    select k.topic_key into v_topic_key from pubsub.subscription_keys(p_subscription_id) k;
    select s.filter_path, s.filter::jsonb as filter, s.filter_values, s.attribute_filter_path
    into v_own
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription_id and not p_past_filter;
    return query
        -- payloads may be large, so only ids are kept until the samples are known
        with looked_at as materialized (
            select m.message_id,
                (v_path is null
                    or pubsub.payload_passes(m.payload, v_path, p_filter::jsonb, v_values))
                and (v_attribute_path is null
                    or coalesce(m.attributes, '{}') @@ v_attribute_path)
                and (v_own.filter_path is null or pubsub.payload_passes(m.payload,
                    v_own.filter_path, v_own.filter, v_own.filter_values))
                and (v_own.attribute_filter_path is null
                    or coalesce(m.attributes, '{}') @@ v_own.attribute_filter_path) as matches
            from pubsub_data.messages m
            where m.topic_key = v_topic_key
            order by m.message_id desc
            limit p_last
        ), samples as (
            select l.message_id
            from looked_at l
            where l.matches
            order by l.message_id desc
            limit c_samples
        )
        select c.scanned, c.matched, s.message_id, s.payload, s.attributes, s.published_at
        from (
            select count(*) as scanned, count(*) filter (where l.matches) as matched
            from looked_at l
        ) c
        left join (
            select m.message_id, m.payload, m.attributes, m.published_at
            from samples i
            cross join lateral (
                select x.message_id, x.payload, x.attributes, x.published_at
                from pubsub_data.messages x
                where x.topic_key = v_topic_key and x.message_id = i.message_id
                limit 1
            ) m
        ) s on true
        order by s.message_id desc;
end
$$;

comment on function pubsub.preview_filter is
    'What a filter would let pass of the newest messages of a topic: counts, and ten samples.';

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
        select e.path, e.matches
        from (
            values (p_payload, case when v_of_attributes
                    then p_filter - 'attributes' else p_filter end),
                (jsonb_build_object('attributes', coalesce(p_attributes, '{}')),
                    case when v_of_attributes
                        then jsonb_build_object('attributes', p_filter -> 'attributes') end)
        ) part (object, fields)
        cross join lateral pubsub.explain_fields(array[part.object], false, part.fields, '{}') e
        order by e.path;
end
$$;

comment on function pubsub.explain_filter is
    'Why a message matches a filter or not: for each field of the filter, whether it does.';
