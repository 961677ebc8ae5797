/*
 * A schema of somebody else's with a twin of every built-in operator and of every built-in function that
 * our files name, and with types of the names of built-in ones. A twin answers as the real one does, but
 * fails when a routine of pubsub runs it.
 */
create schema trojans authorization fastpubsub_mallory;
grant usage on schema trojans to public;
set role fastpubsub_mallory;

/* Only what the twins themselves use. */
create function trojans.alarm() returns void
language plpgsql
set search_path = pg_catalog
as $$
declare
    v_stack text;
    v_frame text;
begin
    get diagnostics v_stack = pg_context;
    -- the outermost one counts: those below it have its search_path
    select f.frame[1] into v_frame
    from regexp_matches(replace(v_stack, '"', ''),
        'function pubsub\.([a-z_]+)|function ([a-z_]+) statement', 'g')
        with ordinality as m (frame, depth)
    cross join lateral (select array[coalesce(m.frame[1], m.frame[2])]) as f (frame)
    where m.frame[1] is not null
        or m.frame[2] in (
            select p.proname from pg_proc p where p.pronamespace = 'pubsub'::regnamespace)
    order by m.depth desc
    limit 1;
    if v_frame is not null and v_frame <> all(array[
        -- parts of the routines that people call
        'ack_deliveries', 'ack_held', 'ack_runs', 'believed_fair_hint', 'believed_hint',
        'believed_ordered_hint', 'break_up_range', 'break_up_ready', 'break_up_runs',
        'choose_by_id', 'choose_by_priority', 'choose_fair', 'choose_ordered',
        'claim_fresh', 'claim_fresh_many', 'claim_in_turn',
        'claim_messages', 'claim_terms_of', 'claim_thoroughly',
        'deal_out', 'find_candidates', 'find_open_lanes', 'first_run', 'highest_first',
        'insert_messages', 'keep_runs', 'lease_chosen', 'lease_deliveries', 'lease_run',
        'lease_runs', 'leave_out', 'lock_lanes', 'lock_leases', 'look_again', 'look_back',
        'look_back_ordered', 'may_be_of_runs', 'next_lanes', 'note_acked', 'note_leases',
        'note_run_size', 'parts_of_run', 'pop_runs', 'pop_wakeups', 'publish_in_runs', 'publish_to_topic',
        'run_bytes_of', 'runs_ahead', 'settle_deliveries', 'single_out', 'take_due',
        'take_due_ordered', 'take_fresh', 'take_from_lanes', 'take_missed', 'take_range',
        'take_runs', 'take_wakeups', 'walk_lanes'
    ]) then
        raise 'a trojan ran in %', v_stack;
    end if;
end
$$;

do $$
declare
    v_twin record;
begin
    for v_twin in
        select o.oid, o.oprname as name, format_type(o.oprleft, null) as "left",
            format_type(o.oprright, null) as "right", format_type(o.oprresult, null) as result
        from pg_operator o
        where o.oprnamespace = 'pg_catalog'::regnamespace
            and not exists (
                select from pg_type t
                where t.typtype = 'p' and t.oid in (o.oprleft, o.oprright, o.oprresult))
    loop
        execute format('create function trojans.operator_%s(%s) returns %s language plpgsql '
                'set search_path = pg_catalog as '
                '''begin perform trojans.alarm(); return %s operator(pg_catalog.%s) %s; end''',
            v_twin.oid, concat_ws(', ', nullif(v_twin."left", '-'), v_twin."right"), v_twin.result,
            case v_twin."left" when '-' then '' else '$1' end, v_twin.name,
            case v_twin."left" when '-' then '$1' else '$2' end);
        execute format('create operator trojans.%s (function = trojans.operator_%s%s, rightarg = %s)',
            v_twin.name, v_twin.oid, ', leftarg = ' || nullif(v_twin."left", '-'), v_twin."right");
    end loop;
    for v_twin in
        select p.oid, p.proname as name, p.proretset as is_set,
            array(
                select format_type(a.id, null)
                from unnest(p.proargtypes) with ordinality as a (id, position)
                order by a.position
            ) as arguments,
            format_type(p.prorettype, null) as result
        from pg_proc p
        where p.pronamespace = 'pg_catalog'::regnamespace
            and p.prokind = 'f' and p.provariadic = 0 and p.proallargtypes is null
            and (p.proname = any(string_to_array(current_setting('trojans.names'), ' '))
                -- casts written as functions
                or p.proname in ('text', 'int4', 'int8', 'float8', 'numeric', 'uuid', 'timestamptz'))
            and not exists (
                select from unnest(p.proargtypes || p.prorettype) as a (id)
                join pg_type t on t.oid = a.id
                where t.typtype = 'p')
    loop
        execute format('create function trojans.%I(%s) returns %s%s language plpgsql '
                'set search_path = pg_catalog as ''begin perform trojans.alarm(); %s '
                'pg_catalog.%I(%s); end''',
            v_twin.name, array_to_string(v_twin.arguments, ', '),
            case when v_twin.is_set then 'setof ' else '' end, v_twin.result,
            case when v_twin.is_set then 'return query select * from' else 'return' end, v_twin.name,
            (
                select string_agg('$' || n, ', ')
                from generate_series(1, cardinality(v_twin.arguments)) n
            ));
    end loop;
    -- of arrays, whose real ones take any: the nearest fit wins, wherever it is
    for v_twin in
        select t.name || '[]' as type
        from unnest(array['uuid', 'text', 'bigint', 'int', 'jsonb', 'tid', 'timestamptz']) as t (name)
    loop
        execute format('create function trojans.cardinality(%s) returns int language plpgsql '
                'set search_path = pg_catalog as ''begin perform trojans.alarm(); '
                'return pg_catalog.cardinality($1); end''', v_twin.type);
        execute format('create function trojans.array_length(%s, int) returns int language plpgsql '
                'set search_path = pg_catalog as ''begin perform trojans.alarm(); '
                'return pg_catalog.array_length($1, $2); end''', v_twin.type);
        execute format('create function trojans.unnest(%s) returns setof %s language plpgsql '
                'set search_path = pg_catalog as ''begin perform trojans.alarm(); '
                'return query select pg_catalog.unnest($1); end''', v_twin.type,
            left(v_twin.type, -2));
        execute format('create function trojans.operator_equal(%s, %s) returns boolean '
                'language plpgsql set search_path = pg_catalog as ''begin perform trojans.alarm(); '
                'return $1 = $2; end''', v_twin.type, v_twin.type);
        execute format('create operator trojans.= (function = trojans.operator_equal, leftarg = %s, '
            'rightarg = %s)', v_twin.type, v_twin.type);
    end loop;
end
$$;

reset role;
