/* Answers that are bounded in bytes. */

/* stock_large — a subscription of a mode with messages of p_bytes each; their ids. */
create function pg_temp.stock_large(p_name text, p_mode text, p_messages int, p_bytes int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[];
begin
    perform pg_temp.stock(p_name);
    update pubsub_data.subscriptions s
    set enable_ordering = p_mode = 'ordered', has_priorities = p_mode = 'priorities',
        fairness_key = case p_mode when 'fair' then 'tenant' end,
        max_in_flight = case p_mode when 'limited' then 500 end
    where s.subscription_id = p_name;
    select array_agg(p.message_id order by p.message_id) into v_ids
    from pubsub.publish_messages(p_name,
        array_fill(jsonb_build_object('t', repeat('x', p_bytes - 9)), array[p_messages]),
        p_attributes => array_fill('{"tenant": "a"}'::jsonb, array[p_messages]),
        p_ordering_keys => array_fill('k'::text, array[p_messages]),
        p_priorities => case p_mode when 'priorities'
            then array_fill(5::smallint, array[p_messages]) end) p;
    return v_ids;
end
$$;

do $$
declare
    c_proves constant text :=
        'an answer is bounded in bytes, and what does not fit is not leased but the next claim''s';
    v_mode text;
    v_name text;
    v_ids uuid[];
    v_got record;
begin
    foreach v_mode in array array['plain', 'priorities', 'ordered', 'fair', 'limited'] loop
        v_name := 'large.' || v_mode;
        v_ids := pg_temp.stock_large(v_name, v_mode, 7, 100000);
        for v_claim in 1 .. 3 loop
            select array_agg(c.message_id) as ids, min(c.attempts) as least, max(c.attempts) as most
            into v_got
            from pubsub.consume_messages(v_name, 'consumer', 100, p_max_bytes => 350000) c;

            assert v_got.ids = v_ids[3 * v_claim - 2 : 3 * v_claim], format('%s: %s, claim %s: %s of %s',
                c_proves, v_name, v_claim, v_got.ids, v_ids);
            assert v_got.least = 1 and v_got.most = 1, c_proves || ': attempts';
            assert (
                select count(*) = cardinality(v_ids) - least(7, 3 * v_claim)
                    and bool_and(d.attempts = 0 and d.consumer_id is null) is not false
                from pubsub_data.deliveries d
                where d.message_id = any(v_ids) and d.lease is null
            ), c_proves || ': unleased';
            assert pg_temp.counts(v_name) = format('%s available, %s delivered, 0 scheduled, 0 acked, 0 dlq',
                7 - least(7, 3 * v_claim), least(7, 3 * v_claim)), c_proves || ': counts';
            if v_mode = 'ordered' then
                -- the key is held until then
                assert pg_temp.claim(v_name) = '{}', c_proves || ': in order';
                perform pubsub.ack_messages(v_name, v_got.ids);
                v_ids := v_ids[4:];
                select array_agg(c.message_id) as ids into v_got
                from pubsub.consume_messages(v_name, 'consumer', 100, p_max_bytes => 350000) c;
                assert v_got.ids = v_ids[:3], format('%s: %s', c_proves, v_name);
                exit;
            end if;
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'one message is returned whatever its size, and small ones are never cut';
    v_ids uuid[] := pg_temp.stock_large('one', 'plain', 2, 100000);
    v_small uuid[] := pg_temp.stock_large('small', 'plain', 1000, 20);
begin
    assert (
        select array_agg(c.message_id) = v_ids[:1]
        from pubsub.consume_messages('one', 'consumer', 10, p_max_bytes => 1) c
    ), c_proves;
    assert (
        select count(*) = 1000
        from pubsub.consume_messages('small', 'consumer', 1000, p_max_bytes => 8388608) c
    ), c_proves;
    assert (
        select bool_and(cardinality(f.places) = 1 and f.bytes > 100000 and f.is_cut)
        from (
            select array_agg(d.ctid order by d.message_id) as places
            from pubsub_data.deliveries d
            where d.message_id = any(v_ids)
        ) d
        cross join pubsub.leave_out(
            pubsub.claim_terms_of('one', null, 60), d.places, 1, 1, null) f
    ), c_proves || ': leave_out';
    assert pg_temp.refusal(
        $sql$ select pubsub.consume_messages('one', 'c', 10, p_max_bytes => 0) $sql$
    ) = 'PS422(max_bytes) max_bytes must be at least 1', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'several consumers share the bound, and who was not served is told';
    v_mode text;
    v_name text;
    v_ids uuid[];
    v_got record;
begin
    foreach v_mode in array array['plain', 'priorities', 'fair', 'limited'] loop
        v_name := 'shared.' || v_mode;
        v_ids := pg_temp.stock_large(v_name, v_mode, 7, 100000);

        select array_agg(c.consumer) as consumers, array_agg(c.message_id) as ids,
            bool_or(c.is_cut) as is_cut
        into v_got
        from pubsub.consume_messages_for(v_name, array['a', 'b', 'c'], array[2, 2, 2],
            p_max_bytes => 350000) c;
        assert v_got.consumers = array[1, 1, 2] and v_got.ids = v_ids[:3] and v_got.is_cut,
            format('%s: %s %s', c_proves, v_name, v_got);

        select array_agg(c.consumer) as consumers, array_agg(c.message_id) as ids,
            bool_or(c.is_cut) as is_cut
        into v_got
        from pubsub.consume_messages_for(v_name, array['a', 'b', 'c'], array[2, 2, 2],
            p_max_bytes => 3500000) c;
        assert v_got.consumers = array[1, 1, 2, 2] and v_got.ids = v_ids[4:] and not v_got.is_cut,
            format('%s: %s %s', c_proves, v_name, v_got);
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'where not all has room, higher priorities go first, and the oldest has its turn';
    v_priorities int[];
    v_high int := 0;
begin
    perform pg_temp.stock('cut');
    perform pubsub.publish_messages('cut',
        array(select jsonb_build_object('t', repeat('x', 10000)) from generate_series(1, 200)),
        p_priorities => array(
            select case when n <= 100 then 0 else 9 end::smallint from generate_series(1, 200) n));
    for v_claim in 1 .. 20 loop
        select array_agg(c.priority::int) into v_priorities
        from pubsub.consume_messages('cut', 'c', 100, 600, p_max_bytes => 56000) c;
        assert v_priorities = '{9,9,9,9,0}', format('%s: claim %s %s', c_proves, v_claim, v_priorities);
    end loop;
    assert (select m.available from pubsub.subscription_metrics('cut') m) = 100, c_proves;
    assert cardinality(pg_temp.claim('cut')) = 100, c_proves || ': none is lost';
end
$$;

do $$
declare
    c_proves constant text := 'the bound holds for all consumers of a call together';
    v_mode text;
    v_got record;
begin
    foreach v_mode in array array['ordered', 'fair'] loop
        perform pg_temp.stock_large('together.' || v_mode, v_mode, 3, 7000);
        update pubsub_data.messages m set ordering_key = m.message_id::text
        from pubsub.subscription_keys('together.' || v_mode) k
        where m.topic_key = k.topic_key;
        update pubsub_data.deliveries d set lane = d.message_id::text
        from pubsub.subscription_keys('together.' || v_mode) k
        where d.topic_key = k.topic_key and v_mode = 'ordered';

        select count(*) as messages, bool_and(c.is_cut) as is_cut into v_got
        from pubsub.consume_messages_for('together.' || v_mode, '{a,b,c}', '{1,1,1}',
            p_max_bytes => 20000) c;
        assert v_got.messages = 2, format('%s: %s %s', c_proves, v_mode, v_got);
        assert cardinality(pg_temp.claim('together.' || v_mode)) = 1, c_proves || ': the rest';
    end loop;
end
$$;
