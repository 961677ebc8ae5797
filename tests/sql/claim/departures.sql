/* Deliveries that leave, and what waited behind them. */

do $$
declare
    c_proves constant text := 'wake_next: the first of each key above the lowest that is gone';
    v_ids uuid[];
    v_keys record;
    v_gone text;
begin
    perform pg_temp.stock('next');
    v_keys := pubsub.subscription_keys('next');
    v_ids := pg_temp.publish_in_lanes('next', array['a', 'b', 'a', 'a', null, 'b', 'c', 'a']);
    delete from pubsub_data.deliveries d where d.message_id in (v_ids[2], v_ids[3], v_ids[7]);

    foreach v_gone in array array['unordered', 'ordered'] loop
        perform pubsub.wake_next(v_keys.topic_key, v_keys.subscription_key,
            array[v_ids[8], v_ids[3], v_ids[2], v_ids[5], v_ids[7]], array['a', 'a', 'b', null, 'c']);
        assert array(
            select w.message_ids[i] from pubsub_data.wakeups w
            cross join generate_subscripts(w.message_ids, 1) i
            where w.subscription_key = v_keys.subscription_key and w.due_at <= clock_timestamp()
            order by 1
        ) = case v_gone when 'ordered' then array[v_ids[4], v_ids[6]] else '{}' end,
            c_proves || ': ' || v_gone;
        update pubsub_data.subscriptions s set enable_ordering = true
        where s.subscription_id = 'next';
    end loop;
    perform pubsub.wake_next(v_keys.topic_key, v_keys.subscription_key, v_ids[7:7], array['c']);
    -- it has a wake-up of its own
    update pubsub_data.deliveries d set visible_at = clock_timestamp() + interval '1 s'
    where d.message_id = v_ids[4];
    perform pubsub.wake_next(v_keys.topic_key, v_keys.subscription_key, v_ids[3:3], array['a']);
    assert not exists (
        select from pubsub_data.wakeups w
        where w.subscription_key = v_keys.subscription_key
            and w.message_ids is distinct from array[v_ids[4], v_ids[6]]
            and w.message_ids is distinct from array[v_ids[6], v_ids[4]]
    ), c_proves || ': no wake-up for nothing';
end
$$;
