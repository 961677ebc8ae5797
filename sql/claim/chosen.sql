/*
 * What a claim has chosen, before it is leased.
 *
 * Answers are bounded in bytes where the caller says so, so that neither side must hold more at once.
 * Publishing notes which messages are small (is_large), so that these do not pay for it.
 */

/*
 * highest_first — what a claim of a subscription with priorities has chosen, the highest first: an answer
 * that has no room for all of it leaves out the lowest. The first of all stays: it may be the oldest's turn.
 */
create function pubsub.highest_first(p_claim pubsub.claim_terms, p_places tid[])
returns tid[]
language plpgsql stable
as $$
begin
    return array(
        select p.place
        from unnest(p_places) with ordinality as p (place, position)
        left join lateral (
            select x.message_id from pubsub_data.deliveries x where x.ctid = p.place limit 1
        ) d on true
        left join lateral (
            select x.priority
            from pubsub_data.messages x
            where x.topic_key = p_claim.topic_key and x.message_id = d.message_id
            limit 1
        ) m on true
        order by p.position = 1 desc, m.priority desc nulls last, d.message_id
    );
end
$$;

comment on function pubsub.highest_first is
    'What a claim has chosen, higher priorities first.';

/*
 * leave_out — what of the chosen deliveries does not go into an answer of so many bytes is for the next
 * claim.
 *
 * In       p_places: locked, in the order of handing out; p_max_bytes: null: no bound; p_least: how many
 *          go in whatever their size, 0 or 1; p_head: what lies above it and has no lane is found again
 * Out      places: the first of them, or, of priorities, the highest; bytes: of those, at most; is_cut:
 *          whether any were left out
 * Effects  a wake-up, due now, for what was left out
 */
create function pubsub.leave_out(
    p_claim pubsub.claim_terms, p_places tid[], p_max_bytes bigint, p_least int, p_head uuid,
    out places tid[], out bytes bigint, out is_cut boolean
)
language plpgsql volatile
as $$
declare
    v_place tid;
    v_bytes bigint;
begin
    leave_out.is_cut := false;
    leave_out.places := p_places;
    if p_max_bytes is null then
        return;
    end if;
    leave_out.bytes := 4000::bigint * cardinality(p_places);
    if bytes <= p_max_bytes and not exists (
        select from pubsub_data.deliveries d where d.ctid = any(p_places) and d.is_large
    ) then
        -- at most 512 bytes each as they are stored
        return;
    end if;
    if p_claim.mode = 'priorities' then
        p_places := pubsub.highest_first(p_claim, p_places);
    end if;
    leave_out.places := '{}';
    leave_out.bytes := 0;
    foreach v_place in array p_places loop
        -- one after the other: what does not fit is not unpacked, but for the first of it
        select 1000 + octet_length(m.payload::text) + coalesce(octet_length(m.attributes::text), 0)
            + coalesce(octet_length(m.ordering_key), 0)
        into v_bytes
        from (select x.message_id from pubsub_data.deliveries x where x.ctid = v_place limit 1) d
        cross join lateral (
            select x.payload, x.attributes, x.ordering_key
            from pubsub_data.messages x
            where x.topic_key = p_claim.topic_key and x.message_id = d.message_id
            limit 1
        ) m;
        v_bytes := coalesce(v_bytes, 0);
        exit when cardinality(places) >= p_least and bytes + v_bytes > p_max_bytes;
        leave_out.places := places || v_place;
        leave_out.bytes := bytes + v_bytes;
    end loop;
    if cardinality(places) < cardinality(p_places) then
        leave_out.is_cut := true;
        insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
        select p_claim.topic_key, p_claim.subscription_key, p_claim.now, array_agg(d.message_id)
        from pubsub_data.deliveries d
        where d.ctid = any(p_places[cardinality(places) + 1 :])
            and (d.message_id > p_head and d.lane is null) is not true
        having count(*) > 0;
    end if;
end
$$;

comment on function pubsub.leave_out is
    'The first of the chosen deliveries, as far as they go into an answer of so many bytes.';

/* chosen — what a claim has chosen so far; all of it is locked. No field is ever null. */
create type pubsub.chosen as (
    -- single deliveries, in the order of handing out: of the first ones is settled that they are handed out
    -- (deal_out)
    places tid[],
    dealt_out int,
    -- runs, which are leased already; of one position: their messages, and who gets them (1 is the first
    -- consumer)
    run_ids uuid[],
    message_ids uuid[],
    consumers int[],
    -- of the answer, at most
    bytes bigint,
    -- of the consumers, how many single ones each gets of those that are dealt out, and how many more each may
    -- get of all
    singles int[],
    sizes int[],
    -- whether the consumer of any may have let its lease run out; whether the message of any single one may
    -- be large
    lost boolean,
    large boolean,
    -- whether the answer has no room for more
    is_cut boolean
);

comment on type pubsub.chosen is 'What a claim has chosen so far.';

/* nothing_chosen — what a claim begins with. */
create function pubsub.nothing_chosen(p_batch_sizes int[])
returns pubsub.chosen
language sql immutable parallel safe
begin atomic
    select row('{}', 0, '{}', '{}', '{}', 0, array_fill(0, array[cardinality(p_batch_sizes)]),
        p_batch_sizes, false, false, false)::pubsub.chosen;
end;

comment on function pubsub.nothing_chosen is 'What a claim begins with.';

/*
 * deal_out — settle who gets the single deliveries that were chosen since the last time: those that go into the
 * answer, in their order, to who has room. What is chosen afterwards comes after them.
 *
 * In       p_max_bytes: of the answer, or null; p_head: as in leave_out
 * Effects  those of leave_out
 */
create function pubsub.deal_out(
    p_claim pubsub.claim_terms, p_max_bytes bigint, p_head uuid, inout chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    v_kept record;
    v_left int;
    v_gets int;
begin
    if cardinality(chosen.places) = chosen.dealt_out then
        return;
    end if;
    -- one message alone may have any size
    v_kept := pubsub.leave_out(p_claim, chosen.places[chosen.dealt_out + 1 :],
        p_max_bytes - chosen.bytes, (chosen.dealt_out = 0 and chosen.run_ids = '{}')::int, p_head);
    v_left := cardinality(v_kept.places);
    deal_out.chosen.places := chosen.places[: chosen.dealt_out] || v_kept.places;
    deal_out.chosen.dealt_out := chosen.dealt_out + v_left;
    deal_out.chosen.bytes := chosen.bytes + coalesce(v_kept.bytes, 0);
    deal_out.chosen.is_cut := v_kept.is_cut;
    for v_consumer in 1 .. cardinality(chosen.sizes) loop
        v_gets := least(v_left, chosen.sizes[v_consumer]);
        deal_out.chosen.singles[v_consumer] := chosen.singles[v_consumer] + v_gets;
        deal_out.chosen.sizes[v_consumer] := chosen.sizes[v_consumer] - v_gets;
        v_left := v_left - v_gets;
        exit when v_left = 0;
    end loop;
end
$$;

comment on function pubsub.deal_out is
    'Settle who gets the single deliveries that were chosen, as far as they go into the answer.';

/*
 * lease_of — the lease number of a claim. It is odd where runs are leased, so that acks need not look for those
 * of other claims.
 */
create function pubsub.lease_of(p_claim pubsub.claim_terms, p_chosen pubsub.chosen)
returns bigint
language sql immutable parallel safe
begin atomic
    select case when p_chosen.run_ids <> '{}' then p_claim.lease + 1 else p_claim.lease end;
end;

comment on function pubsub.lease_of is 'The lease number of a claim: odd where runs are leased.';
