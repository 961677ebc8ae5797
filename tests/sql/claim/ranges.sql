/* What claims look at in the order of ids. */

do $$
declare
    c_proves constant text := 'take_range takes what is ready in a range, in order, and says how far it read';
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_found record;
    v_first tid[];
begin
    perform pg_temp.stock('range');
    v_ids := pg_temp.publish('range', 5);
    v_claim := pubsub.claim_terms_of('range', null, 60);

    v_found := pubsub.take_range(v_claim, c_lowest, c_highest, 2, '{}');
    assert pg_temp.ids_at(v_found.places) = v_ids[:2] and v_found.read_upto = v_ids[2]
        and not v_found.lost and not v_found.large, format('%s: %s', c_proves, v_found);
    v_first := v_found.places;
    v_found := pubsub.take_range(v_claim, c_lowest, c_highest, 9, v_first);
    assert pg_temp.ids_at(v_found.places) = v_ids[3:] and v_found.read_upto = v_ids[5],
        format('%s: without those %s', c_proves, v_found);
    v_found := pubsub.take_range(v_claim, v_ids[2], v_ids[4], 9, '{}');
    assert pg_temp.ids_at(v_found.places) = v_ids[3:4], format('%s: a part %s', c_proves, v_found);

    update pubsub_data.deliveries d
    set visible_at = case when d.message_id = v_ids[1] then 'infinity' else d.visible_at end,
        expires_at = case when d.message_id = v_ids[2] then v_claim.now end,
        attempts = case when d.message_id = v_ids[3] then v_claim.max_attempts else 0 end,
        lease = case when d.message_id = v_ids[4] then 1 end,
        is_large = case when d.message_id = v_ids[5] then true end
    where d.message_id = any(v_ids);
    v_found := pubsub.take_range(v_claim, c_lowest, c_highest, 9, '{}');
    assert pg_temp.ids_at(v_found.places) = v_ids[4:] and v_found.lost and v_found.large,
        format('%s: not what waits, has expired or is spent %s', c_proves, v_found);
    v_found := pubsub.take_range(v_claim, v_ids[5], c_highest, 9, '{}');
    assert num_nulls(v_found.places, v_found.read_upto) = 2, format('%s: none %s', c_proves, v_found);
end
$$;

do $$
declare
    c_proves constant text := 'look_back finds what lies below the head, now and then';
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    v_old uuid[];
    v_new uuid[];
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_found record;
begin
    perform pg_temp.stock('back');
    v_old := pg_temp.publish('back', 2);
    perform pg_temp.an_hour_ago(v_old);
    v_old := array(select d.message_id from pubsub_data.deliveries d
        join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'back' order by d.message_id);
    v_new := pg_temp.publish('back', 2);
    v_claim := pubsub.claim_terms_of('back', null, 60);
    v_hint := pubsub.believed_hint(v_claim, null, v_new[2]);
    assert v_hint.head = v_new[2] and v_hint.far_millis > 0, format('%s: %s', c_proves, v_hint);
    v_hint.far_millis := 7200000;

    v_found := pubsub.look_back(v_claim, c_lowest, 9, null, v_hint, '{}');
    assert pg_temp.ids_at(v_found.places) = v_new || v_old, format('%s: %s', c_proves, v_found);
    assert least((v_found.hint).near_at, (v_found.hint).far_at) > v_claim.micros, c_proves;
    assert (pubsub.look_back(v_claim, c_lowest, 9, null, v_found.hint, '{}')).places = '{}',
        c_proves || ': not at once again';
    v_found := pubsub.look_back(v_claim, c_lowest, 3, null, v_hint, '{}');
    assert pg_temp.ids_at(v_found.places) = v_new || v_old[1] and (v_found.hint).far_upto = v_hint.far_upto,
        format('%s: no more than wanted, and the rest next time %s', c_proves, v_found);
end
$$;

do $$
declare
    c_proves constant text := 'years in which little lies are looked back over in a few milliseconds';
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_floor uuid;
    v_looks int := 0;
begin
    perform pg_temp.stock('years');
    perform pg_temp.publish('years', 1);
    v_claim := pubsub.claim_terms_of('years', null, 60);
    v_floor := pubsub.id_at(v_claim.now - interval '1000 days');
    v_hint := pubsub.believed_hint(v_claim, null, pubsub.id_at(v_claim.now));
    loop
        v_hint.near_at := v_claim.micros + 1;
        v_hint.far_at := 0;
        v_hint := (pubsub.look_back(v_claim, v_floor, 9, null, v_hint, '{}')).hint;
        v_looks := v_looks + 1;
        exit when v_hint.far_upto = 'ffffffff-ffff-ffff-ffff-ffffffffffff' or v_looks = 400;
    end loop;
    assert v_looks < 400, format('%s: %s', c_proves, v_looks);
end
$$;

do $$
declare
    c_proves constant text := 'who finds as many stragglers as it wants looks for more soon';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_found record;
begin
    perform pg_temp.stock('more');
    v_ids := pg_temp.publish('more', 3);
    v_claim := pubsub.claim_terms_of('more', null, 60);
    v_hint := pubsub.believed_hint(v_claim, null, v_ids[3]);
    v_found := pubsub.look_back(v_claim, v_ids[1], 1, null, v_hint, '{}');
    assert pg_temp.ids_at(v_found.places) = v_ids[:1], c_proves;
    -- less by what claim_fresh waits longer
    assert (v_found.hint).near_at + pubsub.look_back_grace() > v_claim.micros
        and (v_found.hint).near_at < v_claim.micros + 1000000, format('%s: %s', c_proves, v_found);
    v_found := pubsub.look_back(v_claim, v_ids[1], 9, null, v_hint, '{}');
    assert (v_found.hint).near_at > v_claim.micros, format('%s: all %s', c_proves, v_found);
end
$$;

do $$
declare
    c_proves constant text := 'take_wakeups looks where wake-ups were committed late, too, now and then';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_found record;
begin
    perform pg_temp.stock('woken');
    v_ids := pg_temp.publish('woken', 2);
    v_claim := pubsub.claim_terms_of('woken', null, 60);
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_claim.topic_key, v_claim.subscription_key, v_claim.now - interval '1 hour', v_ids[1:1]),
        (v_claim.topic_key, v_claim.subscription_key, v_claim.now - interval '4 seconds', v_ids[2:2]);
    v_hint := pubsub.believed_hint(v_claim, null, null);
    v_hint.due_from := v_claim.micros;
    v_hint.due_recent_at := v_claim.micros + 1;
    v_hint.due_all_at := v_claim.micros + 1;
    assert (pubsub.take_wakeups(v_claim, 9, v_hint, '{}')).places = '{}', c_proves;

    v_hint.due_recent_at := v_claim.micros;
    v_found := pubsub.take_wakeups(v_claim, 9, v_hint, '{}');
    assert pg_temp.ids_at(v_found.places) = v_ids[2:2]
        and (v_found.hint).due_recent_at > v_claim.micros, format('%s: %s', c_proves, v_found);
    v_hint.due_all_at := v_claim.micros;
    v_found := pubsub.take_wakeups(v_claim, 9, v_hint, v_found.places);
    assert pg_temp.ids_at(v_found.places) = array[v_ids[2], v_ids[1]]
        and (v_found.hint).due_all_at > v_claim.micros, format('%s: %s', c_proves, v_found);
end
$$;
