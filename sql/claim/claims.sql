/*
 * Claiming. A claim leases deliveries to consumers until their ack deadline. It looks, while it still
 * wants more, at
 *   1. wake-ups that are due: expired leases, ended backoffs and delays;
 *   2. stragglers, below the place it has read up to (head): messages whose publisher committed late,
 *      and claims that were rolled back;
 *   3. fresh messages above head, in publish order.
 *
 * No step may cost more when dead rows, messages in flight or waiting ones pile up (a long transaction
 * keeps vacuum away): 1 starts at the last due time it processed, 3 at head, and 2 looks back over the
 * last second and then, in bites sized to about a millisecond, over everything older, never for more
 * than 5 % of the time. So a publisher that commits late by t is found within about t.
 *
 * head and the other positions are hints of the session (hints.sql). A head whose time lies ahead is
 * never believed and never noted: once the clock was set back, new messages have lower ids.
 *
 * Plans: the tables are often tiny when a connection makes its plans and large when it uses them. So
 * every statement is written to have one plan only: rows are found by a range of the primary key, by
 * all of its columns in a "lateral ... limit 1", or by the ctid under which they were just locked.
 *
 * Lock order everywhere: wake-ups, then deliveries in message id order.
 */

/*
 * believed_hint — the hint of a session, as far as it can be true now.
 *
 * In       p_hint: null where there is none; p_head: another session's
 * Out      a hint with a head, which goes back where messages came back; a new one where it cannot be true
 */
create function pubsub.believed_hint(
    p_claim pubsub.claim_terms, p_hint pubsub.claim_hint, p_head uuid
)
returns pubsub.claim_hint
language plpgsql stable parallel safe
as $$
declare
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_hint pubsub.claim_hint := p_hint;
    v_head uuid;
begin
    if v_hint is not null and least(v_hint.noted_at, v_hint.due_from) >= 0
        and v_hint.far_millis between 1 and 1000000000
        and pubsub.is_credible(p_claim.micros, greatest(v_hint.noted_at, v_hint.due_from),
        greatest(v_hint.due_recent_at, v_hint.due_all_at, v_hint.near_at, v_hint.far_at))
    then
        v_head := case when v_hint.head <= p_claim.ahead then v_hint.head end;
        -- messages came back below what this session has read
        if v_hint.rewinds <> p_claim.rewinds then
            -- rewound_to is that of the last time; who missed more is like a new connection
            v_head := case
                when v_hint.rewinds = p_claim.rewinds - 1 and p_claim.rewound_to is not null
                then least(v_head, p_claim.rewound_to) end;
            v_hint.near_at := 0;
            v_hint.far_at := 0;
            v_hint.far_upto := c_highest;
        end if;
    else
        v_hint := (0, 0, c_lowest, 0, p_claim.micros, 0, 0, 0, c_highest, 1000, 0);
    end if;
    v_head := greatest(v_head, p_head);
    if v_head is null then
        select r.head into v_head
        from (
            select w.head, w.rewinds from pubsub_data.wakeups w
            where w.topic_key = p_claim.topic_key
                and w.subscription_key = p_claim.subscription_key
                and w.due_at > p_claim.now
            order by w.due_at desc, w.wakeup_number desc
            limit 8
        ) r
        where r.rewinds = p_claim.rewinds and r.head <= p_claim.ahead
        order by r.head desc nulls last
        limit 1;
    end if;
    v_hint.head := coalesce(v_head, c_lowest);
    v_hint.rewinds := p_claim.rewinds;
    return v_hint;
end
$$;

comment on function pubsub.believed_hint is
    'What a session has noted of a subscription, as far as it can be true now.';

/*
 * claim_in_turn — what belongs together, as the messages of an ordering key do, must not be dealt out to
 * several consumers: they claim one after the other.
 *
 * In       p_batch_sizes: 0 for whoever gets nothing; p_max_bytes: of all of it
 * Out      as lease_deliveries; hint: with what was read; is_cut: the bound ended it
 */
create function pubsub.claim_in_turn(
    p_claim pubsub.claim_terms, p_floor uuid, p_consumer_ids text[], p_batch_sizes int[],
    p_max_bytes bigint,
    inout hint pubsub.claim_hint, out message_ids uuid[], out attempts int[], out consumers int[],
    out is_cut boolean
)
language plpgsql volatile
as $$
declare
    v_left bigint := p_max_bytes;
    v_due record;
    v_chosen record;
    v_kept record;
    v_leased record;
    v_places tid[];
begin
    claim_in_turn.is_cut := false;
    for v_consumer in 1 .. cardinality(p_consumer_ids) loop
        continue when p_batch_sizes[v_consumer] = 0;
        if p_claim.mode = 'ordered' then
            -- of what is due, too, only what its key allows
            v_due := pubsub.take_wakeups(p_claim, p_batch_sizes[v_consumer], hint, '{}');
            claim_in_turn.hint := v_due.hint;
            v_chosen := pubsub.choose_ordered(
                p_claim, p_floor, p_batch_sizes[v_consumer], hint.head, v_due.places);
            claim_in_turn.hint.head := pubsub.credible_head(p_claim, v_chosen.head, hint.head);
        else
            v_chosen := pubsub.choose_fair(p_claim, p_floor, p_batch_sizes[v_consumer], hint);
            claim_in_turn.hint := v_chosen.hint;
        end if;
        v_places := v_chosen.places;
        continue when v_places = '{}';
        if p_max_bytes is not null then
            -- one message alone may have any size
            v_kept := pubsub.leave_out(p_claim, v_places, v_left,
                case when message_ids is null then 1 else 0 end, null);
            v_places := v_kept.places;
            v_left := v_left - v_kept.bytes;
            claim_in_turn.is_cut := v_kept.is_cut or v_left <= 0;
            exit when v_places = '{}';
        end if;
        v_leased := pubsub.lease_deliveries(p_claim, v_places, v_chosen.lost,
            p_consumer_ids[v_consumer:v_consumer], null,
            case when p_claim.mode = 'ordered' then hint.head end);
        claim_in_turn.message_ids := message_ids || v_leased.message_ids;
        claim_in_turn.attempts := attempts || v_leased.attempts;
        claim_in_turn.consumers :=
            consumers || array_fill(v_consumer, array[cardinality(v_leased.message_ids)]);
        exit when is_cut;
    end loop;
end
$$;

comment on function pubsub.claim_in_turn is 'A claim for one consumer after the other.';

/*
 * claim_thoroughly — what claim_messages does but where the session is up to date and enough is fresh.
 *
 * In       p_wanted: of all consumers; p_hint: null or what the session has noted; p_head: another
 *          session's, or null; chosen: already
 * Out      as claim_in_turn
 */
create function pubsub.claim_thoroughly(
    p_claim pubsub.claim_terms, p_consumer_ids text[], p_batch_sizes int[], p_wanted int,
    p_max_bytes bigint, p_hint pubsub.claim_hint, p_head uuid,
    inout chosen pubsub.chosen,
    out hint pubsub.claim_hint, out message_ids uuid[], out attempts int[], out consumers int[],
    out is_cut boolean
)
language plpgsql volatile
as $$
declare
    v_floor uuid;
    v_head uuid;
    v_found record;
begin
    claim_thoroughly.hint := pubsub.believed_hint(p_claim, p_hint, p_head);
    -- replayed messages may be older than the subscription; a day for clocks that disagree
    select pubsub.id_at(least(t.created_at, p_claim.now) - interval '1 day') into v_floor
    from pubsub_data.topics t
    where t.topic_key = p_claim.topic_key;
    if p_claim.mode in ('ordered', 'fair') then
        -- of before the subscription was that
        if exists (
            select from pubsub_data.runs r
            where r.topic_key = p_claim.topic_key and r.subscription_key = p_claim.subscription_key
        ) then
            perform pubsub.break_up_ready(p_claim.topic_key, p_claim.subscription_key,
                '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
                p_wanted);
        end if;
        v_found := pubsub.claim_in_turn(
            p_claim, v_floor, p_consumer_ids, p_batch_sizes, p_max_bytes, hint);
        claim_thoroughly.hint := v_found.hint;
        claim_thoroughly.is_cut := v_found.is_cut;
    else
        v_head := hint.head;
        v_found := pubsub.choose_by_id(
            p_claim, v_floor, p_wanted, p_max_bytes, p_consumer_ids, hint, chosen);
        claim_thoroughly.chosen := v_found.chosen;
        claim_thoroughly.hint := v_found.hint;
        claim_thoroughly.hint.head := pubsub.credible_head(p_claim, hint.head, v_head);
        if chosen.places = '{}' and chosen.run_ids = '{}' then
            return;
        end if;
        claim_thoroughly.chosen := pubsub.deal_out(p_claim, p_max_bytes,
            case p_claim.mode when 'priorities' then v_head end, chosen);
        claim_thoroughly.is_cut := chosen.is_cut;
        if is_cut and p_claim.mode = 'priorities' then
            -- what is fresh and has no priority is read again: a wake-up would bring it before those that have
            claim_thoroughly.hint.head := v_head;
        end if;
        v_found := pubsub.lease_chosen(p_claim, chosen, p_consumer_ids, hint.head);
    end if;
    claim_thoroughly.message_ids := v_found.message_ids;
    claim_thoroughly.attempts := v_found.attempts;
    claim_thoroughly.consumers := v_found.consumers;
    if p_claim.mode = 'priorities' then
        select array_agg(o.message_id), array_agg(o.attempts), array_agg(o.consumer)
        into claim_thoroughly.message_ids, claim_thoroughly.attempts, claim_thoroughly.consumers
        from (
            select i.message_id, i.attempts, i.consumer
            from unnest(message_ids, attempts, consumers) as i (message_id, attempts, consumer)
            cross join lateral (
                select x.priority
                from pubsub_data.messages x
                where x.topic_key = p_claim.topic_key and x.message_id = i.message_id
                limit 1
            ) m
            order by i.consumer, m.priority desc nulls last, i.message_id
        ) o;
    end if;
end
$$;

comment on function pubsub.claim_thoroughly is
    'A claim that looks at what is due and at what was missed, too.';

/*
 * claim_messages — consume_messages_for, but for what the messages say.
 *
 * In       as consume_messages_for
 * Out      in the order of handing out, of one position: the ids of the messages, their attempts, and who got
 *          them, null when nothing is ready; the rest: what else is told of them
 * Errors   and locks: those of consume_messages_for
 * Effects  leases what it returns
 */
create function pubsub.claim_messages(
    p_subscription_id text, p_consumer_ids text[], p_batch_sizes int[],
    p_ack_deadline_seconds int, p_default_ack_deadline_seconds int,
    p_head uuid, p_rewinds int, p_max_bytes bigint, p_only text,
    out topic_key bigint, out message_ids uuid[], out attempts int[], out consumers int[],
    out lease bigint, out ack_deadline timestamptz, out head uuid, out rewinds int,
    out is_cut boolean
)
language plpgsql volatile
as $$
declare
    v_claim pubsub.claim_terms;
    v_sizes int[] := p_batch_sizes;
    v_wanted int := p_batch_sizes[1];
    v_setting text;
    v_hint pubsub.claim_hint;
    v_head uuid;
    v_found record;
begin
    if (p_consumer_ids[1] is not null and v_wanted between 1 and 1000 and coalesce(p_max_bytes, 1) > 0
        and cardinality(p_consumer_ids) = 1 and cardinality(p_batch_sizes) = 1) is not true
    then
        v_wanted := pubsub.check_claim(p_consumer_ids, p_batch_sizes, p_max_bytes);
    end if;
    v_claim := pubsub.claim_terms_of(
        p_subscription_id, p_ack_deadline_seconds, p_default_ack_deadline_seconds);
    if v_claim.expires_after_seconds is not null
        and not pubsub.note_kept(
            v_claim.topic_key, v_claim.subscription_key, v_claim.expires_after_seconds)
    then
        perform pubsub.fail_gone(v_claim.topic_key, v_claim.subscription_key);
    end if;
    if v_claim.is_limited then
        -- without waiting for others, as who asks for allowances does
        if v_claim.mode = 'paused' then
            return;
        end if;
        v_sizes := pubsub.claim_allowances(
            v_claim.topic_key, v_claim.subscription_key, p_consumer_ids, p_batch_sizes);
        v_wanted := (select sum(z.size) from unnest(v_sizes) as z (size));
        if v_wanted = 0 then
            return;
        end if;
        -- claims before it may have kept it waiting
        v_claim := pubsub.claim_terms_of(
            p_subscription_id, p_ack_deadline_seconds, p_default_ack_deadline_seconds);
    end if;

    if p_only is not null then
        v_found := pubsub.claim_unseen(v_claim, p_consumer_ids, v_sizes, p_max_bytes, p_only);
        claim_messages.lease := v_claim.lease;
    else
        v_setting := pubsub.hint_name('claim', v_claim.subscription_key);
        begin
            v_hint := nullif(current_setting(v_setting, true), '')::pubsub.claim_hint;
        exception when data_exception then
            v_hint := null;
        end;
        v_head := case when p_rewinds = v_claim.rewinds and p_head <= v_claim.ahead then p_head end;
        v_found := pubsub.claim_fresh(
            v_claim, p_consumer_ids, v_sizes, v_wanted, p_max_bytes, v_head, v_hint);
        if not v_found.is_done then
            v_found := pubsub.claim_thoroughly(v_claim, p_consumer_ids, v_sizes, v_wanted, p_max_bytes,
                v_found.hint, v_head, coalesce(v_found.chosen, pubsub.nothing_chosen(v_sizes)));
            -- now and then, and not of claims that find nothing, which write nothing
            if cardinality(v_found.message_ids) > 0 then
                perform pubsub.note_run_size(v_claim, case
                    when pubsub.takes_whole_runs(v_claim)
                        then (select min(z.size) from unnest(p_batch_sizes) as z (size))
                    else 1 end);
            end if;
        end if;
        v_hint := v_found.hint;
        v_hint.noted_at := v_claim.micros;
        v_setting := set_config(v_setting, v_hint::text, false);
        claim_messages.lease := pubsub.lease_of(v_claim, v_found.chosen);
        claim_messages.rewinds := v_claim.rewinds;
        claim_messages.head := case when v_claim.mode <> 'fair' then v_hint.head end;
    end if;
    claim_messages.topic_key := v_claim.topic_key;
    claim_messages.ack_deadline := v_claim.ack_deadline;
    claim_messages.message_ids := v_found.message_ids;
    claim_messages.attempts := v_found.attempts;
    claim_messages.consumers := v_found.consumers;
    claim_messages.is_cut := v_found.is_cut;
    if v_claim.max_rate is not null and cardinality(message_ids) > 0 then
        -- noted after the fact: a second counts from when the last of them was leased
        insert into pubsub_data.handed_out (
            topic_key, subscription_key, handed_out_at, messages
        )
        values (v_claim.topic_key, v_claim.subscription_key, clock_timestamp(),
            cardinality(message_ids));
    end if;
end
$$;

comment on function pubsub.claim_messages is
    'Lease ready messages to several consumers at once; does not say what is in them.';
