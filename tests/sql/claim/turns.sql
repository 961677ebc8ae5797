/* Claims of several consumers, one after the other. */

do $$
declare
    c_proves constant text := 'a key goes to one consumer only, and the next one has what is left';
    v_keys record;
    v_ids uuid[];
    v_consumers int[];
    v_claimed uuid[];
begin
    perform pg_temp.stock('turns');
    update pubsub_data.subscriptions s set enable_ordering = true where s.subscription_id = 'turns';
    v_keys := pubsub.subscription_keys('turns');
    v_ids := pg_temp.publish_in_lanes('turns', '{a,a,a,b,b}');

    select array_agg(c.consumer), array_agg(c.message_id) into v_consumers, v_claimed
    from pubsub.claim_in_turn(v_keys.topic_key, v_keys.subscription_key,
        '00000000-0000-0000-0000-000000000000', '{x,y}', '{2,2}', 60, 5, null, 'ordered', 0, null) c;

    assert v_consumers = array[1, 1, 2, 2]
        and v_claimed = array[v_ids[1], v_ids[2], v_ids[4], v_ids[5]],
        format('%s: %s %s of %s', c_proves, v_consumers, v_claimed, v_ids);
end
$$;
