/* Limits of what is in flight and handed out. */

/* limit_flow — a topic and a subscription with limits, and messages in it. */
create function pg_temp.limit_flow(
    p_name text, p_messages int, p_max_in_flight int default null,
    p_max_in_flight_per_consumer int default null, p_max_rate int default null
)
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name,
        json_build_object('max_in_flight', p_max_in_flight,
            'max_in_flight_per_consumer', p_max_in_flight_per_consumer, 'max_rate', p_max_rate));
    return pg_temp.publish(p_name, p_messages);
end
$$;

/* shares — what a call for several consumers hands to each: "consumer count". */
create function pg_temp.shares(p_subscription text, p_consumer_ids text[], p_wanted int[])
returns text[]
language sql volatile
as $$
    select coalesce(array_agg(s.consumer || ' ' || s.messages order by s.consumer), '{}')
    from (
        select c.consumer, count(*) as messages
        from pubsub.consume_messages_for(p_subscription, p_consumer_ids, p_wanted) c
        group by c.consumer
    ) s
$$;

/* next_allowance — next_allowance_at by id. */
create function pg_temp.next_allowance(p_subscription text, p_consumer_id text default null)
returns timestamptz
language sql volatile
as $$
    select pubsub.next_allowance_at(k.topic_key, k.subscription_key, p_consumer_id)
    from pubsub.subscription_keys(p_subscription) k
$$;

do $$
declare
    c_proves constant text := 'max_in_flight bounds what is leased; ack, nack and expiry free it';
    v_ids uuid[] := pg_temp.limit_flow('in-flight', 20, p_max_in_flight => 5);
begin
    assert pg_temp.claim('in-flight', 3) = v_ids[1:3], c_proves;
    assert pg_temp.claim('in-flight', 10) = v_ids[4:5], c_proves || ': what is left';
    assert pg_temp.claim('in-flight', 10) = '{}', c_proves || ': nothing is left';
    assert pg_temp.next_allowance('in-flight') between clock_timestamp() + interval '59 s'
        and clock_timestamp() + interval '61 s', c_proves || ': until a lease ends';

    perform pubsub.ack_messages('in-flight', v_ids[1:1]);
    assert pg_temp.next_allowance('in-flight') = '-infinity', c_proves;
    assert pg_temp.claim('in-flight', 10) = v_ids[6:6], c_proves || ': ack';
    perform pubsub.nack_messages('in-flight', v_ids[2:3]);
    assert pg_temp.claim('in-flight', 10) = v_ids[7:8], c_proves || ': nack';

    perform pg_temp.later('in-flight', '1 hour');
    assert pg_temp.next_allowance('in-flight') = '-infinity', c_proves;
    assert cardinality(pg_temp.claim('in-flight', 10)) = 5, c_proves || ': expiry';
    assert pg_temp.claim('in-flight', 10) = '{}', c_proves;
    assert pubsub.recount_messages('in-flight') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease counts until it has surely ended';
    v_ids uuid[] := pg_temp.limit_flow('ending-lease', 2, p_max_in_flight => 1);
    v_keys record := pubsub.subscription_keys('ending-lease');
begin
    perform pg_temp.claim('ending-lease');
    -- the counters say 0.1 s less than the lease lasts at most
    update pubsub_data.counters c set due_at = clock_timestamp() - interval '50 ms'
    where c.subscription_key = v_keys.subscription_key and c.leased <> 0;

    assert pubsub.claim_allowances(v_keys.topic_key, v_keys.subscription_key, '{c}', '{1}') = '{0}', c_proves;
    update pubsub_data.counters c set due_at = c.due_at - interval '100 ms'
    where c.subscription_key = v_keys.subscription_key and c.leased <> 0;
    assert pubsub.claim_allowances(v_keys.topic_key, v_keys.subscription_key, '{c}', '{1}') = '{1}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'max_in_flight_per_consumer bounds what each consumer holds';
    v_ids uuid[] := pg_temp.limit_flow('holding', 20, p_max_in_flight_per_consumer => 4);
begin
    -- one that is named twice has one share
    assert pg_temp.shares('holding', '{a,b,a,a}', '{3,2,3,3}') = '{1 3,2 2,3 1}', c_proves;
    assert pg_temp.shares('holding', '{a,b,c}', '{9,9,1}') = '{2 2,3 1}', c_proves;
    assert pg_temp.next_allowance('holding', 'a') > clock_timestamp(), c_proves;
    assert pg_temp.next_allowance('holding', 'c') = '-infinity', c_proves;
    assert pg_temp.next_allowance('holding') = '-infinity', c_proves || ': of any consumer';
    assert pg_temp.held_counts('holding') = '{a 4,b 4,c 1}', c_proves;

    perform pg_temp.later('holding', '1 hour');
    assert pg_temp.shares('holding', '{a}', '{9}') = '{1 4}', c_proves || ': expiry';
    -- the consumer is gone
    update pubsub_data.deliveries d set leased_at = d.leased_at - interval '1 minute'
    where d.message_id = any(v_ids);
    perform pubsub.cleanup_stuck_messages(30);
    assert pg_temp.held_counts('holding') is null, c_proves || ': released';
    assert pg_temp.shares('holding', '{a}', '{9}') = '{1 4}', c_proves || ': released';
    update pubsub_data.counters c set consumer_id = null
    where c.consumer_id = 'a';
    assert pubsub.recount_messages('holding') = 8, c_proves || ': recounted';
    assert pg_temp.held_counts('holding') = '{a 4}', c_proves || ': recounted';
    assert pubsub.recount_messages('holding') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'max_rate bounds what is handed out in any second';
    v_ids uuid[] := pg_temp.limit_flow('rate', 100, p_max_rate => 10);
    v_keys record := pubsub.subscription_keys('rate');
    v_next timestamptz;
begin
    assert pg_temp.claim('rate', 6) = v_ids[1:6], c_proves;
    update pubsub_data.handed_out h set handed_out_at = h.handed_out_at - interval '400 ms'
    where h.subscription_key = v_keys.subscription_key;
    -- acked or not
    perform pubsub.ack_messages('rate', v_ids[1:6]);
    assert pg_temp.claim('rate', 100) = v_ids[7:10], c_proves;
    assert pg_temp.claim('rate', 100) = '{}', c_proves;
    v_next := pg_temp.next_allowance('rate');
    assert v_next between clock_timestamp() + interval '200 ms'
        and clock_timestamp() + interval '600 ms', c_proves || ': when the first six are a second old';

    update pubsub_data.handed_out h set handed_out_at = h.handed_out_at - interval '600 ms'
    where h.subscription_key = v_keys.subscription_key;
    assert pg_temp.next_allowance('rate') = '-infinity', c_proves;
    assert pg_temp.claim('rate', 100) = v_ids[11:16], c_proves || ': six a second ago';
    -- redelivered ones count too
    perform pg_temp.later('rate', '1 hour');
    update pubsub_data.handed_out h set handed_out_at = h.handed_out_at - interval '1 second'
    where h.subscription_key = v_keys.subscription_key;
    assert pg_temp.claim('rate', 8) = v_ids[7:14], c_proves;
    assert cardinality(pg_temp.claim('rate', 8)) = 2, c_proves;
    -- a clock that was set back
    update pubsub_data.handed_out h set handed_out_at = clock_timestamp() + interval '1 hour'
    where h.subscription_key = v_keys.subscription_key;
    assert cardinality(pg_temp.claim('rate', 50)) = 10, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'limits apply together, to one consumer after the other';
    v_ids uuid[] := pg_temp.limit_flow('together', 100, 7, 4, 6);
begin
    assert pg_temp.shares('together', '{a,b,c}', '{10,1,10}') = '{1 4,2 1,3 1}', c_proves;
    update pubsub_data.handed_out h set handed_out_at = h.handed_out_at - interval '1 second';
    assert pg_temp.shares('together', '{a,b,c}', '{10,1,10}') = '{2 1}', c_proves;
    assert pg_temp.shares('together', '{d}', '{10}') = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'without a limit nothing is noted, and a claim is always allowed';
    v_keys record;
begin
    perform pg_temp.stock('unlimited', 10);
    v_keys := pubsub.subscription_keys('unlimited');
    perform pg_temp.claim('unlimited');

    assert pg_temp.next_allowance('unlimited', 'consumer') = '-infinity', c_proves;
    assert not pubsub.counts_by_consumer(v_keys.topic_key, v_keys.subscription_key), c_proves;
    assert pubsub.counts_by_consumer(v_keys.topic_key, -1) is null, c_proves;
    assert pg_temp.held_counts('unlimited') = '{10}', c_proves;
    assert not exists (
        select from pubsub_data.handed_out h where h.subscription_key = v_keys.subscription_key
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'claims within limits hand out in order, to who may have something';
    v_ids uuid[] := pg_temp.limit_flow('same', 6, 5);
begin
    assert array(
        select c.consumer || ' ' || (c.payload ->> 'n') || ' ' || c.attempts
        from pubsub.consume_messages_for('same', '{a,b,c}', '{2,2,2}') c
    ) = '{1 1 1,1 2 1,2 3 1,2 4 1,3 5 1}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what was handed out seconds ago is forgotten, a batch a call';
    v_keys record := pubsub.subscription_keys('rate');
begin
    delete from pubsub_data.handed_out;
    insert into pubsub_data.handed_out (topic_key, subscription_key, handed_out_at, messages)
    select v_keys.topic_key, v_keys.subscription_key, clock_timestamp() - n * interval '1 second', 1
    from generate_series(0, 10) n;

    assert pubsub.cleanup_handed_out(4) = 4, c_proves;
    assert pubsub.cleanup_handed_out(4) = 2, c_proves;
    assert pubsub.cleanup_handed_out(4) = 0, c_proves;
    assert (select count(*) from pubsub_data.handed_out) = 5, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'however a lease ends, what it took is free again';
    v_limit text;
    v_way text;
    v_name text;
    v_held record;
begin
    foreach v_limit in array array['all', 'consumer'] loop
        foreach v_way in array array['ack', 'nack', 'reject', 'release', 'stuck', 'lost'] loop
            v_name := format('end-%s-%s', v_limit, v_way);
            perform pg_temp.limit_flow(v_name, 6,
                case v_limit when 'all' then 3 end, case v_limit when 'consumer' then 3 end);
            select array_agg(c.message_id) as ids, array_agg(c.lease) as leases into v_held
            from pubsub.consume_messages(v_name, 'consumer', 5) c;
            assert cardinality(v_held.ids) = 3, c_proves;
            if v_way in ('ack', 'nack', 'reject') then
                -- extended before it ends
                perform count(*) from pubsub.settle_messages(v_name, v_held.ids, v_held.leases,
                    '{extend,extend,extend}', '{300,300,300}');
                assert pg_temp.claim(v_name) = '{}', c_proves || ': extended';
                perform count(*) from pubsub.settle_messages(v_name, v_held.ids, v_held.leases,
                    array[v_way, v_way, v_way]);
            elsif v_way = 'release' then
                perform pubsub.release_messages(v_name, v_held.ids, v_held.leases);
            else
                update pubsub_data.deliveries d set leased_at = d.leased_at - interval '1 hour',
                    attempts = case v_way when 'lost' then 5 else 1 end
                where d.message_id = any(v_held.ids);
                perform pubsub.cleanup_stuck_messages(60);
            end if;

            assert cardinality(pg_temp.claim(v_name)) = 3, format('%s: %s', c_proves, v_name);
            assert pg_temp.claim(v_name) = '{}', format('%s: %s', c_proves, v_name);
            assert pubsub.recount_messages(v_name) = 0, format('%s: %s', c_proves, v_name);
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'claims fold what they read now and then, and count the same';
    v_ids uuid[] := pg_temp.limit_flow('folding', 30, 20);
    v_keys record := pubsub.subscription_keys('folding');
    v_before text[];
begin
    for v_claim in 1 .. 10 loop
        perform pg_temp.claim('folding', 2);
        perform pubsub.ack_messages('folding', v_ids[v_claim:v_claim]);
    end loop;
    v_before := pg_temp.held_counts('folding');

    assert pubsub.fold_held(v_keys.topic_key, v_keys.subscription_key) > 10, c_proves;
    assert pg_temp.held_counts('folding') = v_before, c_proves;
    assert pubsub.fold_held(v_keys.topic_key, v_keys.subscription_key) <= 0, c_proves;
    assert pubsub.recount_messages('folding') = 0, c_proves;
    -- a hundred rows, in a subscription with room for many more: sooner or later
    update pubsub_data.subscriptions s set max_in_flight = 100000
    where s.subscription_id = 'folding';
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, consumer_id, leased)
    select v_keys.topic_key, v_keys.subscription_key, clock_timestamp() + interval '1 hour',
        'consumer', 0
    from generate_series(1, 200);
    for v_claim in 1 .. 1500 loop
        perform pubsub.claim_allowances(v_keys.topic_key, v_keys.subscription_key, '{c}', '{1}');
        exit when (
            select count(*) < 100 from pubsub_data.counters c
            where c.subscription_key = v_keys.subscription_key
        );
    end loop;
    -- by chance not once in 10^13
    assert (
        select count(*) < 100 from pubsub_data.counters c
        where c.subscription_key = v_keys.subscription_key
    ), c_proves || ': by itself';
    assert pg_temp.held_counts('folding') = v_before, c_proves;
end
$$;
