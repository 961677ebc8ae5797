/*
 * A lane is a queue within a subscription: the messages of an ordering key, of a value of the fairness
 * key, or of a priority above 0. A message outside all lanes has a null one and is handed out in
 * publish order.
 */

/*
 * delivery_lane — the lane of a message in a subscription.
 *
 * In       the subscription's settings, then what the message has
 */
create function pubsub.delivery_lane(
    p_enable_ordering boolean, p_fairness_key text, p_ordering_key text, p_attributes jsonb,
    p_priority smallint
)
returns text
language sql immutable parallel safe
as $$
    select case
        when p_enable_ordering then p_ordering_key
        when p_fairness_key is not null then coalesce(p_attributes ->> p_fairness_key, '')
        when p_priority > 0 then p_priority::text
    end
$$;

comment on function pubsub.delivery_lane is
    'The lane of a message in a subscription: ordering key, fairness value or priority; or none.';
