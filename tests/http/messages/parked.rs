//! `/subscriptions/{id}/parked`.

use serde_json::{Value, json};

use super::{app_with, counts, dead_letters, fault_place, number, numbered, publish};
use crate::support::{TestApp, ids};

const PARKED: &str = "/subscriptions/s/parked";
const RESUME: &str = "/subscriptions/s/parked/resume";

/// Topic `t` with three messages of one key, of which the first is parked.
async fn app_with_parked() -> (TestApp, Vec<Value>) {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, numbered(0..1)).await;
    let mut messages = ids(&app.consume("s").await);
    publish(&app, numbered(1..3)).await;
    for statement in [
        "update pubsub_data.subscriptions set enable_ordering = true, ordering_failure = 'park'",
        "update pubsub_data.messages set ordering_key = 'k'",
        "update pubsub_data.deliveries set lane = 'k'",
        "select pubsub.dead_letter_deliveries(topic_key, subscription_key, array[ctid], \
         'attempts', array['broken']) from pubsub_data.deliveries order by message_id limit 1",
    ] {
        sqlx::query(statement).execute(&app.pool()).await.unwrap();
    }
    let behind: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select message_id from pubsub_data.deliveries order by message_id offset 1",
    )
    .fetch_all(&app.pool())
    .await
    .unwrap();
    messages.extend(behind.into_iter().map(|id| json!(id)));
    (app, messages)
}

async fn resume(app: &TestApp, ids: &[Value], action: &str) -> Value {
    let body = json!({"message_ids": ids, "action": action});
    app.post(RESUME, body).await.expect(200).json()
}

#[tokio::test]
async fn a_parked_message_says_what_it_holds_up() {
    let (app, messages) = app_with_parked().await;

    let list = app.get(PARKED).await.expect(200).json();

    let mut parked = list["data"][0].clone();
    for time in ["created_at", "parked_at"] {
        assert!(parked[time].take().as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(
        parked,
        json!({"id": messages[0], "subscription_id": "s", "payload": {"n": 0},
            "delivery_attempts": 1, "created_at": null, "attributes": {}, "ordering_key": "k",
            "consumer_id": "c", "last_error": "broken", "parked_at": null, "behind": 2})
    );
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    let next = app.get(&format!("{PARKED}?offset=1")).await.expect(200);
    assert_eq!(next.json(), json!({"data": []}));
}

#[tokio::test]
async fn a_parked_message_is_counted_as_parked_and_not_as_scheduled() {
    let (app, messages) = app_with_parked().await;

    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    let gauges = app.get("/metrics").await.expect(200).body;
    resume(&app, &messages, "skip").await;
    let after = app.get("/subscriptions/s/metrics").await.expect(200).json();

    assert_eq!(
        (&metrics["parked"], &metrics["scheduled"]),
        (&json!(1), &json!(0))
    );
    for (state, count) in [("parked", 1), ("scheduled", 0)] {
        let end = format!("state=\"{state}\"}} {count}");
        assert!(
            gauges.lines().any(|line| line.ends_with(&end)),
            "{end}: {gauges}"
        );
    }
    assert_eq!(
        (&after["parked"], &after["scheduled"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn a_parked_message_is_retried_dead_lettered_or_skipped() {
    let (app, messages) = app_with_parked().await;
    assert_eq!(
        resume(&app, &messages, "retry").await,
        json!({"resumed": 1})
    );
    assert_eq!(counts(&app).await, [3, 0, 0, 0, 0]);
    assert_eq!(ids(&app.consume("s").await), messages);
    assert_eq!(
        resume(&app, &messages, "retry").await,
        json!({"resumed": 0})
    );

    let (app, messages) = app_with_parked().await;
    assert_eq!(
        resume(&app, &messages, "dead_letter").await,
        json!({"resumed": 1})
    );
    assert_eq!(dead_letters(&app, "").await[0]["last_error"], "broken");
    assert_eq!(counts(&app).await, [2, 0, 0, 0, 1]);

    let (app, messages) = app_with_parked().await;
    assert_eq!(resume(&app, &messages, "skip").await, json!({"resumed": 1}));
    assert_eq!(counts(&app).await, [2, 0, 0, 0, 0]);
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.deliveries").await,
        2
    );
}

#[tokio::test]
async fn a_wrong_request_is_refused_and_names_the_field() {
    let (app, messages) = app_with_parked().await;
    for (body, loc) in [
        (json!({"action": "retry"}), json!(["body", "message_ids"])),
        (
            json!({"message_ids": "x", "action": "retry"}),
            json!(["body", "message_ids"]),
        ),
        (
            json!({"message_ids": ["x"], "action": "retry"}),
            json!(["body", "message_ids", 0]),
        ),
        (json!({"message_ids": messages}), json!(["body", "action"])),
        (
            json!({"message_ids": messages, "action": "ack"}),
            json!(["body", "action"]),
        ),
        (
            json!({"message_ids": messages, "action": "skip", "x": 1}),
            json!(["body", "x"]),
        ),
    ] {
        let answer = app.post(RESUME, body.clone()).await;
        assert_eq!(fault_place(&answer), loc, "{body}");
    }
    assert_eq!(
        app.get(PARKED).await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.get("/subscriptions/none/parked").await.expect(404);
    let body = json!({"message_ids": [], "action": "skip"});
    app.post("/subscriptions/none/parked/resume", body)
        .await
        .expect(404);
}
