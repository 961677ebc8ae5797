/* What claims are told of messages that came back. */

do $$
declare
    c_proves constant text :=
        'claims are told of what came back, and from where: below every rewind that may be missed';
    v_ids uuid[];
    v_keys record;
    v_rewinds int[] := '{}';
    v_places uuid[] := '{}';
    v_subscription record;
begin
    perform pg_temp.stock('rewinds');
    v_ids := pg_temp.publish_apart('rewinds', 4);
    v_keys := pubsub.subscription_keys('rewinds');
    perform pubsub.ack_messages('rewinds', pg_temp.claim('rewinds'));
    assert (select s.rewinds = 0 and s.rewound_to is null from pubsub_data.subscriptions s
        where s.subscription_id = 'rewinds'), c_proves || ': none yet';

    for v_step in 1 .. 5 loop
        -- the third finds nothing to bring back
        perform pubsub.redeliver_messages(v_keys.topic_key, v_keys.subscription_key,
            (array[v_ids[3:3], v_ids[2:2], v_ids[2:2], v_ids[4:4], v_ids[4:4]])[v_step:v_step]);
        select s.rewinds, s.rewound_to into v_subscription
        from pubsub_data.subscriptions s where s.subscription_id = 'rewinds';
        v_rewinds := v_rewinds || v_subscription.rewinds;
        v_places := v_places || v_subscription.rewound_to;
        if v_step = 4 then
            -- the others are settled: nothing below the fourth is there to be found
            delete from pubsub_data.deliveries d
            where d.subscription_key = v_keys.subscription_key;
        end if;
    end loop;

    assert v_rewinds = array[1, 2, 2, 3, 4], format('%s: %s', c_proves, v_rewinds);
    assert v_places[1] > v_ids[2] and v_places[1] < v_ids[3], c_proves;
    assert v_places[2] > v_ids[1] and v_places[2] < v_ids[2], c_proves;
    assert v_places[4] = v_places[2], c_proves || ': the second may have been missed';
    assert v_places[5] > v_ids[3] and v_places[5] < v_ids[4], c_proves || ': rises again';
    perform pubsub.rewind_subscription(v_keys.topic_key, v_keys.subscription_key, v_ids[1]);
    assert (select s.rewound_to < v_ids[1] from pubsub_data.subscriptions s
        where s.subscription_id = 'rewinds'), c_proves;
end
$$;
