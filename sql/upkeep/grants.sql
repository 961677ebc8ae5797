/*
 * Routines are executable by everyone unless that is taken away. Only the owner may call them until
 * somebody is granted usage on schema pubsub and execute on a routine.
 */
revoke execute on all routines in schema pubsub from public;

/*
 * What was granted before the migration is granted again: on the view, or column, of the same name; on
 * the routine with the same arguments or, where they changed, on all of its name. Who had a right on all
 * functions, or all views, has it on the new ones, which the old ones may need. What was open to the
 * public stays open only where nothing changed. Roles that are gone are passed over.
 */
do $$
declare
    v_grant text;
begin
    for v_grant in
        with granted as (
            select g.*, r.rolname
            from jsonb_to_recordset(nullif(current_setting('pubsub.granted', true), '')::jsonb) as g (
                kind text, name text, field text, signature text, grantee oid, privilege text,
                grantable boolean, on_all boolean)
            left join pg_roles r on r.oid = g.grantee
            where g.grantee = 0 or r.oid is not null
        ), objects as (
            select 'routine' as kind, p.proname as name, p.oid::regprocedure::text as signature,
                p.prokind = 'p' as is_apart, null::oid as view
            from pg_proc p
            where p.pronamespace = 'pubsub'::regnamespace
            union all
            select 'table', c.relname, c.oid::regclass::text, false, c.oid
            from pg_class c
            where c.relnamespace = 'pubsub'::regnamespace and c.relkind = 'v'
        )
        select distinct format('grant %s%s on %s %s to %s%s', g.privilege, ' (' || quote_ident(a.attname) || ')',
            g.kind, o.signature, coalesce(quote_ident(g.rolname), 'public'),
            case when g.grantable then ' with grant option' else '' end)
        from granted g
        join objects o
            on o.kind = g.kind
            and case
                when g.on_all then not o.is_apart
                when o.signature = g.signature then true
                else o.name = g.name and g.grantee <> 0
                    and not exists (select from objects x where x.signature = g.signature)
            end
        left join pg_attribute a on a.attrelid = o.view and a.attname = g.field
        where g.field is null or a.attname is not null
    loop
        execute v_grant;
    end loop;
end
$$;
