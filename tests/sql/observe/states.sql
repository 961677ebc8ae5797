/* The state of a delivery. */

do $$
declare
    c_proves constant text := 'the state follows from lease, time, attempts and expiry';
    c_now constant timestamptz := '2026-01-01 12:00:00Z';
    v_case record;
begin
    for v_case in
        select c.visible_at::timestamptz, c.lease::bigint, c.attempts, c.expires_at::timestamptz,
            c.state
        from (values
            ('-infinity', null, 0, null, 'available'),
            ('2026-01-01 11:59:59Z', null, 1, null, 'available'),
            ('2026-01-01 12:00:00Z', null, 1, null, 'available'),
            ('2026-01-01 12:00:01Z', null, 0, null, 'scheduled'),
            ('2026-01-01 12:00:01Z', null, 4, null, 'scheduled'),
            -- leased, until the deadline
            ('2026-01-01 12:00:01Z', 7, 1, null, 'delivered'),
            ('2026-01-01 12:00:00Z', 7, 1, null, 'available'),
            ('2026-01-01 11:59:59Z', 7, 4, null, 'available'),
            -- leased for the last time, until it is moved
            ('2026-01-01 12:00:01Z', 7, 5, null, 'delivered'),
            ('2026-01-01 11:59:59Z', 7, 5, null, 'delivered'),
            ('2026-01-01 11:59:59Z', 7, 6, null, 'delivered'),
            -- expiring
            ('-infinity', null, 0, '2026-01-01 12:00:01Z', 'available'),
            ('-infinity', null, 0, '2026-01-01 12:00:00Z', 'expired'),
            ('2026-01-01 12:00:01Z', null, 1, '2026-01-01 11:00:00Z', 'expired'),
            ('2026-01-01 11:59:59Z', 7, 1, '2026-01-01 11:00:00Z', 'expired'),
            ('2026-01-01 12:00:01Z', 7, 1, '2026-01-01 11:00:00Z', 'delivered'),
            ('2026-01-01 12:00:01Z', null, 1, '2026-01-01 13:00:00Z', 'scheduled'),
            -- until an operator acts, whatever else it is
            ('infinity', null, 5, null, 'parked'),
            ('infinity', null, 5, '2026-01-01 11:00:00Z', 'parked')
        ) c (visible_at, lease, attempts, expires_at, state)
    loop
        assert pubsub.delivery_state(v_case.visible_at, v_case.lease, v_case.attempts,
            v_case.expires_at, 5, c_now) = v_case.state, c_proves || ': ' || v_case;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'what is available can be claimed, and nothing else can';
    v_ids uuid[] := pg_temp.stock('claimable', 6, 2);
    v_available uuid[];
begin
    perform pg_temp.claim('claimable', 4);
    perform pubsub.nack_messages('claimable', v_ids[3:4]);
    perform pg_temp.later('claimable', '4 seconds');
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = v_ids[1];
    update pubsub_data.deliveries d set visible_at = clock_timestamp()
    where d.message_id = any(array[v_ids[1], v_ids[2], v_ids[3]]);
    update pubsub_data.deliveries d set expires_at = clock_timestamp()
    where d.message_id = v_ids[5];
    update pubsub_data.wakeups w set due_at = clock_timestamp();

    v_available := array(
        select d.message_id
        from pubsub_data.deliveries d
        where d.message_id = any(v_ids)
            and pubsub.delivery_state(d.visible_at, d.lease, d.attempts, d.expires_at, 2,
                clock_timestamp()) = 'available'
        order by d.message_id
    );

    assert v_available = array[v_ids[2], v_ids[3], v_ids[6]], c_proves;
    assert pg_temp.claim('claimable') = v_available, c_proves;
end
$$;
