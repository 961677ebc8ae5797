/*
 * Claims that go by the order of ids: those of plain subscriptions, and, of those with priorities, for what
 * has none.
 */

/*
 * choose_by_id — what a claim of a plain subscription, or of one with priorities, leases: what is due, what
 * it missed, what is fresh. Priorities come before that, but for one of ten, which is the oldest.
 *
 * In       p_limit: of all; places: what was chosen already
 * Out      places: in the order of handing out; hint: what the next claim goes on from; lost: whether the
 *          consumer of any let its lease run out
 * Locks    only what it returns; skips locked rows
 * Effects  those of take_due
 */
create function pubsub.choose_by_id(
    p_claim pubsub.claim_terms, p_floor uuid, p_limit int,
    inout hint pubsub.claim_hint, inout places tid[], inout lost boolean
)
language plpgsql volatile
as $$
declare
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
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
            v_aged := cardinality(places);
            v_quota := p_limit;
        end if;
        v_wanted := v_quota - cardinality(places);
        continue when v_wanted <= 0;
        case v_step
            when 'due' then
                v_found := pubsub.take_wakeups(p_claim, v_wanted, hint, places);
                choose_by_id.hint := v_found.hint;
                choose_by_id.places := v_found.places;
            when 'late' then
                v_found := pubsub.look_back(p_claim, p_floor, v_wanted, null, hint, places);
                choose_by_id.hint := v_found.hint;
                choose_by_id.places := v_found.places;
            when 'urgent' then
                v_found := pubsub.choose_by_priority(p_claim.topic_key, p_claim.subscription_key,
                    p_claim.now, v_wanted, p_claim.max_attempts, p_claim.rewinds, hint.head, places);
                choose_by_id.places := places || v_found.places;
            else
                v_found := pubsub.take_range(p_claim, hint.head, c_highest, v_wanted, places);
                choose_by_id.hint.head := coalesce(v_found.read_upto, hint.head);
                choose_by_id.places := places || v_found.places;
        end case;
        choose_by_id.lost := lost or v_found.lost;
    end loop;
    if c_by_priority and places <> '{}' then
        choose_by_id.hint.since_aged := greatest(0, least(9,
            hint.since_aged + cardinality(places) - 10 * v_aged));
    end if;
end
$$;

comment on function pubsub.choose_by_id is
    'What a claim leases that goes by the order of ids, or by priorities.';
