/* Counts of a subscription by state. */

do $$
declare
    c_proves constant text := 'every state is counted exactly';
    v_ids uuid[] := pg_temp.stock('counts', 20, 2);
    v_counts record;
begin
    perform pg_temp.claim('counts', 1);
    -- its ack deadline passes
    perform pg_temp.later('counts', '1 hour');
    perform pg_temp.reconnect('counts');
    assert pg_temp.claim('counts', 12) = v_ids[1:12], c_proves;
    perform pubsub.ack_messages('counts', v_ids[1:5]);
    perform pubsub.nack_messages('counts', v_ids[6:7]);
    update pubsub_data.deliveries d set attempts = 2 where d.message_id = any(v_ids[8:11]);
    perform pubsub.nack_messages('counts', v_ids[8:11]);
    perform pubsub.extend_messages('counts', v_ids[12:12], array(
        select d.lease from pubsub_data.deliveries d where d.message_id = v_ids[12]), 900);
    perform pg_temp.later('counts', '200 seconds');
    -- those nacked are due again
    perform pg_temp.claim('counts', 2);
    perform pubsub.nack_messages('counts', v_ids[6:6]);
    perform pubsub.publish_messages('counts', array['{}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);

    select * into v_counts from pubsub.subscription_metrics('counts');

    assert v_counts.subscription_id = 'counts', c_proves;
    assert v_counts.available = 8, c_proves || ': ' || v_counts;
    assert v_counts.delivered = 2, c_proves || ': ' || v_counts;
    assert v_counts.scheduled = 1, c_proves || ': ' || v_counts;
    assert v_counts.acked = 5, c_proves || ': ' || v_counts;
    assert v_counts.dlq = 5, c_proves || ': ' || v_counts;
    assert pubsub.recount_messages('counts') = 0, c_proves || ': as recounted';
end
$$;

do $$
declare
    c_proves constant text := 'a lease that ended counts as available, and as dead once it is moved';
begin
    perform pg_temp.stock('spent', 1, 1);
    perform pg_temp.claim('spent');
    perform pg_temp.later('spent', '1 hour');

    assert (
        select m.delivered = 0 and m.available = 1 and m.dlq = 0
        from pubsub.subscription_metrics('spent') m
    ), c_proves;
    perform pubsub.cleanup_stuck_messages(null);
    assert (
        select m.delivered = 0 and m.available = 0 and m.dlq = 1
        from pubsub.subscription_metrics('spent') m
    ), c_proves;
    perform pubsub.reprocess_dlq_messages('spent', array(
        select l.message_id from pubsub.list_dlq_messages('spent') l));
    assert (
        select m.delivered = 0 and m.available = 1 and m.dlq = 0
        from pubsub.subscription_metrics('spent') m
    ), c_proves || ': reprocessed';
    perform pg_temp.claim('spent');
    perform pubsub.cleanup_stuck_messages(0);
    assert (
        select m.delivered = 0 and m.available = 0 and m.dlq = 1
        from pubsub.subscription_metrics('spent') m
    ), c_proves || ': stuck';
    assert pubsub.recount_messages('spent') = 0, c_proves || ': as recounted';
end
$$;

do $$
declare
    c_proves constant text := 'a subscription without messages has zeros, an unknown one is PS404';
begin
    perform pg_temp.stock('empty');

    assert (select m::text from pubsub.subscription_metrics('empty') m) = '(empty,0,0,0,0,0,0,0)',
        c_proves;
    assert pg_temp.refusal($q$select pubsub.subscription_metrics('none')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'subscriptions of one topic are counted apart';
begin
    perform pg_temp.stock('apart');
    perform pubsub.create_subscription('apart-2', 'apart');
    perform pg_temp.publish('apart', 3);
    perform pubsub.ack_messages('apart', pg_temp.claim('apart', 1));

    assert (select m::text from pubsub.subscription_metrics('apart') m) = '(apart,2,0,0,1,0,0,0)',
        c_proves;
    assert (select m::text from pubsub.subscription_metrics('apart-2') m) = '(apart-2,3,0,0,0,0,0,0)',
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the list has the same counts, of the first subscriptions by id';
begin
    assert (
        select array_agg(l::text order by l.subscription_id collate "C")
            = array_agg(m::text order by l.subscription_id collate "C")
            and count(*) = (select count(*) from pubsub_data.subscriptions)
        from pubsub.list_subscription_metrics() l
        cross join lateral pubsub.subscription_metrics(l.subscription_id) m
    ), c_proves;
    assert array(
        select l.subscription_id from pubsub.list_subscription_metrics(2) l
    ) = array['apart', 'apart-2'], c_proves;
end
$$;
