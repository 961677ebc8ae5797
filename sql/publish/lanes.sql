/*
 * A lane is a queue within a subscription: the messages of an ordering key, of a value of the fairness
 * key, or of a priority above 0. A message outside all lanes has a null one and is handed out in
 * publish order.
 */

/*
 * lane_of — the name of the lane of a value: the value, or, where it has more than 2048 bytes, which an
 * index could not hold, its beginning and its digest.
 */
create function pubsub.lane_of(p_value text)
returns text
language sql immutable parallel safe
begin atomic
    select case
        when octet_length(p_value) <= 2048 then p_value
        else left(p_value, 256) || md5(p_value)
    end;
end;

comment on function pubsub.lane_of is
    'The name of the lane of a value, short enough for an index.';

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
begin atomic
    select case
        when p_enable_ordering then pubsub.lane_of(p_ordering_key)
        when p_fairness_key is not null
            then coalesce(pubsub.lane_of(p_attributes ->> p_fairness_key), '')
        when p_priority > 0 then p_priority::text
    end;
end;

comment on function pubsub.delivery_lane is
    'The lane of a message in a subscription: ordering key, fairness value or priority; or none.';
