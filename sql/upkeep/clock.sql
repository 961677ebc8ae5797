/*
 * The clock of the database may be set back, or a standby whose clock is behind may take over. Message
 * ids begin with a time, so new messages then lie below what claims have read. A session that claims
 * notices (hints.sql); one that was idle all the while does not, nor do those who wait.
 */

/*
 * notice_clock — look whether the clock was set back since the last call.
 *
 * Out      by how much, at least; null when it was not
 * Locks    then all subscriptions, in key order
 * Effects  then what all sessions noted of how far they have read is forgotten, as after a rewind
 */
create function pubsub.notice_clock()
returns interval
language plpgsql volatile
as $$
declare
    v_now timestamptz;
    v_seen_at timestamptz;
begin
    select c.seen_at into v_seen_at from pubsub_data.clock c for update;
    v_now := clock_timestamp();
    insert into pubsub_data.clock as c (seen_at) values (v_now)
    on conflict (is_only) do update set seen_at = excluded.seen_at;
    if v_seen_at is null or v_seen_at <= v_now then
        return null;
    end if;
    perform 1 from pubsub_data.subscriptions s
    order by s.topic_key, s.subscription_key
    for no key update;
    -- maintenance looks every few seconds: nothing older was published since
    update pubsub_data.subscriptions s
    set rewinds = s.rewinds + 1,
        rewound_to = least(s.rewound_to, pubsub.id_at(v_now - interval '1 minute'));
    return v_seen_at - v_now;
end
$$;

comment on function pubsub.notice_clock is
    'Notice that the clock of the database was set back: claims then read again from there.';
