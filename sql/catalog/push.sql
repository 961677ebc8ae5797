/*
 * Push: the messages of a subscription are sent to an endpoint by whichever server has room. Servers share the work
 * as any consumers do, by leases; what they share beside that is here: whether the endpoint is worth trying.
 *
 *   open      failures < 5                      everybody sends
 *   paused    failures >= 5, paused_until ahead nobody sends, so no attempts are spent
 *   due       failures >= 5, paused_until over  who gets try_push_probe sends one push, which decides
 *   stopped   paused_until = infinity           nobody sends until push is set again: the endpoint said so
 *
 * A subscription that is paused itself is none of this: nothing of it is handed out.
 */

/*
 * set_push — send the messages of a subscription to an endpoint, or to another one.
 *
 * In       p_endpoint: an http or https URL of at most 2048 ASCII characters, without user, password and fragment
 *          p_timeout_seconds: how long an answer may take, 1 to 60
 *          p_headers: go with each push, values by name: at most 20, not those that the sender makes itself
 * Out      what signs, if it was made now; null: it stays the one that it was
 * Errors   PS404 · PS422 (push), with the names that lead to the fault
 * Locks    the subscription
 * Effects  pauses end. A subscription that did not push and has no max_in_flight has 10 from now on
 */
create function pubsub.set_push(
    p_subscription_id text, p_endpoint text, p_timeout_seconds int default 15, p_headers jsonb default null
)
returns text
language sql volatile
as $$
    select u.push ->> 'secret'
    from pubsub.update_subscription(p_subscription_id, json_build_object('push', json_build_object(
        'endpoint', p_endpoint, 'timeout_seconds', p_timeout_seconds, 'headers', p_headers))) u
$$;

comment on function pubsub.set_push is
    'Send the messages of a subscription to an endpoint; returns the secret that signs, if it was made now.';

/*
 * unset_push — the messages of a subscription wait for consumers again. Nothing happens where they do anyway.
 *
 * Errors   PS404
 * Locks    the subscription
 */
create function pubsub.unset_push(p_subscription_id text)
returns void
language plpgsql volatile
as $$
begin
    perform pubsub.update_subscription(p_subscription_id, '{"push": null}');
end
$$;

comment on function pubsub.unset_push is 'Send the messages of a subscription nowhere any more.';

/*
 * rotate_push_secret — another secret signs the pushes of a subscription.
 *
 * In       p_overlap_seconds: how long the one of now signs beside it, 0 to a week; the one before that ends now
 * Out      until when the one of before signs; null: it ends now
 * Errors   PS404 unknown subscription, or it has no endpoint · PS422 (overlap_seconds)
 * Locks    the endpoint
 */
create function pubsub.rotate_push_secret(
    p_subscription_id text, p_overlap_seconds int default 86400,
    out secret text, out previous_valid_until timestamptz
)
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_until timestamptz;
begin
    if p_overlap_seconds is null or p_overlap_seconds not between 0 and 604800 then
        perform pubsub.fail_validation('overlap_seconds', 'overlap_seconds must be 0 to 604800');
    end if;
    if p_overlap_seconds > 0 then
        v_until := now() + make_interval(secs => p_overlap_seconds);
    end if;
    update pubsub_data.push_endpoints e
    set secret = pubsub.new_push_secret(),
        previous_secret = case when v_until is not null then e.secret end,
        previous_secret_until = v_until
    where e.topic_key = v_keys.topic_key and e.subscription_key = v_keys.subscription_key
    returning e.secret, e.previous_secret_until
    into rotate_push_secret.secret, rotate_push_secret.previous_valid_until;
    if not found then
        raise exception 'The subscription has no push endpoint' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.rotate_push_secret is
    'Sign the pushes of a subscription with another secret; the one of now signs beside it for the overlap.';

/*
 * list_push_endpoints — what those who send need, of every endpoint whose subscription is not paused.
 *
 * In       p_subscription_id: only of this one, also while it is paused
 * Out      secrets: all that sign now, the newest first; version: another one when anything has changed but
 *          failures and paused_until
 */
create function pubsub.list_push_endpoints(p_subscription_id text default null)
returns table (
    subscription_id text, topic_id text, endpoint text, headers jsonb, timeout_seconds int, secrets text[],
    paused_until timestamptz, failures int, is_ordered boolean, max_in_flight int, version bigint
)
language sql stable parallel safe
as $$
    select s.subscription_id, t.topic_id, e.endpoint, e.headers, e.timeout_seconds, k.secrets, e.paused_until,
        e.failures, s.enable_ordering, s.max_in_flight,
        hashtextextended(row(e.endpoint, e.headers, e.timeout_seconds, k.secrets, s.enable_ordering,
            s.max_in_flight)::text, 0)
    from pubsub_data.push_endpoints e
    join pubsub_data.subscriptions s
        on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    join pubsub_data.topics t on t.topic_key = e.topic_key
    cross join lateral (
        select array_remove(array[
            e.secret, case when e.previous_secret_until > now() then e.previous_secret end], null) as secrets
    ) k
    where case
        when p_subscription_id is null then not s.paused
        else s.subscription_id = p_subscription_id
    end
    order by s.subscription_id
$$;

comment on function pubsub.list_push_endpoints is 'What those who send messages to endpoints need to know of each.';

/*
 * note_push_result — tell all servers how a push ended. Five failures in a row pause the endpoint, for 5 seconds;
 * each probe that fails doubles that, up to 5 minutes.
 *
 * In       p_error: what went wrong, of which 1024 characters are kept; p_is_gone: the endpoint wants no more, which
 *          stops it; p_version: of the endpoint that was pushed to, as it was listed; null: whichever there is;
 *          p_wait_seconds: for how long it wants to be left alone: a pause is no shorter, but at most an hour for it
 * Out      paused_until; null: it is not paused, or there is none
 * Errors   PS422 (is_success, is_gone, wait_seconds)
 * Locks    the endpoint, if something changes: a success after a success changes nothing. Nor does a failure while
 *          it is paused, which is of a push from before, or a result of another version
 */
create function pubsub.note_push_result(
    p_subscription_id text, p_is_success boolean, p_error text default null, p_is_gone boolean default false,
    p_version bigint default null, p_wait_seconds double precision default null
)
returns timestamptz
language plpgsql volatile
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_is_other boolean := false;
begin
    if p_is_success is null then
        perform pubsub.fail_validation('is_success', 'is_success must be true or false');
    end if;
    if p_is_gone is null or p_is_success and p_is_gone then
        perform pubsub.fail_validation('is_gone', 'is_gone must be false, or true of a failure');
    end if;
    if not coalesce(p_wait_seconds, 0) between 0 and 3600 then
        perform pubsub.fail_validation('wait_seconds', 'wait_seconds must be 0 to 3600');
    end if;
    if p_version is not null then
        -- what changes it waits, or has been waited for: the next statement sees it
        perform from pubsub_data.push_endpoints e
        join pubsub_data.subscriptions s
            on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
        where s.subscription_id = p_subscription_id
        for no key update of e;
        v_is_other := p_version is distinct from (
            select l.version from pubsub.list_push_endpoints(p_subscription_id) l);
    end if;
    if v_is_other then
        null;
    elsif p_is_success then
        update pubsub_data.push_endpoints e
        set failures = 0, paused_until = null, is_probed = false
        from pubsub_data.subscriptions s
        where s.subscription_id = p_subscription_id
            and e.topic_key = s.topic_key and e.subscription_key = s.subscription_key
            and e.failures > 0 and e.paused_until is distinct from 'infinity';
    else
        update pubsub_data.push_endpoints e
        set failures = e.failures + 1,
            paused_until = case
                when p_is_gone then 'infinity'
                when e.failures >= 4
                    then v_now + make_interval(secs => greatest(p_wait_seconds,
                        least(300, 5 * power(2, least(e.failures - 4, 6)))))
            end,
            is_probed = false, last_error = left(p_error, 1024), last_failed_at = v_now
        from pubsub_data.subscriptions s
        where s.subscription_id = p_subscription_id
            and e.topic_key = s.topic_key and e.subscription_key = s.subscription_key
            and e.paused_until is distinct from 'infinity'
            and (p_is_gone or e.failures < 5 or e.is_probed);
    end if;
    return (
        select e.paused_until
        from pubsub_data.push_endpoints e
        join pubsub_data.subscriptions s
            on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
        where s.subscription_id = p_subscription_id
    );
end
$$;

comment on function pubsub.note_push_result is
    'Tell all servers how a push ended; returns until when they send nothing.';

/*
 * try_push_probe — ask to be the one who tries an endpoint whose pause is over.
 *
 * Out      true: send one push and note its result. The next one is let through when that has been noted or, should
 *          it never be, 5 seconds after the timeout of the endpoint
 * Locks    the endpoint
 */
create function pubsub.try_push_probe(p_subscription_id text)
returns boolean
language plpgsql volatile
as $$
begin
    update pubsub_data.push_endpoints e
    set paused_until = clock_timestamp() + make_interval(secs => e.timeout_seconds + 5), is_probed = true
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription_id
        and e.topic_key = s.topic_key and e.subscription_key = s.subscription_key
        and e.failures >= 5 and e.paused_until <= clock_timestamp();
    return found;
end
$$;

comment on function pubsub.try_push_probe is
    'Ask to be the one who tries an endpoint whose pause is over; whether the caller is.';
