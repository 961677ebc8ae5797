/*
 * Functions take and return public ids; the engine's tables use keys, numbers that are never given twice.
 */

/*
 * subscription_keys — resolve a subscription's id for the keyed functions.
 *
 * Errors   PS404
 */
create function pubsub.subscription_keys(
    p_subscription_id text, out topic_key bigint, out subscription_key bigint
)
language plpgsql stable parallel safe
as $$
begin
    select s.topic_key, s.subscription_key
    into subscription_keys.topic_key, subscription_keys.subscription_key
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.subscription_keys is
    'The internal keys of a subscription, which the keyed functions take.';

/*
 * fail_gone — refuse a call whose subscription is gone from the key that was looked up.
 *
 * Errors   PS404 it was deleted · 40001 it was purged, and so has another key: the call may be made again
 */
create function pubsub.fail_gone(p_topic_key bigint, p_subscription_key bigint)
returns void
language plpgsql stable parallel safe
as $$
begin
    if exists (
        select from pubsub_data.deleted_subscriptions g
        where g.topic_key = p_topic_key and g.subscription_key = p_subscription_key and g.is_purged
    ) then
        raise exception 'The subscription was purged meanwhile: call again'
            using errcode = 'serialization_failure';
    end if;
    raise exception 'Subscription not found' using errcode = 'PS404';
end
$$;

comment on function pubsub.fail_gone is
    'Refuse a call whose subscription was deleted, or purged, since its keys were looked up.';

/*
 * lock_subscription — hold a subscription until the transaction ends: it is not deleted or changed, and
 * no job of it makes a step.
 *
 * Errors   those of fail_gone
 * Locks    the subscription: call it before anything of it is locked
 */
create function pubsub.lock_subscription(p_topic_key bigint, p_subscription_key bigint)
returns void
language plpgsql volatile
as $$
begin
    perform 1 from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
    for no key update;
    if not found then
        perform pubsub.fail_gone(p_topic_key, p_subscription_key);
    end if;
end
$$;

comment on function pubsub.lock_subscription is
    'Hold a subscription until the transaction ends, or refuse when it was deleted.';
