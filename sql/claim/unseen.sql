/*
 * Claims that pass over what was delivered before: to anybody ("new"), or to the same consumer ("unseen": others
 * get it). So a worker that could not do something leaves it to another.
 *
 * What was delivered to whom is noted anyway: its holder, also of a lease that ran out, is in the delivery, and
 * deliveries that ended without an ack are in failures, as long as the history of acks is kept. A message that
 * came back with no attempts spent, by a seek, a replay or from the dead letters, begins anew, and leases that
 * nobody saw (release_messages) do not count.
 *
 * Such a claim reads from the oldest message that is not settled, past what is in flight or seen: it costs by
 * these. So it misses nothing, needs no wake-up, and notes nowhere how far it has read, since others still want
 * what it passed. It makes single deliveries of the runs it comes to, and runs get shorter where it is used.
 */

/*
 * has_seen — whether a message was delivered to a consumer since its attempts began. Where many are looked at, the
 * same stands in the statement: the call costs three times as much.
 *
 * In       p_attempts, p_holder: attempts and consumer_id of the delivery
 */
create function pubsub.has_seen(
    p_topic_key bigint, p_subscription_key bigint, p_message_id uuid, p_attempts int, p_holder text,
    p_consumer_id text
)
returns boolean
language sql stable parallel safe
begin atomic
    select p_attempts > 0 and (p_holder is not distinct from p_consumer_id or exists (
        select
        from (
            select f.consumer_id
            from pubsub_data.failures f
            where f.topic_key = p_topic_key
                and f.subscription_key = p_subscription_key
                and f.message_id = p_message_id
            -- a row: by the time alone, the planner might read the index of times
            order by (f.ended_at, f.attempt) desc
            limit p_attempts
        ) f
        where f.consumer_id = p_consumer_id
    ));
end;

comment on function pubsub.has_seen is
    'Whether a message was delivered to a consumer since its attempts began.';

/*
 * take_unseen — lock what is ready and unseen of the single deliveries in a range of ids.
 *
 * In       from p_from on, below p_before; p_taken: ctids to leave out; p_ends: also take what is to end
 * Out      places: the ctids of up to p_limit deliveries, in id order; spent, expired: of those that are to end,
 *          within the same limit
 * Locks    only what it returns; skips locked rows
 */
create function pubsub.take_unseen(
    p_claim pubsub.claim_terms, p_only text, p_consumer_id text, p_from uuid, p_before uuid,
    p_limit int, p_taken tid[], p_ends boolean,
    out places tid[], out spent tid[], out expired tid[]
)
language plpgsql volatile
as $$
begin
    select coalesce(array_agg(p.place order by p.message_id) filter (where p.fate = 'ready'), '{}'),
        array_agg(p.place) filter (where p.fate = 'spent'),
        array_agg(p.place) filter (where p.fate = 'expired')
    into take_unseen.places, take_unseen.spent, take_unseen.expired
    from (
        select d.ctid as place, d.message_id,
            case
                when d.expires_at <= p_claim.now then 'expired'
                when d.attempts >= p_claim.max_attempts then 'spent'
                else 'ready'
            end as fate
        from pubsub_data.deliveries d
        where d.topic_key = p_claim.topic_key
            and d.subscription_key = p_claim.subscription_key
            and d.message_id >= p_from
            and d.message_id < p_before
            and d.visible_at <= p_claim.now
            and d.ctid <> all(p_taken)
            and case
                when d.attempts >= p_claim.max_attempts or d.expires_at <= p_claim.now then p_ends
                when p_only = 'new' or d.attempts = 0 then d.attempts = 0
                else not (d.consumer_id is not distinct from p_consumer_id or exists (
                    select
                    from (
                        select f.consumer_id
                        from pubsub_data.failures f
                        where f.topic_key = p_claim.topic_key
                            and f.subscription_key = p_claim.subscription_key
                            and f.message_id = d.message_id
                        order by (f.ended_at, f.attempt) desc
                        limit d.attempts
                    ) f
                    where f.consumer_id = p_consumer_id
                ))
            end
        order by d.message_id
        limit p_limit
        for update skip locked
    ) p;
end
$$;

comment on function pubsub.take_unseen is
    'Lock what is ready and unseen of the single deliveries in a range of message ids.';

/*
 * take_urgent_unseen — lock what is ready and unseen and has a priority, the highest first, and the oldest
 * within one.
 *
 * In       p_taken: ctids to leave out
 * Out      the ctids of up to p_limit deliveries
 * Locks    only what it returns; skips locked rows
 */
create function pubsub.take_urgent_unseen(
    p_claim pubsub.claim_terms, p_only text, p_consumer_id text, p_limit int, p_taken tid[]
)
returns tid[]
language plpgsql volatile
as $$
begin
    return array(
        select d.place
        from unnest(array['9', '8', '7', '6', '5', '4', '3', '2', '1']) as l (lane)
        cross join lateral (
            select x.ctid as place
            from pubsub_data.deliveries x
            where x.topic_key = p_claim.topic_key
                and x.subscription_key = p_claim.subscription_key
                and x.lane = l.lane
                and x.visible_at <= p_claim.now
                and x.attempts < p_claim.max_attempts
                and (x.expires_at is null or x.expires_at > p_claim.now)
                and x.ctid <> all(p_taken)
                and case
                    when p_only = 'new' or x.attempts = 0 then x.attempts = 0
                    else not (x.consumer_id is not distinct from p_consumer_id or exists (
                        select
                        from (
                            select f.consumer_id
                            from pubsub_data.failures f
                            where f.topic_key = p_claim.topic_key
                                and f.subscription_key = p_claim.subscription_key
                                and f.message_id = x.message_id
                            order by (f.ended_at, f.attempt) desc
                            limit x.attempts
                        ) f
                        where f.consumer_id = p_consumer_id
                    ))
                end
            order by x.message_id
            limit p_limit
            for update skip locked
        ) d
        limit p_limit
    );
end
$$;

comment on function pubsub.take_urgent_unseen is
    'Lock what is ready and unseen and has a priority, the highest first.';

/*
 * choose_unseen — what is ready and unseen, in the order of ids, of runs as of single deliveries.
 *
 * In       p_limit: more than 0; p_taken: ctids to leave out
 * Out      the ctids of up to p_limit deliveries, which are locked now
 * Locks    only what it returns; skips what others hold
 * Effects  breaks up the runs it comes to; of what is spent or expired, ends as many as it may return at most
 */
create function pubsub.choose_unseen(
    p_claim pubsub.claim_terms, p_only text, p_consumer_id text, p_limit int, p_taken tid[]
)
returns tid[]
language plpgsql volatile
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_places tid[] := '{}';
    v_ends boolean := true;
    v_from uuid := '00000000-0000-0000-0000-000000000000';
    v_run_id uuid;
    v_found record;
begin
    loop
        select r.run_id into v_run_id
        from pubsub_data.runs r
        where r.topic_key = p_claim.topic_key
            and r.subscription_key = p_claim.subscription_key
            and r.run_id > v_from
            -- one whose lease ran out was seen by its holder, and only by it
            and (r.lease is null or p_only = 'unseen' and r.ack_deadline <= p_claim.now)
        order by r.run_id
        limit 1;
        loop
            v_found := pubsub.take_unseen(p_claim, p_only, p_consumer_id, v_from,
                coalesce(v_run_id, c_highest), p_limit - cardinality(v_places),
                p_taken || v_places, v_ends);
            v_places := v_places || v_found.places;
            exit when v_found.spent is null and v_found.expired is null;
            -- once a call, so that it does not end thousands of them
            v_ends := false;
            if v_found.spent is not null then
                perform pubsub.dead_letter_deliveries(
                    p_claim.topic_key, p_claim.subscription_key, v_found.spent, 'consumer_lost');
            end if;
            if v_found.expired is not null then
                perform pubsub.expire_deliveries(
                    p_claim.topic_key, p_claim.subscription_key, v_found.expired);
            end if;
            exit when cardinality(v_places) = p_limit;
        end loop;
        exit when cardinality(v_places) = p_limit or v_run_id is null;
        perform pubsub.break_up_runs(
            p_claim.topic_key, p_claim.subscription_key, array[v_run_id]);
        v_from := v_run_id;
    end loop;
    return v_places;
end
$$;

comment on function pubsub.choose_unseen is
    'What is ready and unseen, in the order of ids: rows to lease, locked.';

/*
 * lease_unseen — lease to one consumer what is ready and unseen; of priorities, the highest first, but about one
 * of ten is the oldest.
 *
 * In       p_max_bytes: of its messages, or null; p_least: how many it gets whatever their size, 0 or 1
 * Out      in the order of handing out, of one position: the ids and attempts, null when there are none; bytes: of
 *          them, at most, null without a bound; is_cut: the bound ended it
 */
create function pubsub.lease_unseen(
    p_claim pubsub.claim_terms, p_only text, p_consumer_id text, p_limit int, p_max_bytes bigint,
    p_least int,
    out message_ids uuid[], out attempts int[], out bytes bigint, out is_cut boolean
)
language plpgsql volatile
as $$
declare
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    v_oldest constant int := case when p_claim.mode = 'priorities'
        then floor(p_limit / 10.0 + random())::int else p_limit end;
    v_places tid[] := '{}';
    v_kept record;
    v_leased record;
begin
    if v_oldest > 0 then
        v_places := pubsub.choose_unseen(p_claim, p_only, p_consumer_id, v_oldest, '{}');
    end if;
    if cardinality(v_places) < p_limit and p_claim.mode = 'priorities' then
        v_places := v_places || pubsub.take_urgent_unseen(
            p_claim, p_only, p_consumer_id, p_limit - cardinality(v_places), v_places);
        if cardinality(v_places) < p_limit then
            v_places := v_places || pubsub.choose_unseen(
                p_claim, p_only, p_consumer_id, p_limit - cardinality(v_places), v_places);
        end if;
    end if;
    lease_unseen.is_cut := false;
    if p_only = 'unseen' then
        -- once more: a nack of this consumer may have been committed before they were locked
        v_places := array(
            select p.place
            from unnest(v_places) with ordinality as p (place, position)
            cross join lateral (
                select x.message_id, x.attempts, x.consumer_id
                from pubsub_data.deliveries x
                where x.ctid = p.place
                limit 1
            ) d
            where d.attempts = 0
                or not pubsub.has_seen(p_claim.topic_key, p_claim.subscription_key, d.message_id,
                    d.attempts, d.consumer_id, p_consumer_id)
            order by p.position
        );
    end if;
    if v_places = '{}' then
        return;
    end if;
    -- it lies above the head of nobody: what is left out needs no wake-up
    v_kept := pubsub.leave_out(p_claim, v_places, p_max_bytes, p_least, c_lowest);
    v_places := v_kept.places;
    lease_unseen.bytes := v_kept.bytes;
    lease_unseen.is_cut := v_kept.is_cut;
    if v_places = '{}' then
        return;
    end if;
    v_leased := pubsub.lease_deliveries(
        p_claim, v_places, p_only = 'unseen', array[p_consumer_id], null, null);
    lease_unseen.message_ids := v_leased.message_ids;
    lease_unseen.attempts := v_leased.attempts;
    if p_claim.mode = 'priorities' then
        select array_agg(o.message_id), array_agg(o.attempts)
        into lease_unseen.message_ids, lease_unseen.attempts
        from (
            select i.message_id, i.attempts
            from unnest(message_ids, attempts) as i (message_id, attempts)
            cross join lateral (
                select x.priority
                from pubsub_data.messages x
                where x.topic_key = p_claim.topic_key and x.message_id = i.message_id
                limit 1
            ) m
            order by m.priority desc nulls last, i.message_id
        ) o;
    end if;
end
$$;

comment on function pubsub.lease_unseen is 'Lease to one consumer what is ready and unseen.';

/*
 * fold_wakeups — take some wake-ups that are due off the list, and put back what is left of their messages in
 * fewer: where all claims pass over something, nobody else would take them off.
 */
create function pubsub.fold_wakeups(p_claim pubsub.claim_terms)
returns void
language plpgsql volatile
as $$
declare
    v_live uuid[];
begin
    select w.live into v_live
    from pubsub.pop_wakeups(
        p_claim.topic_key, p_claim.subscription_key, '-infinity', p_claim.now, 1) w;
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select p_claim.topic_key, p_claim.subscription_key, clock_timestamp(), array_agg(i.id)
    from unnest(v_live) with ordinality as i (id, position)
    group by (i.position - 1) / 1000;
end
$$;

comment on function pubsub.fold_wakeups is
    'Take wake-ups that are due off the list, and put back what is left of their messages in fewer.';

/*
 * claim_unseen — lease to consumers, one after the other, what is "new", or "unseen" by each.
 *
 * Out      in the order of handing out, of one position: the ids of the messages, their attempts, and who got
 *          them, null when there are none; is_cut: the bound of bytes ended it
 * Errors   PS422 (only), also where messages may not be passed over: the subscription orders, or shares
 * Locks    only what it leases; skips what others hold
 */
create function pubsub.claim_unseen(
    p_claim pubsub.claim_terms, p_consumer_ids text[], p_sizes int[], p_max_bytes bigint, p_only text,
    out message_ids uuid[], out attempts int[], out consumers int[], out is_cut boolean
)
language plpgsql volatile
as $$
declare
    v_left bigint := p_max_bytes;
    v_found record;
begin
    if p_only not in ('new', 'unseen') then
        perform pubsub.fail_validation('only', 'only must be new or unseen');
    elsif p_claim.mode = 'ordered' then
        perform pubsub.fail_validation('only', 'only cannot be used with enable_ordering: '
            'what is passed over would be overtaken by later messages of its key');
    elsif p_claim.mode = 'fair' then
        perform pubsub.fail_validation('only', 'only cannot be used with fairness_key: '
            'what is passed over would cost its key its share');
    end if;
    claim_unseen.is_cut := false;
    for v_consumer in 1 .. cardinality(p_consumer_ids) loop
        continue when p_sizes[v_consumer] = 0;
        v_found := pubsub.lease_unseen(p_claim, p_only, p_consumer_ids[v_consumer],
            p_sizes[v_consumer], v_left, (message_ids is null)::int);
        if v_found.message_ids is not null then
            claim_unseen.message_ids := message_ids || v_found.message_ids;
            claim_unseen.attempts := attempts || v_found.attempts;
            claim_unseen.consumers := consumers
                || array_fill(v_consumer, array[cardinality(v_found.message_ids)]);
            v_left := v_left - v_found.bytes;
        end if;
        claim_unseen.is_cut := v_found.is_cut or coalesce(v_left <= 0, false);
        exit when is_cut;
    end loop;
    if message_ids is null then
        return;
    end if;
    perform pubsub.note_run_size(p_claim, 1);
    -- now and then, and not of claims that find nothing, which write nothing
    if random() < 0.25 then
        perform pubsub.fold_wakeups(p_claim);
    end if;
end
$$;

comment on function pubsub.claim_unseen is
    'Lease messages that were never delivered, or not to the consumer; does not say what is in them.';
