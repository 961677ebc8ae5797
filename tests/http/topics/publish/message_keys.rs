//! Message keys: what is queued under one is not queued again.

use fastpubsub::db::message_keys;
use fastpubsub::error::Error;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{app, at_once, number, publish};
use crate::support::{TestApp, ids};

fn job(key: &str) -> Value {
    json!({"payload": {"key": key}, "message_key": key})
}

/// What is live under keys in subscription `s`.
async fn found(app: &TestApp, keys: &[&str]) -> Vec<(String, Uuid)> {
    message_keys::find(&app.pool(), "s", keys).await.unwrap()
}

#[tokio::test]
async fn a_job_that_is_queued_or_in_hands_is_not_queued_again_until_it_is_acked() {
    let app = app().await;
    let first = publish(&app, json!([job("a"), job("b")])).await;
    let first = first.expect(201).json();
    assert_eq!(first["duplicates"], json!([]));

    let jobs = json!([{"payload": {}}, job("a"), job("c"), job("c")]);
    let again = publish(&app, jobs).await.expect(201).json();
    assert_eq!(again["duplicates"], json!([1, 3]));
    assert_eq!(again["message_ids"][1], first["message_ids"][0]);
    assert_eq!(again["message_ids"][3], again["message_ids"][2]);

    let taken = app.consume("s").await;
    assert_eq!(taken.len(), 4);
    let held = publish(&app, json!([job("a")])).await.expect(201).json();
    assert_eq!(held["message_ids"], json!([first["message_ids"][0]]));
    app.post("/subscriptions/s/acks", json!(ids(&taken)))
        .await
        .expect(204);

    let free = publish(&app, json!([job("a")])).await.expect(201).json();
    assert_eq!(free["duplicates"], json!([]));
    assert_eq!(json!(ids(&app.consume("s").await)), free["message_ids"]);
}

#[tokio::test]
async fn of_a_job_that_many_queue_at_once_on_two_servers_there_is_one() {
    let app = app().await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    let servers = [&app, &other];

    let tries = (0..40).map(|n| {
        // in either order
        let keys = if n % 4 < 2 { ["a", "b"] } else { ["b", "a"] };
        publish(servers[n % 2], json!(keys.map(job)))
    });
    let new: usize = at_once(tries)
        .await
        .into_iter()
        .map(|answer| answer.expect(201).json()["duplicates"].clone())
        .map(|duplicates| 2 - duplicates.as_array().unwrap().len())
        .sum();

    assert_eq!(new, 2);
    assert_eq!(app.consume("s").await.len(), 2);
}

#[tokio::test]
async fn what_is_live_under_keys_is_found() {
    let app = app().await;
    let jobs = json!([job("a"), job("b"), job("c")]);
    let published = publish(&app, jobs).await.expect(201).json();
    let id = |position: usize| -> Uuid {
        let text = published["message_ids"][position].as_str().unwrap();
        text.parse().unwrap()
    };
    app.consume("s").await;
    app.post("/subscriptions/s/acks", json!([id(1)]))
        .await
        .expect(204);

    assert_eq!(
        found(&app, &["c", "none", "b", "a"]).await,
        [("c".to_owned(), id(2)), ("a".to_owned(), id(0))]
    );
    let unknown = message_keys::find(&app.pool(), "none", &["a"]).await;
    assert!(matches!(unknown, Err(Error::Refused { status: 404, .. })));
}

#[tokio::test]
async fn a_step_acks_a_job_and_queues_it_again() {
    let app = app().await;
    publish(&app, json!([job("a"), job("b")])).await.expect(201);
    let taken = app.consume("s").await;

    let step = json!({
        "acks": [{"subscription_id": "s", "receipt": taken[0]["receipt"]}],
        "publishes": [{"topic_id": "t", "messages": [job("a"), job("b")]}],
    });
    let done = app.post("/transactions", step).await.expect(201).json();

    assert_ne!(done["message_ids"][0][0], taken[0]["id"]);
    assert_eq!(done["message_ids"][0][1], taken[1]["id"]);
    assert_eq!(
        ids(&app.consume("s").await),
        [done["message_ids"][0][0].clone()]
    );
}

#[tokio::test]
async fn a_key_is_1_to_256_characters_that_can_be_stored() {
    let app = app().await;
    for (key, kind) in [
        (json!(""), "string_too_short"),
        (json!("é".repeat(257)), "string_too_long"),
        (json!(7), "string_type"),
        (json!("a\u{0}b"), "value_error"),
    ] {
        let message = json!({"payload": {}, "message_key": key});
        let refused = publish(&app, json!([{"payload": {}}, message])).await;
        let fault = refused.expect(422).json()["detail"][0].clone();
        assert_eq!(fault["type"], kind, "{fault}");
        assert_eq!(fault["loc"], json!(["body", "messages", 1, "message_key"]));
    }
    let kept = "select count(*) from pubsub_data.message_keys";
    assert_eq!(number(&app, kept).await, 0);

    publish(&app, json!([job(&"é".repeat(256))]))
        .await
        .expect(201);
    let none = json!([{"payload": {}, "message_key": null}]);
    publish(&app, none).await.expect(201);
    assert_eq!(number(&app, kept).await, 1);
}
