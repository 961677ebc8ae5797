/*
 * Trying filters on messages that are there: what a filter would let pass, and why it does not.
 */

/*
 * preview_filter — a filter on the newest retained messages of a subscription's topic.
 *
 * In       p_last: how many messages to look at
 * Out      at least one row; each has how many messages were scanned and matched, and one of the
 *          ten newest that match, the newest first
 * Errors   PS404 · PS422 (filter, last 1 to 100000)
 */
create function pubsub.preview_filter(
    p_subscription_id text, p_filter json, p_last int default 1000
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
    v_path jsonpath := pubsub.compile_filter(p_filter::jsonb);
    v_attribute_path jsonpath := pubsub.compile_attribute_filter(p_filter::jsonb);
begin
    if p_last is null or p_last not between 1 and 100000 then
        perform pubsub.fail_validation('last', 'last must be 1 to 100000');
    end if;
    select k.topic_key into v_topic_key from pubsub.subscription_keys(p_subscription_id) k;
    return query
        -- payloads may be large, so only ids are kept until the samples are known
        with looked_at as materialized (
            select m.message_id,
                (v_path is null or m.payload @@ v_path)
                and (v_attribute_path is null
                    or coalesce(m.attributes, '{}') @@ v_attribute_path) as matches
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
begin
    -- what is not a filter is refused, not explained
    perform pubsub.compile_filter(p_filter);
    return query
        with recursive fields (path, wanted) as (
            select array[f.key], f.value
            from jsonb_each(p_filter) f
            union all
            select o.path || f.key, f.value
            from fields o
            cross join lateral jsonb_each(o.wanted) f
            where jsonb_typeof(o.wanted) = 'object'
        )
        select f.path, pubsub.matches_filter(p_payload, alone.filter::jsonb, p_attributes)
        from fields f
        cross join lateral (
            select string_agg(format('{%s:', to_jsonb(step.key)), '' order by step.position)
                || f.wanted || repeat('}', cardinality(f.path))
            from unnest(f.path) with ordinality step (key, position)
        ) alone (filter)
        order by f.path;
end
$$;

comment on function pubsub.explain_filter is
    'Why a message matches a filter or not: for each field of the filter, whether it does.';
