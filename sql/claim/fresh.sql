/*
 * The claim that is made most: the session is up to date, nothing is due, and enough is fresh. Of the steps of a
 * claim (claims.sql) it takes the third alone, in five statements: a claim of one message is bound by the number
 * of statements and expressions it evaluates.
 */

/*
 * is_up_to_date — whether a session knows all that it needs but what is fresh: nothing came back, and no look at
 * what was missed is due.
 */
create function pubsub.is_up_to_date(p_claim pubsub.claim_terms, p_hint pubsub.claim_hint)
returns boolean
language sql stable parallel safe
begin atomic
    -- without a from clause, which would keep Postgres from inlining it
    select (p_claim.mode = 'plain' and p_hint.rewinds = p_claim.rewinds and p_hint.head <= p_claim.ahead
        and p_claim.micros >= greatest(p_hint.noted_at, p_hint.due_from) and p_hint.due_from >= 0
        and p_claim.micros < least(p_hint.due_recent_at, p_hint.due_all_at)
        and p_claim.micros - pubsub.look_back_grace() < least(p_hint.near_at, p_hint.far_at)
        and p_claim.micros + 60000000 >= greatest(p_hint.due_recent_at, p_hint.due_all_at,
            p_hint.near_at, p_hint.far_at)) is true;
end;

comment on function pubsub.is_up_to_date is
    'Whether a session knows all that it needs but what is fresh.';

/*
 * claim_fresh_many — what claim_fresh does of several messages, or where a run is the next.
 *
 * In       as claim_thoroughly
 * Out      as claim_fresh
 * Locks    only what it chooses; skips locked rows
 */
create function pubsub.claim_fresh_many(
    p_claim pubsub.claim_terms, p_consumer_ids text[], p_batch_sizes int[], p_wanted int,
    p_max_bytes bigint,
    inout hint pubsub.claim_hint, out message_ids uuid[], out attempts int[], out consumers int[],
    out is_cut boolean, out is_done boolean, out chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    v_range record;
    v_are_runs boolean;
    v_count int;
    v_found record;
begin
    v_range := pubsub.take_range(p_claim, hint.head, null, p_wanted, '{}');
    v_are_runs := v_range.run_id is not null;
    v_count := coalesce(cardinality(v_range.places), 0);
    if v_are_runs or v_count < p_wanted and p_claim.micros >= least(hint.near_at, hint.far_at) then
        claim_fresh_many.chosen := pubsub.nothing_chosen(p_batch_sizes);
        if v_count > 0 then
            claim_fresh_many.chosen.places := v_range.places;
            claim_fresh_many.chosen.lost := v_range.lost;
            claim_fresh_many.chosen.large := v_range.large;
        end if;
    end if;
    if v_are_runs then
        v_found := pubsub.take_fresh(
            p_claim, p_wanted, p_max_bytes, p_consumer_ids, v_range.run_id, hint.head, chosen);
        claim_fresh_many.chosen := v_found.chosen;
        v_range.read_upto := v_found.head;
        v_count := cardinality(chosen.places) + cardinality(chosen.message_ids);
    end if;
    claim_fresh_many.hint.head :=
        pubsub.credible_head(p_claim, greatest(hint.head, v_range.read_upto), hint.head);
    claim_fresh_many.is_cut := v_are_runs and chosen.is_cut;
    claim_fresh_many.is_done :=
        is_cut or v_count = p_wanted or p_claim.micros < least(hint.near_at, hint.far_at);
    if not is_done or v_count = 0 then
        return;
    end if;
    if v_are_runs then
        claim_fresh_many.chosen := pubsub.deal_out(p_claim, p_max_bytes, null, chosen);
        claim_fresh_many.is_cut := chosen.is_cut;
        v_found := pubsub.lease_chosen(p_claim, chosen, p_consumer_ids, hint.head);
    else
        if v_range.large or 4000::bigint * p_wanted > p_max_bytes then
            v_found := pubsub.leave_out(p_claim, v_range.places, p_max_bytes, 1, null);
            v_range.places := v_found.places;
            claim_fresh_many.is_cut := v_found.is_cut;
        end if;
        v_found := pubsub.lease_deliveries(
            p_claim, v_range.places, v_range.lost, p_consumer_ids, p_batch_sizes, hint.head);
    end if;
    claim_fresh_many.message_ids := v_found.message_ids;
    claim_fresh_many.attempts := v_found.attempts;
    claim_fresh_many.consumers := v_found.consumers;
end
$$;

comment on function pubsub.claim_fresh_many is
    'A claim of several fresh messages, in a session that is up to date.';

/*
 * claim_fresh — the claim that is made most: the session is up to date, and enough is fresh. Where that is
 * not so, it leases nothing.
 *
 * In       as claim_thoroughly; p_head: how far another session has read, or null
 * Out      as claim_thoroughly; is_done: it was so; chosen: else, already
 * Locks    only what it chooses; skips locked rows
 */
create function pubsub.claim_fresh(
    p_claim pubsub.claim_terms, p_consumer_ids text[], p_batch_sizes int[], p_wanted int,
    p_max_bytes bigint, p_head uuid,
    inout hint pubsub.claim_hint, out message_ids uuid[], out attempts int[], out consumers int[],
    out is_cut boolean, out is_done boolean, out chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    v_one record;
    v_found record;
begin
    claim_fresh.is_done := false;
    claim_fresh.is_cut := false;
    if not pubsub.is_up_to_date(p_claim, hint) then
        return;
    end if;
    claim_fresh.hint.head := greatest(hint.head, p_head);
    if exists (
        select from pubsub_data.wakeups w
        where w.topic_key = p_claim.topic_key
            and w.subscription_key = p_claim.subscription_key
            and w.due_at >= to_timestamp(hint.due_from / 1000000::float8)
            and w.due_at <= p_claim.now
    ) then
        return;
    end if;
    if p_wanted = 1 and cardinality(p_consumer_ids) = 1 then
        -- what follows, without arrays: they would cost a claim of one as much as its writes
        update pubsub_data.deliveries d
        set visible_at = p_claim.ack_deadline, attempts = d.attempts + 1, lease = p_claim.lease,
            leased_at = p_claim.now, extended_at = null, consumer_id = p_consumer_ids[1]
        where d.ctid = (
            select x.ctid
            from pubsub_data.deliveries x
            where x.topic_key = p_claim.topic_key
                and x.subscription_key = p_claim.subscription_key
                and x.message_id > hint.head
                -- a run that is the next is not passed
                and x.message_id <= coalesce((
                    select r.run_id
                    from pubsub_data.runs r
                    where r.topic_key = p_claim.topic_key
                        and r.subscription_key = p_claim.subscription_key
                        and r.run_id > hint.head
                        and r.lease is null
                    order by r.run_id
                    limit 1
                ), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                and x.visible_at <= p_claim.now
                and x.attempts < p_claim.max_attempts
                and (x.expires_at is null or x.expires_at > p_claim.now)
                -- a lease that ran out has a failure to note
                and x.lease is null
            order by x.message_id
            limit 1
            for update skip locked
        )
        returning d.message_id, d.attempts into v_one;
        if found then
            claim_fresh.is_done := true;
            claim_fresh.message_ids := array[v_one.message_id];
            claim_fresh.attempts := array[v_one.attempts];
            claim_fresh.consumers := array[1];
            claim_fresh.hint.head :=
                pubsub.credible_head(p_claim, v_one.message_id, hint.head);
            perform pubsub.note_leases(p_claim, p_consumer_ids, message_ids, consumers,
                case when v_one.attempts > 1 then 1 end, hint.head);
            return;
        end if;
    end if;
    v_found := pubsub.claim_fresh_many(
        p_claim, p_consumer_ids, p_batch_sizes, p_wanted, p_max_bytes, hint);
    claim_fresh.hint := v_found.hint;
    claim_fresh.message_ids := v_found.message_ids;
    claim_fresh.attempts := v_found.attempts;
    claim_fresh.consumers := v_found.consumers;
    claim_fresh.is_cut := v_found.is_cut;
    claim_fresh.is_done := v_found.is_done;
    claim_fresh.chosen := v_found.chosen;
end
$$;

comment on function pubsub.claim_fresh is
    'A claim of fresh messages, in a session that is up to date.';
