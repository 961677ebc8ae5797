//! Pulls that wait. None of them looks at a clock but to see that it was not for the end of its wait
//! that it was answered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{app_with, consume_one, numbered, payloads, publish};
use crate::support::{Answer, TestApp, answer};

/// No wait of these tests ends by itself within it.
const SOON: Duration = Duration::from_secs(15);

pub(super) fn waiting(app: &TestApp, consumer: &str) -> JoinHandle<(Answer, Duration)> {
    let request = app
        .request("POST", "/subscriptions/s/pull")
        .json(&json!({"consumer_id": consumer, "max_messages": 2, "wait_seconds": 30}));
    let started = Instant::now();
    tokio::spawn(async move { (answer(request).await, started.elapsed()) })
}

pub(super) async fn execute(app: &TestApp, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&app.pool())
        .await
        .unwrap();
}

/// Until so many servers watch for commits: somebody waits there.
pub(in crate::http) async fn watched_by(app: &TestApp, servers: i64) {
    let watching = "query like 'call pubsub.wait_for_commit%' and state = 'active'";
    sessions(app, watching, servers, "nobody waits").await;
}

/// Until the first claim of this database is over.
pub(super) async fn claimed(app: &TestApp) {
    let claimed = "query like '%pubsub.consume_messages_for%' and state = 'idle'";
    sessions(app, claimed, 1, "nobody claims").await;
}

async fn sessions(app: &TestApp, which: &str, wanted: i64, otherwise: &str) {
    let pool = app.pool();
    // not itself, which has the same words in it
    let count = format!(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and pid <> pg_backend_pid() and {which}"
    );
    let counted = async {
        loop {
            let query = sqlx::query_scalar(AssertSqlSafe(count.clone()));
            let sessions: i64 = query.fetch_one(&pool).await.unwrap();
            if sessions == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, counted).await.expect(otherwise);
}

pub(super) async fn messages(waiting: JoinHandle<(Answer, Duration)>) -> Vec<Value> {
    let (answer, after) = waiting.await.unwrap();
    assert!(after < SOON, "{after:?}");
    let pulled = answer.expect(200).json();
    pulled["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_wait_ends_when_this_server_publishes() {
    let app = app_with(json!({})).await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    publish(&app, numbered(0..1)).await;

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 0})]);
}

#[tokio::test]
async fn a_wait_ends_when_somebody_publishes_from_psql() {
    let app = app_with(json!({})).await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    execute(
        &app,
        "select pubsub.publish_messages('t', array['{\"n\": 7}'::jsonb])",
    )
    .await;

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 7})]);
}

#[tokio::test]
async fn a_wait_ends_when_another_server_publishes() {
    let app = app_with(json!({})).await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    publish(&other, numbered(3..4)).await;

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 3})]);
}

#[tokio::test]
async fn a_wait_ends_with_the_backoff_of_a_message() {
    let app = app_with(json!({"backoff_min_seconds": 1000, "backoff_max_seconds": 1000})).await;
    publish(&app, numbered(0..1)).await;
    let message = consume_one(&app).await;
    app.post("/subscriptions/s/nacks", json!([message["receipt"]]))
        .await
        .expect(204);
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    app.pass_seconds(999.0).await;

    assert_eq!(messages(waits).await[0]["delivery_attempts"], 2);
}

#[tokio::test]
async fn a_wait_ends_with_the_lease_of_a_message() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..1)).await;
    app.post(
        "/subscriptions/s/pull",
        json!({"consumer_id": "gone", "ack_deadline_seconds": 2}),
    )
    .await
    .expect(200);

    // nothing is committed meanwhile
    let waits = waiting(&app, "c");

    assert_eq!(messages(waits).await[0]["delivery_attempts"], 2);
}

#[tokio::test]
async fn a_wait_ends_with_a_nack_that_asks_for_no_delay() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..1)).await;
    let message = consume_one(&app).await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    app.post(
        "/subscriptions/s/settle",
        json!({"nacks": [{"receipt": message["receipt"], "delay_seconds": 0}]}),
    )
    .await
    .expect(200);

    assert_eq!(messages(waits).await[0]["delivery_attempts"], 2);
}

#[tokio::test]
async fn who_does_not_wait_is_answered_at_once() {
    let app = app_with(json!({})).await;

    let none = app
        .post("/subscriptions/s/pull", json!({"consumer_id": "c"}))
        .await
        .expect(200);

    assert_eq!(none.json(), json!({"messages": []}));
}

#[tokio::test]
async fn a_wait_ends_empty_when_its_time_is_over() {
    let app = app_with(json!({})).await;
    let started = Instant::now();

    let none = app
        .post(
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "wait_seconds": 1}),
        )
        .await
        .expect(200);

    assert_eq!(none.json(), json!({"messages": []}));
    let after = started.elapsed();
    assert!(Duration::from_secs(1) <= after && after < SOON, "{after:?}");
}

#[tokio::test]
async fn one_burst_reaches_all_who_wait() {
    let app = app_with(json!({})).await;
    let waits: Vec<_> = (0..20).map(|n| waiting(&app, &format!("c{n}"))).collect();
    watched_by(&app, 1).await;

    publish(&app, numbered(0..40)).await;

    let mut numbers = Vec::new();
    for waits in waits {
        let messages = messages(waits).await;
        assert!(!messages.is_empty());
        numbers.extend(messages.iter().map(|m| m["payload"]["n"].as_u64().unwrap()));
    }
    let rest = app.consume("s").await;
    numbers.extend(rest.iter().map(|m| m["payload"]["n"].as_u64().unwrap()));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_waits_for_a_subscription_that_is_deleted_is_told() {
    let app = app_with(json!({})).await;
    app.post(
        "/subscriptions/none/pull",
        json!({"consumer_id": "c", "wait_seconds": 30}),
    )
    .await
    .expect(404);
    let waits = [waiting(&app, "a"), waiting(&app, "b")];
    watched_by(&app, 1).await;

    execute(&app, "select pubsub.delete_subscription('s')").await;

    for waits in waits {
        let (answer, after) = waits.await.unwrap();
        answer.expect(404);
        assert!(after < SOON, "{after:?}");
    }
}

#[tokio::test]
async fn a_server_that_ends_answers_those_who_wait() {
    let app = app_with(json!({})).await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    let waits = waiting(&other, "c");
    watched_by(&app, 1).await;

    drop(other);

    assert_eq!(messages(waits).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_along() {
    let app = app_with(json!({})).await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    let mut socket = TcpStream::connect(app.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let body = r#"{"consumer_id": "gone", "wait_seconds": 30}"#;
    let request = format!(
        "POST /subscriptions/s/pull HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    watched_by(&app, 1).await;
    let waits = waiting(&app, "stays");
    drop(socket);

    publish(&other, numbered(0..1)).await;

    let messages = messages(waits).await;
    assert_eq!(messages[0]["delivery_attempts"], 1);
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

#[tokio::test]
async fn waits_go_on_without_the_connection_that_watches() {
    let app = app_with(json!({})).await;
    let waits = [waiting(&app, "a"), waiting(&app, "b")];
    watched_by(&app, 1).await;
    execute(
        &app,
        "alter procedure pubsub.wait_for_commit rename to gone; \
         select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and query like 'call pubsub.wait_for_commit%'",
    )
    .await;

    // what the first one is told may come from a look that was under way
    let publish = "select pubsub.publish_messages('t', array['{}'::jsonb])";
    execute(&app, publish).await;
    while !waits.iter().any(JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    execute(&app, publish).await;

    for waits in waits {
        assert_eq!(messages(waits).await.len(), 1);
    }
}

#[tokio::test]
async fn a_message_whose_publisher_commits_late_is_not_missed() {
    let app = app_with(json!({})).await;
    app.topic_with_subscription("u", "u", json!({})).await;
    let pool = app.pool();
    let mut late = pool.pool().begin().await.unwrap();
    sqlx::raw_sql("select pubsub.publish_messages('t', array['{\"late\": true}'::jsonb])")
        .execute(&mut *late)
        .await
        .unwrap();
    publish(&app, numbered(0..1)).await;
    let message = consume_one(&app).await;
    app.post("/subscriptions/s/acks", json!([message["receipt"]]))
        .await
        .expect(204);
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    // longer than what any look goes back to without a reason
    sqlx::raw_sql("select pg_sleep(3)")
        .execute(&mut *late)
        .await
        .unwrap();
    // the look that sees this one looks at the other subscription, too
    let others = app
        .request("POST", "/subscriptions/u/pull")
        .json(&json!({"consumer_id": "c", "wait_seconds": 30}));
    let others = tokio::spawn(answer(others));
    execute(
        &app,
        "select pubsub.publish_messages('u', array['{}'::jsonb])",
    )
    .await;
    others.await.unwrap().expect(200);
    late.commit().await.unwrap();

    assert_eq!(payloads(&messages(waits).await), [json!({"late": true})]);
}

/// Topic `t` with subscription `s` that lets one message be in flight, which it is, for long; one waits.
async fn app_at_its_limit() -> (TestApp, Value) {
    let app = app_with(json!({"max_in_flight": 1, "ack_deadline_seconds": 600})).await;
    publish(&app, numbered(0..2)).await;
    let held = app.consume("s").await;
    assert_eq!(payloads(&held), [json!({"n": 0})]);
    (app, held[0].clone())
}

#[tokio::test]
async fn a_wait_for_room_ends_when_what_is_held_is_deleted() {
    let (app, held) = app_at_its_limit().await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    let path = format!("/subscriptions/s/messages/{}", held["id"].as_str().unwrap());
    app.delete(&path).await.expect(204);

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 1})]);
}

#[tokio::test]
async fn a_wait_for_room_goes_on_after_a_purge_and_ends_with_what_is_published_then() {
    let (app, _) = app_at_its_limit().await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;

    app.delete("/subscriptions/s/messages").await.expect(204);
    publish(&app, numbered(9..10)).await;

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 9})]);
}
