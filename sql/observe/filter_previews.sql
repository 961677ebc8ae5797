/*
 * What a filter would let pass, tried on messages that are there.
 */

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
                pubsub.passes_filter(m.payload, m.attributes, v_path, p_filter::jsonb, v_values,
                    v_attribute_path)
                and pubsub.passes_filter(m.payload, m.attributes, v_own.filter_path, v_own.filter,
                    v_own.filter_values, v_own.attribute_filter_path) as matches
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
