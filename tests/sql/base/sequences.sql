/* Sequences that a move by logical replication has left behind. Over HTTP: tests/http/robustness. */

do $$
declare
    c_proves constant text := 'a key that is taken, or that old rows have, is refused with what to do';
    c_refusal constant text := 'PS503 The sequences of this database are behind its tables, as after a '
        'move by logical replication: call "select pubsub.reset_sequences()" in it';
    v_keys record;
begin
    assert not exists (select from pubsub.reset_sequences()), c_proves || ': none is behind';
    perform pg_temp.stock('taken', 3);
    v_keys := pubsub.subscription_keys('taken');
    assert not exists (select from pubsub.reset_sequences()), c_proves || ': nor after they were used';

    perform setval('pubsub_data.topics_topic_key_seq', v_keys.topic_key, false);
    perform setval('pubsub_data.subscriptions_subscription_key_seq', v_keys.subscription_key, false);
    assert pg_temp.refusal($q$select pubsub.create_topic('new')$q$) = c_refusal, c_proves;
    perform setval('pubsub_data.topics_topic_key_seq', v_keys.topic_key);
    perform pubsub.create_topic('other');
    assert pg_temp.refusal($q$select pubsub.create_subscription('new', 'other')$q$) = c_refusal,
        c_proves || ': the key of a subscription of another topic';
    assert pg_temp.refusal('select pubsub.fail_sequences()') = c_refusal, c_proves;

    -- of what is deleted there are rows yet
    perform pubsub.delete_topic('other');
    perform pubsub.delete_topic('taken');
    assert pg_temp.refusal(format('select pubsub.check_topic_key(%s)', v_keys.topic_key)) = c_refusal,
        c_proves;
    assert pg_temp.refusal(format('select pubsub.check_subscription_key(%s, %s)', v_keys.topic_key,
        v_keys.subscription_key)) = c_refusal, c_proves;
    perform setval('pubsub_data.topics_topic_key_seq', v_keys.topic_key, false);
    assert pg_temp.refusal($q$select pubsub.create_topic('new')$q$) = c_refusal, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'sequences go on after the highest number that was used';
    v_ids uuid[] := pg_temp.stock('moved', 3);
    v_keys record := pubsub.subscription_keys('moved');
begin
    perform pubsub.publish_messages('moved', array['{}'::jsonb],
        p_deliver_at => array[clock_timestamp() + interval '1 hour']);
    perform setval('pubsub_data.topics_topic_key_seq', 1, false);
    perform setval('pubsub_data.subscriptions_subscription_key_seq', 1, false);
    perform setval('pubsub_data.wakeup_numbers', 1, false);
    perform setval('pubsub_data.message_numbers', -9223372036854775808, false);

    assert (
        select array_agg(r.sequence_name order by r.sequence_name) = array['message_numbers',
            'subscriptions_subscription_key_seq', 'topics_topic_key_seq', 'wakeup_numbers']
        from pubsub.reset_sequences() r
    ), c_proves;
    assert not exists (select from pubsub.reset_sequences()), c_proves || ': once';
    -- the highest number may be one below 0
    perform pubsub.create_topic('indexed', p_index_ordering_keys => true);
    perform setval('pubsub_data.topics_topic_key_seq', v_keys.topic_key);
    assert pg_temp.refusal($q$select pubsub.create_topic('again', p_index_ordering_keys => true)$q$)
        like 'PS503 %', c_proves;
    perform setval('pubsub_data.topics_topic_key_seq', v_keys.topic_key);
    assert (select r.last_used > v_keys.topic_key from pubsub.reset_sequences() r), c_proves;
    perform pg_temp.stock('after');
    assert (
        select k.topic_key > v_keys.topic_key and k.subscription_key > v_keys.subscription_key
        from pubsub.subscription_keys('after') k
    ), c_proves;
    assert (select right(i.id::text, 12) from unnest(pg_temp.publish('after')) as i (id))
        > right(v_ids[3]::text, 12), c_proves;
end
$$;
