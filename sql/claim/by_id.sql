/*
 * Claims that go by the order of ids: those of plain subscriptions, and, of those with priorities, for what
 * has none.
 */

/*
 * choose_by_id — what a claim of a plain subscription, or of one with priorities, leases: what is due, what
 * it missed, what is fresh. Priorities come before that, but for one of ten, which is the oldest.
 *
 * In       p_limit: of all; p_max_bytes: of the answer, or null; chosen: already
 * Out      chosen: with more; hint: what the next claim goes on from
 * Locks    only what it returns; skips locked rows
 * Effects  those of take_due
 */
create function pubsub.choose_by_id(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int, p_max_bytes bigint,
    p_consumer_ids text[],
    inout hint pubsub.claim_hint, inout chosen pubsub.chosen
)
language plpgsql volatile
as $$
declare
    c_by_priority constant boolean := p_claim.mode = 'priorities';
    v_quota int := p_limit;
    -- of priorities: how many are the turn of the oldest
    v_aged int;
    v_wanted int;
    v_step text;
    v_found record;
begin
    if c_by_priority then
        v_quota := (greatest(0, least(9, hint.since_aged)) + p_limit) / 10;
    end if;
    foreach v_step in array case
        when c_by_priority then array['late', 'fresh', 'due', 'urgent', 'late', 'fresh']
        else array['due', 'late', 'fresh']
    end loop
        if c_by_priority and v_step = 'due' then
            v_aged := cardinality(chosen.places);
            v_quota := p_limit;
        end if;
        v_wanted := v_quota - cardinality(chosen.places) - cardinality(chosen.message_ids);
        continue when v_wanted <= 0 or chosen.is_cut;
        case v_step
            when 'due' then
                v_found := pubsub.take_wakeups(p_claim, v_wanted, hint, chosen.places);
                choose_by_id.hint := v_found.hint;
                choose_by_id.chosen.places := v_found.places;
                choose_by_id.chosen.lost := chosen.lost or v_found.lost;
            when 'late' then
                v_found := pubsub.look_back(
                    p_claim, p_floor, v_wanted, null, hint, chosen.places);
                choose_by_id.hint := v_found.hint;
                choose_by_id.chosen.places := v_found.places;
                choose_by_id.chosen.lost := chosen.lost or v_found.lost;
            when 'urgent' then
                v_found := pubsub.choose_by_priority(p_claim.topic_key, p_claim.subscription_key,
                    p_claim.now, v_wanted, p_claim.max_attempts, p_claim.rewinds, hint.head,
                    chosen.places);
                choose_by_id.chosen.places := chosen.places || v_found.places;
                choose_by_id.chosen.lost := chosen.lost or v_found.lost;
            else
                v_found := pubsub.take_fresh(
                    p_claim, v_quota, p_max_bytes, p_consumer_ids, null, hint.head, chosen);
                choose_by_id.hint.head := v_found.head;
                choose_by_id.chosen := v_found.chosen;
        end case;
    end loop;
    if c_by_priority and chosen.places <> '{}' then
        choose_by_id.hint.since_aged := greatest(0, least(9,
            hint.since_aged + cardinality(chosen.places) - 10 * v_aged));
    end if;
end
$$;

comment on function pubsub.choose_by_id is
    'What a claim leases that goes by the order of ids, or by priorities.';
