/* Claims that go by the order of ids. */

do $$
declare
    c_proves constant text := 'choose_by_id takes what is due, then what was missed, then what is fresh';
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    v_ids uuid[];
    v_claim pubsub.claim_terms;
    v_found record;
begin
    perform pg_temp.stock('chosen');
    v_ids := pg_temp.publish('chosen', 6);
    perform pubsub.consume_messages('chosen', 'consumer', 1);
    perform pg_temp.later('chosen', '1 hour');
    v_claim := pubsub.claim_terms_of('chosen', null, 60);
    -- publishers that committed late are those from 2 to 4
    v_found := pubsub.choose_by_id(v_claim, c_lowest, 5, null, array['consumer'],
        pubsub.believed_hint(v_claim, null, v_ids[4]), pubsub.nothing_chosen('{5}'));
    assert pg_temp.ids_at((v_found.chosen).places) = v_ids[:5] and (v_found.chosen).lost
        and (v_found.hint).head = v_ids[5], format('%s: %s', c_proves, v_found);
    assert pubsub.credible_head(v_claim, v_ids[5], v_ids[4]) = v_ids[5]
        and pubsub.credible_head(v_claim, 'ffffffff-ffff-ffff-ffff-ffffffffffff', v_ids[4])
            between pubsub.id_at(v_claim.now - interval '2 seconds') and v_claim.ahead,
        c_proves || ': no head from the future';
end
$$;
