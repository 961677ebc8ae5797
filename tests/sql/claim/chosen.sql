/* What claims choose of runs and single messages, within bounds of bytes. */

/* stock_mixed — a subscription with runs; calls of so many messages of so many bytes; their ids. */
create function pg_temp.stock_mixed(p_name text, p_messages int[], p_bytes int[])
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[] := '{}';
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name);
    perform pg_temp.run_in_hundreds(p_name);
    for v_call in 1 .. cardinality(p_messages) loop
        v_ids := v_ids || array(select p.message_id from pubsub.publish_messages(p_name, array_fill(
            jsonb_build_object('x', repeat('x', p_bytes[v_call])), p_messages[v_call : v_call])) p);
    end loop;
    return v_ids;
end
$$;

do $$
declare
    c_proves constant text :=
        'an answer within a bound has single messages and runs in their order, whatever comes later';
    v_ids uuid[] := pg_temp.stock_mixed('order', '{1,1,1,10,2,8}', '{10,10,10,10,10,10}');
    v_got uuid[];
    v_claimed uuid[] := '{}';
begin
    for v_claim in 1 .. 4 loop
        select array_agg(c.message_id) into v_got
        from pubsub.consume_messages_for('order', '{a}', '{100}', p_max_bytes => 43000) c;
        exit when v_got is null;
        v_claimed := v_claimed || v_got;
    end loop;
    assert v_claimed = v_ids, c_proves;
    assert pubsub.recount_messages('order') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a large message is not passed over for runs that come after it';
    v_ids uuid[] := pg_temp.stock_mixed('large', '{1}', '{51000}');
begin
    perform pg_temp.publish('large', 20);
    assert (
        select count(*) > 1 and bool_or(c.message_id = v_ids[1])
        from pubsub.consume_messages_for('large', '{a}', '{100}', p_max_bytes => 100000) c
    ), c_proves;
    -- nor one that comes back
    perform pubsub.nack_messages('large', v_ids);
    perform pg_temp.later('large', '1 hour');
    perform pg_temp.publish('large', 20);
    assert (
        select bool_or(c.message_id = v_ids[1])
        from pubsub.consume_messages_for('large', '{a}', '{100}', p_max_bytes => 100000) c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the bytes of runs count with those of single messages';
    v_ids uuid[] := pg_temp.stock_mixed('bytes', '{1}', '{10}');
begin
    -- from here on the session is up to date
    perform pg_temp.claim('bytes', 100);
    v_ids := array(select p.message_id from pubsub.publish_messages('bytes',
        array_fill(jsonb_build_object('x', repeat('x', 80000)), array[10])) p);
    for v_call in 1 .. 60 loop
        v_ids := v_ids || pg_temp.publish('bytes', 4);
    end loop;
    assert (
        select sum(octet_length(c.payload::text)) < 1000000 and count(*) between 11 and 249
            and bool_and(c.is_cut) and array_agg(c.message_id) = v_ids[: count(*)::int]
        from pubsub.consume_messages_for('bytes', '{a}', '{250}', p_max_bytes => 1000000) c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'of single messages and runs the first consumer gets the oldest';
    v_size int;
    v_name text;
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_chosen pubsub.chosen;
begin
    foreach v_size in array array[3, 13, 16] loop
        v_name := 'shared-' || v_size;
        v_ids := pg_temp.stock_mixed(v_name, '{1,1,1,20}', '{1,1,1,1}');
        assert (
            select array_agg(c.message_id order by c.message_id) = v_ids[: 10 + least(13, v_size)]
                and array_agg(c.consumer order by c.message_id)
                = array_fill(1, array[10]) || array_fill(2, array[least(13, v_size)])
            from pubsub.consume_messages_for(v_name, '{a,b}', array[10, v_size]) c
        ), c_proves || v_size;
    end loop;

    v_ids := pg_temp.stock_mixed('dealt', '{1,1,1,1}', '{1,1,1,1}');
    v_claim := pubsub.claim_terms_of('dealt', null, 60);
    v_chosen := pubsub.nothing_chosen('{1,0,5}');
    assert v_chosen.sizes = '{1,0,5}' and v_chosen.places = '{}' and not v_chosen.is_cut, c_proves;
    v_chosen.places := array(select d.ctid from pubsub_data.deliveries d
        where d.message_id = any(v_ids) order by d.message_id);
    v_chosen := pubsub.deal_out(v_claim, null, null, v_chosen);
    assert v_chosen.singles = '{1,0,3}' and v_chosen.sizes = '{0,0,2}' and v_chosen.dealt_out = 4
        and v_chosen.bytes = 0, c_proves;
end
$$;
