//! `/subscriptions`.

pub mod expiry;
mod filter_preview;
mod filters;
mod numbers;
mod push;
mod seek;
mod settings;

use serde_json::{Value, json};

use crate::support::TestApp;

async fn app_with_topic() -> TestApp {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    app
}

#[tokio::test]
async fn a_subscription_has_the_defaults_of_the_server() {
    let app = TestApp::start_with(&[
        "--subscription-max-attempts",
        "7",
        "--subscription-backoff-min-seconds",
        "11",
        "--subscription-backoff-max-seconds",
        "13",
    ])
    .await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);

    let mut created = app
        .post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201)
        .json();

    let created_at = created["created_at"].take();
    assert!(created_at.as_str().unwrap().ends_with('Z'), "{created_at}");
    assert_eq!(
        created,
        json!({
            "id": "s", "topic_id": "t", "filter": null, "max_delivery_attempts": 7,
            "backoff_min_seconds": 11, "backoff_max_seconds": 13, "created_at": null,
        })
    );
}

#[tokio::test]
async fn a_subscription_is_shown_as_it_was_created() {
    let app = app_with_topic().await;
    let body = json!({
        "id": "s", "topic_id": "t", "filter": {"a": [1]}, "max_delivery_attempts": 1,
        "backoff_min_seconds": 2, "backoff_max_seconds": 2, "ack_deadline_seconds": 43200,
    });

    let created = app
        .post("/subscriptions", body.clone())
        .await
        .expect(201)
        .json();
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    let listed = app.get("/subscriptions").await.expect(200).json();

    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
    assert_eq!(shown, created);
    assert_eq!(listed, json!({"data": [created]}));
}

#[tokio::test]
async fn a_taken_id_is_409_even_where_the_topic_is_missing() {
    let app = app_with_topic().await;
    app.post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201);

    for topic in ["t", "missing"] {
        let body = json!({"id": "s", "topic_id": topic});
        let again = app.post("/subscriptions", body).await.expect(409);
        assert_eq!(
            again.json(),
            json!({"detail": "This subscription already exists"}),
            "{topic}"
        );
    }
}

#[tokio::test]
async fn a_subscription_to_an_unknown_topic_is_404() {
    let app = TestApp::start().await;

    let answer = app
        .post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await;

    assert_eq!(
        answer.expect(404).json(),
        json!({"detail": "Topic not found"})
    );
    app.get("/subscriptions/s").await.expect(404);
}

#[tokio::test]
async fn every_route_of_an_unknown_subscription_is_404() {
    let app = TestApp::start().await;

    for answer in [
        app.get("/subscriptions/x").await,
        app.delete("/subscriptions/x").await,
        app.get("/subscriptions/x/messages?consumer_id=c").await,
        app.post("/subscriptions/x/acks", json!([])).await,
        app.post("/subscriptions/x/nacks", json!([])).await,
        app.get("/subscriptions/x/dlq").await,
        app.post("/subscriptions/x/dlq/reprocess", json!([])).await,
        app.get("/subscriptions/x/metrics").await,
    ] {
        assert_eq!(
            answer.expect(404).json(),
            json!({"detail": "Subscription not found"})
        );
    }
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_with_its_messages() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages", json!([{"a": 1}, {"a": 2}]))
        .await
        .expect(204);

    let deleted = app.delete("/subscriptions/s").await.expect(204);

    assert_eq!(deleted.body, "");
    app.get("/subscriptions/s").await.expect(404);
    app.delete("/subscriptions/s").await.expect(404);
    app.get("/topics/t").await.expect(200);
    app.post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201);
    assert_eq!(
        app.get("/subscriptions/s/metrics").await.expect(200).json(),
        json!({
            "subscription_id": "s", "available": 0, "delivered": 0, "scheduled": 0, "parked": 0, "acked": 0,
            "dlq": 0, "expired": 0,
            "totals": {
                "published": 0, "delivered": 0, "acked": 0, "nacked": 0, "rejected": 0, "expired": 0,
                "dead_lettered": 0, "redelivered": 0, "extended": 0,
            },
        })
    );
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

#[tokio::test]
async fn totals_are_those_of_all_servers_and_outlive_what_they_count() {
    let app = TestApp::start().await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    app.topic_with_subscription("t", "s", json!({"max_delivery_attempts": 2}))
        .await;
    let pull = async |app: &TestApp, count: u32| {
        let body = json!({"consumer_id": "c", "max_messages": count});
        let pulled = app.post("/subscriptions/s/pull", body).await.expect(200);
        let messages = pulled.json()["messages"].as_array().unwrap().clone();
        messages
            .iter()
            .map(|message| message["receipt"].clone())
            .collect::<Vec<Value>>()
    };
    let settle = async |app: &TestApp, body: Value| {
        let path = "/subscriptions/s/settle";
        app.post(path, body).await.expect(200);
    };

    for app in [&app, &other] {
        for _ in 0..2 {
            let messages = json!({"messages": [{"payload": {"n": 1}}]});
            app.post("/topics/t/publish", messages).await.expect(201);
        }
    }
    let (first, second) = (pull(&app, 2).await, pull(&other, 2).await);
    settle(
        &other,
        json!({"acks": [first[0]], "rejects": [{"receipt": first[1]}]}),
    )
    .await;
    settle(
        &app,
        json!({"nacks": [{"receipt": second[0], "delay_seconds": 0}],
            "extends": [{"receipt": second[1], "seconds": 60}]}),
    )
    .await;
    let again = pull(&other, 1).await;
    settle(&app, json!({"nacks": [{"receipt": again[0]}]})).await;
    app.delete("/subscriptions/s/dlq").await.expect(200);

    for app in [&app, &other] {
        let counts = app.get("/subscriptions/s/metrics").await.expect(200).json();
        assert_eq!(counts["dlq"], 0);
        assert_eq!(
            counts["totals"],
            json!({
                "published": 4, "delivered": 5, "acked": 1, "nacked": 2, "rejected": 1, "expired": 0,
                "dead_lettered": 2, "redelivered": 1, "extended": 1,
            })
        );
    }
}

#[tokio::test]
async fn all_faults_of_a_subscription_are_reported_at_once() {
    let app = TestApp::start().await;
    let body = json!({"topic_id": "a b", "filter": 7, "max_delivery_attempts": 0});

    let refused = app
        .post("/subscriptions", body.clone())
        .await
        .expect(422)
        .json();

    let faults: Vec<(&str, &Value)> = refused["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["type"].as_str().unwrap(), &fault["loc"]))
        .collect();
    assert_eq!(
        faults,
        [
            ("missing", &json!(["body", "id"])),
            ("string_pattern_mismatch", &json!(["body", "topic_id"])),
            ("dict_type", &json!(["body", "filter"])),
            (
                "greater_than_equal",
                &json!(["body", "max_delivery_attempts"])
            ),
        ]
    );
    assert_eq!(refused["detail"][0]["input"], body);
}
