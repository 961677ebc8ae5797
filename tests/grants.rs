//! What others were granted on routines and views survives a migration.

use fastpubsub::db::schema;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::support::database::TestDatabase;

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn yes(connection: &mut PgConnection, question: &str) -> bool {
    sqlx::query_scalar(AssertSqlSafe(format!("select {question}")))
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{question}: {error}"))
}

async fn migrate_again(connection: &mut PgConnection) {
    run(
        connection,
        "comment on schema pubsub is 'fastpubsub 0.0.1 schema=0 checksum=0000000000000000'",
    )
    .await;
    schema::migrate(connection).await.unwrap();
}

/// A role of this test only; all databases share them.
async fn role(connection: &mut PgConnection) -> String {
    let name = format!("granted_{}", Uuid::now_v7().simple());
    run(connection, &format!("create role {name}")).await;
    name
}

async fn drop_role(connection: &mut PgConnection, name: &str) {
    run(
        connection,
        &format!("drop owned by {name}; drop role {name}"),
    )
    .await;
}

#[tokio::test]
async fn every_grant_is_as_it_was_after_a_migration() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let name = role(&mut connection).await;
    run(
        &mut connection,
        &format!(
            "grant usage on schema pubsub, pubsub_data to {name}; \
             grant insert on pubsub_data.messages to {name}; \
             grant execute on function pubsub.id_at to {name} with grant option; \
             grant execute on procedure pubsub.wait_for_commit to {name}; \
             grant select on pubsub.health to {name}; \
             grant select (topic_id, created_at) on pubsub.topics to {name} with grant option; \
             grant execute on function pubsub.id_time to public"
        ),
    )
    .await;
    let entries = "select array(select x from ( \
            select p.oid::regprocedure || ' ' || p.proacl::text as x from pg_catalog.pg_proc p \
            where p.pronamespace = 'pubsub'::regnamespace \
            union all select n.nspname || n.nspacl::text from pg_catalog.pg_namespace n \
            union all select c.relname || coalesce(c.relacl::text, '') from pg_catalog.pg_class c \
            where c.relnamespace in ('pubsub'::regnamespace, 'pubsub_data'::regnamespace) \
            union all select a.attname || a.attacl::text from pg_catalog.pg_attribute a \
            join pg_catalog.pg_class c on c.oid = a.attrelid \
            where c.relnamespace = 'pubsub'::regnamespace) e order by x)";
    let before: Vec<Option<String>> = sqlx::query_scalar(entries)
        .fetch_one(&mut connection)
        .await
        .unwrap();

    migrate_again(&mut connection).await;

    let after: Vec<Option<String>> = sqlx::query_scalar(entries)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(after, before);
    assert!(before.iter().flatten().any(|entry| entry.contains(&name)));
    drop_role(&mut connection, &name).await;
}

#[tokio::test]
async fn a_grant_follows_its_routine_to_other_arguments_and_all_functions_stay_all() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let (one, all) = (role(&mut connection).await, role(&mut connection).await);
    // as if the release before had other arguments, one function and one view less
    run(
        &mut connection,
        &format!(
            "drop function pubsub.get_topic(text); \
             create function pubsub.get_topic(p_topic int) returns int language sql as 'select 1'; \
             revoke execute on function pubsub.get_topic(int) from public; \
             drop function pubsub.delete_topic(text); drop view pubsub.topics; \
             grant execute on function pubsub.get_topic to {one} with grant option; \
             grant execute on all functions in schema pubsub to {all}; \
             grant select on all tables in schema pubsub to {all}"
        ),
    )
    .await;

    migrate_again(&mut connection).await;

    for (question, answer) in [
        (
            format!(
                "has_function_privilege('{one}', 'pubsub.get_topic(text)', 'execute with grant option')"
            ),
            true,
        ),
        (
            format!("has_function_privilege('{one}', 'pubsub.delete_topic(text)', 'execute')"),
            false,
        ),
        (
            format!("has_function_privilege('{all}', 'pubsub.get_topic(text)', 'execute')"),
            true,
        ),
        (
            format!("has_function_privilege('{all}', 'pubsub.delete_topic(text)', 'execute')"),
            true,
        ),
        (
            format!(
                "has_function_privilege('{all}', 'pubsub.get_topic(text)', 'execute with grant option')"
            ),
            false,
        ),
        (
            format!("has_table_privilege('{all}', 'pubsub.topics', 'select')"),
            true,
        ),
        (
            format!("has_table_privilege('{one}', 'pubsub.topics', 'select')"),
            false,
        ),
    ] {
        assert_eq!(yes(&mut connection, &question).await, answer, "{question}");
    }
    drop_role(&mut connection, &one).await;
    drop_role(&mut connection, &all).await;
}

#[tokio::test]
async fn what_was_open_to_the_public_by_default_is_closed_whatever_its_name() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    run(
        &mut connection,
        "create function pubsub.get_topic(p_topic int) returns int language sql as 'select 1'; \
         create function pubsub.stale() returns int language sql as 'select 1'; \
         grant execute on function pubsub.get_topic(int) to pg_monitor",
    )
    .await;

    migrate_again(&mut connection).await;

    let open = "exists (select from pg_proc p, aclexplode(p.proacl) a \
        where p.pronamespace = 'pubsub'::regnamespace and (p.proacl is null or a.grantee = 0))";
    assert!(!yes(&mut connection, open).await);
}

#[tokio::test]
async fn a_grant_to_a_role_that_is_gone_does_not_stop_a_migration() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    run(
        &mut connection,
        "update pg_catalog.pg_proc set proacl = proacl || \
             makeaclitem(3999999999, 10, 'EXECUTE', false) \
         where pronamespace = 'pubsub'::regnamespace and proname = 'get_topic'",
    )
    .await;

    migrate_again(&mut connection).await;

    run(
        &mut connection,
        "select pubsub.create_topic('t'); select pubsub.get_topic('t')",
    )
    .await;
}
