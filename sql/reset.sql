/*
 * Drop every view, routine and type of schema pubsub, the newest first, so that the files after this one
 * create the whole set anew and none survives its file. Without cascade: what another schema built
 * on them stops the migration instead of vanishing.
 */
do $$
declare
    v_drop text;
begin
    for v_drop in
        select d.statement
        from (
            select 1 as turn, c.oid, format('drop view pubsub.%I', c.relname) as statement
            from pg_catalog.pg_class c
            where c.relnamespace = 'pubsub'::regnamespace and c.relkind = 'v'
            union all
            select 2, p.oid, format('drop routine %s', p.oid::regprocedure)
            from pg_catalog.pg_proc p
            where p.pronamespace = 'pubsub'::regnamespace
            union all
            select 3, c.oid, format('drop type pubsub.%I', c.relname)
            from pg_catalog.pg_class c
            where c.relnamespace = 'pubsub'::regnamespace and c.relkind = 'c'
        ) d
        order by d.turn, d.oid desc
    loop
        execute v_drop;
    end loop;
end
$$;
