/*
 * A message that was published can be changed: what it says, in place. Whom it is for, its order, its time and
 * what became of its deliveries stay as publishing and consumers decided.
 */

/*
 * mark_large — let claims of all subscriptions of a topic know that a message may be large.
 *
 * Locks    by subscription, the runs that hold the message, then the deliveries; waits for those that others hold
 */
create function pubsub.mark_large(p_topic_key bigint, p_message_id uuid)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_subscription_key bigint;
begin
    for v_subscription_key in
        select s.subscription_key
        from pubsub_data.subscriptions s
        where s.topic_key = p_topic_key
        order by s.subscription_key
    loop
        loop
            update pubsub_data.runs r
            set is_large = true
            where r.topic_key = p_topic_key
                and r.subscription_key = v_subscription_key
                and r.run_id >= pubsub.run_start(p_message_id)
                and r.run_id <= p_message_id
                and p_message_id = any(r.message_ids)
                and not r.is_large;
            -- whoever held it may have left the message in another run, which was not there before
            exit when not exists (
                select from pubsub_data.runs r
                where r.topic_key = p_topic_key
                    and r.subscription_key = v_subscription_key
                    and r.run_id >= pubsub.run_start(p_message_id)
                    and r.run_id <= p_message_id
                    and p_message_id = any(r.message_ids)
                    and not r.is_large
            );
        end loop;
        update pubsub_data.deliveries d
        set is_large = true
        where d.topic_key = p_topic_key
            and d.subscription_key = v_subscription_key
            and d.message_id = p_message_id
            and d.is_large is not true;
    end loop;
end
$$;

comment on function pubsub.mark_large is
    'Let claims of all subscriptions of a topic know that a message may be large.';

/*
 * update_message — change what a message says, for all who have not settled it and for replays.
 *
 * In       p_attributes: null: they stay as they are
 * Out      whether the topic has the message
 * Errors   PS404 · PS422 (payload, attributes) what publish_messages refuses
 * Locks    the message, and, where it gets large, its runs and deliveries, by subscription
 * Effects  who has it already keeps what he read. Subscriptions that filtered it, its ordering key, its lane and
 *          dead letters, which are copies, stay as they are
 */
create function pubsub.update_message(
    p_topic_id text, p_message_id uuid, p_payload jsonb, p_attributes jsonb default null
)
returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_topic_key bigint;
    v_attributes jsonb;
begin
    if p_payload is null then
        perform pubsub.fail_validation('payload', 'payload must be a JSON value');
    end if;
    perform pubsub.check_attributes(array[p_attributes], null);
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    select coalesce(p_attributes, m.attributes) into v_attributes
    from pubsub_data.messages m
    where m.topic_key = v_topic_key and m.message_id = p_message_id
    for no key update;
    if not found then
        return false;
    end if;
    -- as insert_messages tells
    if pg_column_size(p_payload) + coalesce(pg_column_size(v_attributes), 0) > 512 then
        perform pubsub.mark_large(v_topic_key, p_message_id);
    end if;
    update pubsub_data.messages m
    set payload = p_payload, attributes = v_attributes
    where m.topic_key = v_topic_key and m.message_id = p_message_id;
    return true;
end
$$;

comment on function pubsub.update_message is
    'Change what a message says, in place; whether the topic has it.';
