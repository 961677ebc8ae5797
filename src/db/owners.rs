//! Who owns the schemas: their functions run with the rights of those who call them, so a stranger's
//! are not used.

use sqlx::postgres::PgConnection;

/// Make the schemas that are missing. One that is there needs no right to make any.
pub(super) async fn create_schemas(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "do $$ begin \
             if to_regnamespace('pubsub') is null then create schema pubsub; end if; \
             if to_regnamespace('pubsub_data') is null then create schema pubsub_data; end if; \
         end $$",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What belongs to somebody else, and what to do, in one line. Trusted are the role itself, the roles
/// that it is a member of, and superusers, who may do everything anyway; a superuser trusts these only.
pub(super) async fn foreign(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let found: Option<(String, String, String, String)> = sqlx::query_as(
        "with schemas as ( \
             select n.oid, n.nspname, n.nspowner from pg_namespace n \
             where n.nspname in ('pubsub', 'pubsub_data') \
         ), owned as ( \
             select 1 as turn, 'schema ' || s.nspname as what, s.nspowner as owner, \
                 format('alter schema %s owner to %I', s.nspname, current_user) as cure \
             from schemas s \
             union all \
             select 2, pg_describe_object(d.classid, d.objid, 0), o.refobjid, \
                 format('make %I its owner', current_user) \
             from schemas s \
             join pg_depend d on d.refclassid = 'pg_namespace'::regclass and d.refobjid = s.oid \
             join pg_shdepend o on o.classid = d.classid and o.objid = d.objid \
                 and o.dbid = (select b.oid from pg_database b where b.datname = current_database()) \
                 and o.refclassid = 'pg_authid'::regclass and o.deptype = 'o' \
         ) \
         select o.what, r.rolname::text, me.rolname::text, o.cure \
         from owned o \
         join pg_roles r on r.oid = o.owner \
         join pg_roles me on me.rolname = current_user \
         where not (r.oid = me.oid or r.rolsuper \
             or not me.rolsuper and pg_has_role(me.oid, r.oid, 'MEMBER')) \
         order by o.turn, o.what \
         limit 1",
    )
    // the session may be a pooler's
    .persistent(false)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(what, owner, me, cure)| {
        format!(
            "{what} belongs to {owner}, and {me} is not a member of that role: if you trust it, \
             {cure}; if not, drop it"
        )
    }))
}

/// Act as the owner of schema pubsub, so that all in it has one owner whoever of its members migrates.
/// False where a superuser made it for others to fill.
pub(super) async fn become_owner(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select case when pg_has_role(n.nspowner, 'MEMBER') \
             then set_config('role', r.rolname, true) is not null else false end \
         from pg_namespace n join pg_roles r on r.oid = n.nspowner \
         where n.nspname = 'pubsub'",
    )
    .persistent(false)
    .fetch_one(connection)
    .await
}
