/* The timeline of a message. */

/* tale — the events of a message in a subscription, "state: event consumer reason, ...". */
create function pg_temp.tale(p_message_id uuid, p_subscription text)
returns text
language sql volatile
as $$
    select min(t.state) || ': ' || string_agg(
        concat_ws(' ', t.event, t.attempt, t.consumer_id, t.reason), ', ' order by t.n)
    from pubsub.message_timeline(p_message_id) with ordinality t (
        topic_id, published_at, subscription_id, state, at, event, attempt, consumer_id, reason, n)
    where t.subscription_id = p_subscription
$$;

do $$
declare
    c_proves constant text := 'a timeline tells each state that a live message can have';
    v_ids uuid[] := pg_temp.stock('live', 5);
    v_now timestamptz := clock_timestamp();
begin
    perform pg_temp.claim('live', 2);
    perform pubsub.nack_messages('live', v_ids[2:2]);
    update pubsub_data.deliveries d set expires_at = v_now where d.message_id = v_ids[3];
    update pubsub_data.deliveries d set visible_at = 'infinity' where d.message_id = v_ids[4];

    assert pg_temp.tale(v_ids[1], 'live') = 'delivered: published, delivered 1 consumer', c_proves;
    assert pg_temp.tale(v_ids[2], 'live') like 'scheduled: published%', c_proves;
    assert pg_temp.tale(v_ids[3], 'live') = 'expired: published', c_proves;
    assert pg_temp.tale(v_ids[4], 'live') = 'parked: published', c_proves;
    assert pg_temp.tale(v_ids[5], 'live') = 'available: published', c_proves;
    assert (
        select bool_and(t.topic_id = 'live' and t.at = m.published_at
            and t.published_at = m.published_at)
        from pubsub.message_timeline(v_ids[5]) t
        join pubsub_data.messages m on m.message_id = v_ids[5]
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a timeline tells every delivery, its consumer and how it ended, in order';
    v_ids uuid[] := pg_temp.stock('tale', 1, 2);
    v_keys record := pubsub.subscription_keys('tale');
begin
    perform pubsub.consume_messages('tale', 'first', 1);
    perform pg_temp.later('tale', '1 hour');
    perform pubsub.cleanup_stuck_messages(null);
    perform pubsub.consume_messages('tale', 'second', 1);
    perform pubsub.dead_letter_deliveries(v_keys.topic_key, v_keys.subscription_key, array(
        select d.ctid from pubsub_data.deliveries d where d.message_id = v_ids[1]
    ), 'rejected', array['no such order']);

    assert pg_temp.tale(v_ids[1], 'tale') = 'dlq: published, delivered 1 first, '
        'consumer_lost 1 first, delivered 2 second, rejected 2 second no such order, '
        'dead_lettered 2 rejected', pg_temp.tale(v_ids[1], 'tale');

    -- failures leave by age; the dead letter remembers them
    delete from pubsub_data.failures f where f.message_id = v_ids[1];
    assert pg_temp.tale(v_ids[1], 'tale') = 'dlq: published, delivered 1 first, '
        'consumer_lost 1 first, delivered 2 second, rejected 2 second no such order, '
        'dead_lettered 2 rejected', c_proves || ': from the dead letter';

    perform pubsub.reprocess_matching_dlq_messages('tale');
    perform pubsub.consume_messages('tale', 'third', 1);
    perform pubsub.ack_messages('tale', v_ids);
    assert pg_temp.tale(v_ids[1], 'tale') like 'acked: published, %acked 1 third', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an ack is told with the time of its delivery';
    v_ids uuid[] := pg_temp.stock('acked-tale', 2);
    v_delivered_at constant timestamptz := clock_timestamp();
begin
    perform pg_temp.claim('acked-tale');
    perform pubsub.ack_messages('acked-tale', v_ids);
    update pubsub_data.acked a set delivered_at = v_delivered_at where v_ids[1] = any(a.message_ids);

    assert pg_temp.tale(v_ids[1], 'acked-tale')
        = 'acked: published, delivered 1 consumer, acked 1 consumer', c_proves;
    assert (
        select t.at from pubsub.message_timeline(v_ids[2]) t where t.event = 'delivered'
    ) = v_delivered_at, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'message_events tells of its own subscription only';
    v_ids uuid[] := pg_temp.stock('events', 1);
    v_keys record;
begin
    perform pubsub.create_subscription('events-2', 'events');
    perform pg_temp.claim('events');
    v_keys := pubsub.subscription_keys('events');
    assert (
        select count(*) = 1 and bool_and(e.event = 'delivered' and e.consumer_id = 'consumer')
        from pubsub.message_events(v_keys.topic_key, v_keys.subscription_key, v_ids[1]) e
    ), c_proves;
    v_keys := pubsub.subscription_keys('events-2');
    assert not exists (
        select from pubsub.message_events(v_keys.topic_key, v_keys.subscription_key, v_ids[1])
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a subscription that did not get the message says why';
    v_id uuid;
begin
    perform pg_temp.stock('why');
    perform pubsub.create_subscription('why-filter', 'why',
        '{"filter": {"total": [{"numeric": [">", 100]}], "customer": {"country": ["DE"]}, "n": [1]}}');
    perform pubsub.create_subscription('why-attributes', 'why',
        '{"filter": {"attributes": {"region": ["eu"]}}}');
    select p.message_id into v_id from pubsub.publish_messages('why',
        array['{"total": 50, "customer": {"country": "BR"}, "n": 1}'::jsonb]) p;
    perform pubsub.create_subscription('why-late', 'why');

    assert pg_temp.tale(v_id, 'why') = 'available: published', c_proves;
    assert pg_temp.tale(v_id, 'why-filter') = 'not_matched: not_matched '
        'does not match the filter: customer, customer.country, total', pg_temp.tale(v_id, 'why-filter');
    assert pg_temp.tale(v_id, 'why-attributes') = 'not_matched: not_matched '
        'does not match the filter: attributes, attributes.region',
        pg_temp.tale(v_id, 'why-attributes');
    assert pg_temp.tale(v_id, 'why-late') = 'not_matched: not_matched '
        'the subscription was created after the message was published', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is gone without a trace is settled; what was skipped or expired says so';
    v_ids uuid[] := pg_temp.stock('gone-tale', 3);
    v_keys record := pubsub.subscription_keys('gone-tale');
begin
    delete from pubsub_data.deliveries d where d.message_id = any(v_ids);
    insert into pubsub_data.failures (
        topic_key, subscription_key, message_id, attempt, ended_at, outcome
    )
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[2], 1, clock_timestamp(), 'skipped'),
        (v_keys.topic_key, v_keys.subscription_key, v_ids[3], 0, clock_timestamp(), 'expired');

    assert pg_temp.tale(v_ids[1], 'gone-tale') = 'settled: published', c_proves;
    assert pg_temp.tale(v_ids[2], 'gone-tale') = 'skipped: published, skipped 1', c_proves;
    assert pg_temp.tale(v_ids[3], 'gone-tale') = 'expired: published, expired 0', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message is found by its id as long as anything holds it';
    v_ids uuid[] := pg_temp.stock('found', 3, 1);
    v_keys record := pubsub.subscription_keys('found');
begin
    perform pg_temp.claim('found', 2);
    perform pubsub.nack_messages('found', v_ids[1:1]);
    assert (
        select f.topic_key = v_keys.topic_key and f.payload = '{"n": 1}' and f.published_at is not null
        from pubsub.find_message(v_ids[1]) f
    ), c_proves;

    delete from pubsub_data.messages m where m.message_id = any(v_ids);
    assert (
        select f.topic_key = v_keys.topic_key and f.payload = '{"n": 1}'
        from pubsub.find_message(v_ids[1]) f
    ), c_proves || ': dead letter';
    assert pg_temp.tale(v_ids[1], 'found') like 'dlq: published, %', c_proves || ': dead letter';
    insert into pubsub_data.failures (
        topic_key, subscription_key, message_id, attempt, ended_at, outcome
    )
    values (v_keys.topic_key, v_keys.subscription_key, v_ids[2], 1, clock_timestamp(), 'nacked');
    assert (select f.topic_key from pubsub.find_message(v_ids[2]) f) = v_keys.topic_key,
        c_proves || ': failure';
    assert pg_temp.tale(v_ids[2], 'found') like 'delivered: published, %', c_proves;
    assert (select f.topic_key is null from pubsub.find_message(v_ids[3]) f), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a topic without subscriptions has a message, too; an unknown one is PS404';
    v_id uuid;
begin
    perform pubsub.create_topic('lonely');
    v_id := (pg_temp.publish('lonely', 1))[1];

    assert (
        select count(*) = 1 and bool_and(t.topic_id = 'lonely' and t.subscription_id is null)
        from pubsub.message_timeline(v_id) t
    ), c_proves;
    assert pg_temp.refusal(format('select pubsub.message_timeline(%L)', gen_random_uuid()))
        = 'PS404 Message not found', c_proves;
    assert pg_temp.refusal('select pubsub.message_timeline(null)') = 'PS404 Message not found',
        c_proves;
    perform pubsub.delete_topic('lonely');
    assert pg_temp.refusal(format('select pubsub.message_timeline(%L)', v_id))
        = 'PS404 Message not found', c_proves || ': deleted topic';
end
$$;

do $$
declare
    c_proves constant text := 'a delayed message tells until when, whatever the session''s time zone';
    v_id uuid;
begin
    perform pg_temp.stock('delayed');
    select p.message_id into v_id
    from pubsub.publish_messages('delayed', array['{}'::jsonb],
        p_deliver_at => array[date_trunc('day', clock_timestamp() at time zone 'UTC')
            at time zone 'UTC' + interval '1 day']) p;
    perform set_config('timezone', 'Asia/Shanghai', true);
    assert pg_temp.tale(v_id, 'delayed') = 'scheduled: published not before ' ||
        to_char(clock_timestamp() at time zone 'UTC' + interval '1 day', 'YYYY-MM-DD')
        || 'T00:00:00.000000Z', c_proves || ': ' || pg_temp.tale(v_id, 'delayed');
    perform set_config('timezone', 'UTC', true);
end
$$;

do $$
declare
    c_proves constant text := 'what was said of an ack is told, as of a nack';
    v_ids uuid[] := pg_temp.stock('said', 2);
    v_leases bigint[];
begin
    v_leases := array(select c.lease from pubsub.consume_messages('said', 'push', 2) c);
    perform pubsub.settle_messages('said', v_ids, v_leases, array['ack', 'nack'], array[null, 0],
        array['HTTP 200 in 12 ms', 'HTTP 500 in 7 ms']);

    assert pg_temp.tale(v_ids[1], 'said')
        = 'acked: published, delivered 1 push, acked 1 push HTTP 200 in 12 ms', c_proves;
    assert pg_temp.tale(v_ids[2], 'said')
        = 'available: published, delivered 1 push, nacked 1 push HTTP 500 in 7 ms', c_proves;
end
$$;
