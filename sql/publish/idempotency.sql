/*
 * An idempotency key makes a retry harmless: within a window, what comes under a key that was used in
 * the topic before is not published again; its answer is that of the first. A key is one message's or
 * a whole request's. Its row is written in the publisher's transaction, so that a retry which comes
 * meanwhile waits for the first one's end, and publishes if that rolled back.
 */

/*
 * check_idempotency_window
 *
 * Errors   PS422 (idempotency_window_seconds)
 */
create function pubsub.check_idempotency_window(p_seconds int)
returns void
language plpgsql immutable parallel safe
as $$
begin
    if p_seconds is null or p_seconds not between 60 and 604800 then
        perform pubsub.fail_validation('idempotency_window_seconds',
            'idempotency_window_seconds must be 60 to 604800');
    end if;
end
$$;

comment on function pubsub.check_idempotency_window is
    'Refuse a window of idempotency keys that is out of range.';

/*
 * claim_idempotency_keys — take the keys that are free for the messages that carry them.
 *
 * In       p_keys, p_message_ids: by position; a message without a key has a null one
 * Out      by position: the id of whichever message has the key, and whether that is an earlier one
 * Errors   PS422 (idempotency_key)
 * Locks    the keys, in their order, until the transaction ends; waits for who holds one
 */
create function pubsub.claim_idempotency_keys(
    p_topic_key bigint, p_keys text[], p_message_ids uuid[], p_window_seconds int,
    out message_ids uuid[], out duplicates boolean[]
)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_wrong int;
begin
    select min(k.position) - 1 into v_wrong
    from unnest(p_keys) with ordinality as k (idempotency_key, position)
    where char_length(k.idempotency_key) not between 1 and 256;
    if v_wrong is not null then
        perform pubsub.fail_validation('idempotency_key',
            'idempotency_key must be 1 to 256 characters', jsonb_build_array(v_wrong));
    end if;

    -- in key order: two calls with the same keys must not wait for each other
    insert into pubsub_data.idempotency_keys as i (
        topic_key, scope, idempotency_key, message_ids, created_at
    )
    select p_topic_key, 'message', f.idempotency_key, array[f.message_id], v_now
    from (
        select distinct on (k.idempotency_key) k.idempotency_key, k.message_id
        from unnest(p_keys, p_message_ids)
            with ordinality as k (idempotency_key, message_id, position)
        where k.idempotency_key is not null
        order by k.idempotency_key, k.position
    ) f
    order by f.idempotency_key collate "C"
    on conflict (topic_key, scope, idempotency_key) do update
    set message_ids = excluded.message_ids, created_at = excluded.created_at
    where i.created_at < v_now - make_interval(secs => p_window_seconds);

    -- a statement of its own: it sees what the one above waited for
    select array_agg(coalesce(i.message_ids[1], k.message_id) order by k.position),
        array_agg(coalesce(i.message_ids[1] <> k.message_id, false) order by k.position)
    into claim_idempotency_keys.message_ids, claim_idempotency_keys.duplicates
    from unnest(p_keys, p_message_ids)
        with ordinality as k (idempotency_key, message_id, position)
    left join lateral (
        select x.message_ids
        from pubsub_data.idempotency_keys x
        where x.topic_key = p_topic_key
            and x.scope = 'message'
            and x.idempotency_key = k.idempotency_key
        limit 1
    ) i on true;
end
$$;

comment on function pubsub.claim_idempotency_keys is
    'Take the idempotency keys of messages: which message has each, and whether it is an earlier one.';

/*
 * claim_request_key — take the key of a whole request.
 *
 * In       p_fingerprint: tells another request under the same key
 * Out      null when the key was free, else the ids that the first request was answered with
 * Errors   PS422 (idempotency_key) bad length, or used for another request
 * Locks    the key, until the transaction ends; waits for who holds it
 */
create function pubsub.claim_request_key(
    p_topic_key bigint, p_key text, p_message_ids uuid[], p_fingerprint text,
    p_window_seconds int
)
returns uuid[]
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_first record;
begin
    if char_length(p_key) not between 1 and 256 then
        perform pubsub.fail_validation('idempotency_key',
            'idempotency_key must be 1 to 256 characters');
    end if;
    insert into pubsub_data.idempotency_keys as i (
        topic_key, scope, idempotency_key, message_ids, fingerprint, created_at
    )
    values (p_topic_key, 'request', p_key, p_message_ids, p_fingerprint, v_now)
    on conflict (topic_key, scope, idempotency_key) do update
    set message_ids = excluded.message_ids, fingerprint = excluded.fingerprint,
        created_at = excluded.created_at
    where i.created_at < v_now - make_interval(secs => p_window_seconds);
    if found then
        return null;
    end if;

    select x.message_ids, x.fingerprint into v_first
    from pubsub_data.idempotency_keys x
    where x.topic_key = p_topic_key
        and x.scope = 'request'
        and x.idempotency_key = p_key;
    if v_first.fingerprint is distinct from p_fingerprint then
        perform pubsub.fail_validation('idempotency_key',
            'idempotency_key was used for another request');
    end if;
    return v_first.message_ids;
end
$$;

comment on function pubsub.claim_request_key is
    'Take the idempotency key of a request; returns the ids of the first one, or null when it is.';

/*
 * cleanup_idempotency_keys — forget keys older than a threshold: whoever comes with one publishes.
 *
 * Out      how many were forgotten, at most p_limit: call it again until it returns 0
 * Errors   PS422 (older_than_seconds 60 to 604800, limit 1 to 1000000)
 * Locks    skips what others hold
 */
create function pubsub.cleanup_idempotency_keys(
    p_older_than_seconds int default 86400, p_limit int default 10000
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_before constant timestamptz :=
        clock_timestamp() - make_interval(secs => p_older_than_seconds);
    v_removed bigint;
begin
    if p_older_than_seconds is null or p_older_than_seconds not between 60 and 604800 then
        perform pubsub.fail_validation('older_than_seconds',
            'older_than_seconds must be 60 to 604800');
    end if;
    if p_limit is null or p_limit not between 1 and 1000000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000000');
    end if;
    with old as materialized (
        select x.ctid
        from pubsub_data.idempotency_keys x
        where x.created_at < v_before
        order by x.created_at
        limit p_limit
        for update skip locked
    ), forgotten as (
        delete from pubsub_data.idempotency_keys i
        where i.ctid = any(array(select o.ctid from old o))
        returning 1
    )
    select count(*) into v_removed from forgotten f;
    return v_removed;
end
$$;

comment on function pubsub.cleanup_idempotency_keys is
    'Forget idempotency keys older than a threshold, a batch a call; returns how many.';

/*
 * request_fingerprint — tells a request from another one, by all that it publishes.
 */
create function pubsub.request_fingerprint(
    p_payloads jsonb[],
    p_attributes jsonb[],
    p_deliver_at timestamptz[],
    p_expires_at timestamptz[],
    p_ordering_keys text[],
    p_priorities smallint[],
    p_idempotency_keys text[],
    p_message_keys text[] default null
)
returns text
language sql immutable parallel safe
begin atomic
    select md5(jsonb_build_array(
        p_payloads, p_attributes, p_ordering_keys, p_priorities, p_idempotency_keys,
        -- as numbers: the text of a time depends on the session
        array(
            select extract(epoch from d.at)
            from unnest(p_deliver_at) with ordinality as d (at, position)
            order by d.position
        ),
        array(
            select extract(epoch from e.at)
            from unnest(p_expires_at) with ordinality as e (at, position)
            order by e.position
        )
    )::text || coalesce(to_jsonb(p_message_keys)::text, ''));
end;

comment on function pubsub.request_fingerprint is
    'A digest of all that a request publishes, by which another one under its key is told.';
