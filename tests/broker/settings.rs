//! Settings of the door that hold for what was made under other ones.

use serde_json::{Value, json};

use super::{KEY, door};
use crate::support::TestApp;

async fn settings(app: &TestApp, id: &str) -> Value {
    let path = format!("/subscriptions/{}", id.replace('/', "%2F"));
    let all = app.get(&path).await.expect(200).json();
    json!([
        all["max_delivery_attempts"],
        all["backoff_strategy"],
        all["backoff_min_seconds"],
        all["backoff_max_seconds"],
    ])
}

#[tokio::test]
async fn retries_and_backoff_hold_for_queues_and_subscriptions_that_there_are() {
    let door = door().await;
    let [place, _] = door.places();
    place.put(&place.queue("")).await.expect(201);
    let id = place.subscribe("order.*").await;
    let native = json!({"backoff_min_seconds": 7});
    door.app
        .topic_with_subscription("native", "native", native)
        .await;
    let subscription = format!("broker/topics/mounted/{id}");
    let ids = [
        "broker/queues/mounted",
        "broker/queues/mounted.DLQ",
        &subscription,
        "native",
    ];
    let before = [
        json!([6, null, 0.5, 3600]),
        json!([i32::MAX, null, 0.5, 3600]),
        json!([6, null, 0.5, 3600]),
        json!([5, null, 7, 300]),
    ];
    for (id, expected) in ids.iter().zip(&before) {
        assert_eq!(&settings(&door.app, id).await, expected, "{id}");
    }

    let flags = [
        "--broker-api-key",
        KEY,
        "--broker-max-retries",
        "0",
        "--broker-backoff-strategy",
        "linear",
        "--broker-backoff-base-ms",
        "1500",
    ];
    let restarted = TestApp::start_on(door.app.database.share(), &flags).await;

    let after = [
        json!([1, "linear", 1.5, 3600]),
        json!([i32::MAX, "linear", 1.5, 3600]),
        json!([1, "linear", 1.5, 3600]),
        json!([5, null, 7, 300]),
    ];
    for (id, expected) in ids.iter().zip(&after) {
        assert_eq!(&settings(&restarted, id).await, expected, "{id}");
    }
    let path = format!("/subscriptions/{}", subscription.replace('/', "%2F"));
    let filter = restarted.get(&path);
    let filter = filter.await.expect(200).json()["filter"].clone();
    assert_eq!(
        filter,
        json!({"attributes": {"routing_key": [{"routing-key": "order.*"}]}})
    );
}

#[tokio::test]
async fn a_dead_letter_queue_of_another_suffix_keeps_its_messages_for_ever() {
    let door = door().await;
    let [place, _] = door.places();
    place.put(&place.queue("")).await.expect(201);

    let flags = [
        "--broker-api-key",
        KEY,
        "--broker-dlq-suffix",
        ".dead",
        "--broker-max-retries",
        "1",
    ];
    let restarted = TestApp::start_on(door.app.database.share(), &flags).await;

    for (id, attempts) in [
        ("broker/queues/mounted", 2),
        ("broker/queues/mounted.DLQ", i32::MAX),
    ] {
        assert_eq!(settings(&restarted, id).await[0], attempts, "{id}");
    }
}
