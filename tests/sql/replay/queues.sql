/* Queues: a topic and a subscription of one id, perhaps with a dead-letter queue. */

do $$
declare
    c_proves constant text := 'a queue is a topic and a subscription of one id, and is created once';
begin
    assert pubsub.create_queue('one', '{"max_delivery_attempts": 3, "filter": {"a": [1]}}'), c_proves;
    assert not pubsub.create_queue('one', '{"max_delivery_attempts": 4}'), c_proves;

    assert (
        select (g.topic_id, g.max_delivery_attempts, g.filter::text) = ('one', 3, '{"a": [1]}')
        from pubsub.get_subscription('one') g
    ), c_proves || ': one that is there keeps its settings';
end
$$;

do $$
declare
    c_proves constant text := 'the dead-letter queue that is named is there, and gets what is spent';
    v_id uuid;
begin
    assert pubsub.create_queue('spends', '{"max_delivery_attempts": 1, "filter": {"n": [1]}}', 'spent'), c_proves;
    v_id := (pg_temp.publish('spends'))[1];
    perform pg_temp.claim('spends');
    perform pubsub.nack_messages('spends', array[v_id]);

    assert (
        select (g.dead_letter_topic_id, g.filter::text) = ('spent', '{"n": [1]}')
        from pubsub.get_subscription('spends') g
    ), c_proves;
    assert (
        select (g.topic_id, g.max_delivery_attempts) = ('spent', 2147483647)
        from pubsub.get_subscription('spent') g
    ), c_proves || ': with unlimited attempts';
    assert (
        select array_agg(b.payload) = array['{"n": 1}'::jsonb] from pubsub.browse_messages('spent') b
    ), c_proves;
    assert not pubsub.create_queue('spent'), c_proves || ': it is a queue';
end
$$;

do $$
declare
    c_proves constant text := 'a dead-letter queue that was deleted is made again, and attached again';
begin
    perform pubsub.create_queue('again', '{}', 'again-dead');
    perform pubsub.delete_queue('again-dead');
    assert not pubsub.create_queue('again', '{}', 'again-dead'), c_proves;

    assert (
        select g.dead_letter_topic_id = 'again-dead' from pubsub.get_subscription('again') g
    ), c_proves;
    perform pubsub.delete_subscription('again-dead');
    assert not pubsub.create_queue('again', '{}', 'again-dead'), c_proves;
    assert exists (select from pubsub.get_subscription('again-dead')), c_proves;
    assert not pubsub.create_queue('again', '{}', 'another'), c_proves;
    assert (
        select g.dead_letter_topic_id = 'again-dead' from pubsub.get_subscription('again') g
    ), c_proves || ': one that is attached stays';
end
$$;

do $$
declare
    c_proves constant text := 'what is there already becomes part of a queue, unless it is of another topic';
begin
    perform pubsub.create_topic('half');
    assert pubsub.create_queue('half'), c_proves;

    perform pubsub.create_topic('elsewhere');
    perform pubsub.create_subscription('taken', 'elsewhere');
    assert pg_temp.refusal($r$select pubsub.create_queue('taken')$r$)
        = 'PS409 This subscription already exists', c_proves;
    assert not exists (select from pubsub_data.topics t where t.topic_id = 'taken'), c_proves;

    perform pubsub.ensure_topic('half');
    assert not pubsub.ensure_queue('half', '{}'), c_proves || ': to make sure of it changes nothing';
end
$$;

do $$
declare
    c_proves constant text := 'a queue that cannot be is refused, and nothing is left of it';
    v_case record;
begin
    for v_case in
        select * from (values
            ($r$select pubsub.create_queue('a b')$r$,
                'PS422(id) queue id must be 1 to 600 characters without space or control characters'),
            ($r$select pubsub.create_queue('new', '{}', '')$r$,
                'PS422(id) dead-letter queue id must be 1 to 600 characters without space or control '
                'characters'),
            ($r$select pubsub.create_queue('new', '{}', 'new')$r$,
                'PS422(dead_letter_queue_id) dead_letter_queue_id must be the id of another queue'),
            ($r$select pubsub.create_queue('new', '{"dead_letter_topic_id": "x"}', 'y')$r$,
                'PS422(dead_letter_queue_id) dead_letter_queue_id and dead_letter_topic_id cannot go '
                'together'),
            ($r$select pubsub.create_queue('new', '{"max_delivery_attempts": 0}', 'dead')$r$,
                'PS422(max_delivery_attempts) max_delivery_attempts must be 1 to 2147483647'),
            ($r$select pubsub.create_queue('one', '{"colour": 1}')$r$,
                'PS422(colour) "colour" is not a setting'),
            ($r$select pubsub.delete_queue('nowhere')$r$, 'PS404 Queue not found'),
            ($r$select pubsub.delete_queue('elsewhere')$r$, 'PS404 Queue not found')
        ) c (call, refused)
    loop
        assert pg_temp.refusal(v_case.call) = v_case.refused,
            c_proves || ': ' || coalesce(pg_temp.refusal(v_case.call), 'not refused');
    end loop;
    assert not exists (
        select from pubsub_data.topics t where t.topic_id in ('new', 'dead', 'x', 'y')
    ), c_proves;
    assert exists (select from pubsub_data.topics t where t.topic_id = 'elsewhere'),
        c_proves || ': a topic that is no queue stays';
end
$$;

do $$
declare
    c_proves constant text := 'a queue is deleted with its topic, without its dead-letter queue';
begin
    perform pubsub.create_queue('leaves', '{}', 'stays');
    perform pubsub.delete_queue('leaves');

    assert not exists (select from pubsub_data.topics t where t.topic_id = 'leaves')
        and not exists (select from pubsub_data.subscriptions s where s.subscription_id = 'leaves'),
        c_proves;
    assert exists (select from pubsub.get_subscription('stays')), c_proves;
end
$$;
