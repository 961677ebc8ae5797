/*
 * Runs (catalog/runs.sql) in claims: who wants all of a run gets it as it is, one row; who wants a part of it,
 * a part that is a run of its own; who wants a few messages, single ones, which the run is broken up into.
 *
 * Publishing makes runs as long as what consumers asked for at least, lately. So most are wanted as they are,
 * and what a claim locks but does not lease is rare: others would not get it before that claim commits.
 */

/*
 * takes_whole_runs — whether a claim leases runs as they are: it goes by the order of ids alone, and not within
 * limits, which count messages.
 */
create function pubsub.takes_whole_runs(p_claim pubsub.claim_terms)
returns boolean
language sql immutable parallel safe
begin atomic
    select p_claim.mode = 'plain' and not p_claim.is_limited;
end;

comment on function pubsub.takes_whole_runs is 'Whether a claim leases runs as they are.';

/*
 * note_run_size — let publishing make runs of another length. It gets shorter at once, and longer once a minute
 * at most, so that several consumers, who want different numbers, do not write it again and again.
 *
 * In       p_size: what the claim wants at least for one consumer
 * Locks    its row, if nobody else does
 */
create function pubsub.note_run_size(p_claim pubsub.claim_terms, p_size int)
returns void
-- not sql, which would be planned anew in each transaction
language plpgsql volatile
as $$
begin
    update pubsub_data.run_sizes s
    set run_size = least(p_size, 100), noted_at = p_claim.now
    where s.ctid = (
        select x.ctid
        from pubsub_data.run_sizes x
        where x.topic_key = p_claim.topic_key
            and x.subscription_key = p_claim.subscription_key
            and (x.run_size > p_size
                or x.run_size < least(p_size, 100) and x.noted_at < p_claim.now - interval '1 minute')
        for no key update skip locked
    );
end
$$;

comment on function pubsub.note_run_size is 'Let publishing make runs of another length.';

/*
 * run_bytes_of — how many bytes messages of a run may have in an answer.
 */
create function pubsub.run_bytes_of(p_topic_key bigint, p_message_ids uuid[], p_is_large boolean)
returns bigint
language plpgsql stable
as $$
begin
    if not p_is_large then
        -- at most 512 bytes each as they are stored
        return 4000 * cardinality(p_message_ids);
    end if;
    return (
        select coalesce(sum(1000 + octet_length(m.payload::text)
            + coalesce(octet_length(m.attributes::text), 0)), 0)
        from unnest(p_message_ids) as i (id)
        cross join lateral (
            select x.payload, x.attributes
            from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = i.id
            limit 1
        ) m
    );
end
$$;

comment on function pubsub.run_bytes_of is
    'How many bytes messages of a run may have in an answer.';

/*
 * parts_of_run — to whom messages that follow one another go: to consumers who have room, in their order.
 *
 * Out      of one position: consumers, and how many each gets
 */
create function pubsub.parts_of_run(
    p_room int[], p_messages int, out consumers int[], out sizes int[]
)
language plpgsql immutable
as $$
begin
    if cardinality(p_room) = 1 then
        parts_of_run.consumers := '{1}';
        parts_of_run.sizes := array[p_messages];
        return;
    end if;
    select array_agg(p.consumer), array_agg(p.size) into parts_of_run.consumers, parts_of_run.sizes
    from (
        select s.consumer, least(s.size,
            p_messages - sum(s.size) over (order by s.consumer) + s.size)::int as size
        from unnest(p_room) with ordinality as s (size, consumer)
        where s.size > 0
    ) p
    where p.size > 0;
end
$$;

comment on function pubsub.parts_of_run is 'To whom messages that follow one another go.';

/*
 * lease_run — lease the first messages of a run, which is locked; the rest of it is a run of its own then.
 *
 * In       p_message_ids: of all of it; p_consumers, p_sizes: of parts_of_run
 * Out      the runs that are leased now
 */
create function pubsub.lease_run(
    p_claim pubsub.claim_terms, p_message_ids uuid[], p_is_large boolean, p_consumer_ids text[],
    p_consumers int[], p_sizes int[]
)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_run_ids uuid[] := array[p_message_ids[1]];
    v_upto int := p_sizes[1];
begin
    update pubsub_data.runs r
    set message_ids = p_message_ids[: v_upto], lease = p_claim.lease + 1, leased_at = p_claim.now,
        ack_deadline = p_claim.ack_deadline, consumer_id = p_consumer_ids[p_consumers[1]]
    where r.topic_key = p_claim.topic_key
        and r.subscription_key = p_claim.subscription_key
        and r.run_id = p_message_ids[1];
    for v_part in 2 .. cardinality(p_sizes) loop
        insert into pubsub_data.runs (
            topic_key, subscription_key, run_id, message_ids, is_large, lease, leased_at,
            ack_deadline, consumer_id
        )
        values (p_claim.topic_key, p_claim.subscription_key, p_message_ids[v_upto + 1],
            p_message_ids[v_upto + 1 : v_upto + p_sizes[v_part]], p_is_large, p_claim.lease + 1,
            p_claim.now, p_claim.ack_deadline, p_consumer_ids[p_consumers[v_part]]);
        v_run_ids := v_run_ids || p_message_ids[v_upto + 1];
        v_upto := v_upto + p_sizes[v_part];
    end loop;
    if v_upto < cardinality(p_message_ids) then
        insert into pubsub_data.runs (topic_key, subscription_key, run_id, message_ids, is_large)
        values (p_claim.topic_key, p_claim.subscription_key, p_message_ids[v_upto + 1],
            p_message_ids[v_upto + 1 :], p_is_large);
    end if;
    return v_run_ids;
end
$$;

comment on function pubsub.lease_run is 'Lease the first messages of a run.';

/*
 * lease_runs — lease what is wanted of runs that are ready.
 *
 * In       p_run_ids: of them, in order; p_wanted: how many messages; p_max_bytes: of the answer, or null
 * Out      chosen: with more; head: how far it has read; is_broken: whether one was broken up, and so is to be
 *          read once more
 * Locks    the runs; skips those that others hold
 */
create function pubsub.lease_runs(
    p_claim pubsub.claim_terms, p_run_ids uuid[], p_wanted int, p_max_bytes bigint,
    p_consumer_ids text[],
    inout head uuid, inout chosen pubsub.chosen, out is_broken boolean
)
language plpgsql volatile
as $$
declare
    -- fewer of a run are not worth a row of their own
    c_least constant int := 5;
    c_whole constant boolean := pubsub.takes_whole_runs(p_claim);
    v_left int := p_wanted;
    v_run record;
    v_taken int;
    v_consumers int[];
    v_sizes int[];
    v_bytes bigint;
begin
    lease_runs.is_broken := false;
    for v_run in
        select r.*
        from unnest(p_run_ids) as i (run_id)
        cross join lateral (
            select x.run_id, x.message_ids, x.is_large
            from pubsub_data.runs x
            where x.topic_key = p_claim.topic_key
                and x.subscription_key = p_claim.subscription_key
                and x.run_id = i.run_id
                and x.lease is null
            limit 1
            for update skip locked
        ) r
    loop
        v_taken := least(v_left, cardinality(v_run.message_ids));
        exit when v_taken = 0;
        v_sizes := null;
        if c_whole and v_taken >= c_least then
            select p.consumers, p.sizes into v_consumers, v_sizes
            from pubsub.parts_of_run(chosen.sizes, v_taken) p;
            v_bytes := pubsub.run_bytes_of(p_claim.topic_key, v_run.message_ids[: v_taken],
                v_run.is_large and p_max_bytes is not null);
        end if;
        if (c_least <= all(v_sizes)) is not true or chosen.bytes + v_bytes > p_max_bytes then
            perform pubsub.break_up_runs(
                p_claim.topic_key, p_claim.subscription_key, array[v_run.run_id]);
            lease_runs.is_broken := true;
            return;
        end if;
        lease_runs.chosen.run_ids := chosen.run_ids || pubsub.lease_run(
            p_claim, v_run.message_ids, v_run.is_large, p_consumer_ids, v_consumers,
            v_sizes);
        lease_runs.chosen.message_ids := chosen.message_ids || v_run.message_ids[: v_taken];
        for v_part in 1 .. cardinality(v_sizes) loop
            lease_runs.chosen.consumers := chosen.consumers
                || array_fill(v_consumers[v_part], v_sizes[v_part : v_part]);
            lease_runs.chosen.sizes[v_consumers[v_part]] :=
                chosen.sizes[v_consumers[v_part]] - v_sizes[v_part];
        end loop;
        lease_runs.chosen.bytes := chosen.bytes + v_bytes;
        lease_runs.head := v_run.message_ids[v_taken];
        v_left := v_left - v_taken;
        if v_left = 0 then
            return;
        end if;
    end loop;
    -- those that others hold are passed
    lease_runs.head := greatest(head, p_run_ids[cardinality(p_run_ids)]);
end
$$;

comment on function pubsub.lease_runs is 'Lease what is wanted of runs that are ready.';

/*
 * runs_ahead — the runs that are ready before the next single delivery.
 *
 * In       p_after: above it; p_single_after: of the single delivery; p_wanted: how many messages; p_run_size: of
 *          the first of them
 */
create function pubsub.runs_ahead(
    p_claim pubsub.claim_terms, p_after uuid, p_single_after uuid, p_wanted int, p_run_size int
)
returns uuid[]
language plpgsql stable parallel safe
as $$
declare
    v_single uuid;
begin
    select d.message_id into v_single
    from pubsub_data.deliveries d
    where d.topic_key = p_claim.topic_key
        and d.subscription_key = p_claim.subscription_key
        and d.message_id > p_single_after
    order by d.message_id
    limit 1;
    return array(
        select x.run_id
        from (
            select y.run_id, sum(cardinality(y.message_ids)) over (order by y.run_id)
                - cardinality(y.message_ids) as before
            from (
                select r.run_id, r.message_ids
                from pubsub_data.runs r
                where r.topic_key = p_claim.topic_key
                    and r.subscription_key = p_claim.subscription_key
                    and r.run_id > p_after
                    and r.run_id < coalesce(v_single, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                    and r.lease is null
                order by r.run_id
                -- as many as are wanted, if all are as long
                limit least(20, p_wanted / p_run_size + 1)
            ) y
        ) x
        where x.before < p_wanted
        order by x.run_id
    );
end
$$;

comment on function pubsub.runs_ahead is 'The runs that are ready before the next single delivery.';

/*
 * take_fresh — lock what is ready above head, in the order of ids: single deliveries, and runs, which it leases.
 *
 * In       p_wanted: with what was chosen; p_max_bytes: of the answer, or null; p_from: no single delivery up to it
 *          is ready, or null
 * Out      chosen: with more; head: how far it has read
 * Locks    only what it chooses; skips locked rows
 */
create function pubsub.take_fresh(
    p_claim pubsub.claim_terms, p_wanted int, p_max_bytes bigint, p_consumer_ids text[],
    p_from uuid,
    inout head uuid, inout chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    c_whole constant boolean := pubsub.takes_whole_runs(p_claim);
    v_left int := p_wanted - cardinality(chosen.places) - cardinality(chosen.message_ids);
    v_from uuid := p_from;
    v_run_ids uuid[];
    v_next uuid;
    v_size int;
    v_last uuid;
    v_newest uuid;
    v_found record;
begin
    loop
        -- one statement: what is committed between two would be taken for read
        select n.run_id, n.messages, case when n.run_id is null then (
                select r.message_ids[cardinality(r.message_ids)]
                from pubsub_data.runs r
                where r.topic_key = p_claim.topic_key
                    and r.subscription_key = p_claim.subscription_key
                    and r.run_id > take_fresh.head
                order by r.run_id desc
                limit 1
            ) end, (
                select d.message_id
                from pubsub_data.deliveries d
                where d.topic_key = p_claim.topic_key
                    and d.subscription_key = p_claim.subscription_key
                order by d.message_id desc
                limit 1
            )
        into v_next, v_size, v_last, v_newest
        from (select) one
        left join lateral (
            select r.run_id, cardinality(r.message_ids) as messages
            from pubsub_data.runs r
            where r.topic_key = p_claim.topic_key
                and r.subscription_key = p_claim.subscription_key
                and r.run_id > take_fresh.head
                and r.lease is null
            order by r.run_id
            limit 1
        ) n on true;
        if v_next is not null then
            v_run_ids := pubsub.runs_ahead(
                p_claim, head, greatest(head, v_from), v_left, v_size);
        end if;
        if v_next is not null and v_run_ids <> '{}' then
            if c_whole and chosen.places <> '{}' then
                take_fresh.chosen := pubsub.deal_out(p_claim, p_max_bytes, null, chosen);
                -- what was left out is to come before the runs
                exit when chosen.is_cut;
            end if;
            v_found := pubsub.lease_runs(
                p_claim, v_run_ids, v_left, p_max_bytes, p_consumer_ids, head, chosen);
            take_fresh.head := v_found.head;
            take_fresh.chosen := v_found.chosen;
            if v_found.is_broken then
                v_from := null;
            end if;
            v_left := p_wanted - cardinality(chosen.places) - cardinality(chosen.message_ids);
            exit when v_left = 0;
            continue;
        end if;
        v_found := pubsub.take_range(p_claim, greatest(head, v_from),
            coalesce(v_next, v_newest, head), v_left, chosen.places);
        if v_found.places is not null then
            take_fresh.chosen.places := chosen.places || v_found.places;
            take_fresh.chosen.lost := chosen.lost or v_found.lost;
            take_fresh.chosen.large := chosen.large or v_found.large;
            v_left := v_left - cardinality(v_found.places);
        end if;
        if v_left = 0 or v_next is null then
            take_fresh.head := greatest(head, case when v_left = 0 then v_found.read_upto
                else greatest(v_newest, v_last) end);
            return;
        end if;
        v_from := v_next;
    end loop;
end
$$;

comment on function pubsub.take_fresh is 'Lock what is ready above head: single deliveries and runs.';
