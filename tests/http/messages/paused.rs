//! Subscriptions that are paused.

use serde_json::{Value, json};

use super::waiting::{claimed, execute, messages, waiting, watched_by};
use super::{app_with, numbered, payloads, publish};
use crate::support::{TestApp, answer};

async fn pause(app: &TestApp, paused: bool) {
    let request = app.request("PATCH", "/subscriptions/s");
    let changed = answer(request.json(&json!({"paused": paused}))).await;
    let shown = changed.expect(200).json();
    assert_eq!(shown.get("paused"), paused.then_some(&json!(true)));
}

async fn metrics(app: &TestApp) -> Value {
    let path = "/subscriptions/s/metrics";
    app.get(path).await.expect(200).json()
}

#[tokio::test]
async fn a_pause_keeps_those_who_wait_waiting_and_its_end_wakes_them() {
    let app = app_with(json!({})).await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;
    // one that is under way when a pause begins may bring what comes meanwhile
    claimed(&app).await;

    pause(&app, true).await;
    publish(&app, numbered(0..1)).await;
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
    assert_eq!(metrics(&app).await["available"], 1);
    assert!(!waits.is_finished());
    pause(&app, false).await;

    assert_eq!(payloads(&messages(waits).await), [json!({"n": 0})]);
}

#[tokio::test]
async fn who_waits_on_another_server_hears_of_the_end_of_a_pause() {
    let app = app_with(json!({"paused": true})).await;
    // longer ago than a look goes back to
    publish(&app, numbered(0..2)).await;
    execute(
        &app,
        "do $$ declare v_then text := \
             left(pubsub.id_at(clock_timestamp() - interval '1 minute')::text, 13); begin \
             update pubsub_data.messages m \
             set message_id = overlay(m.message_id::text placing v_then from 1)::uuid; \
             update pubsub_data.deliveries d \
             set message_id = overlay(d.message_id::text placing v_then from 1)::uuid; end $$",
    )
    .await;
    let waits = waiting(&app, "c");
    watched_by(&app, 1).await;
    // the first look has been
    publish(&app, numbered(7..8)).await;
    assert_eq!(app.consume("s").await, Vec::<Value>::new());

    execute(
        &app,
        "select pubsub.update_subscription('s', '{\"paused\": false}')",
    )
    .await;

    assert_eq!(messages(waits).await.len(), 2);
}

#[tokio::test]
async fn what_is_out_when_a_pause_begins_can_be_settled() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..4)).await;
    let held = app.consume("s").await;
    let receipt = |n: usize| held[n]["receipt"].clone();

    pause(&app, true).await;
    let body = json!({"acks": [receipt(0)], "nacks": [{"receipt": receipt(1), "delay_seconds": 0}],
        "rejects": [{"receipt": receipt(2)}], "extends": [{"receipt": receipt(3), "seconds": 90}]});
    let settled = app.post("/subscriptions/s/settle", body).await.expect(200);

    let results = settled.json()["results"].clone();
    let statuses: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].clone())
        .collect();
    assert_eq!(statuses, ["acked", "nacked", "dead_lettered", "extended"]);
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
    let counts = metrics(&app).await;
    assert_eq!(
        (&counts["available"], &counts["delivered"]),
        (&json!(1), &json!(1))
    );
    pause(&app, false).await;
    assert_eq!(payloads(&app.consume("s").await), [json!({"n": 1})]);
}
