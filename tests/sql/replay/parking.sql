/* Parked messages: listing them, and letting their keys go on. */

/* parked — the first of p_messages of one ordering key is parked. */
create function pg_temp.parked(p_name text, p_messages int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[];
    v_keys record;
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name,
        '{"max_delivery_attempts": 1, "enable_ordering": true, "ordering_failure": "park"}');
    v_keys := pubsub.subscription_keys(p_name);
    v_ids := pg_temp.publish(p_name, p_messages);
    update pubsub_data.messages m set ordering_key = 'key' where m.message_id = any(v_ids);
    update pubsub_data.deliveries d set lane = 'key' where d.message_id = any(v_ids);
    perform pg_temp.claim(p_name, 1);
    perform pubsub.dead_letter_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), 'attempts', array['broken']);
    return v_ids;
end
$$;

/* is_woken — whether a claim will look at a message now. */
create function pg_temp.is_woken(p_subscription text, p_id uuid)
returns boolean
language sql volatile
as $$
    select exists (
        select from pubsub.subscription_keys(p_subscription) k
        join pubsub_data.wakeups w
            on w.topic_key = k.topic_key and w.subscription_key = k.subscription_key
        where w.due_at <= clock_timestamp() and p_id = any(w.message_ids)
    )
$$;

do $$
declare
    c_proves constant text := 'a parked message is listed with what it died of and holds up';
    v_ids uuid[] := pg_temp.parked('listed', 3);
    v_parked record;
begin
    select p.* into strict v_parked from pubsub.list_parked_messages('listed') p;

    assert v_parked.message_id = v_ids[1] and v_parked.payload = '{"n": 1}'
        and v_parked.ordering_key = 'key' and v_parked.attempts = 1
        and v_parked.consumer_id = 'consumer' and v_parked.last_error = 'broken'
        and v_parked.parked_at between v_parked.published_at and clock_timestamp()
        and v_parked.behind = 2, c_proves || ': ' || v_parked;
    assert not exists (select from pubsub.list_parked_messages('listed', 1)), c_proves;
    assert not exists (select from pubsub.list_parked_messages('listed', 0, 0)), c_proves;
    assert (
        select m.state = 'parked' and m.due_at is null
        from pubsub.subscription_messages m where m.message_id = v_ids[1]
    ), c_proves;
    assert (
        select (m.parked, m.scheduled, m.available, m.delivered) = (1, 0, 2, 0)
        from pubsub.subscription_metrics('listed') m
    ), c_proves || ': counted as such';
    assert (
        select (s.parked, s.scheduled, s.backlog) = (1, 0, 3)
        from pubsub.subscriptions s where s.subscription_id = 'listed'
    ), c_proves || ': in the view';
end
$$;

do $$
declare
    c_proves constant text := 'a parked message that is retried has its attempts before it again';
    v_ids uuid[] := pg_temp.parked('retry', 2);
begin
    assert pubsub.resume_messages('retry', v_ids, 'retry') = 1, c_proves;

    assert (
        select m.parked = 0 and m.scheduled = 0 and m.available = 2
        from pubsub.subscription_metrics('retry') m
    ), c_proves;
    assert (
        select c.message_id = v_ids[1] and c.attempts = 1
        from pubsub.consume_messages('retry', 'consumer', 1) c
    ), c_proves;
    assert pubsub.resume_messages('retry', v_ids, 'retry') = 0, c_proves;
    assert pubsub.recount_messages('retry') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a parked message can be made a dead letter, and its key goes on';
    v_ids uuid[] := pg_temp.parked('buried', 2);
begin
    assert pubsub.resume_messages('buried', v_ids, 'dead_letter') = 1, c_proves;

    assert (
        select l.message_id = v_ids[1] and l.reason = 'attempts' and l.last_error = 'broken'
            and l.ordering_key = 'key' and jsonb_array_length(l.deliveries) = 1
        from pubsub.list_dlq_messages('buried') l
    ), c_proves;
    assert pg_temp.is_woken('buried', v_ids[2]), c_proves;
    assert pubsub.recount_messages('buried') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a parked message can be skipped, and its key goes on';
    v_ids uuid[] := pg_temp.parked('skipped', 2);
begin
    assert pubsub.resume_messages('skipped', v_ids, 'skip') = 1, c_proves;

    assert array(
        select f.outcome from pubsub_data.failures f
        where f.message_id = v_ids[1] order by f.ended_at
    ) = array['parked', 'skipped'], c_proves;
    assert pg_temp.is_woken('skipped', v_ids[2]), c_proves;
    assert (
        select m.available = 1 and m.parked = 0 and m.scheduled = 0 and m.dlq = 0
        from pubsub.subscription_metrics('skipped') m
    ), c_proves;
    assert pubsub.recount_messages('skipped') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'only parked messages are acted on, once each, whatever ids are given';
    v_ids uuid[] := pg_temp.stock('not-parked', 3);
    v_parked uuid[] := pg_temp.parked('twice', 1);
begin
    perform pg_temp.claim('not-parked', 1);

    assert pubsub.resume_messages('not-parked', v_ids || v_parked, 'skip') = 0, c_proves;
    assert pubsub.resume_messages('not-parked', '{}', 'skip') = 0, c_proves;
    assert pubsub.resume_messages('not-parked', null, 'skip') = 0, c_proves;
    assert pubsub.resume_messages('twice', v_parked || v_parked, 'skip') = 1, c_proves;
    assert pubsub.recount_messages('not-parked') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown action is PS422, an unknown subscription PS404';
begin
    perform pg_temp.stock('actions');
    assert pg_temp.refusal($q$select pubsub.resume_messages('actions', '{}', 'ack')$q$)
        = 'PS422(action) action must be retry, dead_letter or skip', c_proves;
    assert pg_temp.refusal($q$select pubsub.resume_messages('actions', '{}', null)$q$)
        = 'PS422(action) action must be retry, dead_letter or skip', c_proves;
    assert pg_temp.refusal($q$select pubsub.resume_messages('none', '{}', 'skip')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.list_parked_messages('none')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'parked messages are counted through folds, recounts and seeks';
    v_ids uuid[] := pg_temp.parked('counted', 2);
    v_deliver_at constant timestamptz := clock_timestamp() + interval '1 hour';
begin
    perform pubsub.publish_messages('counted', array['{}']::jsonb[],
        p_deliver_at => array[v_deliver_at]);
    perform pubsub.fold_counters(0);
    assert (
        select (m.parked, m.scheduled, m.available) = (1, 1, 1)
        from pubsub.subscription_metrics('counted') m
    ), c_proves || ': folded';
    delete from pubsub_data.counters c
    using pubsub.subscription_keys('counted') k where c.subscription_key = k.subscription_key;
    assert pubsub.recount_messages('counted') > 0, c_proves;
    assert (
        select (m.parked, m.scheduled, m.available) = (1, 1, 1)
        from pubsub.subscription_metrics('counted') m
    ), c_proves || ': recounted';
    perform pubsub.seek_subscription_to_end('counted');
    perform pubsub.advance_jobs();
    assert pubsub.recount_messages('counted') = 0, c_proves || ': after a seek';
    assert (select m.parked from pubsub.subscription_metrics('counted') m) = 0, c_proves;
end
$$;
