//! `/subscriptions/{id}/browse`, and deleting what is not settled.

use serde_json::{Value, json};

use super::{app_with, counts, fault_place, number, numbered, payloads, publish};
use crate::support::{TestApp, ids};

const BROWSE: &str = "/subscriptions/s/browse";
const MESSAGES: &str = "/subscriptions/s/messages";

async fn browse(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app
        .get(&format!("{BROWSE}{query}"))
        .await
        .expect(200)
        .json();
    list["data"].as_array().unwrap().clone()
}

fn states(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message["state"].as_str().unwrap())
        .collect()
}

async fn delete(app: &TestApp, id: &Value) -> u16 {
    let path = format!("{MESSAGES}/{}", id.as_str().unwrap());
    app.delete(&path).await.status
}

#[tokio::test]
async fn messages_are_shown_with_their_state_and_holder_and_nothing_is_leased() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..3)).await;
    let pull = json!({"consumer_id": "me", "max_messages": 1});
    let pulled = app.post("/subscriptions/s/pull", pull).await.expect(200);
    let delayed = json!({"messages": [{"payload": {"n": 3}, "delay_seconds": 60, "priority": 4,
        "ordering_key": "k", "attributes": {"a": "b"}}]});
    app.post("/topics/t/publish", delayed).await.expect(201);

    let shown = browse(&app, "").await;

    let mut first = shown[0].clone();
    assert!(first["created_at"].take().as_str().unwrap().ends_with('Z'));
    let held = &pulled.json()["messages"][0];
    assert_eq!(
        first,
        json!({"id": held["id"], "subscription_id": "s", "payload": {"n": 0},
            "delivery_attempts": 1, "created_at": null, "attributes": {}, "ordering_key": null,
            "priority": 0, "state": "delivered", "consumer_id": "me",
            "ack_deadline": held["ack_deadline"], "available_at": null})
    );
    assert_eq!(
        states(&shown),
        ["delivered", "available", "available", "scheduled"]
    );
    let last = &shown[3];
    assert_eq!(
        [
            &last["attributes"],
            &last["ordering_key"],
            &last["priority"]
        ],
        [&json!({"a": "b"}), &json!("k"), &json!(4)]
    );
    assert!(last["available_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(counts(&app).await, [2, 1, 1, 0, 0]);
}

#[tokio::test]
async fn pages_go_by_state_limit_and_the_last_id() {
    let app = app_with(json!({"ack_deadline_seconds": 30})).await;
    publish(&app, numbered(0..5)).await;
    let pull = json!({"consumer_id": "me", "max_messages": 2});
    app.post("/subscriptions/s/pull", pull).await.expect(200);

    let first = browse(&app, "?state=available&limit=2").await;
    let after = first[1]["id"].as_str().unwrap();
    let second = browse(&app, &format!("?state=available&limit=2&after={after}")).await;

    assert_eq!(payloads(&first), [json!({"n": 2}), json!({"n": 3})]);
    assert_eq!(payloads(&second), [json!({"n": 4})]);
    assert_eq!(browse(&app, "?state=delivered").await.len(), 2);
    assert!(browse(&app, "?state=parked").await.is_empty());
    app.pass_seconds(31.0).await;
    assert_eq!(states(&browse(&app, "").await), ["available"; 5]);
}

#[tokio::test]
async fn what_cannot_be_browsed_is_refused_with_its_place() {
    let app = app_with(json!({})).await;

    for (query, place) in [
        ("state=acked", "state"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("after=x", "after"),
        ("offset=1", "offset"),
    ] {
        let answer = app.get(&format!("{BROWSE}?{query}")).await;
        assert_eq!(fault_place(&answer), json!(["query", place]), "{query}");
    }
    app.get("/subscriptions/nowhere/browse").await.expect(404);
}

#[tokio::test]
async fn a_message_is_deleted_held_or_not_and_once() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..3)).await;
    let held = app.consume("s").await;
    publish(&app, numbered(3..5)).await;
    let waiting = ids(&browse(&app, "?state=available").await);

    assert_eq!(delete(&app, &held[0]["id"]).await, 204);
    assert_eq!(delete(&app, &waiting[0]).await, 204);
    assert_eq!(delete(&app, &waiting[0]).await, 404);

    let receipts = [&held[0]["receipt"], &held[1]["receipt"]];
    let settled = app
        .post("/subscriptions/s/settle", json!({"acks": receipts}))
        .await
        .expect(200)
        .json();
    assert_eq!(settled["results"][0]["status"], "lease_lost");
    assert_eq!(settled["results"][1]["status"], "acked");
    assert_eq!(counts(&app).await, [1, 1, 0, 1, 0]);
    assert_eq!(delete(&app, &held[1]["id"]).await, 404);
    let timeline = app
        .get(&format!("/messages/{}", waiting[0].as_str().unwrap()))
        .await
        .expect(200)
        .json();
    assert_eq!(timeline["subscriptions"][0]["state"], "skipped");
}

#[tokio::test]
async fn what_cannot_be_deleted_is_refused() {
    let app = app_with(json!({})).await;

    let no_id = app.delete(&format!("{MESSAGES}/x")).await;
    assert_eq!(fault_place(&no_id), json!(["path", "message_id"]));
    let id = uuid::Uuid::now_v7();
    let unknown = app.delete(&format!("{MESSAGES}/{id}")).await.expect(404);
    assert_eq!(unknown.json(), json!({"detail": "Message not found"}));
    let nowhere = format!("/subscriptions/nowhere/messages/{id}");
    let nowhere = app.delete(&nowhere).await.expect(404);
    assert_eq!(nowhere.json(), json!({"detail": "Subscription not found"}));
    app.delete("/subscriptions/nowhere/messages")
        .await
        .expect(404);
}

#[tokio::test]
async fn a_purge_drops_everything_and_later_publishes_arrive() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..300)).await;
    let held = app.consume("s").await;

    let purged = app.delete(MESSAGES).await.expect(204);

    assert_eq!(purged.body, "");
    assert_eq!(counts(&app).await, [0, 0, 0, 0, 0]);
    assert!(browse(&app, "").await.is_empty());
    let receipts = json!({"acks": [held[0]["receipt"]]});
    let settled = app.post("/subscriptions/s/settle", receipts).await;
    assert_eq!(settled.json()["results"][0]["status"], "lease_lost");
    publish(&app, numbered(7..8)).await;
    assert_eq!(payloads(&app.consume("s").await), [json!({"n": 7})]);
    let off = "select pubsub.recount_messages('s')";
    assert_eq!(number(&app, off).await, 0);
}
