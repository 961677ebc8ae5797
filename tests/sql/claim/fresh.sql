/* The claim that is made most. */

do $$
declare
    c_proves constant text :=
        'claim_fresh leases the next message that nobody has had, where nothing else is to be looked at';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_other pubsub.claim_hint;
    v_found record;
begin
    perform pg_temp.stock('fresh');
    v_ids := pg_temp.publish('fresh', 6);
    v_claim := pubsub.claim_terms_of('fresh', null, 60);
    update pubsub_data.deliveries d
    set expires_at = case when d.message_id = v_ids[1] then v_claim.now end,
        attempts = case when d.message_id = v_ids[2] then v_claim.max_attempts else 0 end,
        visible_at = case when d.message_id = v_ids[3] then 'infinity' else d.visible_at end,
        lease = case when d.message_id = v_ids[4] then 1 end
    where d.message_id = any(v_ids);
    v_hint := pubsub.believed_hint(v_claim, null, null);
    v_hint.due_recent_at := v_claim.micros + 1;
    v_hint.due_all_at := v_claim.micros + 1;
    v_hint.near_at := v_claim.micros + 1;
    v_hint.far_at := v_claim.micros + 1;

    v_other := v_hint;
    v_other.rewinds := 1;
    v_found := pubsub.claim_fresh(v_claim, '{c}', '{1}', 1, null, null, v_other);
    assert not v_found.is_done and v_found.message_ids is null, c_proves || ': of other rewinds';
    v_other := v_hint;
    v_other.near_at := v_claim.micros - pubsub.look_back_grace();
    assert not (pubsub.claim_fresh(v_claim, '{c}', '{1}', 1, null, null, v_other)).is_done,
        c_proves || ': it is time to look back';
    v_other := v_hint;
    v_other.noted_at := v_claim.micros + 1;
    assert not (pubsub.claim_fresh(v_claim, '{c}', '{1}', 1, null, null, v_other)).is_done,
        c_proves || ': the clock was set back';

    v_found := pubsub.claim_fresh(v_claim, '{c}', '{1}', 1, null, null, v_hint);
    assert v_found.is_done and v_found.message_ids = v_ids[5:5] and v_found.attempts = '{1}'
        and v_found.consumers = '{1}' and (v_found.hint).head = v_ids[5],
        format('%s: %s', c_proves, v_found);
    assert (
        select d.attempts = 1 and d.lease = v_claim.lease and d.visible_at = v_claim.ack_deadline
            and d.leased_at = v_claim.now and d.consumer_id = 'c'
        from pubsub_data.deliveries d
        where d.message_id = v_ids[5]
    ), c_proves || ': its lease';
    assert (
        select count(*) = 1 and bool_and(w.message_ids = v_ids[5:5] and w.head = v_ids[5])
        from pubsub_data.wakeups w
        where w.topic_key = v_claim.topic_key and w.subscription_key = v_claim.subscription_key
            and w.due_at = v_claim.ack_deadline
    ), c_proves || ': its wake-up';

    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    values (v_claim.topic_key, v_claim.subscription_key, v_claim.now, v_ids[4:4]);
    assert not (pubsub.claim_fresh(v_claim, '{c}', '{1}', 1, null, null, v_hint)).is_done,
        c_proves || ': something is due';
    delete from pubsub_data.wakeups w
    where w.topic_key = v_claim.topic_key and w.due_at = v_claim.now;
    -- a lease that ran out, and is not yet due, is found by others only: it has a failure to note
    v_found := pubsub.claim_fresh(v_claim, '{c,d}', '{1,1}', 2, null, null, v_hint);
    assert v_found.message_ids = array[v_ids[4], v_ids[6]] and v_found.consumers = '{1,2}'
        and v_found.is_done, format('%s: two %s', c_proves, v_found);
    assert (
        select count(*) = 1 from pubsub_data.failures f
        where f.message_id = v_ids[4] and f.outcome = 'consumer_lost'
    ), c_proves || ': a failure';
end
$$;

do $$
declare
    c_proves constant text := 'is_up_to_date: a session knows what came back, and no look at what was missed is due';
    v_claim pubsub.claim_terms;
    v_hint pubsub.claim_hint;
    v_other pubsub.claim_hint;
begin
    perform pg_temp.stock('recent');
    v_claim := pubsub.claim_terms_of('recent', null, 60);
    v_hint := pubsub.believed_hint(v_claim, null, null);
    v_hint.due_recent_at := v_claim.micros + 1;
    v_hint.due_all_at := v_claim.micros + 1;
    v_hint.near_at := v_claim.micros + 1;
    v_hint.far_at := v_claim.micros + 1;
    assert pubsub.is_up_to_date(v_claim, v_hint), c_proves;

    assert not pubsub.is_up_to_date(v_claim, null), c_proves || ': nothing was noted';
    v_other := v_hint;
    v_other.due_all_at := v_claim.micros;
    assert not pubsub.is_up_to_date(v_claim, v_other), c_proves || ': wake-ups';
    v_other := v_hint;
    v_other.far_at := v_claim.micros + 60000001;
    assert not pubsub.is_up_to_date(v_claim, v_other), c_proves || ': later than ever noted';
    v_claim.mode := 'priorities';
    assert not pubsub.is_up_to_date(v_claim, v_hint), c_proves || ': more than what is fresh matters';
end
$$;
