//! `/messages/{id}`.

use serde_json::{Value, json};

use super::{app_with, consume_one, publish, settle};
use crate::support::TestApp;

/// The state and the events of a message in a subscription, without their times.
async fn tale(app: &TestApp, id: &str, subscription: &str) -> (Value, Vec<Value>) {
    let timeline = app.get(&format!("/messages/{id}")).await.expect(200).json();
    let subscriptions = timeline["subscriptions"].as_array().unwrap();
    let told = subscriptions
        .iter()
        .find(|told| told["subscription_id"] == subscription)
        .unwrap();
    let mut events = told["events"].as_array().unwrap().clone();
    let mut last = String::new();
    for event in &mut events {
        let at = event["at"].take().as_str().unwrap().to_owned();
        assert!(at.ends_with('Z') && at >= last, "{at} after {last}");
        last = at;
        event.as_object_mut().unwrap().remove("at");
    }
    (told["state"].clone(), events)
}

#[tokio::test]
async fn a_timeline_tells_every_delivery_in_every_subscription() {
    let app = app_with(json!({"max_delivery_attempts": 2, "backoff_min_seconds": 1})).await;
    for (id, filter) in [("late", json!(null)), ("other", json!({"n": [2]}))] {
        let body = json!({"id": id, "topic_id": "t", "filter": filter});
        if id == "other" {
            app.post("/subscriptions", body).await.expect(201);
        } else {
            publish(&app, json!([{"n": 1}])).await;
            app.post("/subscriptions", body).await.expect(201);
        }
    }
    let first = consume_one(&app).await;
    let id = first["id"].as_str().unwrap();
    sqlx::query("update pubsub_data.deliveries set visible_at = clock_timestamp()")
        .execute(&app.pool())
        .await
        .unwrap();
    sqlx::query("select pubsub.cleanup_stuck_messages(0)")
        .execute(&app.pool())
        .await
        .unwrap();
    app.pass_seconds(1.0).await;
    let second = consume_one(&app).await;
    settle(&app, "nacks", &[&second["receipt"]]).await;

    let (state, events) = tale(&app, id, "s").await;
    assert_eq!(state, "dlq");
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "published",
            "delivered",
            "consumer_lost",
            "delivered",
            "nacked",
            "dead_lettered"
        ]
    );
    assert_eq!(
        events[2],
        json!({"event": "consumer_lost", "attempt": 1, "consumer_id": "c"})
    );
    assert_eq!(
        events[5],
        json!({"event": "dead_lettered", "attempt": 2, "reason": "attempts"})
    );

    let reason = "the subscription was created after the message was published";
    assert_eq!(
        tale(&app, id, "late").await,
        (
            json!("not_matched"),
            vec![json!({"event": "not_matched", "reason": reason})]
        )
    );
    let (state, events) = tale(&app, id, "other").await;
    assert_eq!(
        (state, &events[0]["reason"]),
        (json!("not_matched"), &json!("does not match the filter: n"))
    );
}

#[tokio::test]
async fn an_acked_message_was_acked_by_somebody() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let message = consume_one(&app).await;
    settle(&app, "acks", &[&message["receipt"]]).await;

    let (state, events) = tale(&app, message["id"].as_str().unwrap(), "s").await;

    assert_eq!(state, "acked");
    assert_eq!(
        events.last(),
        Some(&json!({"event": "acked", "attempt": 1, "consumer_id": "c"}))
    );
}

#[tokio::test]
async fn a_message_tells_its_topic_also_without_subscriptions() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let message = consume_one(&app).await;
    app.delete("/subscriptions/s").await.expect(204);

    let path = format!("/messages/{}", message["id"].as_str().unwrap());
    let timeline = app.get(&path).await.expect(200).json();

    assert_eq!(
        timeline,
        json!({"id": message["id"], "topic_id": "t", "created_at": message["created_at"],
            "subscriptions": []})
    );
}

#[tokio::test]
async fn an_unknown_message_is_404_and_what_is_no_id_422() {
    let app = app_with(json!({})).await;
    let unknown = app
        .get(&format!("/messages/{}", uuid::Uuid::now_v7()))
        .await;
    assert_eq!(
        unknown.expect(404).json(),
        json!({"detail": "Message not found"})
    );
    app.get("/messages/x").await.expect(422);
}

#[tokio::test]
async fn a_timeline_needs_the_scope_to_read_subscriptions() {
    let app = TestApp::start_with_auth("*").await;
    let path = format!("/messages/{}", uuid::Uuid::now_v7());
    for (scopes, status) in [
        ("subscriptions:read", 404),
        ("subscriptions:consume", 403),
        ("subscriptions:read:s", 404),
    ] {
        let token = app.token_for(scopes).await;
        app.with_token(Some(&token)).get(&path).await.expect(status);
    }
    app.with_token(None).get(&path).await.expect(401);
}
