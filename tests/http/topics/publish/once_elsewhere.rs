//! The header `Idempotency-Key` on routes that are not `/publish`: kept, or refused, never ignored.

use serde_json::{Value, json};

use super::app;
use crate::support::{Answer, TestApp, answer, ids};

async fn under(app: &TestApp, key: &str, path: &str, body: &Value) -> Answer {
    let request = app.request("POST", path).header("Idempotency-Key", key);
    answer(request.json(body)).await
}

async fn available(app: &TestApp) -> Value {
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200);
    metrics.json()["available"].clone()
}

#[tokio::test]
async fn messages_are_published_once_under_a_key_on_the_originals_route_too() {
    let app = app().await;
    let (path, body) = ("/topics/t/messages", json!([{"n": 1}, {"n": 2}]));

    for _ in 0..3 {
        assert_eq!(under(&app, "k", path, &body).await.expect(204).body, "");
    }
    assert_eq!(available(&app).await, 2);
    under(&app, "other", path, &body).await.expect(204);
    assert_eq!(available(&app).await, 4);

    let another = under(&app, "k", path, &json!([{"n": 3}])).await.expect(422);
    assert_eq!(
        another.json()["detail"][0]["loc"],
        json!(["header", "Idempotency-Key"])
    );
    under(&app, "a b", path, &body).await.expect(422);
    under(&app, "k", "/topics/nope/messages", &body)
        .await
        .expect(404);
    assert_eq!(available(&app).await, 4);
}

#[tokio::test]
async fn a_key_is_refused_where_none_is_kept_and_nothing_is_done() {
    let app = app().await;
    app.post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);

    for (path, body) in [
        ("/topics", json!({"id": "new"})),
        ("/subscriptions", json!({"id": "new", "topic_id": "t"})),
        ("/snapshots", json!({"id": "new", "subscription_id": "s"})),
        ("/subscriptions/s/pull", json!({"consumer_id": "c"})),
        ("/subscriptions/s/acks", json!([])),
        ("/subscriptions/s/seek", json!({"to": "end"})),
        ("/subscriptions/s/dlq/reprocess", json!({"all": true})),
        (
            "/transactions",
            json!({"publishes": [{"topic_id": "t", "messages": [{"payload": {}}]}]}),
        ),
    ] {
        let refused = under(&app, "k", path, &body).await.expect(422).json();
        let loc = &refused["detail"][0]["loc"];
        assert_eq!(loc, &json!(["header", "Idempotency-Key"]), "{path}");
    }

    assert_eq!(available(&app).await, 1);
    let topics = app.get("/topics").await.json();
    assert_eq!(ids(topics["data"].as_array().unwrap()), ["t"]);
    let get = app.request("GET", "/topics").header("Idempotency-Key", "k");
    answer(get).await.expect(200);
}
