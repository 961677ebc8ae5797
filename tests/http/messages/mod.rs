//! Publishing, consuming and settling. Time passes by moving rows.

mod browse;
mod consume;
mod dead_letters;
mod filters;
mod large;
mod leases;
mod merged;
mod parked;
mod paused;
mod publish;
mod settle;
mod settle_and_pull;
mod settlements;
mod taking;
mod timeline;
mod transactions;
mod upkeep;
pub(in crate::http) mod waiting;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

/// Topic `t` with subscription `s`.
async fn app_with(fields: Value) -> TestApp {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", fields).await;
    app
}

async fn publish(app: &TestApp, payloads: Value) {
    app.post("/topics/t/messages", payloads).await.expect(204);
}

fn numbered(range: std::ops::Range<u32>) -> Value {
    range.map(|n| json!({"n": n})).collect()
}

fn payloads(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["payload"].clone())
        .collect()
}

/// Where the first fault is that an answer names.
#[track_caller]
fn fault_place(answer: &Answer) -> Value {
    assert_eq!(answer.status, 422, "{}", answer.body);
    answer.json()["detail"][0]["loc"].clone()
}

/// A receipt that never was.
fn receipt() -> String {
    fastpubsub::doors::receipts::receipt(uuid::Uuid::now_v7(), 7)
}

/// Consume the one message there is.
async fn consume_one(app: &TestApp) -> Value {
    let messages = app.consume("s").await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages[0].clone()
}

async fn settle(app: &TestApp, verb: &str, handles: &[&Value]) {
    let path = format!("/subscriptions/s/{verb}");
    assert_eq!(app.post(&path, json!(handles)).await.expect(204).body, "");
}

async fn dead_letters(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app
        .get(&format!("/subscriptions/s/dlq{query}"))
        .await
        .expect(200)
        .json();
    list["data"].as_array().unwrap().clone()
}

/// Counts of available, delivered, scheduled, acked and dead messages of `s`.
async fn counts(app: &TestApp) -> [u64; 5] {
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    assert_eq!(metrics["subscription_id"], "s");
    assert_eq!(metrics.as_object().unwrap().len(), 9, "{metrics}");
    ["available", "delivered", "scheduled", "acked", "dlq"]
        .map(|state| metrics[state].as_u64().unwrap())
}

async fn number(app: &TestApp, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

async fn database_time(app: &TestApp) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

/// The earliest and the latest that the wait of the one delivery can have been, in seconds, when it
/// was set between `since` and now.
async fn wait_seconds(app: &TestApp, since: DateTime<Utc>) -> (f64, f64) {
    sqlx::query_as(
        "select extract(epoch from visible_at - clock_timestamp())::float8, \
         extract(epoch from visible_at - $1)::float8 from pubsub_data.deliveries",
    )
    .bind(since)
    .fetch_one(&app.pool())
    .await
    .unwrap()
}
