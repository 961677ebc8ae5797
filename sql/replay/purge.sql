/*
 * A purge takes everything from a subscription that it has not settled, at once, however much that is: the
 * subscription gets a new key, and what is left under the old one is cleaned up as that of a deleted one.
 */

/*
 * purge_subscription — drop everything unsettled.
 *
 * Errors   those of fail_gone · PS503 the sequences are behind
 * Locks    the subscription, its jobs, its snapshots, its dead letters
 * Effects  receipts of before are of lost leases; the history of acks and failures begins anew, running jobs are
 *          cancelled. Settings, snapshots, dead letters, totals and what a rate limit counts stay. What is published,
 *          claimed or settled beside it counts as before it: a publish that returns later may be purged, one
 *          that begins later arrives. Seeks, replays and snapshots bring back what the topic retains
 */
create function pubsub.purge_subscription(p_subscription_id text)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_old constant record := pubsub.subscription_keys(p_subscription_id);
    v_key bigint;
begin
    perform 1
    from pubsub_data.subscriptions s
    where s.topic_key = v_old.topic_key and s.subscription_key = v_old.subscription_key
    for update;
    if not found then
        perform pubsub.fail_gone(v_old.topic_key, v_old.subscription_key);
    end if;
    update pubsub_data.jobs j
    set state = 'cancelled', updated_at = clock_timestamp()
    where j.topic_key = v_old.topic_key and j.subscription_key = v_old.subscription_key
        and j.state = 'running';
    if exists (
        select from pubsub_data.subscriptions_subscription_key_seq q
        join pubsub_data.subscriptions s
            on s.subscription_key > q.last_value or s.subscription_key = q.last_value and not q.is_called
    ) then
        perform pubsub.fail_sequences();
    end if;
    -- one statement: foreign keys are looked at when it ends
    with renamed as (
        update pubsub_data.subscriptions s
        set subscription_key = default,
            -- what servers noted of its head is of before
            rewinds = s.rewinds + 1, rewound_to = null
        where s.topic_key = v_old.topic_key and s.subscription_key = v_old.subscription_key
        returning s.subscription_key
    ), moved_jobs as (
        update pubsub_data.jobs j
        set subscription_key = r.subscription_key
        from renamed r
        where j.topic_key = v_old.topic_key and j.subscription_key = v_old.subscription_key
    ), moved_snapshots as (
        update pubsub_data.snapshots n
        set subscription_key = r.subscription_key
        from renamed r
        where n.topic_key = v_old.topic_key and n.subscription_key = v_old.subscription_key
    )
    select r.subscription_key into v_key from renamed r;
    perform pubsub.check_subscription_key(v_old.topic_key, v_key);
    insert into pubsub_data.deleted_subscriptions (topic_key, subscription_key, is_purged)
    values (v_old.topic_key, v_old.subscription_key, true);

    insert into pubsub_data.run_sizes (topic_key, subscription_key, run_size, noted_at)
    select v_old.topic_key, v_key, z.run_size, z.noted_at
    from pubsub_data.run_sizes z
    where z.topic_key = v_old.topic_key and z.subscription_key = v_old.subscription_key
    on conflict (topic_key, subscription_key) do update
    set run_size = excluded.run_size, noted_at = excluded.noted_at;
    -- one that expires has its whole time again
    insert into pubsub_data.kept_subscriptions (topic_key, subscription_key, kept_at)
    select s.topic_key, s.subscription_key, clock_timestamp()
    from pubsub_data.subscriptions s
    where s.topic_key = v_old.topic_key and s.subscription_key = v_key
        and s.expires_after_seconds is not null;
    update pubsub_data.handed_out h
    set subscription_key = v_key
    where h.topic_key = v_old.topic_key and h.subscription_key = v_old.subscription_key;
    with moved as (
        update pubsub_data.dead_letters l
        set subscription_key = v_key
        where l.topic_key = v_old.topic_key and l.subscription_key = v_old.subscription_key
        returning 1
    )
    insert into pubsub_data.counters (
        topic_key, subscription_key, dlq, expired, published, delivered, forgotten, nacked, rejected,
        dead_lettered, redelivered, extended
    )
    select v_old.topic_key, v_key, (select count(*) from moved), sum(c.expired),
        sum(coalesce(c.published, greatest(c.backlog, 0))),
        sum(coalesce(c.delivered, greatest(c.leased, 0))),
        -- acks of before are remembered no more
        sum(c.acked + coalesce(c.forgotten, 0)), sum(c.nacked), sum(c.rejected),
        sum(c.dead_lettered), sum(c.redelivered), sum(c.extended)
    from pubsub_data.counters c
    where c.topic_key = v_old.topic_key and c.subscription_key = v_old.subscription_key
    having count(*) > 0;
end
$$;

comment on function pubsub.purge_subscription is
    'Drop everything that a subscription has not settled, at once, however much it is.';
