/*
 * A queue is a topic and a subscription of one id: whoever knows that id publishes to it and consumes from it. Its
 * dead-letter queue is another queue, to which its spent messages are published.
 */

/*
 * ensure_topic — make sure that a topic exists, and is not deleted before the transaction ends.
 *
 * Errors   PS422 (id) its characters or length · PS503 the sequences are behind
 * Locks    the topic; waits for whoever creates or deletes it
 */
create function pubsub.ensure_topic(p_topic_id text)
returns void
language plpgsql volatile
as $$
begin
    loop
        perform 1 from pubsub_data.topics t where t.topic_id = p_topic_id for key share;
        exit when found;
        -- if another was there before it, that one may be deleted again by now
        perform pubsub.add_topic(p_topic_id, null);
    end loop;
end
$$;

comment on function pubsub.ensure_topic is
    'Make sure that a topic exists, and stays until the transaction ends.';

/*
 * ensure_queue — make sure that the subscription of a queue exists, whose topic does.
 *
 * In       p_settings: of a new subscription
 * Out      whether it was created
 * Errors   PS409 a subscription of another topic has the id · PS422 as create_subscription
 * Locks    its topic; waits for whoever creates the same
 */
create function pubsub.ensure_queue(p_queue_id text, p_settings json)
returns boolean
language plpgsql volatile
as $$
begin
    if pubsub.add_subscription(p_queue_id, p_queue_id, p_settings) then
        return true;
    end if;
    if not exists (
        select from pubsub_data.subscriptions s
        join pubsub_data.topics t on t.topic_key = s.topic_key
        where s.subscription_id = p_queue_id and t.topic_id = p_queue_id
    ) then
        raise exception 'This subscription already exists' using errcode = 'PS409';
    end if;
    return false;
end
$$;

comment on function pubsub.ensure_queue is
    'Make sure that the subscription of a queue exists; whether it was created now.';

/*
 * create_queue — make sure that a queue exists: a topic and a subscription of one id. Safe to call again, and
 * by many at once.
 *
 * In       p_settings: as of create_subscription, for a new one; p_dead_letter_queue_id: the queue that spent
 *          messages are published to, created if it does not exist, with unlimited attempts
 * Out      true: the queue was created now; false: it was there, and keeps its settings, but gets the dead-letter
 *          queue if it has no dead letter topic
 * Errors   PS422 (id, dead_letter_queue_id, or a setting) · PS409 a subscription of another topic has the id
 * Locks    the topics in the order of their ids, then the subscriptions
 */
create function pubsub.create_queue(
    p_queue_id text, p_settings json default '{}', p_dead_letter_queue_id text default null
)
returns boolean
language plpgsql volatile
as $$
declare
    c_unlimited constant json := '{"max_delivery_attempts": 2147483647}';
    v_settings constant jsonb :=
        pubsub.changed_settings(pubsub.default_settings(), p_settings::jsonb);
    -- in one order, so that those who create the same wait for each other and not in a circle
    v_ids constant text[] := array(
        select q.id
        from unnest(array[p_queue_id, p_dead_letter_queue_id]) as q (id)
        where q.id is not null
        order by q.id collate "C"
    );
    v_id text;
    v_created boolean;
begin
    perform pubsub.check_id('queue', p_queue_id);
    if p_dead_letter_queue_id is not null then
        if p_dead_letter_queue_id = p_queue_id then
            perform pubsub.fail_validation('dead_letter_queue_id',
                'dead_letter_queue_id must be the id of another queue');
        end if;
        if v_settings ->> 'dead_letter_topic_id' is not null then
            perform pubsub.fail_validation('dead_letter_queue_id',
                'dead_letter_queue_id and dead_letter_topic_id cannot go together');
        end if;
        perform pubsub.check_id('dead-letter queue', p_dead_letter_queue_id);
    end if;
    foreach v_id in array v_ids loop
        perform pubsub.ensure_topic(v_id);
    end loop;
    foreach v_id in array v_ids loop
        if v_id = p_queue_id then
            v_created := pubsub.ensure_queue(v_id, p_settings);
        else
            perform pubsub.ensure_queue(v_id, c_unlimited);
        end if;
    end loop;
    if p_dead_letter_queue_id is not null and exists (
        select from pubsub_data.subscriptions s
        where s.subscription_id = p_queue_id and s.dead_letter_topic_key is null
    ) then
        perform pubsub.update_subscription(p_queue_id,
            json_build_object('dead_letter_topic_id', p_dead_letter_queue_id));
    end if;
    return v_created;
end
$$;

comment on function pubsub.create_queue is
    'Make sure that a queue exists: a topic and a subscription of one id; whether it was created now.';

/*
 * delete_queue — its topic, its subscription and their messages; its dead-letter queue stays.
 *
 * Errors   PS404
 * Locks    those of delete_topic
 * Effects  instant, as of delete_topic; other subscriptions of its topic go, too
 */
create function pubsub.delete_queue(p_queue_id text)
returns void
language plpgsql volatile
as $$
begin
    if not exists (
        select from pubsub_data.subscriptions s
        join pubsub_data.topics t on t.topic_key = s.topic_key
        where s.subscription_id = p_queue_id and t.topic_id = p_queue_id
    ) then
        raise exception 'Queue not found' using errcode = 'PS404';
    end if;
    perform pubsub.delete_topic(p_queue_id);
end
$$;

comment on function pubsub.delete_queue is 'Delete a queue and its messages.';
