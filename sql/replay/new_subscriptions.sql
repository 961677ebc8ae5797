/*
 * A new subscription: it receives what is published from its creation on, and, if it is asked to start
 * from an earlier time, the messages since then that are still there.
 */

/*
 * start_subscription — give a new subscription the retained messages from a time on.
 *
 * In       p_time: at or after it; one in the future is now
 * Effects  begins a job, which ends a few seconds after this transaction at the earliest
 */
create function pubsub.start_subscription(p_subscription_id text, p_time timestamptz)
returns void
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_from constant uuid := pubsub.id_at(least(p_time, clock_timestamp()));
begin
    perform pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek', jsonb_build_object(
        'request', jsonb_build_object('start_from', p_time),
        'settle_upto', v_from, 'upto', pubsub.seek_end(),
        'catch_up', jsonb_build_object('from', greatest(v_from, pubsub.oldest_open_id()),
            'begun_by', pg_current_xact_id()::text)), v_from);
end
$$;

comment on function pubsub.start_subscription is
    'Give a new subscription the retained messages from a time on.';

/*
 * create_subscription
 *
 * In       p_start_from: also the retained messages that were published at or after it, as
 *          start_subscription brings them
 * Errors   PS409 the id is taken · PS404 unknown topic · PS422 (field) a value out of range, or an
 *          unknown dead-letter topic · PS503 the sequences are behind
 * Locks    the topic and the dead-letter topic: who deletes one waits
 */
create function pubsub.create_subscription(
    p_subscription_id text,
    p_topic_id text,
    p_filter json default null,
    p_max_delivery_attempts int default 5,
    p_backoff_min_seconds int default 5,
    p_backoff_max_seconds int default 300,
    p_ack_deadline_seconds int default null,
    p_enable_ordering boolean default false,
    p_ordering_failure text default 'dead_letter',
    p_fairness_key text default null,
    p_max_in_flight int default null,
    p_max_in_flight_per_consumer int default null,
    p_max_rate int default null,
    p_message_ttl_seconds int default null,
    p_dead_letter_expired boolean default false,
    p_dead_letter_topic_id text default null,
    p_start_from timestamptz default null
)
returns table (
    id text, topic_id text, filter json, max_delivery_attempts int, backoff_min_seconds int,
    backoff_max_seconds int, ack_deadline_seconds int, created_at timestamptz,
    enable_ordering boolean, ordering_failure text, fairness_key text, max_in_flight int,
    max_in_flight_per_consumer int, max_rate int, message_ttl_seconds int,
    dead_letter_expired boolean, dead_letter_topic_id text
)
language plpgsql volatile
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
    v_dead_letter_topic_key bigint;
    v_filter_path jsonpath := pubsub.compile_filter(p_filter::jsonb);
    v_attribute_filter_path jsonpath := pubsub.compile_attribute_filter(p_filter::jsonb);
begin
    if p_subscription_id is null or p_subscription_id !~ '^[a-zA-Z0-9._-]{1,128}$' then
        perform pubsub.fail_validation('id',
            'subscription id must be 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-"');
    end if;
    perform pubsub.check_subscription_settings(jsonb_build_object(
        'max_delivery_attempts', p_max_delivery_attempts,
        'backoff_min_seconds', p_backoff_min_seconds,
        'backoff_max_seconds', p_backoff_max_seconds,
        'ack_deadline_seconds', p_ack_deadline_seconds,
        'enable_ordering', p_enable_ordering,
        'ordering_failure', p_ordering_failure,
        'fairness_key', p_fairness_key,
        'max_in_flight', p_max_in_flight,
        'max_in_flight_per_consumer', p_max_in_flight_per_consumer,
        'max_rate', p_max_rate,
        'message_ttl_seconds', p_message_ttl_seconds,
        'dead_letter_expired', p_dead_letter_expired,
        'dead_letter_topic_id', p_dead_letter_topic_id
    ));

    -- a taken id is reported before a missing topic
    if exists (
        select 1 from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id
    ) then
        raise exception 'This subscription already exists' using errcode = 'PS409';
    end if;
    -- for key share: a concurrent delete_topic waits or is seen
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id for key share;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    v_dead_letter_topic_key := pubsub.dead_letter_topic(v_topic_key, p_dead_letter_topic_id);

    insert into pubsub_data.subscriptions as s (
        topic_key, subscription_id, filter, filter_path, attribute_filter_path, filter_values,
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds,
        enable_ordering, ordering_failure, fairness_key, max_in_flight,
        max_in_flight_per_consumer, max_rate, message_ttl_seconds, dead_letter_expired,
        dead_letter_topic_key
    )
    values (
        v_topic_key, p_subscription_id, p_filter, v_filter_path, v_attribute_filter_path,
        pubsub.count_filter_values(p_filter::jsonb),
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds,
        p_ack_deadline_seconds, p_enable_ordering, p_ordering_failure, p_fairness_key,
        p_max_in_flight, p_max_in_flight_per_consumer, p_max_rate, p_message_ttl_seconds,
        p_dead_letter_expired, v_dead_letter_topic_key
    )
    on conflict do nothing
    returning s.subscription_key into v_subscription_key;
    if v_subscription_key is null then
        -- not by the id: what has it may be deleted by now
        if exists (
            select from pubsub_data.subscriptions s
            where s.subscription_key = currval('pubsub_data.subscriptions_subscription_key_seq')
        ) then
            perform pubsub.fail_sequences();
        end if;
        raise exception 'This subscription already exists' using errcode = 'PS409';
    end if;
    perform pubsub.check_subscription_key(v_topic_key, v_subscription_key);
    if p_start_from is not null then
        perform pubsub.start_subscription(p_subscription_id, p_start_from);
    end if;
    return query select g.* from pubsub.get_subscription(p_subscription_id) g;
end
$$;

comment on function pubsub.create_subscription is
    'Create a subscription: it receives the matching messages published from now on.';
