/*
 * Drop every view and routine of schema pubsub, so that the files after this one create the whole set
 * anew and none survives its file. Without cascade: what another schema built on them stops the
 * migration instead of vanishing.
 */
do $$
declare
    v_drop text;
begin
    for v_drop in
        select format('drop view pubsub.%I', c.relname)
        from pg_catalog.pg_class c
        where c.relnamespace = 'pubsub'::regnamespace and c.relkind = 'v'
        union all
        select format('drop routine %s', p.oid::regprocedure)
        from pg_catalog.pg_proc p
        where p.pronamespace = 'pubsub'::regnamespace
    loop
        execute v_drop;
    end loop;
end
$$;
