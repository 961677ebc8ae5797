/* Claims of what was never delivered, or not to the consumer. */

/* get — consume as somebody; the messages by their places in p_ids, in the order of handing out. */
create function pg_temp.get(
    p_subscription text, p_ids uuid[], p_consumer text, p_only text, p_batch_size int default 1000
)
returns text
language sql volatile
as $$
    select coalesce(string_agg(array_position(p_ids, c.message_id)::text, ' ' order by c.position), '')
    from pubsub.consume_messages(p_subscription, p_consumer, p_batch_size, p_only => p_only)
        with ordinality as c (message_id, payload, attributes, ordering_key, priority, published_at,
            attempts, lease, ack_deadline, position)
$$;

/* give_back — nack without delay. */
create function pg_temp.give_back(p_subscription text, p_ids uuid[])
returns bigint
language sql volatile
as $$
    select count(*)
    from pubsub.settle_messages(p_subscription,
        array(select d.message_id from pubsub_data.deliveries d
            where d.message_id = any(p_ids) and d.lease is not null order by d.message_id),
        array(select d.lease from pubsub_data.deliveries d
            where d.message_id = any(p_ids) and d.lease is not null order by d.message_id),
        (select array_agg('nack'::text) from pubsub_data.deliveries d
            where d.message_id = any(p_ids) and d.lease is not null),
        (select array_agg(0) from pubsub_data.deliveries d
            where d.message_id = any(p_ids) and d.lease is not null)) s
    where s.status = 'nacked'
$$;

do $$
declare
    c_proves constant text := 'new is what was never delivered, unseen what was not delivered to the consumer';
    v_ids uuid[] := pg_temp.stock('unseen', 4);
begin
    assert pg_temp.get('unseen', v_ids, 'ann', 'unseen', 2) = '1 2', c_proves;
    assert pg_temp.give_back('unseen', v_ids) = 2, c_proves;

    assert pg_temp.get('unseen', v_ids, 'ann', 'unseen', 1) = '3', c_proves;
    assert pg_temp.get('unseen', v_ids, 'bob', 'new') = '4', c_proves;
    assert pg_temp.give_back('unseen', v_ids) = 2, c_proves;
    assert pg_temp.get('unseen', v_ids, 'bob', 'new') = '', c_proves;
    assert pg_temp.get('unseen', v_ids, 'ann', 'unseen') = '4', c_proves;
    assert pg_temp.get('unseen', v_ids, 'bob', 'unseen') = '1 2 3', c_proves;
    assert pg_temp.give_back('unseen', v_ids) = 4, c_proves;
    assert pg_temp.get('unseen', v_ids, 'ann', 'unseen') = ''
        and pg_temp.get('unseen', v_ids, 'bob', 'unseen') = '', c_proves || ': both have seen all';
    assert pg_temp.get('unseen', v_ids, 'bob', null) <> '', c_proves || ': others get all';
    assert pg_temp.counts('unseen') = '0 available, 4 delivered, 0 scheduled, 0 acked, 0 dlq', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease that ran out was a delivery, one that nobody saw was none';
    v_ids uuid[] := pg_temp.stock('ran-out', 3);
    v_released bigint;
begin
    perform pg_temp.get('ran-out', v_ids, 'ann', null, 2);
    select pubsub.release_messages('ran-out', array_agg(c.message_id), array_agg(c.lease))
    into v_released
    from pubsub.consume_messages('ran-out', 'ann', 1) c;
    perform pg_temp.later('ran-out', '1 hour');

    assert pg_temp.get('ran-out', v_ids, 'ann', 'unseen') = '3', c_proves;
    assert pg_temp.get('ran-out', v_ids, 'bob', 'unseen', 1) = '1', c_proves;
    assert array(
        select format('%s %s %s', f.consumer_id, f.attempt, f.outcome)
        from pubsub_data.failures f where f.message_id = v_ids[1]
    ) = array['ann 1 consumer_lost'], c_proves || ': it is noted';
    perform pg_temp.later('ran-out', '1 hour');
    assert pg_temp.get('ran-out', v_ids, 'ann', 'unseen') = '', c_proves;
    assert pg_temp.get('ran-out', v_ids, 'cem', 'unseen') = '1 2 3', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'runs are singled out, also those whose lease ran out';
    v_ids uuid[] := pg_temp.stock_runs('unseen-runs', 300);
begin
    assert pg_temp.get('unseen-runs', v_ids, 'ann', null, 100) <> '', c_proves;
    assert pg_temp.runs('unseen-runs') = '100 ann, 100 ready, 100 ready', c_proves;

    assert pg_temp.get('unseen-runs', v_ids, 'bob', 'unseen', 3) = '101 102 103', c_proves;
    assert pg_temp.runs('unseen-runs') = '100 ann, 100 ready', c_proves;
    perform pg_temp.later('unseen-runs', '1 hour');
    assert pg_temp.get('unseen-runs', v_ids, 'cem', 'new', 2) = '104 105', c_proves;
    assert pg_temp.get('unseen-runs', v_ids, 'ann', 'unseen', 2) = '101 102', c_proves;
    assert pg_temp.runs('unseen-runs') = '100 ready', c_proves;
    assert pg_temp.get('unseen-runs', v_ids, 'bob', 'unseen', 2) = '1 2', c_proves;
    assert cardinality(string_to_array(
        pg_temp.get('unseen-runs', v_ids, 'cem', 'unseen'), ' ')) = 294, c_proves;
    assert pg_temp.run_size('unseen-runs') = 1, c_proves || ': and no longer made';
    assert pubsub.recount_messages('unseen-runs') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message that came back with no attempts spent begins anew';
    v_ids uuid[] := pg_temp.stock('anew', 1, 1);
    v_seen text[];
begin
    assert pg_temp.get('anew', v_ids, 'ann', 'new') = '1', c_proves;
    perform pubsub.nack_messages('anew', v_ids);
    perform pubsub.reprocess_dlq_messages('anew', v_ids);
    perform pubsub.update_subscription('anew', '{"max_delivery_attempts": 9}');
    assert pg_temp.get('anew', v_ids, 'bob', 'new') = '1', c_proves;
    assert pg_temp.give_back('anew', v_ids) = 1, c_proves;
    select array_agg(c.consumer order by c.consumer) into v_seen
    from unnest(array['ann', 'bob', 'cem']) as c (consumer)
    cross join pubsub_data.deliveries d
    where d.message_id = v_ids[1]
        and pubsub.has_seen(d.topic_key, d.subscription_key, d.message_id, d.attempts,
            d.consumer_id, c.consumer);
    assert v_seen = array['bob'], format('%s: %s', c_proves, v_seen);
    assert pg_temp.get('anew', v_ids, 'ann', 'unseen') = '1', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is spent or expired ends, a bite a claim, and hides nothing';
    v_ids uuid[] := pg_temp.stock('ends', 5, 1);
begin
    update pubsub_data.deliveries d
    set expires_at = clock_timestamp() - interval '1 s'
    where d.message_id = v_ids[3];
    perform pg_temp.get('ends', v_ids, 'ann', null, 2);
    perform pg_temp.later('ends', '1 hour');

    assert pg_temp.get('ends', v_ids, 'bob', 'unseen', 2) = '4 5', c_proves;
    assert (
        select m.dlq = 2 and m.available = 1 from pubsub.subscription_metrics('ends') m
    ), c_proves;
    assert pg_temp.get('ends', v_ids, 'bob', 'new', 2) = '', c_proves;
    assert not exists (
        select from pubsub_data.deliveries d where d.message_id = any(v_ids[:3])
    ), c_proves;
    assert pubsub.recount_messages('ends') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'higher priorities come first, and about one of ten is the oldest';
    v_ids uuid[];
    v_oldest int := 0;
begin
    perform pg_temp.stock('unseen-urgent');
    v_ids := array(select p.message_id from pubsub.publish_messages('unseen-urgent',
        array['1', '2', '3', '4']::jsonb[], p_priorities => array[0, 3, 9, 3]::smallint[]) p);

    assert pg_temp.get('unseen-urgent', v_ids, 'ann', 'unseen') = '3 2 4 1', c_proves;
    assert pg_temp.give_back('unseen-urgent', v_ids) = 4, c_proves;
    assert pg_temp.get('unseen-urgent', v_ids, 'ann', 'unseen') = '', c_proves;
    for v_round in 1 .. 100 loop
        case pg_temp.get('unseen-urgent', v_ids, 'c' || v_round, 'unseen', 1)
            when '3' then null;
            when '1' then v_oldest := v_oldest + 1;
        end case;
        perform pg_temp.give_back('unseen-urgent', v_ids);
        update pubsub_data.deliveries d set attempts = 1 where d.message_id = any(v_ids);
    end loop;
    assert v_oldest between 1 and 40, format('%s: %s', c_proves, v_oldest);
end
$$;

do $$
declare
    c_proves constant text := 'limits hold, and an answer has no more bytes than it may';
    v_ids uuid[] := pg_temp.stock('unseen-limits', 6);
    v_got text;
begin
    perform pubsub.update_subscription('unseen-limits', '{"max_in_flight_per_consumer": 2}');
    select string_agg(c.consumer || ':' || array_position(v_ids, c.message_id), ' ') into v_got
    from pubsub.consume_messages_for('unseen-limits', array['a', 'b', 'a'], array[3, 1, 2],
        p_only => 'new') c;
    assert v_got = '1:1 1:2 2:3', format('%s: %s', c_proves, v_got);
    assert pg_temp.held_counts('unseen-limits') = array['a 2', 'b 1'], c_proves;

    select string_agg(c.consumer || ':' || array_position(v_ids, c.message_id) || c.is_cut, ' ')
    into v_got
    from pubsub.consume_messages_for('unseen-limits', array['c', 'd'], array[2, 2],
        p_max_bytes => 1, p_only => 'new') c;
    assert v_got = '1:4true', format('%s: %s', c_proves, v_got);
    assert pg_temp.get('unseen-limits', v_ids, 'd', 'new') = '5 6', c_proves || ': the rest stays';
end
$$;

do $$
declare
    c_proves constant text := 'it is refused where nothing may be passed over, and other words are';
begin
    perform pubsub.create_topic('refused');
    perform pubsub.create_subscription('in-order', 'refused', '{"enable_ordering": true}');
    perform pubsub.create_subscription('shared', 'refused', '{"fairness_key": "tenant"}');
    assert pg_temp.refusal($q$select pubsub.consume_messages('in-order', 'c', p_only => 'new')$q$)
        like 'PS422(only) only cannot be used with enable_ordering: %', c_proves;
    assert pg_temp.refusal($q$select pubsub.consume_messages('shared', 'c', p_only => 'unseen')$q$)
        like 'PS422(only) only cannot be used with fairness_key: %', c_proves;
    assert pg_temp.refusal($q$select pubsub.consume_messages('shared', 'c', p_only => 'old')$q$)
        = 'PS422(only) only must be new or unseen', c_proves;
    assert pg_temp.refusal($q$select pubsub.consume_messages('no', 'c', p_only => 'new')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.consume_messages('shared', null, p_only => 'new')$q$)
        = 'PS422(consumer_id) consumer_id is required', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'wake-ups do not pile up where all claims pass over something, and none is lost';
    v_ids uuid[] := pg_temp.stock('folded', 40);
    v_claim pubsub.claim_terms;
begin
    for v_n in 1 .. 40 loop
        perform pg_temp.get('folded', v_ids, 'ann', 'new', 1);
    end loop;
    perform pubsub.ack_messages('folded', v_ids[:20]);
    perform pg_temp.later('folded', '1 hour');
    for v_n in 1 .. 3 loop
        v_claim := pubsub.claim_terms_of('folded', null, 60);
        perform pubsub.fold_wakeups(v_claim);
    end loop;
    assert array(
        select cardinality(w.message_ids) from pubsub_data.wakeups w
        where w.subscription_key = v_claim.subscription_key
    ) = array[20], c_proves;
    assert pg_temp.claim('folded') = v_ids[21:], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the parts of a claim find what is unseen in the order of ids';
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    v_ids uuid[] := pg_temp.stock('unseen-parts', 5);
    v_claim pubsub.claim_terms := pubsub.claim_terms_of('unseen-parts', null, 60);
    v_places tid[];
begin
    v_places := pubsub.choose_unseen(v_claim, 'new', 'me', 2, '{}');
    assert pg_temp.ids_at(v_places) = v_ids[:2], c_proves;
    assert pg_temp.ids_at(pubsub.choose_unseen(v_claim, 'unseen', 'me', 2, v_places)) = v_ids[3:4],
        c_proves;
    assert pg_temp.ids_at((pubsub.take_unseen(
        v_claim, 'new', 'me', v_ids[3], v_ids[5], 9, '{}', true)).places) = v_ids[3:4], c_proves;
    update pubsub_data.deliveries d
    set lane = case when d.message_id = v_ids[4] then '7' else '2' end
    where d.message_id = any(v_ids[3:]);
    assert pg_temp.ids_at(pubsub.take_urgent_unseen(v_claim, 'new', 'me', 2, '{}'))
        = array[v_ids[4], v_ids[3]], c_proves;
    assert (pubsub.lease_unseen(v_claim, 'new', 'me', 2, null, 1)).message_ids = v_ids[:2], c_proves;
    assert (pubsub.claim_unseen(pubsub.claim_terms_of('unseen-parts', null, 60), array['me'], array[1],
        null, 'new'))
        .message_ids = v_ids[3:3], c_proves;
end
$$;
