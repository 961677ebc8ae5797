/*
 * Whoever may create an operator or a function in a schema of a session's search_path could have it
 * run with the rights of those who call ours. So no routine looks there:
 *   sql functions that are put into the statements which call them are bound to what they mean when
 *   they are created (begin atomic), as views are;
 *   every other routine has a search_path of its own, given here, so that none is forgotten;
 *   routines on the way of every message, which only routines with one call, have their callers':
 *   switching it costs them some 3 % each;
 *   wait_for_commit, which commits and so cannot have one, qualifies what it uses.
 */
do $$
declare
    v_alter text;
begin
    for v_alter in
        select pg_catalog.format('alter routine %s set search_path = pg_catalog, pg_temp',
            p.oid::regprocedure)
        from pg_catalog.pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
            and p.prosqlbody is null
            and p.proname <> all(array[
                'ack_deliveries', 'ack_held', 'ack_runs', 'believed_fair_hint', 'believed_hint',
                'believed_ordered_hint', 'break_up_range', 'break_up_ready', 'break_up_runs',
                'choose_by_id', 'choose_by_priority', 'choose_fair',
                'choose_ordered', 'claim_fresh', 'claim_fresh_many',
                'claim_in_turn', 'claim_messages',
                'claim_terms_of', 'claim_thoroughly', 'deal_out', 'find_candidates',
                'find_open_lanes', 'first_run', 'highest_first', 'insert_messages', 'keep_runs',
                'lease_chosen', 'lease_deliveries', 'lease_run', 'lease_runs', 'leave_out',
                'lock_lanes', 'lock_leases', 'look_again', 'look_back', 'look_back_ordered',
                'may_be_of_runs', 'next_lanes', 'note_acked', 'note_leases', 'note_run_size',
                'parts_of_run', 'pop_runs', 'pop_wakeups', 'publish_in_runs', 'publish_to_topic',
                'run_bytes_of',
                'runs_ahead', 'settle_deliveries', 'single_out', 'take_due', 'take_due_ordered',
                'take_fresh', 'take_from_lanes', 'take_missed', 'take_range', 'take_runs',
                'take_wakeups', 'wait_for_commit', 'walk_lanes'
            ])
    loop
        execute v_alter;
    end loop;
end
$$;
