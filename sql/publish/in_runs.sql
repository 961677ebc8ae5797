/*
 * may_run — whether a subscription of such settings gets runs: it takes messages in the order of ids, does not
 * let them expire, and its consumers take several at a time.
 */
create function pubsub.may_run(
    p_run_size int, p_enable_ordering boolean, p_fairness_key text, p_message_ttl_seconds int
)
returns boolean
language sql stable parallel safe
begin atomic
    select coalesce(p_run_size, 1) >= pubsub.least_run() and not p_enable_ordering and p_fairness_key is null
        and p_message_ttl_seconds is null;
end;

comment on function pubsub.may_run is 'Whether a subscription of such settings gets runs.';

/*
 * publish_in_runs — store messages that are payloads, perhaps with attributes, and deliver them in runs where a
 * subscription may get them.
 *
 * In       p_attributes: null, or checked; p_prefix: the high digits of their ids
 * Out      as publish_to_topic; to_note: whether deliveries are to be noted (note_deliveries)
 */
create function pubsub.publish_in_runs(
    p_topic_key bigint, p_payloads jsonb[], p_attributes jsonb[], p_now timestamptz, p_prefix text,
    out message_ids uuid[], out subscription_keys bigint[], out to_note boolean
)
language plpgsql volatile
as $$
declare
    -- of 131072 messages each
    v_numbers constant bigint[] := array(
        select nextval('pubsub_data.message_numbers')
        from generate_series(0, (cardinality(p_payloads) - 1) / 131072)
    );
begin
    with fresh as materialized (
        select (p_prefix || to_hex(v_numbers[m.place / 131072 + 1] + m.place % 131072))::uuid
                as message_id,
            m.place / 131072 * 131072 + m.place % 131072 / 100 as hundred,
            m.place % 131072 % 100 as place, m.payload, m.attributes,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) > 512 as is_large
        from (
            select u.payload, u.attributes, (u.position - 1)::int as place
            from unnest(p_payloads, p_attributes) with ordinality
                as u (payload, attributes, position)
            where u.payload is not null
        ) m
    ), stored as (
        insert into pubsub_data.messages (topic_key, message_id, payload, attributes, published_at)
        select p_topic_key, f.message_id, f.payload, f.attributes, p_now
        from fresh f
    ), subscribed as materialized (
        select s.*, z.run_size, pubsub.may_run(z.run_size, s.enable_ordering, s.fairness_key,
            s.message_ttl_seconds) as may_run
        from pubsub_data.subscriptions s
        left join pubsub_data.run_sizes z
            on z.topic_key = s.topic_key and z.subscription_key = s.subscription_key
        where s.topic_key = p_topic_key
    ), matched as materialized (
        select s.subscription_key, array_agg(f.message_id order by f.message_id) as message_ids,
            bool_or(f.is_large) as is_large
        from subscribed s
        join fresh f on pubsub.passes_filter(f.payload, f.attributes, s.filter_path,
            s.filter::jsonb, s.filter_values, s.attribute_filter_path)
        where s.may_run
        group by s.subscription_key, f.hundred, f.place / s.run_size
    ), ran as (
        insert into pubsub_data.runs (topic_key, subscription_key, run_id, message_ids, is_large)
        select p_topic_key, m.subscription_key, m.message_ids[1], m.message_ids, m.is_large
        from matched m
        where cardinality(m.message_ids) >= pubsub.least_run()
        returning runs.subscription_key, cardinality(runs.message_ids) as messages
    ), delivered as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, expires_at, lane, is_large
        )
        select p_topic_key, s.subscription_key, f.message_id,
            p_now + make_interval(secs => s.message_ttl_seconds),
            pubsub.delivery_lane(s.enable_ordering, s.fairness_key, null, f.attributes, null),
            nullif(f.is_large, false)
        from subscribed s
        join fresh f on pubsub.passes_filter(f.payload, f.attributes, s.filter_path,
            s.filter::jsonb, s.filter_values, s.attribute_filter_path)
        where not s.may_run
        union all
        select p_topic_key, m.subscription_key, i.id, null, null, nullif(m.is_large, false)
        from matched m
        cross join unnest(m.message_ids) as i (id)
        where cardinality(m.message_ids) < pubsub.least_run()
        returning subscription_key, expires_at, lane
    ), counted as (
        insert into pubsub_data.counters (topic_key, subscription_key, backlog)
        select p_topic_key, c.subscription_key, sum(c.messages)
        from (
            select d.subscription_key, 1 as messages from delivered d
            union all
            select r.subscription_key, r.messages from ran r
        ) c
        group by c.subscription_key
        returning subscription_key
    )
    select coalesce(array_agg(f.message_id), '{}'), array(select c.subscription_key from counted c),
        exists (select from delivered d where d.lane is not null or d.expires_at is not null)
    into publish_in_runs.message_ids, publish_in_runs.subscription_keys, publish_in_runs.to_note
    from fresh f;
end
$$;

comment on function pubsub.publish_in_runs is
    'Store messages that are payloads, perhaps with attributes, and deliver them in runs where that can be.';
