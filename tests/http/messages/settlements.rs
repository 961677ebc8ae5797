//! Pull and settle: receipts, deadlines, and a result for each.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{app_with, counts, database_time, dead_letters, number, numbered, publish};
use crate::support::TestApp;

pub(super) async fn pull(app: &TestApp, fields: Value) -> Vec<Value> {
    let mut body = json!({"consumer_id": "c"});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let pulled = app
        .post("/subscriptions/s/pull", body)
        .await
        .expect(200)
        .json();
    pulled["messages"].as_array().unwrap().clone()
}

async fn settle(app: &TestApp, body: Value) -> Vec<Value> {
    let settled = app
        .post("/subscriptions/s/settle", body)
        .await
        .expect(200)
        .json();
    settled["results"].as_array().unwrap().clone()
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64()
}

/// Fault type and place.
pub(super) async fn refusal(app: &TestApp, path: &str, body: Value) -> (String, String) {
    let refused = app.post(path, body).await.expect(422).json();
    let fault = &refused["detail"][0];
    (
        fault["type"].as_str().unwrap().to_owned(),
        fault["loc"].to_string(),
    )
}

#[tokio::test]
async fn a_pulled_message_has_everything_that_was_published_with_it() {
    let app = app_with(json!({})).await;
    sqlx::query(
        "select pubsub.publish_messages('t', array['{\"a\": 1.50}'::jsonb, '{}'], \
         p_attributes => array['{\"color\": \"red\"}'::jsonb, null])",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    let before = database_time(&app).await;

    let messages = pull(&app, json!({})).await;

    let after = database_time(&app).await;
    assert_eq!(messages.len(), 2);
    let first = messages[0].as_object().unwrap();
    assert_eq!(
        first.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "ack_deadline",
            "attributes",
            "created_at",
            "delivery_attempts",
            "id",
            "ordering_key",
            "payload",
            "priority",
            "receipt",
            "subscription_id"
        ]
    );
    assert_eq!(first["attributes"], json!({"color": "red"}));
    assert_eq!(messages[1]["attributes"], json!({}));
    assert_eq!(first["ordering_key"], Value::Null);
    assert_eq!(first["priority"], 0);
    assert_eq!(first["delivery_attempts"], 1);
    let deadline = time(&first["ack_deadline"]);
    assert!(seconds(before, deadline) >= 60.0 && seconds(after, deadline) <= 60.0);
}

#[tokio::test]
async fn a_pull_takes_as_many_as_it_asks_for_and_for_as_long() {
    let app = app_with(json!({"ack_deadline_seconds": 5})).await;
    publish(&app, numbered(0..1200)).await;
    let before = database_time(&app).await;

    assert_eq!(pull(&app, json!({})).await.len(), 10);
    assert_eq!(pull(&app, json!({"max_messages": 1000})).await.len(), 1000);
    for asked in [1, 43200] {
        let fields = json!({"max_messages": 1, "ack_deadline_seconds": asked});
        let deadline = time(&pull(&app, fields).await[0]["ack_deadline"]);
        let least = seconds(before, deadline);
        assert!(
            f64::from(asked) <= least && least < f64::from(asked) + 30.0,
            "{least}"
        );
    }
    let of_subscription = json!({"max_messages": 1, "ack_deadline_seconds": null});
    let deadline = time(&pull(&app, of_subscription).await[0]["ack_deadline"]);
    assert!(seconds(before, deadline) < 35.0);
}

#[tokio::test]
async fn each_receipt_gets_its_result_in_the_order_given() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..5)).await;
    let messages = pull(&app, json!({})).await;
    let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();

    let results = settle(
        &app,
        json!({
            "extends": [{"receipt": receipts[0], "seconds": 600}],
            "rejects": [{"receipt": receipts[1], "reason": "no such customer"}],
            "nacks": [{"receipt": receipts[2], "delay_seconds": 30, "reason": "busy"},
                {"receipt": receipts[4]}],
            "acks": [receipts[3]],
        }),
    )
    .await;

    let shown: Vec<_> = results
        .iter()
        .map(|result| (&result["receipt"], result["status"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            (receipts[3], "acked"),
            (receipts[2], "nacked"),
            (receipts[4], "nacked"),
            (receipts[1], "dead_lettered"),
            (receipts[0], "extended"),
        ]
    );
    assert!(results[..4].iter().all(|r| r.get("ack_deadline").is_none()));
    let left = seconds(database_time(&app).await, time(&results[4]["ack_deadline"]));
    assert!(550.0 < left && left <= 600.0, "{left}");
    assert_eq!(counts(&app).await, [0, 1, 2, 1, 1]);
    assert_eq!(dead_letters(&app, "").await[0]["id"], messages[1]["id"]);
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
    let reasons = "select count(*) from pubsub_data.failures where reason = 'busy'";
    assert_eq!(number(&app, reasons).await, 1);

    // one is settled, one is extended: its receipt still fits
    let again = settle(&app, json!({"acks": [receipts[3], receipts[0]]})).await;
    assert_eq!(again[0]["status"], "lease_lost");
    assert_eq!(again[1]["status"], "acked");
}

#[tokio::test]
async fn a_receipt_is_lost_when_the_message_was_delivered_again() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..1)).await;
    let first = pull(&app, json!({})).await.remove(0);
    app.pass_seconds(61.0).await;
    let second = pull(&app, json!({})).await.remove(0);
    assert_eq!(first["id"], second["id"]);
    assert_ne!(first["receipt"], second["receipt"]);

    for body in [
        json!({"acks": [first["receipt"]]}),
        json!({"nacks": [{"receipt": first["receipt"]}]}),
        json!({"rejects": [{"receipt": first["receipt"]}]}),
        json!({"extends": [{"receipt": first["receipt"], "seconds": 60}]}),
    ] {
        let results = settle(&app, body).await;
        assert_eq!(
            results,
            [json!({"receipt": first["receipt"], "status": "lease_lost"})]
        );
    }
    app.post("/subscriptions/s/acks", json!([first["receipt"]]))
        .await
        .expect(204);
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);

    let results = settle(&app, json!({"acks": [second["receipt"]]})).await;
    assert_eq!(results[0]["status"], "acked");
}

#[tokio::test]
async fn a_pull_that_cannot_be_is_refused_by_field() {
    let app = app_with(json!({})).await;
    for (fields, kind, field) in [
        (json!({}), "missing", "consumer_id"),
        (
            json!({"consumer_id": ""}),
            "string_too_short",
            "consumer_id",
        ),
        (
            json!({"consumer_id": "x".repeat(1025)}),
            "string_too_long",
            "consumer_id",
        ),
        (
            json!({"consumer_id": "c", "max_messages": 0}),
            "greater_than_equal",
            "max_messages",
        ),
        (
            json!({"consumer_id": "c", "max_messages": 1001}),
            "less_than_equal",
            "max_messages",
        ),
        (
            json!({"consumer_id": "c", "wait_seconds": -1}),
            "greater_than_equal",
            "wait_seconds",
        ),
        (
            json!({"consumer_id": "c", "wait_seconds": 31}),
            "less_than_equal",
            "wait_seconds",
        ),
        (
            json!({"consumer_id": "c", "wait_seconds": 0.5}),
            "int_from_float",
            "wait_seconds",
        ),
        (
            json!({"consumer_id": "c", "ack_deadline_seconds": 0}),
            "greater_than_equal",
            "ack_deadline_seconds",
        ),
        (
            json!({"consumer_id": "c", "ack_deadline_seconds": 43201}),
            "less_than_equal",
            "ack_deadline_seconds",
        ),
        (
            json!({"consumer_id": "c", "wait": 3}),
            "extra_forbidden",
            "wait",
        ),
    ] {
        let refused = refusal(&app, "/subscriptions/s/pull", fields.clone()).await;
        let place = json!(["body", field]).to_string();
        assert_eq!(refused, (kind.to_owned(), place), "{fields}");
    }
}

#[tokio::test]
async fn a_settlement_that_cannot_be_is_refused_by_place_and_nothing_is_done() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..2)).await;
    let messages = pull(&app, json!({})).await;
    let (one, two) = (&messages[0]["receipt"], &messages[1]["receipt"]);
    let with = |list: &str, field: &str, value: Value| {
        let mut item = json!({"receipt": two});
        item[field] = value;
        json!({"acks": [one], list: [item]})
    };
    for (body, kind, place) in [
        (json!([]), "model_attributes_type", json!(["body"])),
        (
            json!({"acks": [one], "ack": []}),
            "extra_forbidden",
            json!(["body", "ack"]),
        ),
        (json!({"acks": "x"}), "list_type", json!(["body", "acks"])),
        (
            json!({"acks": [one, 7]}),
            "string_type",
            json!(["body", "acks", 1]),
        ),
        (
            json!({"acks": [one, "x"]}),
            "value_error",
            json!(["body", "acks", 1]),
        ),
        // ids do not name a delivery
        (
            json!({"acks": [one, messages[1]["id"]]}),
            "value_error",
            json!(["body", "acks", 1]),
        ),
        (
            json!({"acks": [one, one]}),
            "value_error",
            json!(["body", "acks", 1]),
        ),
        (
            json!({"acks": [one], "nacks": [{"receipt": one}]}),
            "value_error",
            json!(["body", "nacks", 0, "receipt"]),
        ),
        (
            json!({"acks": [one], "nacks": [two]}),
            "model_attributes_type",
            json!(["body", "nacks", 0]),
        ),
        (
            json!({"acks": [one], "nacks": [{}]}),
            "missing",
            json!(["body", "nacks", 0, "receipt"]),
        ),
        (
            with("nacks", "delay_seconds", json!(-1)),
            "greater_than_equal",
            json!(["body", "nacks", 0, "delay_seconds"]),
        ),
        (
            with("nacks", "delay_seconds", json!(43201)),
            "less_than_equal",
            json!(["body", "nacks", 0, "delay_seconds"]),
        ),
        (
            with("nacks", "reason", json!("x".repeat(1025))),
            "string_too_long",
            json!(["body", "nacks", 0, "reason"]),
        ),
        (
            with("nacks", "reason", json!("\0")),
            "value_error",
            json!(["body", "nacks", 0, "reason"]),
        ),
        (
            with("nacks", "seconds", json!(1)),
            "extra_forbidden",
            json!(["body", "nacks", 0, "seconds"]),
        ),
        (
            with("rejects", "reason", json!(7)),
            "string_type",
            json!(["body", "rejects", 0, "reason"]),
        ),
        (
            with("rejects", "delay_seconds", json!(7)),
            "extra_forbidden",
            json!(["body", "rejects", 0, "delay_seconds"]),
        ),
        (
            json!({"acks": [one], "extends": [{"receipt": two}]}),
            "missing",
            json!(["body", "extends", 0, "seconds"]),
        ),
        (
            with("extends", "seconds", json!(0)),
            "greater_than_equal",
            json!(["body", "extends", 0, "seconds"]),
        ),
        (
            with("extends", "seconds", json!(43201)),
            "less_than_equal",
            json!(["body", "extends", 0, "seconds"]),
        ),
        (
            with("extends", "seconds", json!(null)),
            "int_type",
            json!(["body", "extends", 0, "seconds"]),
        ),
        (
            json!({"acks": vec![one; 1001]}),
            "too_long",
            json!(["body"]),
        ),
    ] {
        let refused = refusal(&app, "/subscriptions/s/settle", body.clone()).await;
        assert_eq!(refused, (kind.to_owned(), place.to_string()), "{body}");
    }
    assert_eq!(counts(&app).await, [0, 2, 0, 0, 0]);
    assert_eq!(settle(&app, json!({})).await, Vec::<Value>::new());
    assert_eq!(
        settle(&app, json!({"acks": null})).await,
        Vec::<Value>::new()
    );
    app.post("/subscriptions/none/settle", json!({"acks": [one]}))
        .await
        .expect(404);
}

#[tokio::test]
async fn pull_and_settle_need_the_scope_to_consume() {
    let app = TestApp::start_with_auth("topics:publish").await;
    for path in ["/subscriptions/s/pull", "/subscriptions/s/settle"] {
        app.post(path, json!({})).await.expect(403);
        app.with_token(None).post(path, json!({})).await.expect(401);
    }
}
