/*
 * Subscriptions that vanish. One with expires_after_seconds is deleted when nobody was there for it for so long: a
 * claim is somebody, whether or not it finds anything, and so is who waits for its messages on a server, who
 * creates or changes it, and who calls keep_subscriptions. One that pushes does not expire, paused or not, until its
 * endpoint says that it is gone.
 *
 * Being there is noted once in a tenth of that time, in a row of its own (kept_subscriptions), so that nobody waits
 * for another. Whoever notes it holds a shared advisory lock of the subscription until the transaction ends, and
 * expire_subscriptions takes it for itself, if nobody has it. So whoever comes at the last moment either keeps the
 * subscription or finds that it is gone. This needs read committed.
 */

/*
 * is_kept — whether somebody was there for a subscription in the last p_seconds.
 */
create function pubsub.is_kept(
    p_topic_key bigint, p_subscription_key bigint, p_seconds double precision
)
returns boolean
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    return exists (
        select from pubsub_data.kept_subscriptions k
        where k.topic_key = p_topic_key
            and k.subscription_key = p_subscription_key
            and k.kept_at > clock_timestamp() - make_interval(secs => p_seconds)
    );
end
$$;

comment on function pubsub.is_kept is
    'Whether somebody was there for a subscription in the last so many seconds.';

/*
 * expiry_lock — the advisory lock of a subscription that expires: the second of its two numbers; the first is
 * "fpse" in bytes.
 */
create function pubsub.expiry_lock(p_subscription_key bigint)
returns int
language sql immutable parallel safe
begin atomic
    select (p_subscription_key % 2147483648)::int;
end;

comment on function pubsub.expiry_lock is
    'The second number of the advisory lock of a subscription that expires.';

/*
 * note_kept — somebody is there for a subscription that expires.
 *
 * In       p_seconds: after which it expires
 * Out      whether it is there
 * Locks    shared, and only when there is something to write: its advisory lock. Waits for whoever deletes it
 */
create function pubsub.note_kept(p_topic_key bigint, p_subscription_key bigint, p_seconds int)
returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
begin
    if pubsub.is_kept(p_topic_key, p_subscription_key, p_seconds / 10.0) then
        return true;
    end if;
    perform pg_advisory_xact_lock_shared(1718645605, pubsub.expiry_lock(p_subscription_key));
    -- a statement after the lock sees that it was deleted
    insert into pubsub_data.kept_subscriptions (topic_key, subscription_key, kept_at)
    select s.topic_key, s.subscription_key, clock_timestamp()
    from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;
    -- a purge, which gives it another key, keeps it
    return found or exists (
        select from pubsub_data.deleted_subscriptions g
        where g.topic_key = p_topic_key and g.subscription_key = p_subscription_key and g.is_purged
    );
end
$$;

comment on function pubsub.note_kept is
    'Note that somebody is there for a subscription that expires; false: it is gone.';

/*
 * keep_subscriptions — be there for subscriptions, so that they do not expire. More often than at a third of
 * their time is of no use.
 *
 * Out      those that exist, whether or not they expire
 * Locks    those of note_kept
 */
create function pubsub.keep_subscriptions(p_subscription_ids text[])
returns table (subscription_id text)
language sql volatile
as $$
    select s.subscription_id
    from pubsub_data.subscriptions s
    where s.subscription_id = any(p_subscription_ids)
        and (s.expires_after_seconds is null
            or pubsub.note_kept(s.topic_key, s.subscription_key, s.expires_after_seconds))
$$;

comment on function pubsub.keep_subscriptions is
    'Be there for subscriptions, so that they do not expire; returns those that exist.';

/*
 * expire_subscriptions — delete, as delete_subscription does, subscriptions that nobody was there for in their
 * time.
 *
 * Out      those it deleted, at most p_limit
 * Errors   PS422 (limit 1 to 1000000)
 * Locks    what it deletes; skips what others hold or keep
 */
create function pubsub.expire_subscriptions(p_limit int default 1000)
returns table (subscription_id text)
language plpgsql volatile
as $$
declare
    v_old record;
begin
    if p_limit is null or p_limit not between 1 and 1000000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000000');
    end if;
    for v_old in
        select s.topic_key, s.subscription_key, s.subscription_id, s.expires_after_seconds
        from pubsub_data.subscriptions s
        where s.expires_after_seconds is not null
            and not pubsub.is_kept(s.topic_key, s.subscription_key, s.expires_after_seconds)
            and not exists (
                select from pubsub_data.push_endpoints e
                where e.topic_key = s.topic_key and e.subscription_key = s.subscription_key
                    and e.paused_until is distinct from 'infinity'
            )
        order by s.topic_key, s.subscription_key
        limit p_limit
        for update skip locked
    loop
        continue when not pg_try_advisory_xact_lock(
            1718645605, pubsub.expiry_lock(v_old.subscription_key));
        -- what was noted until the lock was free is seen now
        continue when pubsub.is_kept(
            v_old.topic_key, v_old.subscription_key, v_old.expires_after_seconds);
        perform pubsub.delete_subscription(v_old.subscription_id);
        expire_subscriptions.subscription_id := v_old.subscription_id;
        return next;
    end loop;
    delete from pubsub_data.kept_subscriptions k
    where k.ctid = any(array(
        select x.ctid
        from pubsub_data.kept_subscriptions x
        where not exists (
            select from pubsub_data.subscriptions s
            where s.topic_key = x.topic_key
                and s.subscription_key = x.subscription_key
                and x.kept_at > clock_timestamp() - make_interval(secs => s.expires_after_seconds)
        )
        for update skip locked
    ));
end
$$;

comment on function pubsub.expire_subscriptions is
    'Delete subscriptions that nobody kept for as long as they live without; returns them.';
