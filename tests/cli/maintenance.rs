//! What the server does by itself, without cron.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use super::shutdown::blocked;
use super::{PATIENCE, Sandbox};
use crate::support::database::TestDatabase;
use crate::support::{TestApp, answer, ids};

/// Run statements.
async fn execute(database: &TestDatabase, sql: &'static str) {
    let mut connection = database.connect().await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

/// Wait until a condition holds in the database.
async fn becomes_true(database: &TestDatabase, condition: &str) {
    let mut connection = database.connect().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let query = AssertSqlSafe(format!("select {condition}"));
        let holds: bool = sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if holds {
            return;
        }
        assert!(Instant::now() < deadline, "{condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Original's defect 28.
#[tokio::test]
async fn acked_messages_are_forgotten_by_age_without_a_cron_job() {
    let database = TestDatabase::create().await;
    execute(
        &database,
        r#"
        select pubsub.create_topic('t');
        select pubsub.create_subscription('s', 't');
        select pubsub.publish_messages('t', array['{"n": 1}', '{"n": 2}']::jsonb[]);
        select pubsub.ack_messages('s', array_agg(c.message_id))
        from pubsub.consume_messages('s', 'c', 1, null, 60) c;
        update pubsub_data.acked set acked_at = acked_at - interval '2 minutes';
        select pubsub.ack_messages('s', array_agg(c.message_id))
        from pubsub.consume_messages('s', 'c', 1, null, 60) c;
        "#,
    )
    .await;
    let sandbox = Sandbox::over(&database.url());

    let flags = ["--cleanup-acked-messages-older-than-seconds", "60"];
    let _server = sandbox.serve(&flags).await;

    let kept = "(select count(*) from pubsub_data.acked) = 1";
    becomes_true(&database, kept).await;
}

#[tokio::test]
async fn another_server_takes_the_background_work_over_from_one_that_died() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut first = sandbox.serve(&[]).await;
    becomes_true(&database, "exists (select from pubsub_data.leaders)").await;
    first.signal(Signal::SIGKILL);
    first.exits_within(PATIENCE).await;
    // as if the time of its lease had passed
    execute(
        &database,
        "update pubsub_data.leaders set held_until = now() - interval '1 second', holder = 'dead'",
    )
    .await;

    let _second = sandbox.serve(&[]).await;

    becomes_true(
        &database,
        "(select l.holder <> 'dead' from pubsub_data.leaders l)",
    )
    .await;
}

#[tokio::test]
async fn a_publish_goes_through_while_partitions_are_made() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let mut maintainer = app.database.connect().await;
    let mut making = maintainer.begin().await.unwrap();
    sqlx::query("select pubsub.make_partitions('messages', 3600)")
        .execute(&mut *making)
        .await
        .unwrap();

    let publish = app.request("POST", "/topics/t/messages");
    let publish = tokio::spawn(answer(publish.json(&json!([{"n": 1}]))));
    blocked(&app.database).await;
    making.commit().await.unwrap();

    publish.await.unwrap().expect(204);
    assert_eq!(app.consume("s").await.len(), 1);
}

#[tokio::test]
async fn an_ack_goes_through_while_partitions_are_made() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);
    let acked = ids(&app.consume("s").await);
    let mut maintainer = app.database.connect().await;
    let mut making = maintainer.begin().await.unwrap();
    sqlx::query("select pubsub.make_partitions('acked', 3600)")
        .execute(&mut *making)
        .await
        .unwrap();

    let ack = app.request("POST", "/subscriptions/s/acks");
    let ack = tokio::spawn(answer(ack.json(&acked)));
    blocked(&app.database).await;
    making.commit().await.unwrap();

    ack.await.unwrap().expect(204);
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    assert_eq!(metrics["acked"], 1);
}

#[tokio::test]
async fn the_server_warns_of_a_transaction_that_keeps_dead_rows() {
    let database = TestDatabase::create().await;
    execute(
        &database,
        "do $$ begin execute format('alter database %I set pubsub.warn_oldest_snapshot_age_seconds \
         = 0', current_database()); end $$",
    )
    .await;
    let mut holder = database.plain().await;
    sqlx::raw_sql(
        "set application_name = 'forgotten prompt'; begin isolation level repeatable read; select 1",
    )
    .execute(&mut holder)
    .await
    .unwrap();
    let sandbox = Sandbox::over(&database.url());

    let mut server = sandbox.serve(&[]).await;

    let log = server.logged("oldest_snapshot_age_seconds").await;
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("oldest_snapshot_age_seconds"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for part in ["warn", "forgotten prompt", "pg_terminate_backend"] {
        assert!(warnings[0].to_lowercase().contains(part), "{log}");
    }
}
