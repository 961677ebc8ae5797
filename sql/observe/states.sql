/*
 * delivery_state — the state of a delivery at a time.
 *
 * Out      delivered: leased, also while a spent lease awaits its move to the dead letters ·
 *          parked: held until an operator acts · scheduled: its time lies ahead · expired: never to
 *          be delivered · available
 */
create function pubsub.delivery_state(
    p_visible_at timestamptz, p_lease bigint, p_attempts int, p_expires_at timestamptz,
    p_max_attempts int, p_now timestamptz
)
returns text
language sql immutable parallel safe
begin atomic
    select case
        when p_lease is not null and (p_visible_at > p_now or p_attempts >= p_max_attempts)
            then 'delivered'
        when p_visible_at = 'infinity' then 'parked'
        when p_expires_at <= p_now then 'expired'
        when p_visible_at > p_now then 'scheduled'
        else 'available'
    end;
end;

comment on function pubsub.delivery_state is
    'The state of a delivery at a time: available, delivered, scheduled, parked or expired.';
