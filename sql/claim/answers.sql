/*
 * Answers are bounded in bytes where the caller says so, so that neither side must hold more at once: a
 * claim gives back itself what it has chosen beyond the bound.
 */

/*
 * fit_messages — which of some messages go into an answer of so many bytes.
 *
 * Out      kept: the first of them, at least one, with bytes in all
 */
create function pubsub.fit_messages(
    p_topic_key bigint, p_message_ids uuid[], p_max_bytes bigint,
    out kept uuid[], out bytes bigint
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_id uuid;
    v_bytes bigint;
begin
    fit_messages.kept := '{}';
    fit_messages.bytes := 0;
    foreach v_id in array p_message_ids loop
        -- one after the other: what does not fit is not unpacked, but for the first of it
        select 1000 + octet_length(m.payload::text) + coalesce(octet_length(m.attributes::text), 0)
            + coalesce(octet_length(m.ordering_key), 0)
        into v_bytes
        from pubsub_data.messages m
        where m.topic_key = p_topic_key and m.message_id = v_id
        limit 1;
        v_bytes := coalesce(v_bytes, 0);
        exit when fit_messages.kept <> '{}' and fit_messages.bytes + v_bytes > p_max_bytes;
        fit_messages.kept := fit_messages.kept || v_id;
        fit_messages.bytes := fit_messages.bytes + v_bytes;
    end loop;
end
$$;

comment on function pubsub.fit_messages is
    'Which of some messages go into an answer of so many bytes, in their order: at least one.';

/*
 * claim_in_turn — claim_deliveries for one consumer after the other: what belongs together must not be
 * dealt out to several.
 *
 * In       p_max_bytes: of all of it
 * Out      as claim_deliveries; is_cut in the rows of the last consumer
 */
create function pubsub.claim_in_turn(
    p_topic_key bigint, p_subscription_key bigint, p_floor uuid, p_consumer_ids text[],
    p_limits int[], p_ack_deadline_seconds int, p_max_attempts int, p_head uuid, p_mode text,
    p_rewinds int, p_rewound_to uuid, p_count_by_consumer boolean default false,
    p_max_bytes bigint default null
)
returns table (
    consumer int, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz, head uuid, is_cut boolean, bytes bigint
)
language plpgsql volatile rows 10
as $$
declare
    v_left bigint := p_max_bytes;
    v_claimed record;
begin
    for v_consumer in 1 .. cardinality(p_consumer_ids) loop
        if p_max_bytes is null or cardinality(p_consumer_ids) = 1 then
            return query
                select v_consumer, c.message_id, c.payload, c.attributes, c.ordering_key,
                    c.priority, c.published_at, c.attempts, c.lease, c.ack_deadline, c.head,
                    c.is_cut, c.bytes
                from pubsub.claim_deliveries(
                    p_topic_key, p_subscription_key, p_floor,
                    p_consumer_ids[v_consumer:v_consumer], p_limits[v_consumer:v_consumer],
                    p_ack_deadline_seconds, p_max_attempts, p_head, p_mode, p_rewinds,
                    p_rewound_to, p_count_by_consumer, p_max_bytes
                ) c;
            continue;
        end if;
        for v_claimed in
            select c.* from pubsub.claim_deliveries(
                p_topic_key, p_subscription_key, p_floor,
                p_consumer_ids[v_consumer:v_consumer], p_limits[v_consumer:v_consumer],
                p_ack_deadline_seconds, p_max_attempts, p_head, p_mode, p_rewinds,
                p_rewound_to, p_count_by_consumer, v_left
            ) c
        loop
            consumer := v_consumer;
            message_id := v_claimed.message_id;
            payload := v_claimed.payload;
            attributes := v_claimed.attributes;
            ordering_key := v_claimed.ordering_key;
            priority := v_claimed.priority;
            published_at := v_claimed.published_at;
            attempts := v_claimed.attempts;
            lease := v_claimed.lease;
            ack_deadline := v_claimed.ack_deadline;
            head := v_claimed.head;
            is_cut := v_claimed.is_cut or v_claimed.bytes >= v_left;
            bytes := v_claimed.bytes;
            return next;
        end loop;
        exit when is_cut;
        v_left := v_left - coalesce(bytes, 0);
        bytes := null;
    end loop;
end
$$;

comment on function pubsub.claim_in_turn is
    'claim_deliveries for one consumer after the other, within one bound of bytes.';
