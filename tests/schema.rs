//! Migrations: all or nothing, once, and what ships is what is applied.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fastpubsub::db::schema::{self, Fit, MigrateError, Migrated, ROUTINES};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::golden;
use crate::layers::sources;
use crate::support::database::TestDatabase;

/// Stamps of other releases.
const OLDER: &str = "fastpubsub 0.0.1 schema=0 checksum=0000000000000000";
const NEWER: &str = "fastpubsub 999.0.0 schema=999 checksum=0000000000000000";

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn set_stamp(connection: &mut PgConnection, stamp: &str) {
    execute(
        connection,
        &format!("comment on schema pubsub is '{stamp}'"),
    )
    .await;
}

async fn stamp(connection: &mut PgConnection) -> Option<String> {
    sqlx::query_scalar("select obj_description(to_regnamespace('pubsub'), 'pg_namespace')")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// All that a migration may touch: tables, routines and views with their bodies, rights, comments.
async fn catalog(connection: &mut PgConnection) -> String {
    let bodies: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', pg_get_functiondef(p.oid), p.proacl) from pg_proc p \
         where p.pronamespace = to_regnamespace('pubsub') \
         union all \
         select concat_ws(' ', c.relname, pg_get_viewdef(c.oid), c.relacl, \
             obj_description(c.oid, 'pg_class')) from pg_class c \
         where c.relnamespace = to_regnamespace('pubsub') \
         order by 1",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let stamp = stamp(connection).await;
    let functions = golden::functions(connection).await;
    let tables = golden::tables(connection).await;
    format!("{stamp:?}\n{functions}\n{tables}\n{}", bodies.join("\n"))
}

/// Which row versions the catalogs hold: any change shows, also one that ends where it began.
async fn versions(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select format('%s %s %s', p.oid, p.xmin, p.proname) from pg_proc p \
         where p.pronamespace = to_regnamespace('pubsub') \
         union all \
         select format('%s %s %s', c.oid, c.xmin, c.relname) from pg_class c \
         where c.relnamespace in (to_regnamespace('pubsub'), to_regnamespace('pubsub_data')) \
             and c.relkind <> 'S' \
         order by 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_second_migration_does_nothing() {
    let database = TestDatabase::create_empty().await;
    let mut connection = database.connect().await;

    assert_eq!(
        schema::migrate(&mut connection).await.unwrap(),
        Migrated::Applied
    );
    let before = versions(&mut connection).await;
    assert_eq!(
        schema::migrate(&mut connection).await.unwrap(),
        Migrated::UpToDate
    );

    assert_eq!(versions(&mut connection).await, before);
}

#[tokio::test]
async fn migrators_that_start_at_once_all_succeed_and_one_of_them_applies() {
    for count in [2, 4] {
        let database = TestDatabase::create_empty().await;

        let mut migrators = tokio::task::JoinSet::new();
        for _ in 0..count {
            let mut connection = database.connect().await;
            migrators.spawn(async move { schema::migrate(&mut connection).await.unwrap() });
        }
        let results = migrators.join_all().await;

        let applied = results
            .iter()
            .filter(|result| **result == Migrated::Applied)
            .count();
        assert_eq!(applied, 1, "{results:?}");
        let mut connection = database.connect().await;
        assert_eq!(schema::check(&mut connection).await.unwrap(), Fit::Same);
    }
}

#[tokio::test]
async fn a_failing_file_rolls_back_everything() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "create schema reports; \
         create view reports.topics as select topic_id from pubsub.topics",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;
    let (before, before_versions) = (
        catalog(&mut connection).await,
        versions(&mut connection).await,
    );

    let error = schema::migrate(&mut connection).await.unwrap_err();

    // dependent objects still exist
    let MigrateError::Database(sqlx::Error::Database(error)) = error else {
        panic!("{error}");
    };
    assert_eq!(error.code().as_deref(), Some("2BP01"), "{error}");
    assert_eq!(catalog(&mut connection).await, before);
    assert_eq!(versions(&mut connection).await, before_versions);
    execute(&mut connection, "select from reports.topics").await;
}

#[tokio::test]
async fn a_migration_works_once_what_stood_in_its_way_is_gone() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "create schema reports; \
         create view reports.topics as select topic_id from pubsub.topics",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;
    schema::migrate(&mut connection).await.unwrap_err();

    execute(&mut connection, "drop schema reports cascade").await;

    assert_eq!(
        schema::migrate(&mut connection).await.unwrap(),
        Migrated::Applied
    );
}

#[tokio::test]
async fn what_other_schemas_hold_of_their_own_survives() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "create schema app; create table app.orders (id int); \
         create function app.orders() returns int language sql as 'select 1'",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;

    schema::migrate(&mut connection).await.unwrap();

    execute(
        &mut connection,
        "select from app.orders; select app.orders()",
    )
    .await;
}

#[tokio::test]
async fn routines_and_views_that_no_file_has_vanish() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let before = catalog(&mut connection).await;
    execute(
        &mut connection,
        "create function pubsub.get_topic(p_topic_id text, p_more int) returns int \
             language sql as 'select 1'; \
         create procedure pubsub.stale() language sql as 'select 1'; \
         create aggregate pubsub.stale_sum(int) (sfunc = int4pl, stype = int); \
         create view pubsub.stale_view as select 1 as one",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;

    schema::migrate(&mut connection).await.unwrap();

    assert_eq!(catalog(&mut connection).await, before);
}

#[tokio::test]
async fn views_that_build_on_each_other_are_replaced() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let before = catalog(&mut connection).await;
    execute(
        &mut connection,
        "create view pubsub.a as select * from pubsub.topics; \
         create view pubsub.b as select a.topic_id from pubsub.a",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;

    schema::migrate(&mut connection).await.unwrap();

    assert_eq!(catalog(&mut connection).await, before);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    set_stamp(&mut connection, NEWER).await;
    let before = versions(&mut connection).await;

    let error = schema::migrate(&mut connection).await.unwrap_err();

    assert!(matches!(error, MigrateError::Newer), "{error}");
    assert_eq!(versions(&mut connection).await, before);
    assert_eq!(stamp(&mut connection).await.as_deref(), Some(NEWER));
}

#[tokio::test]
async fn an_older_schema_is_migrated_and_stamped() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let ours = stamp(&mut connection).await;
    set_stamp(&mut connection, OLDER).await;
    assert_eq!(schema::check(&mut connection).await.unwrap(), Fit::Older);

    assert_eq!(
        schema::migrate(&mut connection).await.unwrap(),
        Migrated::Applied
    );

    assert_eq!(schema::check(&mut connection).await.unwrap(), Fit::Same);
    assert_eq!(stamp(&mut connection).await, ours);
    assert!(ours.unwrap().contains(&schema::checksum()));
}

#[tokio::test]
async fn an_empty_database_and_a_foreign_comment_count_as_older() {
    let database = TestDatabase::create_empty().await;
    let mut connection = database.connect().await;

    assert_eq!(schema::check(&mut connection).await.unwrap(), Fit::Older);
    execute(
        &mut connection,
        "create schema pubsub; comment on schema pubsub is 'mine'",
    )
    .await;
    assert_eq!(schema::check(&mut connection).await.unwrap(), Fit::Older);
}

#[tokio::test]
async fn a_schema_that_was_migrated_again_equals_a_fresh_one() {
    let (again, fresh) = (
        TestDatabase::create().await,
        TestDatabase::create_empty().await,
    );
    let (mut again, mut fresh) = (again.connect().await, fresh.connect().await);

    set_stamp(&mut again, OLDER).await;
    schema::migrate(&mut again).await.unwrap();
    schema::migrate(&mut fresh).await.unwrap();

    assert_eq!(catalog(&mut again).await, catalog(&mut fresh).await);
}

#[tokio::test]
async fn messages_survive_a_migration_in_every_state() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "select pubsub.make_partitions('messages', 3600); \
         select pubsub.create_topic('t'); \
         select pubsub.create_subscription('s', 't', '{\"filter\": {\"a\": [1]}, \"max_delivery_attempts\": 1}'); \
         select pubsub.publish_messages('t', array_fill('{\"a\": 1}'::jsonb, array[4])); \
         select pubsub.consume_messages('s', 'c', 3); \
         select pubsub.ack_messages('s', array(select message_id \
             from pubsub.subscription_messages where state = 'delivered' order by 1 limit 1)); \
         select pubsub.nack_messages('s', array(select message_id \
             from pubsub.subscription_messages where state = 'delivered' order by 1 limit 1))",
    )
    .await;
    let states = "select string_agg(m::text, E'\\n' order by m.message_id) \
                  from pubsub.subscription_messages m";
    let before: String = sqlx::query_scalar(states)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    set_stamp(&mut connection, OLDER).await;

    schema::migrate(&mut connection).await.unwrap();

    let after: String = sqlx::query_scalar(states)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(after, before);
    for state in ["acked", "dlq", "delivered", "available"] {
        assert!(after.contains(state), "{state}: {after}");
    }
    let consumed = sqlx::query("select * from pubsub.consume_messages('s', 'c')")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(consumed.len(), 1);
}

#[tokio::test]
async fn a_connection_of_before_goes_on_working() {
    let database = TestDatabase::create().await;
    let (mut old, mut migrator) = (database.connect().await, database.connect().await);
    // prepared once, then kept by the connection
    let call = "select t.id from pubsub.create_topic($1) t";
    let create = async |connection: &mut PgConnection, id: &str| -> String {
        let row = sqlx::query(call).bind(id).fetch_one(connection).await;
        row.unwrap().get(0)
    };
    create(&mut old, "before").await;
    set_stamp(&mut migrator, OLDER).await;

    schema::migrate(&mut migrator).await.unwrap();

    assert_eq!(create(&mut old, "after").await, "after");
}

#[tokio::test]
async fn a_table_file_that_was_edited_after_its_release_is_refused() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "update pubsub_data.refinery_schema_history set checksum = '1' where version = 1",
    )
    .await;
    set_stamp(&mut connection, OLDER).await;
    let before = versions(&mut connection).await;

    let error = schema::migrate(&mut connection).await.unwrap_err();

    assert!(matches!(error, MigrateError::Migration(_)), "{error}");
    assert_eq!(versions(&mut connection).await, before);
}

/// The files of a folder of the project, by their place in it.
fn files(folder: &str) -> BTreeSet<String> {
    sources(folder, &["sql"])
        .iter()
        .map(|file| file.path[folder.len() + 1..].to_owned())
        .collect()
}

#[test]
fn every_file_of_routines_is_embedded_as_it_is() {
    let embedded: BTreeSet<String> = ROUTINES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();

    assert_eq!(embedded, files("sql"));
    assert_eq!(embedded.len(), ROUTINES.len(), "a file is applied twice");
    for (name, text) in ROUTINES {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(name);
        assert_eq!(*text, fs::read_to_string(file).unwrap(), "{name}");
    }
}

#[test]
fn routines_are_dropped_first_and_closed_to_the_public_last() {
    assert_eq!(ROUTINES.first().unwrap().0, "base/reset.sql");
    assert_eq!(ROUTINES.last().unwrap().0, "upkeep/grants.sql");
}

#[tokio::test]
async fn every_file_of_tables_is_applied_in_the_order_of_its_number() {
    let database = TestDatabase::create_empty().await;
    let mut connection = database.connect().await;

    schema::migrate(&mut connection).await.unwrap();

    let applied: Vec<(i32, String)> = sqlx::query_as(
        "select version::int4, format('V%s__%s.sql', version, name) \
         from pubsub_data.refinery_schema_history order by applied_on, version",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(
        applied.is_sorted_by_key(|(version, _)| *version),
        "{applied:?}"
    );
    let names: BTreeSet<String> = applied.into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, files("migrations"));
}
