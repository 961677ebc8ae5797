/*
 * What a claim wants: its arguments, checked, and its subscription as it is.
 */

/* claim_terms — what a claim wants, of a subscription as it is. */
create type pubsub.claim_terms as (
    topic_key bigint,
    subscription_key bigint,
    -- plain · priorities · ordered · fair: how what is ready is chosen; paused: nothing is
    mode text,
    max_attempts int,
    rewinds int,
    rewound_to uuid,
    -- whether anything limits what is handed out, and the rate; whether the counters of the subscription
    -- tell consumers apart (flow.sql)
    is_limited boolean,
    max_rate int,
    by_consumer boolean,
    -- null: it never does
    expires_after_seconds int,
    now timestamptz,
    micros bigint,
    -- no head that lies above is believed or noted
    ahead uuid,
    ack_deadline timestamptz,
    -- even. Not from a sequence: after a crash it may repeat numbers of claims that were not yet on disk
    lease bigint
);

comment on type pubsub.claim_terms is 'What a claim wants, of a subscription as it is.';

/*
 * credible_head — how far a claim has read, as it may be noted.
 *
 * In       p_before: how far it had read before
 */
create function pubsub.credible_head(p_claim pubsub.claim_terms, p_head uuid, p_before uuid)
returns uuid
language sql stable parallel safe
begin atomic
    select case when p_head <= p_claim.ahead then p_head
        else greatest(p_before, pubsub.id_at(p_claim.now - interval '1 second')) end;
end;

comment on function pubsub.credible_head is
    'How far a claim has read, or, where that lies ahead of now, to where it may be noted.';

/*
 * check_claim — refuse what cannot be claimed.
 *
 * Out      how many messages the consumers want together
 * Errors   PS422 (consumer_id, batch_size, max_bytes)
 */
create function pubsub.check_claim(p_consumer_ids text[], p_batch_sizes int[], p_max_bytes bigint)
returns int
language plpgsql immutable parallel safe
as $$
begin
    if array_ndims(p_consumer_ids) <> 1 or array_lower(p_consumer_ids, 1) <> 1 then
        perform pubsub.fail_validation('consumer_id', 'consumer_ids must be a plain array from 1');
    end if;
    if array_ndims(p_batch_sizes) <> 1 or array_lower(p_batch_sizes, 1) <> 1 then
        perform pubsub.fail_validation('batch_size', 'batch_sizes must be a plain array from 1');
    end if;
    if array_position(p_consumer_ids, null) is not null or coalesce(p_consumer_ids, '{}') = '{}' then
        perform pubsub.fail_validation('consumer_id', 'consumer_id is required');
    end if;
    if cardinality(p_batch_sizes) is distinct from cardinality(p_consumer_ids)
        or array_position(p_batch_sizes, null) is not null
        or 1 > any(p_batch_sizes) or 1000 < any(p_batch_sizes)
    then
        perform pubsub.fail_validation('batch_size', 'batch_size must be 1 to 1000');
    end if;
    if p_max_bytes < 1 then
        perform pubsub.fail_validation('max_bytes', 'max_bytes must be at least 1');
    end if;
    return (select sum(b.size) from unnest(p_batch_sizes) as b (size));
end
$$;

comment on function pubsub.check_claim is
    'Refuse what cannot be claimed; returns how many messages are wanted.';

/*
 * claim_terms_of — what a claim wants, from now on.
 *
 * Errors   PS404 · PS422 (ack_deadline_seconds 1 to 43200)
 */
create function pubsub.claim_terms_of(
    p_subscription_id text, p_ack_deadline_seconds int, p_default_ack_deadline_seconds int
)
returns pubsub.claim_terms
language plpgsql volatile parallel restricted
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_claim pubsub.claim_terms;
begin
    select s.topic_key, s.subscription_key,
        case
            when s.paused then 'paused'
            when s.enable_ordering then 'ordered'
            when s.fairness_key is not null then 'fair'
            when s.has_priorities then 'priorities'
            else 'plain'
        end,
        s.max_delivery_attempts, s.rewinds, s.rewound_to,
        s.paused or num_nonnulls(s.max_in_flight, s.max_in_flight_per_consumer, s.max_rate) > 0,
        s.max_rate, num_nonnulls(s.max_in_flight, s.max_in_flight_per_consumer) > 0,
        s.expires_after_seconds, v_now, pubsub.micros(v_now), pubsub.id_at(v_now + interval '1 second'),
        v_now + make_interval(secs => coalesce(p_ack_deadline_seconds, s.ack_deadline_seconds,
            p_default_ack_deadline_seconds)),
        (random() * 4503599627370495)::bigint * 2
    into v_claim
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription_id;
    if not found then
        raise exception 'Subscription not found' using errcode = 'PS404';
    end if;
    if (v_claim.ack_deadline - v_now between '1 second' and '43200 seconds') is not true then
        perform pubsub.fail_validation('ack_deadline_seconds',
            'ack_deadline_seconds must be 1 to 43200');
    end if;
    return v_claim;
end
$$;

comment on function pubsub.claim_terms_of is 'What a claim wants of a subscription, from now on.';
