/*
 * A new subscription: it receives what is published from its creation on, and, if it is asked to start
 * from an earlier time, the messages since then that are still there.
 */

/*
 * start_subscription — give a new subscription the retained messages from a time on.
 *
 * In       p_time: at or after it; one after the end (seek_end) is the end
 * Effects  begins a job, which ends a few seconds after this transaction at the earliest
 */
create function pubsub.start_subscription(p_subscription_id text, p_time timestamptz)
returns void
language plpgsql volatile
as $$
declare
    v_keys constant record := pubsub.subscription_keys(p_subscription_id);
    v_end constant uuid := pubsub.seek_end(v_keys.topic_key);
    v_from constant uuid := pubsub.id_at(least(p_time, pubsub.id_time(v_end)));
begin
    perform pubsub.begin_job(v_keys.topic_key, v_keys.subscription_key, 'seek', jsonb_build_object(
        'request', jsonb_build_object('start_from', p_time),
        'settle_upto', v_from, 'upto', v_end,
        'catch_up', jsonb_build_object('from', greatest(v_from, pubsub.oldest_open_id()),
            'begun_by', pg_current_xact_id()::text)), v_from);
end
$$;

comment on function pubsub.start_subscription is
    'Give a new subscription the retained messages from a time on.';

/*
 * add_subscription — create a subscription, if there is none of that id.
 *
 * In       as create_subscription
 * Out      whether it was created
 * Errors   those of create_subscription but PS409
 * Locks    those of create_subscription; waits for whoever creates it
 */
create function pubsub.add_subscription(
    p_subscription_id text, p_topic_id text, p_settings json, p_start_from timestamptz default null
)
returns boolean
language plpgsql volatile
as $$
declare
    v_given constant jsonb := p_settings;
    v_settings constant jsonb := pubsub.changed_settings(pubsub.default_settings(),
        pubsub.with_push_limit(v_given, pubsub.default_settings()));
    v_topic_key bigint;
    v_subscription_key bigint;
    v_dead_letter_topic_key bigint;
begin
    perform pubsub.check_id('subscription', p_subscription_id);
    -- a taken id is reported before a missing topic
    if exists (
        select 1 from pubsub_data.subscriptions s where s.subscription_id = p_subscription_id
    ) then
        return false;
    end if;
    -- for key share: a concurrent delete_topic waits or is seen
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id for key share;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    v_dead_letter_topic_key := pubsub.dead_letter_topic(
        v_topic_key, v_settings ->> 'dead_letter_topic_id');

    -- the settings follow
    insert into pubsub_data.subscriptions as s (
        topic_key, subscription_id, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds
    )
    values (v_topic_key, p_subscription_id, 1, 1, 1)
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
        return false;
    end if;
    perform pubsub.check_subscription_key(v_topic_key, v_subscription_key);
    -- what is left of the same number, from a sequence that was behind, goes
    insert into pubsub_data.run_sizes (topic_key, subscription_key)
    values (v_topic_key, v_subscription_key)
    on conflict (topic_key, subscription_key) do update
    set run_size = excluded.run_size, noted_at = excluded.noted_at;
    perform pubsub.save_settings(v_topic_key, v_subscription_key, v_settings,
        case when v_given -> 'filter' <> 'null' then p_settings -> 'filter' end,
        v_dead_letter_topic_key);
    if v_given -> 'push' <> 'null' then
        perform pubsub.save_push(v_topic_key, v_subscription_key, v_given -> 'push');
    end if;
    if p_start_from is not null then
        perform pubsub.start_subscription(p_subscription_id, p_start_from);
    end if;
    return true;
end
$$;

comment on function pubsub.add_subscription is
    'Create a subscription, if there is none of that id; whether it was.';

/*
 * create_subscription
 *
 * In       p_settings: an object of settings, named as get_subscription names them, {"filter": {...}}
 *          and {"push": {...}} (save_push) among them; default_settings has the rest
 *          p_start_from: also the retained messages that were published at or after it, as
 *          start_subscription brings them
 * Errors   PS409 the id is taken · PS404 unknown topic · PS422 (field) unknown, out of range, or an
 *          unknown dead-letter topic · PS503 the sequences are behind
 * Locks    the topic and the dead-letter topic: who deletes one waits
 */
create function pubsub.create_subscription(
    p_subscription_id text, p_topic_id text, p_settings json default '{}',
    p_start_from timestamptz default null
)
returns table (
    id text, topic_id text, filter json, max_delivery_attempts int, backoff_min_seconds int,
    backoff_max_seconds int, ack_deadline_seconds int, created_at timestamptz,
    enable_ordering boolean, ordering_failure text, fairness_key text, max_in_flight int,
    max_in_flight_per_consumer int, max_rate int, message_ttl_seconds int,
    dead_letter_expired boolean, dead_letter_topic_id text, backoff_strategy text,
    exact_backoff_min_seconds double precision, exact_backoff_max_seconds double precision,
    paused boolean, expires_after_seconds int, push json
)
language plpgsql volatile
as $$
begin
    if not pubsub.add_subscription(p_subscription_id, p_topic_id, p_settings, p_start_from) then
        raise exception 'This subscription already exists' using errcode = 'PS409';
    end if;
    return query select g.* from pubsub.get_subscription(p_subscription_id, true) g;
end
$$;

comment on function pubsub.create_subscription is
    'Create a subscription: it receives the matching messages published from now on.';
