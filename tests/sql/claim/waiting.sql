/* Which subscriptions have something to hand out, for those who wait. wait_for_commit, which ends
   transactions, is tested over a connection of its own: pubsub.wait_for_commit. */

do $$
declare
    c_proves constant text := 'a subscription is ready when a message can be claimed, and only then';
    v_ids uuid[] := pg_temp.stock('ready', 0);
    v_look record;
begin
    select * into strict v_look from pubsub.ready_subscriptions('{ready}', '{null}', '{null}');
    assert not v_look.is_ready and v_look.topic_id = 'ready' and v_look.due_at is null and v_look.newest is null
        and v_look.due_in_seconds is null and not v_look.frees and not v_look.by_consumer,
        c_proves || ': empty';

    v_ids := pg_temp.publish('ready', 2);
    select * into strict v_look from pubsub.ready_subscriptions('{ready}', '{null}', '{null}');
    assert v_look.is_ready and v_look.newest = v_ids[2], c_proves || ': published';

    perform pubsub.consume_messages('ready', 'consumer', 10, 30);
    select * into strict v_look from pubsub.ready_subscriptions('{ready}', '{null}', '{null}');
    assert not v_look.is_ready and v_look.due_in_seconds between 29 and 30, c_proves || ': leased';

    perform pubsub.nack_messages('ready', v_ids[1:1]);
    select * into strict v_look from pubsub.ready_subscriptions('{ready}', '{null}', '{null}');
    assert not v_look.is_ready and v_look.due_in_seconds between 4 and 5, c_proves || ': nacked';

    perform pg_temp.later('ready', '6 seconds');
    select * into strict v_look from pubsub.ready_subscriptions('{ready}', '{null}', '{null}');
    assert v_look.is_ready, c_proves || ': the backoff has ended';
end
$$;

do $$
declare
    c_proves constant text := 'what was seen is not looked at again, unless it came back';
    v_ids uuid[] := pg_temp.stock('seen', 3);
    v_old uuid[];
begin
    -- a minute ago
    v_old := array(
        select pubsub.id_at(clock_timestamp() - interval '1 minute' + n * interval '1 second')
        from generate_series(1, 3) n
    );
    update pubsub_data.deliveries d
    set message_id = v_old[array_position(v_ids, d.message_id)]
    where d.message_id = any(v_ids);

    assert not (
        select r.is_ready from pubsub.ready_subscriptions('{seen}', v_old[3:3], '{0}') r
    ), c_proves;
    assert (
        select r.is_ready from pubsub.ready_subscriptions('{seen}', v_old[2:2], '{0}') r
    ), c_proves || ': above';
    assert not (
        select r.is_ready from pubsub.ready_subscriptions('{seen}', '{null}', '{0}') r
    ), c_proves || ': whoever asks first has just claimed';

    update pubsub_data.subscriptions s set rewinds = 1, rewound_to = v_old[1]
    where s.subscription_id = 'seen';
    assert (
        select r.is_ready and r.rewinds = 1
        from pubsub.ready_subscriptions('{seen}', v_old[3:3], '{0}') r
    ), c_proves || ': rewound';
end
$$;

do $$
declare
    c_proves constant text := 'the next look goes back to the start of whoever may still commit';
    v_ids uuid[] := pg_temp.stock('late', 1);
    v_next uuid;
begin
    perform pg_temp.claim('late');
    v_next := (
        select r.next_after from pubsub.ready_subscriptions('{late}', '{null}', '{0}') r
        where not r.is_ready
    );

    -- this very transaction writes
    assert v_next <= pubsub.id_at(now()) and v_next < v_ids[1], c_proves;
    assert v_next >= pubsub.id_at(least(
        clock_timestamp() - interval '3 seconds',
        (select min(a.xact_start) from pg_stat_activity a where a.backend_xid is not null)
    )), c_proves || ': and not further';
end
$$;

do $$
declare
    c_proves constant text := 'an unknown subscription is ready, so that who waits for it is told';
begin
    assert (
        select count(*) = 1 and bool_and(r.is_ready and r.topic_id is null and not r.frees)
        from pubsub.ready_subscriptions('{none}', '{null}', '{null}') r
    ), c_proves;
    assert not exists (select from pubsub.ready_subscriptions('{}', '{}', '{}')), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions whose acks make room say so';
begin
    perform pubsub.create_topic('room');
    perform pubsub.create_subscription('ordered', 'room', '{"enable_ordering": true}');
    perform pubsub.create_subscription('bounded', 'room', '{"max_in_flight": 5}');
    perform pubsub.create_subscription('each', 'room', '{"max_in_flight_per_consumer": 5}');

    assert array(
        select r.subscription_id || ' ' || r.frees || ' ' || r.by_consumer
        from pubsub.ready_subscriptions(
            '{bounded,each,ordered}', '{null,null,null}', '{0,0,0}') r
        order by 1
    ) = array['bounded true false', 'each true true', 'ordered true false'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what a limit forbids now is not ready, and due when the limit ends';
    v_look record;
begin
    perform pubsub.create_topic('held-back');
    perform pubsub.create_subscription('held-back', 'held-back', '{"max_in_flight": 1}');
    perform pg_temp.publish('held-back', 2);

    select r.* into v_look from pubsub.ready_subscriptions(array['held-back'], null, null) r;
    assert v_look.is_ready, c_proves || ': room';
    perform pubsub.consume_messages('held-back', 'consumer', 1);

    select r.* into v_look from pubsub.ready_subscriptions(array['held-back'], null, null) r;
    assert not v_look.is_ready, c_proves || ': full';
    assert v_look.due_in_seconds between 55 and 61, c_proves || ': ' || v_look.due_in_seconds;
end
$$;

do $$
declare
    c_proves constant text := 'what was seen before the clock was set back hides nothing new';
begin
    perform pg_temp.stock('stepped', 1);

    assert (
        select r.is_ready from pubsub.ready_subscriptions('{stepped}',
            array[pubsub.id_at(clock_timestamp() + interval '1 hour')], '{0}') r
    ), c_proves;
end
$$;
