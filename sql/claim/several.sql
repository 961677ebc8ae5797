/* Claims of several subscriptions at once. */

/*
 * claim_order — the subscriptions that a claim asks one after the other: in random order, so that none waits for
 * the others to be empty.
 *
 * Errors   PS404 · PS422 (subscription_ids: none, more than 1000, or null among them)
 */
create function pubsub.claim_order(p_subscription_ids text[])
returns text[]
language plpgsql volatile parallel safe
as $$
begin
    if (cardinality(p_subscription_ids) between 1 and 1000) is not true then
        perform pubsub.fail_validation('subscription_ids', 'subscription_ids must be 1 to 1000');
    end if;
    -- also of those that are not come to
    if exists (
        select
        from unnest(p_subscription_ids) as i (id)
        left join pubsub_data.subscriptions s on s.subscription_id = i.id
        where s.subscription_id is null
    ) then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    return array(
        select i.id from (select distinct x.id from unnest(p_subscription_ids) as x (id)) i
        order by random()
    );
end
$$;

comment on function pubsub.claim_order is
    'The subscriptions that a claim asks one after the other: in random order.';

/*
 * consume_messages_from — consume_messages of several subscriptions, one after the other in random order, until
 * there are enough.
 *
 * In       as consume_messages, but that the last message may go beyond p_max_bytes
 * Out      as consume_messages, by subscription
 * Errors   those of consume_messages, and PS404 if any is unknown · PS422 (subscription_ids)
 */
create function pubsub.consume_messages_from(
    p_subscription_ids text[],
    p_consumer_id text,
    p_batch_size int default 10,
    p_ack_deadline_seconds int default null,
    p_default_ack_deadline_seconds int default 60,
    p_max_bytes bigint default null,
    p_only text default null
)
returns table (
    subscription_id text, message_id uuid, payload jsonb, attributes jsonb, ordering_key text,
    priority smallint, published_at timestamptz, attempts int, lease bigint,
    ack_deadline timestamptz
)
language plpgsql volatile rows 10
as $$
declare
    v_left int := p_batch_size;
    v_bytes bigint := p_max_bytes;
begin
    foreach consume_messages_from.subscription_id in array pubsub.claim_order(p_subscription_ids) loop
        for consume_messages_from.message_id, consume_messages_from.payload,
            consume_messages_from.attributes, consume_messages_from.ordering_key,
            consume_messages_from.priority, consume_messages_from.published_at,
            consume_messages_from.attempts, consume_messages_from.lease,
            consume_messages_from.ack_deadline
        in
            select c.*
            from pubsub.consume_messages(consume_messages_from.subscription_id, p_consumer_id,
                v_left, p_ack_deadline_seconds, p_default_ack_deadline_seconds, v_bytes, p_only) c
        loop
            return next;
            v_left := v_left - 1;
            if p_max_bytes is not null then
                v_bytes := v_bytes - 1000 - octet_length(payload::text)
                    - coalesce(octet_length(attributes::text), 0)
                    - coalesce(octet_length(ordering_key), 0);
            end if;
        end loop;
        exit when v_left = 0 or v_bytes <= 0;
    end loop;
end
$$;

comment on function pubsub.consume_messages_from is
    'Lease ready messages of several subscriptions, one after the other in random order.';
