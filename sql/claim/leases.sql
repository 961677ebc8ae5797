/* Leasing: what a claim has chosen is its consumers' until the ack deadline. */

/*
 * note_leases — what is noted of leases beside their rows.
 *
 * In       p_message_ids, p_consumers: of one position; p_redelivered: how many of them were delivered
 *          before, null: none; p_head: how far the claim has read, for new sessions; null: not told
 * Effects  a wake-up for the deadline, and the counts
 */
create function pubsub.note_leases(
    p_claim pubsub.claim_terms, p_consumer_ids text[], p_message_ids uuid[], p_consumers int[],
    p_redelivered int, p_head uuid
)
returns void
language plpgsql volatile
as $$
begin
    insert into pubsub_data.wakeups (
        topic_key, subscription_key, due_at, message_ids, head, rewinds
    )
    values (p_claim.topic_key, p_claim.subscription_key, p_claim.ack_deadline, p_message_ids, p_head,
        p_claim.rewinds);
    if p_claim.by_consumer then
        insert into pubsub_data.counters (
            topic_key, subscription_key, due_at, consumer_id, leased, redelivered
        )
        select p_claim.topic_key, p_claim.subscription_key,
            pubsub.counter_time(p_claim.ack_deadline), p_consumer_ids[c.consumer], count(*),
            -- a total of the subscription, which one of them tells
            case when p_consumer_ids[c.consumer] = p_consumer_ids[p_consumers[1]] then p_redelivered end
        from unnest(p_consumers) as c (consumer)
        group by p_consumer_ids[c.consumer];
    else
        insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased, redelivered)
        values (p_claim.topic_key, p_claim.subscription_key,
            pubsub.counter_time(p_claim.ack_deadline), cardinality(p_message_ids), p_redelivered);
    end if;
end
$$;

comment on function pubsub.note_leases is 'Note the wake-up and the counts of leases.';

/*
 * lease_deliveries — lease what was chosen.
 *
 * In       p_places: locked, not empty, dealt out in this order: the first consumer gets the first
 *          p_batch_sizes[1] of them; p_lost: whether the consumer of any may have let its lease run out;
 *          p_head: as in note_leases
 * Out      of one position: the ids, attempts and consumers (1 is the first) of the deliveries, by
 *          consumer and id
 * Effects  visible_at = ack deadline, attempts + 1, a new lease number; a wake-up for the deadline; a
 *          failure for each lease that ran out
 */
create function pubsub.lease_deliveries(
    p_claim pubsub.claim_terms, p_places tid[], p_lost boolean, p_consumer_ids text[],
    p_batch_sizes int[], p_head uuid,
    out message_ids uuid[], out attempts int[], out consumers int[]
)
language plpgsql volatile
as $$
declare
    -- how many the consumers get, summed up
    v_upto int[];
    v_redelivered int;
begin
    if p_lost then
        insert into pubsub_data.failures (
            topic_key, subscription_key, message_id, attempt, consumer_id, delivered_at, ended_at,
            outcome
        )
        select p_claim.topic_key, p_claim.subscription_key, d.message_id, d.attempts, d.consumer_id,
            d.leased_at, d.visible_at, 'consumer_lost'
        from pubsub_data.deliveries d
        where d.ctid = any(p_places) and d.lease is not null;
    end if;
    if cardinality(p_consumer_ids) = 1 then
        with leased as (
            update pubsub_data.deliveries d
            set visible_at = p_claim.ack_deadline, attempts = d.attempts + 1,
                lease = p_claim.lease, leased_at = p_claim.now, extended_at = null,
                consumer_id = p_consumer_ids[1]
            where d.ctid = any(p_places)
            returning d.message_id, d.attempts
        )
        select array_agg(l.message_id), array_agg(l.attempts), array_fill(1, array[count(*)::int]),
            nullif(count(*) filter (where l.attempts > 1), 0)
        into lease_deliveries.message_ids, lease_deliveries.attempts, lease_deliveries.consumers,
            v_redelivered
        from (select x.* from leased x order by x.message_id) l;
    else
        v_upto := array(
            select sum(b.size) over (order by b.position)
            from unnest(p_batch_sizes) with ordinality as b (size, position)
            order by b.position
        );
        with leased as (
            update pubsub_data.deliveries d
            set visible_at = p_claim.ack_deadline, attempts = d.attempts + 1,
                lease = p_claim.lease, leased_at = p_claim.now, extended_at = null,
                consumer_id = p_consumer_ids[p.consumer]
            from (
                select x.place, width_bucket((x.position - 1)::int, v_upto) + 1 as consumer
                from unnest(p_places) with ordinality as x (place, position)
            ) p
            where d.ctid = p.place
            returning d.message_id, d.attempts, p.consumer
        )
        select array_agg(l.message_id), array_agg(l.attempts), array_agg(l.consumer),
            nullif(count(*) filter (where l.attempts > 1), 0)
        into lease_deliveries.message_ids, lease_deliveries.attempts, lease_deliveries.consumers,
            v_redelivered
        from (select x.* from leased x order by x.consumer, x.message_id) l;
    end if;
    perform pubsub.note_leases(
        p_claim, p_consumer_ids, message_ids, consumers, v_redelivered, p_head);
end
$$;

comment on function pubsub.lease_deliveries is 'Lease what a claim has chosen to its consumers.';

/*
 * lease_chosen — lease the single deliveries that were chosen, and note all leases.
 *
 * In       p_chosen: its single deliveries all dealt out; p_head: as in note_leases
 * Out      as lease_deliveries
 * Effects  those of lease_deliveries
 */
create function pubsub.lease_chosen(
    p_claim pubsub.claim_terms, p_chosen pubsub.chosen, p_consumer_ids text[], p_head uuid,
    out message_ids uuid[], out attempts int[], out consumers int[]
)
language plpgsql volatile
as $$
declare
    v_leased record;
begin
    if p_chosen.run_ids = '{}' then
        v_leased := pubsub.lease_deliveries(
            p_claim, p_chosen.places, p_chosen.lost, p_consumer_ids, p_chosen.singles, p_head);
        lease_chosen.message_ids := v_leased.message_ids;
        lease_chosen.attempts := v_leased.attempts;
        lease_chosen.consumers := v_leased.consumers;
        return;
    end if;
    insert into pubsub_data.wakeups (
        topic_key, subscription_key, due_at, message_ids, run_ids, head, rewinds
    )
    values (p_claim.topic_key, p_claim.subscription_key, p_claim.ack_deadline, '{}',
        p_chosen.run_ids, p_head, p_claim.rewinds);
    insert into pubsub_data.counters (topic_key, subscription_key, due_at, leased)
    values (p_claim.topic_key, p_claim.subscription_key,
        pubsub.counter_time(p_claim.ack_deadline), cardinality(p_chosen.message_ids));
    lease_chosen.message_ids := p_chosen.message_ids;
    lease_chosen.attempts := array_fill(1, array[cardinality(message_ids)]);
    lease_chosen.consumers := p_chosen.consumers;
    if p_chosen.places <> '{}' then
        p_claim.lease := pubsub.lease_of(p_claim, p_chosen);
        v_leased := pubsub.lease_deliveries(
            p_claim, p_chosen.places, p_chosen.lost, p_consumer_ids, p_chosen.singles, p_head);
        lease_chosen.message_ids := message_ids || v_leased.message_ids;
        lease_chosen.attempts := attempts || v_leased.attempts;
        lease_chosen.consumers := consumers || v_leased.consumers;
    end if;
    if p_chosen.places <> '{}' or cardinality(p_consumer_ids) > 1 then
        select array_agg(o.message_id), array_agg(o.attempts), array_agg(o.consumer)
        into lease_chosen.message_ids, lease_chosen.attempts, lease_chosen.consumers
        from (
            select l.message_id, l.attempts, l.consumer
            from unnest(message_ids, attempts, consumers) as l (message_id, attempts, consumer)
            order by l.consumer, l.message_id
        ) o;
    end if;
end
$$;

comment on function pubsub.lease_chosen is
    'Lease the single deliveries that were chosen, and note all leases.';
