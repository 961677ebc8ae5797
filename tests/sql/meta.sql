/* Rules that the catalogs can check, over everything in pubsub and pubsub_data. */

do $$
declare
    c_proves constant text := 'every routine, view and type has a comment';
begin
    assert not exists (
        select from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
            and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
        union all
        select from pg_class c
        where c.relnamespace = 'pubsub'::regnamespace
            and coalesce(case c.relkind
                when 'c' then obj_description(c.reltype, 'pg_type')
                else obj_description(c.oid, 'pg_class') end, '') = ''
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'schema pubsub holds functions, one procedure, views and row types, nothing else';
begin
    assert (
        select bool_and(c.relkind in ('v', 'c'))
        from pg_class c where c.relnamespace = 'pubsub'::regnamespace
    ), c_proves;
    assert (
        select bool_and(p.prokind = 'f')
        from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
            -- it commits, which functions cannot
            and p.proname <> 'wait_for_commit'
    ), c_proves;
    assert not exists (
        select from pg_proc p where p.pronamespace = 'pubsub_data'::regnamespace
    ), c_proves;
    assert not exists (select from pg_trigger t where not t.tgisinternal), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'every parameter that is not returned has a name that starts with p_';
    v_wrong text;
begin
    select string_agg(format('%s(%s)', p.proname, a.name), ', ') into v_wrong
    from pg_proc p
    cross join lateral (
        select p.proargnames[n] as name, coalesce(p.proargmodes[n], 'i') as mode
        from generate_series(1, coalesce(cardinality(p.proallargtypes), p.pronargs)) n
    ) a
    where p.pronamespace = 'pubsub'::regnamespace
        and a.mode in ('i', 'v')
        and a.name is distinct from 'p_' || substr(a.name, 3);

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'nothing is executable or readable by public';
    v_open text;
begin
    select string_agg(o.name, ', ') into v_open
    from (
        select p.proname::text as name
        from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace in ('pubsub'::regnamespace, 'pubsub_data'::regnamespace)
            and a.grantee = 0
        union all
        select c.relname
        from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace in ('pubsub'::regnamespace, 'pubsub_data'::regnamespace)
            and a.grantee = 0
        union all
        select n.nspname
        from pg_namespace n, aclexplode(n.nspacl) a
        where n.nspname in ('pubsub', 'pubsub_data') and a.grantee = 0
    ) o;

    assert v_open is null, format('%s: %s', c_proves, v_open);
end
$$;

do $$
declare
    c_proves constant text :=
        'routines are sql or plpgsql, and run with the rights of their caller';
    v_wrong text;
begin
    select string_agg(p.proname, ', ') into v_wrong
    from pg_proc p
    join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'pubsub'::regnamespace
        and (l.lanname not in ('sql', 'plpgsql') or p.prosecdef);

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text :=
        'what writes, locks or calls what does is volatile and not parallel safe';
    v_wrong text;
begin
    with recursive bodies as (
        select p.proname::text as name, p.prokind, p.provolatile, p.proparallel,
            -- without comments and strings
            regexp_replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc),
                '--[^\n]*|/\*.*?\*/|''(''''|[^''])*''', ' ', 'g') as body
        from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
    ), writing as (
        select b.name
        from bodies b
        where b.body ~* ('\m(insert\s+into|update\s+[a-z_]+|delete\s+from|merge\s+into|execute|lock'
            '|truncate|nextval|setval|set_config|pg_advisory_xact_lock|for\s+(no\s+key\s+)?update'
            '|for\s+(key\s+)?share)\M')
        union
        select b.name
        from writing w
        join bodies b on b.body ~ ('\mpubsub\.' || w.name || '\(')
    )
    select string_agg(b.name, ', ') into v_wrong
    from bodies b
    where b.prokind = 'f'
        and (exists (select from writing w where w.name = b.name))
        <> (b.provolatile = 'v' and b.proparallel = 'u');

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'the check of volatility sees the writers';
begin
    assert (
        select count(*) = 6 and bool_and(p.provolatile = 'v'
            and p.prosrc ~* '\m(insert|update|delete)\M')
        from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
            and p.proname in ('publish_to_topic', 'lease_deliveries', 'take_due', 'ack_deliveries',
                'retry_deliveries', 'dead_letter_deliveries')
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'only the step of a job and who reads a hint catch exceptions: each is a subtransaction';
begin
    assert array(
        select p.proname::text
        from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace and p.prosrc ~* '\mexception\s+when\M'
        order by p.proname
    ) = array['advance_job', 'believed_fair_hint', 'believed_ordered_hint',
        'choose_by_priority', 'claim_messages'], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'no routine that people call looks for anything in the search_path of its caller';
    v_wrong text;
begin
    select string_agg(p.proname, ', ' order by p.proname) into v_wrong
    from pg_proc p
    where p.pronamespace = 'pubsub'::regnamespace
        and p.prosqlbody is null
        and not coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false);
    assert v_wrong = concat_ws(', ',
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
        'take_runs', 'take_wakeups', 'wait_for_commit', 'walk_lanes'),
        format('%s: %s', c_proves, v_wrong);

    -- the one that commits, and so cannot have a search_path
    select string_agg(f.found[1], ' ') into v_wrong
    from pg_proc p
    cross join regexp_matches(
        regexp_replace(p.prosrc, '--[^\n]*|operator\(pg_catalog\.[^)]*\)', '', 'g'),
        '(\s(?!=>)[<>=+*/|-]+\s|\mdistinct from\M|[^.a-z_][a-z_]+\(|::(?!pg_catalog))', 'g') as f (found)
    where p.pronamespace = 'pubsub'::regnamespace and p.proname = 'wait_for_commit';
    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text :=
        'functions that are put into the statements of their callers are bound when they are created';
    v_wrong text;
begin
    select string_agg(p.proname, ', ') into v_wrong
    from pg_proc p
    join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'pubsub'::regnamespace
        and l.lanname = 'sql' and p.provolatile <> 'v' and not p.proretset
        and (p.prosqlbody is null or p.proconfig is not null);

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text :=
        'no literal means something else where standard_conforming_strings is off';
    v_wrong text;
begin
    select string_agg(p.proname, ', ') into v_wrong
    from pg_proc p
    where p.pronamespace = 'pubsub'::regnamespace
        -- without comments, dollar quotes and escape strings
        and strpos(regexp_replace(p.prosrc,
            '--[^\n]*|/\*.*?\*/|\$r\$.*?\$r\$|\me''(\\.|''''|[^''\\])*''', '', 'gi'), '\') > 0;

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'SQL is put together at run time only where partitions are';
begin
    assert array(
        select p.proname::text
        from pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace and p.prosrc ~* '\mexecute\M'
        order by p.proname
    ) = array['drop_acked_partition', 'drop_message_partitions', 'make_partitions'], c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'routines take and return built-in types, but for what the parts of a claim hand each other';
    v_wrong text;
begin
    select string_agg(distinct p.proname, ', ') into v_wrong
    from pg_proc p
    cross join lateral unnest(
        coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) t (id)
    join pg_type y on y.oid = t.id
    where p.pronamespace = 'pubsub'::regnamespace
        and y.typnamespace <> 'pg_catalog'::regnamespace
        and y.typname not in ('claim_terms', 'claim_hint', 'fair_hint', 'ordered_hint', 'chosen');

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'no hot table has a foreign key, and no foreign key leads to one';
    v_wrong text;
begin
    select string_agg(k.conname, ', ') into v_wrong
    from pg_constraint k
    where k.contype = 'f'
        and array[k.conrelid, k.confrelid]::regclass[] && array[
            'pubsub_data.messages', 'pubsub_data.deliveries', 'pubsub_data.wakeups',
            'pubsub_data.acked', 'pubsub_data.dead_letters'
        ]::regclass[];

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'the columns of every foreign key lead an index';
    v_wrong text;
begin
    select string_agg(k.conname, ', ') into v_wrong
    from pg_constraint k
    where k.contype = 'f' and k.connamespace = 'pubsub_data'::regnamespace
        and not exists (
            select from pg_index i
            where i.indrelid = k.conrelid and i.indpred is null
                and array(select i.indkey[n] from generate_series(0, cardinality(k.conkey) - 1) n)
                    @> k.conkey
        );

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
    assert exists (
        select from pg_constraint k
        where k.contype = 'f' and k.connamespace = 'pubsub_data'::regnamespace
    ), 'there is a foreign key to check';
end
$$;

do $$
declare
    c_proves constant text := 'deletes from every table can be replicated logically';
    v_wrong text;
begin
    select string_agg(c.relname, ', ') into v_wrong
    from pg_class c
    where c.relnamespace = 'pubsub_data'::regnamespace
        and c.relkind = 'r' and c.relreplident <> 'f'
        and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary);

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text := 'topic_key leads the primary key of every hot table';
begin
    assert (
        select count(*) = 4 and bool_and(a.attname = 'topic_key')
        from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indisprimary
            and i.indrelid::regclass = any(array[
                'pubsub_data.messages', 'pubsub_data.deliveries', 'pubsub_data.wakeups',
                'pubsub_data.dead_letters'
            ]::regclass[])
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'no table depends on a routine, so that routines can be dropped';
    v_wrong text;
begin
    select string_agg(pg_describe_object(d.classid, d.objid, d.objsubid), ', ') into v_wrong
    from pg_depend d
    join pg_proc p on p.oid = d.refobjid and d.refclassid = 'pg_proc'::regclass
    where p.pronamespace = 'pubsub'::regnamespace
        -- those of schema pubsub are dropped too
        and not exists (
            select from pg_proc x
            where d.classid = 'pg_proc'::regclass and x.oid = d.objid
                and x.pronamespace = 'pubsub'::regnamespace
        )
        -- a view is a rewrite rule here
        and not exists (
            select from pg_rewrite r
            join pg_class c on c.oid = r.ev_class
            where d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
                and c.relnamespace = 'pubsub'::regnamespace
        );

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

do $$
declare
    c_proves constant text :=
        'what a claim changes is in no index of deliveries, and there is room for HOT updates';
begin
    assert array(
        select distinct a.attname::text
        from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
        where i.indrelid = 'pubsub_data.deliveries'::regclass
        order by 1
    ) = array['lane', 'message_id', 'subscription_key', 'topic_key'], c_proves;
    assert (
        select 'fillfactor=40' = any(c.reloptions)
        from pg_class c where c.oid = 'pubsub_data.deliveries'::regclass
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'the tables whose rows come and go are vacuumed early and without pauses';
begin
    assert (
        select count(*) = 2 and bool_and(c.reloptions @> array[
            'autovacuum_vacuum_scale_factor=0.02', 'autovacuum_vacuum_threshold=1000',
            'autovacuum_vacuum_cost_delay=0'
        ])
        from pg_class c
        where c.oid in ('pubsub_data.deliveries'::regclass, 'pubsub_data.wakeups'::regclass)
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'constraints are named for their meaning, not numbered';
    v_wrong text;
begin
    select string_agg(k.conname, ', ') into v_wrong
    from pg_constraint k
    where k.connamespace = 'pubsub_data'::regnamespace
        and k.contype in ('c', 'u') and k.conname ~ '_(check|key)\d*$';

    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;

/* Original's defect 24. */
do $$
declare
    c_proves constant text :=
        'no index is on a payload, and every table of a subscription is found by its key';
    v_wrong text;
begin
    select string_agg(i.indexrelid::regclass::text, ', ') into v_wrong
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_am m on m.oid = c.relam
    join pg_class t on t.oid = i.indrelid
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
    where t.relnamespace = 'pubsub_data'::regnamespace
        and (m.amname <> 'btree' or a.attname in ('payload', 'attributes'));
    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);

    select string_agg(t.relname, ', ') into v_wrong
    from pg_class t
    join pg_attribute a on a.attrelid = t.oid and a.attname = 'subscription_key'
    where t.relnamespace = 'pubsub_data'::regnamespace
        and t.relkind in ('r', 'p')
        -- small, and read as a whole
        and t.relname <> 'counters'
        and not exists (
            select from pg_index i
            join pg_attribute k on k.attrelid = t.oid and k.attnum = i.indkey[0]
            where i.indrelid = t.oid and k.attname = 'topic_key' and i.indkey[1] = a.attnum
        );
    assert v_wrong is null, format('%s: %s', c_proves, v_wrong);
end
$$;
