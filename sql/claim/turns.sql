/*
 * Where messages must not be dealt out to several consumers, those of one ordering key, consumers claim
 * one after the other.
 */

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
