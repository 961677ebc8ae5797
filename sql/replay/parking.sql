/*
 * Parked messages: where a subscription orders and its ordering_failure is park, a message of a key
 * whose attempts are spent stays and holds its key, until an operator says what becomes of it. It is a
 * delivery without a lease whose visible_at is infinity.
 */

/*
 * list_parked_messages — a page of the parked messages of a subscription, in publish order.
 *
 * In       p_after: only ids after it, which need not be there
 * Out      consumer_id, last_error, parked_at: of its last delivery, null when that is forgotten;
 *          behind: how many messages of its key wait for it
 * Errors   PS404
 */
create function pubsub.list_parked_messages(
    p_subscription_id text, p_offset bigint default 0, p_limit int default 10,
    p_after uuid default null
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, published_at timestamptz,
    attempts int, consumer_id text, last_error text, parked_at timestamptz, behind bigint
)
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
declare
    v_keys record := pubsub.subscription_keys(p_subscription_id);
begin
    return query
        select d.message_id, m.payload, m.attributes, d.lane, m.published_at, d.attempts,
            f.consumer_id, f.reason, f.ended_at, w.behind
        from (
            select x.message_id, x.lane, x.attempts
            from pubsub_data.deliveries x
            where x.topic_key = v_keys.topic_key
                and x.subscription_key = v_keys.subscription_key
                and x.lane is not null
                and x.lease is null
                and x.visible_at = 'infinity'
                and x.message_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
            order by x.message_id
            offset p_offset limit p_limit
        ) d
        left join lateral (
            select x.payload, x.attributes, x.published_at
            from pubsub_data.messages x
            where x.topic_key = v_keys.topic_key and x.message_id = d.message_id
            limit 1
        ) m on true
        left join lateral (
            select x.consumer_id, x.reason, x.ended_at
            from pubsub_data.failures x
            where x.topic_key = v_keys.topic_key
                and x.subscription_key = v_keys.subscription_key
                and x.message_id = d.message_id
                and x.outcome = 'parked'
            order by x.ended_at desc
            limit 1
        ) f on true
        cross join lateral (
            select count(*) as behind
            from pubsub_data.deliveries x
            where x.topic_key = v_keys.topic_key
                and x.subscription_key = v_keys.subscription_key
                and x.lane = d.lane
                and x.message_id > d.message_id
        ) w
        order by d.message_id;
end
$$;

comment on function pubsub.list_parked_messages is
    'A page of the parked messages of a subscription: what each waits for and holds up.';

/*
 * resume_messages — let the ordering keys of parked messages go on.
 *
 * In       p_action: retry: deliver them again, with no attempts spent · dead_letter: make them dead
 *          letters · skip: drop them
 * Out      how many were parked, and are not any more
 * Errors   PS404 · PS422 (action)
 * Locks    the subscription, then the deliveries, in id order
 */
create function pubsub.resume_messages(
    p_subscription_id text, p_message_ids uuid[], p_action text
)
returns bigint
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_keys record;
    v_places tid[];
    v_ids uuid[];
begin
    if p_action is null or p_action not in ('retry', 'dead_letter', 'skip') then
        perform pubsub.fail_validation('action', 'action must be retry, dead_letter or skip');
    end if;
    v_keys := pubsub.subscription_keys(p_subscription_id);
    perform pubsub.lock_subscription(v_keys.topic_key, v_keys.subscription_key);
    select array_agg(d.place), array_agg(d.message_id) into v_places, v_ids
    from (select distinct i.id from unnest(p_message_ids) as i (id) order by i.id) i
    cross join lateral (
        select x.ctid as place, x.message_id
        from pubsub_data.deliveries x
        where x.topic_key = v_keys.topic_key
            and x.subscription_key = v_keys.subscription_key
            and x.message_id = i.id
            and x.lease is null
            and x.visible_at = 'infinity'
        limit 1
        for update
    ) d;
    if v_places is null then
        return 0;
    end if;

    case p_action
        when 'retry' then
            update pubsub_data.deliveries d
            set visible_at = v_now, attempts = 0
            where d.ctid = any(v_places);
            insert into pubsub_data.counters (topic_key, subscription_key, due_at, waiting)
            values (v_keys.topic_key, v_keys.subscription_key, 'infinity', -cardinality(v_places));
            insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
            values (v_keys.topic_key, v_keys.subscription_key, v_now, v_ids);
            perform pubsub.rewind_subscription(v_keys.topic_key, v_keys.subscription_key, v_ids[1]);
        when 'dead_letter' then
            perform pubsub.bury_deliveries(
                v_keys.topic_key, v_keys.subscription_key, v_places, 'attempts');
        when 'skip' then
            insert into pubsub_data.failures (
                topic_key, subscription_key, message_id, attempt, ended_at, outcome
            )
            select v_keys.topic_key, v_keys.subscription_key, d.message_id, d.attempts, v_now,
                'skipped'
            from pubsub_data.deliveries d
            where d.ctid = any(v_places);
            perform pubsub.drop_deliveries(
                v_keys.topic_key, v_keys.subscription_key, v_places);
    end case;
    return cardinality(v_places);
end
$$;

comment on function pubsub.resume_messages is
    'Retry, dead-letter or skip parked messages, so that their keys go on; returns how many.';
