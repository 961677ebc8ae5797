//! Databases that are set against us, and schemas of somebody else's.

use fastpubsub::db::schema::{self, Fit, MigrateError, Migrated};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::support::database::TestDatabase;
use crate::support::hostile;

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn as_owner(database: &TestDatabase) -> PgConnection {
    let owner = database.options().username(hostile::OWNER);
    owner.connect().await.unwrap()
}

/// Each call as people make it, in an order in which it works.
const CALLS: &[&str] = &[
    "pubsub.create_topic('t')",
    "pubsub.create_topic('dead')",
    "pubsub.update_topic('t', '{\"message_retention_seconds\": 3600}')",
    "pubsub.create_subscription('s', 't', '{\"filter\": {\"a\": [{\"prefix\": \"x\"}, {\"numeric\": [\">\", 1]}]}}')",
    "pubsub.create_subscription('ordered', 't', '{\"enable_ordering\": true, \"ordering_failure\": \"park\"}')",
    "pubsub.create_subscription('fair', 't', '{\"fairness_key\": \"tenant\", \"max_in_flight\": 50}')",
    "pubsub.update_subscription('s', '{\"max_rate\": 100}')",
    "pubsub.make_partitions('messages', 3600)",
    "pubsub.make_partitions('acked', 3600)",
    "pubsub.publish_messages('t', array['{\"a\": \"x\"}', '{\"a\": 5}', '{\"b\": 1}']::jsonb[])",
    "pubsub.publish_messages('t', array['{\"a\": \"x\"}'::jsonb], array['{\"tenant\": \"z\"}'::jsonb], \
        p_ordering_keys => array['k'], p_priorities => array[3::smallint], \
        p_idempotency_keys => array['i'], p_message_keys => array['m'])",
    "pubsub.find_messages('s', array['m'])",
    "pubsub.consume_messages('s', 'me', 2)",
    "pubsub.consume_messages('ordered', 'me', 2)",
    "pubsub.consume_messages('fair', 'me', 2)",
    "pubsub.consume_messages('s', 'you', 1, p_only => 'unseen')",
    "pubsub.consume_messages_from(array['s', 'ordered'], 'me', 1, p_max_bytes => 1000)",
    "pubsub.take_messages('fair', 'me', 1)",
    "pubsub.take_messages_from(array['s'], 'me', 1, p_only => 'new')",
    "pubsub.ack_messages('s', array(select message_id from pubsub_data.deliveries limit 1))",
    "pubsub.nack_messages('s', array(select message_id from pubsub_data.deliveries))",
    "pubsub.cleanup_stuck_messages(60)",
    "pubsub.explain_filter('{\"a\": \"x\"}', null, '{\"a\": [\"y\"]}')",
    "pubsub.matches_filter('{\"a\": \"x\"}', '{\"a\": [\"x\"]}')",
    "pubsub.preview_filter('s', '{\"a\": [\"x\"]}')",
    "pubsub.create_snapshot('snap', 's')",
    "pubsub.seek_subscription('s', now() - interval '1 hour')",
    "pubsub.seek_subscription_to_end('s')",
    "pubsub.seek_subscription_to_snapshot('s', 'snap')",
    "pubsub.advance_jobs()",
    "pubsub.list_jobs()",
    "pubsub.delete_snapshot('snap')",
    "pubsub.list_dlq_messages('s')",
    "pubsub.list_parked_messages('ordered')",
    "pubsub.browse_messages('ordered', 'delivered')",
    "pubsub.backlog_bytes('ordered')",
    "pubsub.update_message('t', (select b.message_id from pubsub.browse_messages('ordered') b limit 1), \
        to_jsonb(repeat('x', 1000)))",
    "pubsub.delete_messages('ordered', array(select b.message_id from pubsub.browse_messages('ordered') b limit 1))",
    "pubsub.purge_subscription('ordered')",
    "pubsub.create_queue('queue', '{}', 'queue.dead')",
    "pubsub.delete_queue('queue')",
    "pubsub.reprocess_dlq_messages('s', '{}')",
    "pubsub.reprocess_matching_dlq_messages('s')",
    "pubsub.purge_dlq_messages('s')",
    "pubsub.subscription_metrics('s')",
    "pubsub.list_subscription_metrics()",
    "pubsub.cleanup_acked_messages(60)",
    "pubsub.cleanup_idempotency_keys(60)",
    "pubsub.cleanup_message_keys(now())",
    "pubsub.id_time(gen_random_uuid())",
    "pubsub.id_at(now())",
    "pubsub.try_lead('job', 'me', 5)",
    "pubsub.fold_counters(0)",
    "pubsub.delete_subscription('fair')",
    "pubsub.purge_deleted_subscriptions()",
    "pubsub.delete_topic('dead')",
];

#[tokio::test]
async fn what_others_plant_in_the_search_path_is_never_run_by_a_routine_or_a_view() {
    let database = TestDatabase::create_empty().await;
    hostile::prepare(&database.options()).await;
    let mut owner = as_owner(&database).await;
    schema::migrate(&mut owner).await.unwrap();
    run(&mut owner, "set statement_timeout = 0").await;
    // what is called as a table, too, and what a session may plant for itself
    run(
        &mut owner,
        "set search_path = pg_catalog; create temp table pg_class (); create temp table deliveries (); \
         create domain pg_temp.uuid as text; create domain pg_temp.timestamptz as text; \
         reset search_path",
    )
    .await;

    for call in CALLS {
        run(&mut owner, &format!("select {call}")).await;
    }
    run(
        &mut owner,
        "call pubsub.wait_for_commit(null::text, 0.01::float8)",
    )
    .await;
    for view in [
        "topics",
        "subscriptions",
        "subscription_messages",
        "health",
        "horizon_holders",
    ] {
        run(&mut owner, &format!("select * from pubsub.{view}")).await;
    }
}

/// A trojan that never bites would prove nothing.
#[tokio::test]
async fn a_routine_without_a_search_path_of_its_own_runs_what_others_plant() {
    let database = TestDatabase::create_empty().await;
    hostile::prepare(&database.options()).await;
    let mut owner = as_owner(&database).await;
    schema::migrate(&mut owner).await.unwrap();

    run(
        &mut owner,
        "alter function pubsub.publish_messages reset search_path",
    )
    .await;
    run(&mut owner, "select pubsub.create_topic('t')").await;
    let bitten = sqlx::raw_sql("select pubsub.publish_messages('t', array['{}'::jsonb])")
        .execute(&mut owner)
        .await
        .unwrap_err();

    assert!(bitten.to_string().contains("a trojan ran"), "{bitten}");
}

#[tokio::test]
async fn schemas_that_somebody_else_made_are_refused_in_one_line() {
    let database = TestDatabase::create_empty().await;
    hostile::create_roles(&database.options()).await;
    let mut admin = database.plain().await;
    for schemas in [
        "create schema pubsub authorization fastpubsub_mallory",
        "create schema pubsub; create schema pubsub_data authorization fastpubsub_mallory",
        "create schema pubsub; create schema pubsub_data; grant all on schema pubsub_data to \
         fastpubsub_mallory; set role fastpubsub_mallory; \
         create function pubsub_data.f() returns int language sql as 'select 1'; reset role",
    ] {
        run(&mut admin, schemas).await;

        let refused = schema::migrate(&mut admin).await.unwrap_err();

        let text = refused.to_string();
        assert!(matches!(refused, MigrateError::Foreign(_)), "{text}");
        assert!(text.contains("belongs to fastpubsub_mallory"), "{text}");
        assert!(
            text.contains("owner to postgres") || text.contains("make postgres its owner"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        let unchecked = schema::check(&mut admin).await.unwrap_err();
        assert!(matches!(unchecked, MigrateError::Foreign(_)), "{unchecked}");
        run(
            &mut admin,
            "drop schema pubsub cascade; drop schema if exists pubsub_data cascade",
        )
        .await;
    }
}

#[tokio::test]
async fn schemas_that_the_administrator_made_need_no_right_on_the_database() {
    let database = TestDatabase::create_empty().await;
    hostile::create_roles(&database.options()).await;
    let mut admin = database.plain().await;
    for schemas in [
        "create schema pubsub authorization fastpubsub_owner; \
         create schema pubsub_data authorization fastpubsub_owner",
        "create schema pubsub; create schema pubsub_data; \
         grant all on schema pubsub, pubsub_data to fastpubsub_owner",
    ] {
        run(&mut admin, schemas).await;
        let mut owner = as_owner(&database).await;

        assert_eq!(
            schema::migrate(&mut owner).await.unwrap(),
            Migrated::Applied
        );

        assert_eq!(schema::check(&mut owner).await.unwrap(), Fit::Same);
        assert_eq!(
            schema::migrate(&mut owner).await.unwrap(),
            Migrated::UpToDate
        );
        run(&mut owner, "select pubsub.create_topic('t')").await;
        owner.close().await.unwrap();
        run(
            &mut admin,
            "drop schema pubsub cascade; drop schema pubsub_data cascade",
        )
        .await;
    }
}

#[tokio::test]
async fn what_a_member_of_the_owning_role_migrates_belongs_to_that_role() {
    let database = TestDatabase::create_empty().await;
    hostile::create_roles(&database.options()).await;
    let mut admin = database.plain().await;
    let member = format!("member_{}", uuid::Uuid::now_v7().simple());
    run(
        &mut admin,
        &format!(
            "create role {member} login in role fastpubsub_owner; \
             create schema pubsub authorization fastpubsub_owner; \
             create schema pubsub_data authorization fastpubsub_owner"
        ),
    )
    .await;
    let mut migrator = database
        .options()
        .username(&member)
        .connect()
        .await
        .unwrap();

    schema::migrate(&mut migrator).await.unwrap();

    migrator.close().await.unwrap();
    let mut owner = as_owner(&database).await;
    assert_eq!(schema::check(&mut owner).await.unwrap(), Fit::Same);
    run(&mut owner, "select pubsub.create_topic('t')").await;
    run(&mut admin, &format!("drop role {member}")).await;
}

#[tokio::test]
async fn an_error_of_the_database_has_no_line_of_its_source() {
    let database = TestDatabase::create_empty().await;
    hostile::create_roles(&database.options()).await;
    let mut owner = as_owner(&database).await;

    let refused = schema::migrate(&mut owner).await.unwrap_err().to_string();

    assert!(
        refused.starts_with("permission denied for database"),
        "{refused}"
    );
    assert!(!refused.contains(" line "), "{refused}");
}
