/*
 * Runs (catalog/runs.sql) in claims: who wants all of a run gets it as it is, one row; who wants a part of it,
 * a part that is a run of its own; who wants a few messages, single ones, of which the run is made then.
 */

/* chosen — what a claim has chosen so far; all of it is locked. No field is ever null. */
create type pubsub.chosen as (
    -- single deliveries, in the order of handing out
    places tid[],
    -- runs, and who gets them: 1 is the first consumer
    run_ids uuid[],
    run_consumers int[],
    -- of all runs; the bytes at most
    run_messages int,
    run_bytes bigint,
    -- how many more each consumer may get, single ones left aside
    sizes int[],
    -- whether the consumer of any may have let its lease run out; whether the message of any single one may
    -- be large
    lost boolean,
    large boolean
);

comment on type pubsub.chosen is 'What a claim has chosen so far.';

/* nothing_chosen — what a claim begins with. */
create function pubsub.nothing_chosen(p_batch_sizes int[])
returns pubsub.chosen
language sql immutable parallel safe
begin atomic
    select row('{}', '{}', '{}', 0, 0, p_batch_sizes, false, false)::pubsub.chosen;
end;

comment on function pubsub.nothing_chosen is 'What a claim begins with.';

/*
 * run_bytes_of — how many bytes the messages of a run may have in an answer.
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
        select coalesce(sum(1000 + octet_length(m.payload::text)), 0)
        from unnest(p_message_ids) as i (id)
        cross join lateral (
            select x.payload
            from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = i.id
            limit 1
        ) m
    );
end
$$;

comment on function pubsub.run_bytes_of is
    'How many bytes the messages of a run may have in an answer.';

/*
 * take_fresh — lock what is ready above head, in the order of ids: single deliveries, and runs.
 *
 * In       p_wanted: with what was chosen; p_max_bytes: of the answer, or null
 * Out      chosen: with more; head: how far it has read
 * Locks    only what it chooses; skips locked rows
 */
create function pubsub.take_fresh(
    p_claim pubsub.claim_terms, p_wanted int, p_max_bytes bigint,
    inout head uuid, inout chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    -- fewer of a run are not worth a row of their own
    c_least constant int := 5;
    c_whole constant boolean := p_claim.mode = 'plain' and not p_claim.is_limited;
    v_left int := p_wanted - cardinality(chosen.places) - chosen.run_messages;
    v_next uuid;
    v_last uuid;
    v_are_single boolean;
    v_read_upto uuid;
    v_found record;
    v_run record;
    v_consumers int[];
    v_sizes int[];
    v_taken int;
    v_bytes bigint;
begin
    loop
        -- one statement: what is committed between two would be taken for read
        select n.run_id,
            case when n.run_id is null then (
                select r.message_ids[cardinality(r.message_ids)]
                from pubsub_data.runs r
                where r.topic_key = p_claim.topic_key
                    and r.subscription_key = p_claim.subscription_key
                    and r.run_id > take_fresh.head
                order by r.run_id desc
                limit 1
            ) end,
            exists (
                select from pubsub_data.deliveries d
                where d.topic_key = p_claim.topic_key
                    and d.subscription_key = p_claim.subscription_key
                    and d.message_id > take_fresh.head
                    and d.message_id <= coalesce(n.run_id, c_highest)
            )
        into v_next, v_last, v_are_single
        from (
            select (
                select r.run_id
                from pubsub_data.runs r
                where r.topic_key = p_claim.topic_key
                    and r.subscription_key = p_claim.subscription_key
                    and r.run_id > take_fresh.head
                    and r.lease is null
                order by r.run_id
                limit 1
            ) as run_id
        ) n;
        if v_are_single then
            v_found := pubsub.take_range(
                p_claim, head, coalesce(v_next, c_highest), v_left, chosen.places);
            if v_found.places is not null then
                take_fresh.chosen.places := chosen.places || v_found.places;
                take_fresh.chosen.lost := chosen.lost or v_found.lost;
                take_fresh.chosen.large := chosen.large or v_found.large;
                v_left := v_left - cardinality(v_found.places);
            end if;
            v_read_upto := v_found.read_upto;
        else
            v_read_upto := null;
        end if;
        if v_next is null or v_left = 0 then
            take_fresh.head := greatest(head, v_read_upto,
                case when v_left > 0 then v_last end);
            return;
        end if;

        select r.message_ids, r.is_large into v_run
        from pubsub_data.runs r
        where r.topic_key = p_claim.topic_key
            and r.subscription_key = p_claim.subscription_key
            and r.run_id = v_next
            and r.lease is null
        limit 1
        for update skip locked;
        if not found then
            take_fresh.head := v_next;
            continue;
        end if;
        v_taken := null;
        if c_whole and least(v_left, cardinality(v_run.message_ids)) >= c_least then
            v_taken := least(v_left, cardinality(v_run.message_ids));
            v_consumers := '{1}';
            v_sizes := array[v_taken];
            if cardinality(chosen.sizes) > 1 then
                -- to whom has room, one after the other
                select array_agg(p.consumer), array_agg(p.size) into v_consumers, v_sizes
                from (
                    select s.consumer, least(s.size, v_taken
                        - sum(s.size) over (order by s.consumer) + s.size)::int as size
                    from unnest(chosen.sizes) with ordinality as s (size, consumer)
                    where s.size > 0
                ) p
                where p.size > 0;
            end if;
            v_bytes := pubsub.run_bytes_of(p_claim.topic_key, v_run.message_ids[: v_taken],
                v_run.is_large and p_max_bytes is not null);
        end if;
        if v_taken is null or c_least > any(v_sizes) or chosen.run_bytes + v_bytes > p_max_bytes then
            perform pubsub.break_up_runs(
                p_claim.topic_key, p_claim.subscription_key, array[v_next], false);
            continue;
        end if;
        if cardinality(v_sizes) > 1 or v_taken < cardinality(v_run.message_ids) then
            take_fresh.chosen.run_ids := chosen.run_ids || pubsub.cut_run(
                p_claim.topic_key, p_claim.subscription_key, v_run.message_ids, v_run.is_large,
                v_sizes);
        else
            take_fresh.chosen.run_ids := chosen.run_ids || v_next;
        end if;
        take_fresh.chosen.run_consumers := chosen.run_consumers || v_consumers;
        for v_part in 1 .. cardinality(v_sizes) loop
            take_fresh.chosen.sizes[v_consumers[v_part]] :=
                chosen.sizes[v_consumers[v_part]] - v_sizes[v_part];
        end loop;
        take_fresh.chosen.run_messages := chosen.run_messages + v_taken;
        take_fresh.chosen.run_bytes := chosen.run_bytes + v_bytes;
        take_fresh.head := v_run.message_ids[v_taken];
        v_left := v_left - v_taken;
        if v_left = 0 then
            return;
        end if;
    end loop;
end
$$;

comment on function pubsub.take_fresh is 'Lock what is ready above head: single deliveries and runs.';
