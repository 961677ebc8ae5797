/* gone_for — nobody was there for a subscription for so long. */
create function pg_temp.gone_for(p_subscription text, p_time interval)
returns void
language sql volatile
as $$
    update pubsub_data.kept_subscriptions k
    set kept_at = clock_timestamp() - p_time
    from pubsub_data.subscriptions s
    where s.subscription_key = k.subscription_key and s.subscription_id = p_subscription
$$;

/* expired — who expires now. */
create function pg_temp.expired()
returns text[]
language sql volatile
as $$
    select coalesce(array_agg(e.subscription_id), '{}') from pubsub.expire_subscriptions() e
$$;

do $$
declare
    c_proves constant text := 'a subscription that nobody keeps in its time expires, with everything in it';
    v_key bigint;
begin
    perform pg_temp.stock('left', 3);
    perform pubsub.update_subscription('left', '{"expires_after_seconds": 10}');
    perform pg_temp.stock('stays', 1);
    v_key := (pubsub.subscription_keys('left')).subscription_key;
    assert pg_temp.expired() = '{}', c_proves;

    perform pg_temp.gone_for('left', '9 seconds');
    assert pg_temp.expired() = '{}', c_proves;
    perform pg_temp.gone_for('left', '11 seconds');
    assert pg_temp.expired() = '{left}', c_proves;

    assert pg_temp.refusal($q$select pubsub.get_subscription('left')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert exists (
        select from pubsub_data.deleted_subscriptions g where g.subscription_key = v_key
    ), c_proves;
    assert not exists (select from pubsub_data.kept_subscriptions), c_proves;
    assert pg_temp.expired() = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a claim keeps it, whether or not it finds anything, and writes at most each tenth of the time';
    v_before timestamptz;
begin
    perform pubsub.create_topic('kept');
    perform pubsub.create_subscription('kept', 'kept', '{"expires_after_seconds": 100}');
    perform pg_temp.gone_for('kept', '99 seconds');
    perform pg_temp.claim('kept');
    assert (select count(*) = 2 and max(k.kept_at) > clock_timestamp() - interval '1 second'
        from pubsub_data.kept_subscriptions k), c_proves;
    perform pg_temp.claim('kept');
    assert (select count(*) = 2 from pubsub_data.kept_subscriptions k), c_proves;
    perform pg_temp.gone_for('kept', '11 seconds');
    perform pg_temp.publish('kept', 3);
    assert cardinality(pg_temp.claim('kept', 2)) = 2, c_proves;
    perform pubsub.consume_messages('kept', 'me', 1, p_only => 'new');
    assert (select count(*) = 3 from pubsub_data.kept_subscriptions k), c_proves;

    -- paused ones, too
    perform pubsub.update_subscription('kept', '{"paused": true}');
    perform pg_temp.gone_for('kept', '50 seconds');
    perform pg_temp.claim('kept');
    assert (select pubsub.is_kept(k.topic_key, k.subscription_key, 1)
        from pubsub.subscription_keys('kept') k), c_proves;
    -- what matters no more leaves
    update pubsub_data.kept_subscriptions k set kept_at = k.kept_at - interval '60 seconds';
    assert pg_temp.expired() = '{}', c_proves;
    assert (select count(*) = 1 from pubsub_data.kept_subscriptions k), c_proves;
    perform pubsub.delete_subscription('kept');
    assert pg_temp.expired() = '{}', c_proves;
    assert not exists (select from pubsub_data.kept_subscriptions), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a claim of one that does not expire writes nothing for it';
begin
    perform pg_temp.stock('everlasting', 1);
    perform pg_temp.claim('everlasting');
    assert not exists (select from pubsub_data.kept_subscriptions), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'who keeps subscriptions is told which there are';
    v_keys record;
begin
    perform pg_temp.stock('mine');
    perform pubsub.create_subscription('mine-too', 'mine', '{"expires_after_seconds": 10}');
    v_keys := pubsub.subscription_keys('mine-too');
    perform pg_temp.gone_for('mine-too', '9 seconds');

    assert array(select k.subscription_id from pubsub.keep_subscriptions('{none,mine,mine-too,mine}') k
        order by 1) = '{mine,mine-too}', c_proves;
    assert pubsub.is_kept(v_keys.topic_key, v_keys.subscription_key, 1), c_proves;
    assert not pubsub.is_kept(v_keys.topic_key, v_keys.subscription_key, 0), c_proves;

    assert pubsub.note_kept(v_keys.topic_key, v_keys.subscription_key, 10), c_proves;
    assert not pubsub.note_kept(v_keys.topic_key, 9876543, 10), c_proves;
    assert (select count(*) = 2 from pubsub_data.kept_subscriptions k), c_proves;
    assert pubsub.expiry_lock(2147483649) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a change of its time holds at once, and counts as being there; a purge does, too';
begin
    perform pg_temp.stock('changed', 1);
    perform pubsub.update_subscription('changed', '{"expires_after_seconds": 31536000}');
    perform pg_temp.gone_for('changed', '1 hour');
    assert pg_temp.expired() = '{}', c_proves;
    perform pubsub.update_subscription('changed', '{"expires_after_seconds": 10}');
    assert pg_temp.expired() = '{}', c_proves;
    perform pg_temp.gone_for('changed', '1 hour');
    perform pubsub.purge_subscription('changed');
    assert pg_temp.expired() = '{}', c_proves;
    perform pg_temp.gone_for('changed', '1 hour');
    perform pubsub.update_subscription('changed', '{"expires_after_seconds": null}');
    assert pg_temp.expired() = '{}', c_proves;
    assert (select g.expires_after_seconds is null from pubsub.get_subscription('changed') g), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the time is 10 seconds to a year, and shown';
begin
    perform pubsub.create_topic('ranges');
    assert (
        select bool_and(pg_temp.refusal(format('select pubsub.create_subscription(%L, %L, %L)', 'r',
                'ranges', json_build_object('expires_after_seconds', s.seconds)))
            = 'PS422(expires_after_seconds) expires_after_seconds must be 10 to 31536000')
        from unnest('{9,31536001,10.5}'::numeric[]) as s (seconds)
    ), c_proves;
    assert (select c.expires_after_seconds = 10
        from pubsub.create_subscription('r', 'ranges', '{"expires_after_seconds": 10}') c), c_proves;
    assert (select l.expires_after_seconds = 10
        from pubsub.list_subscriptions(p_topic_id => 'ranges') l), c_proves;
    assert pg_temp.refusal('select pubsub.expire_subscriptions(0)')
        = 'PS422(limit) limit must be 1 to 1000000', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'as many expire in a call as it may';
begin
    perform pubsub.create_topic('many');
    perform pubsub.create_subscription('m' || n, 'many', '{"expires_after_seconds": 10}')
    from generate_series(1, 3) n;
    perform pg_temp.gone_for('m' || n, '11 seconds') from generate_series(1, 3) n;

    assert (select count(*) = 2 from pubsub.expire_subscriptions(2)), c_proves;
    assert (select count(*) = 1 from pubsub.expire_subscriptions(2)), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'one that pushes does not expire until its endpoint is gone';
begin
    perform pubsub.create_topic('pushes');
    perform pubsub.create_subscription('pushes', 'pushes',
        '{"expires_after_seconds": 10, "push": {"endpoint": "http://localhost/hook"}}');
    perform pg_temp.gone_for('pushes', '1 hour');
    assert pg_temp.expired() = '{}', c_proves;
    perform pubsub.update_subscription('pushes', '{"paused": true}');
    perform pg_temp.gone_for('pushes', '1 hour');
    assert pg_temp.expired() = '{}', c_proves;
    update pubsub_data.push_endpoints e set paused_until = clock_timestamp() + interval '1 minute';
    assert pg_temp.expired() = '{}', c_proves;
    update pubsub_data.push_endpoints e set paused_until = 'infinity';
    assert pg_temp.expired() = '{pushes}', c_proves;
end
$$;
