/* Keys behind the ids of subscriptions. */

do $$
declare
    c_proves constant text := 'subscription_keys gives the keys of the subscription''s rows';
    v_keys record;
begin
    perform pg_temp.stock('keys', 1);
    v_keys := pubsub.subscription_keys('keys');

    assert (
        select count(*) = 1
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s on s.subscription_key = d.subscription_key
            and s.topic_key = d.topic_key
        where s.subscription_id = 'keys'
            and d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'who looked up a key that is gone is told whether the subscription was purged';
begin
    insert into pubsub_data.deleted_subscriptions (topic_key, subscription_key, is_purged)
    values (-1, -1, true), (-1, -2, false);

    assert pg_temp.refusal('select pubsub.fail_gone(-1, -1)')
        = '40001 The subscription was purged meanwhile: call again', c_proves;
    assert pg_temp.refusal('select pubsub.fail_gone(-1, -2)') = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal('select pubsub.fail_gone(-1, -3)') = 'PS404 Subscription not found', c_proves;
end
$$;
