/*
 * Drop every view, routine and type of schema pubsub, so that the files after this one create the whole set
 * anew and none survives its file. Without cascade: what another schema built on them stops the
 * migration instead of vanishing. What others were granted on them is noted for grants.sql, in a
 * setting that ends with the transaction.
 */
do $$
declare
    c_pubsub constant oid := 'pubsub'::regnamespace;
    v_drop text;
begin
    perform set_config('pubsub.granted', coalesce((
        with objects as (
            select 'routine' as kind, p.proname as name, null as field, p.proowner as owner,
                p.oid::regprocedure::text as signature, p.prokind = 'p' as is_apart, p.proacl as acl
            from pg_proc p
            where p.pronamespace = c_pubsub
            union all
            select 'table', c.relname, null, c.relowner, c.oid::regclass::text, false, c.relacl
            from pg_class c
            where c.relnamespace = c_pubsub and c.relkind = 'v'
            union all
            select 'table', c.relname, a.attname, c.relowner, c.oid::regclass::text, true, a.attacl
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where c.relnamespace = c_pubsub and c.relkind = 'v'
        ), granted as (
            select o.kind, o.name, o.field, o.signature, o.is_apart, g.grantee,
                g.privilege_type as privilege, g.is_grantable as grantable
            from objects o
            cross join aclexplode(o.acl) g
            where g.grantee <> o.owner
        )
        select jsonb_agg(jsonb_build_object('kind', g.kind, 'name', g.name, 'field', g.field,
            'signature', g.signature, 'grantee', g.grantee, 'privilege', g.privilege,
            'grantable', g.grantable,
            -- granted on all functions, or all views, there were
            'on_all', not g.is_apart and g.grantee <> 0 and not exists (
                select from objects o
                where o.kind = g.kind and not o.is_apart
                    and not exists (
                        select from granted x
                        where x.signature = o.signature and x.grantee = g.grantee
                            and x.privilege = g.privilege and x.grantable >= g.grantable
                            and not x.is_apart
                    )
            )))
        from granted g
    )::text, '[]'), true);

    -- each kind in one command, within which the order does not matter
    for v_drop in
        select 'drop view ' || string_agg(c.oid::regclass::text, ', ')
        from pg_class c
        where c.relnamespace = c_pubsub and c.relkind = 'v'
        union all
        select 'drop routine ' || string_agg(p.oid::regprocedure::text, ', ')
        from pg_proc p
        where p.pronamespace = c_pubsub
        union all
        select 'drop type ' || string_agg(c.oid::regclass::text, ', ')
        from pg_class c
        where c.relnamespace = c_pubsub and c.relkind = 'c'
    loop
        continue when v_drop is null;
        execute v_drop;
    end loop;
end
$$;
