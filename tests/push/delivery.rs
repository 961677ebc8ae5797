use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;

use super::{Receiver, count, counted, events, eventually, publish, status, subscribe};
use crate::support::TestApp;

#[tokio::test]
async fn a_message_is_sent_once_signed_and_acked() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let push = json!({"headers": {"Authorization": "Bearer x"}});
    let shown = subscribe(&app, &receiver, push, json!({})).await;
    assert!(shown["secret"].as_str().unwrap().starts_with("whsec_"));

    let body =
        json!({"messages": [{"payload": {"a": 1}, "attributes": {"b": "c"}, "ordering_key": "k"}]});
    let published = app.post("/topics/t/publish", body).await.expect(201).json();
    let id = published["message_ids"][0].as_str().unwrap();
    counted(&app, "acked", 1).await;

    let [push] = &receiver.pushes()[..] else {
        panic!("one push");
    };
    let mut body = push.body.clone();
    let published_at = body
        .as_object_mut()
        .unwrap()
        .remove("published_at")
        .unwrap();
    assert!(published_at.as_str().unwrap().ends_with('Z'));
    assert_eq!(
        body,
        json!({"message_id": id, "subscription_id": "s", "topic_id": "t", "attempt": 1,
            "message": {"a": 1}, "attributes": {"b": "c"}, "ordering_key": "k"})
    );
    assert_eq!(push.header("authorization"), "Bearer x");
    assert_eq!(push.header("content-type"), "application/json");
    assert_eq!(push.header("webhook-id"), id);
    let events = events(&app, id).await;
    let acked = events.last().unwrap();
    assert_eq!(acked["event"], "acked");
    let reason = acked["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("HTTP 204 in ") && reason.ends_with(" ms"),
        "{reason}"
    );
    assert_eq!(acked["consumer_id"], "push");
}

#[tokio::test]
async fn what_fails_is_sent_again_after_its_backoff_and_is_a_dead_letter_in_the_end() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|_| status(500));
    let fields =
        json!({"max_delivery_attempts": 2, "backoff_min_seconds": 60, "backoff_max_seconds": 60});
    subscribe(&app, &receiver, json!({}), fields).await;

    let [id] = &publish(&app, [1]).await[..] else {
        panic!("one message");
    };
    counted(&app, "scheduled", 1).await;
    assert_eq!(receiver.pushes().len(), 1);
    app.pass_seconds(61.0).await;
    counted(&app, "dlq", 1).await;

    let pushes = receiver.pushes();
    let attempts: Vec<_> = pushes.iter().map(|push| &push.body["attempt"]).collect();
    assert_eq!(attempts, [1, 2]);
    assert!(pushes.iter().all(|push| push.header("webhook-id") == id));
    let dead = app.get("/subscriptions/s/dlq").await.expect(200).json();
    let error = dead["data"][0]["last_error"].as_str().unwrap();
    assert!(error.starts_with("HTTP 500 in "), "{error}");
}

#[tokio::test]
async fn an_overloaded_receiver_says_when_the_message_comes_again() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let busy = (
        axum::http::StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, "1000")],
    );
    receiver.reply([busy.into_response()]);
    subscribe(
        &app,
        &receiver,
        json!({}),
        json!({"backoff_max_seconds": 5}),
    )
    .await;

    publish(&app, [1]).await;
    counted(&app, "scheduled", 1).await;
    app.pass_seconds(990.0).await;
    assert_eq!(count(&app, "scheduled").await, 1);
    app.pass_seconds(20.0).await;

    counted(&app, "acked", 1).await;
    assert_eq!(receiver.pushes().len(), 2);
}

#[tokio::test]
async fn a_receiver_cannot_ask_for_a_message_sooner_than_its_backoff_says() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let busy = (
        axum::http::StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, "0")],
    );
    receiver.reply([busy.into_response()]);
    let fields = json!({"backoff_min_seconds": 600, "backoff_max_seconds": 600});
    subscribe(&app, &receiver, json!({}), fields).await;

    publish(&app, [1]).await;
    counted(&app, "scheduled", 1).await;
    app.pass_seconds(590.0).await;
    assert_eq!(count(&app, "scheduled").await, 1);
    app.pass_seconds(20.0).await;

    counted(&app, "acked", 1).await;
}

#[tokio::test]
async fn of_a_long_reason_the_beginning_is_kept_and_the_message_is_settled() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let name = vec!["a".repeat(60); 25].join(".");
    let push = json!({"endpoint": format!("http://{name}/")});
    subscribe(&app, &receiver, push, json!({"max_delivery_attempts": 1})).await;

    publish(&app, [1]).await;
    counted(&app, "dlq", 1).await;

    let dead = app.get("/subscriptions/s/dlq").await.expect(200).json();
    let error = dead["data"][0]["last_error"].as_str().unwrap();
    assert!(error.starts_with("the name aaa"), "{error}");
    assert_eq!(error.len(), 1024);
}

#[tokio::test]
async fn where_a_push_must_not_go_none_goes_and_the_timeline_says_so() {
    let receiver = Receiver::start().await;
    let app = TestApp::start_with(&["--push-allowed-networks", ""]).await;
    subscribe(
        &app,
        &receiver,
        json!({}),
        json!({"max_delivery_attempts": 1}),
    )
    .await;

    publish(&app, [1]).await;
    counted(&app, "dlq", 1).await;

    assert!(receiver.pushes().is_empty());
    let dead = app.get("/subscriptions/s/dlq").await.expect(200).json();
    let error = &dead["data"][0]["last_error"];
    assert_eq!(error, "refused: address 127.0.0.1 is loopback");
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_an_attempt_after_its_timeout() {
    let (app, receiver) = (TestApp::start().await, Receiver::held().await);
    let push = json!({"timeout_seconds": 1});
    subscribe(&app, &receiver, push, json!({"max_delivery_attempts": 1})).await;

    publish(&app, [1]).await;
    counted(&app, "dlq", 1).await;

    let dead = app.get("/subscriptions/s/dlq").await.expect(200).json();
    assert_eq!(dead["data"][0]["last_error"], "timeout after 1 s");
}

#[tokio::test]
async fn a_backlog_is_sent_as_fast_as_it_is_taken() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    subscribe(&app, &receiver, json!({}), json!({})).await;

    publish(&app, 0..500).await;
    counted(&app, "acked", 500).await;

    assert_eq!(receiver.pushes().len(), 500);
    assert!(receiver.most() <= 10, "{}", receiver.most());
}

#[tokio::test]
async fn metrics_count_pushes() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.reply([status(418)]);
    subscribe(
        &app,
        &receiver,
        json!({}),
        json!({"backoff_min_seconds": 1}),
    )
    .await;

    publish(&app, [1, 2]).await;
    counted(&app, "acked", 1).await;
    app.pass_seconds(10.0).await;
    counted(&app, "acked", 2).await;

    // of all tests in this process
    eventually("metrics", async || {
        let text = app.get("/metrics").await.expect(200).body;
        let shows = |line: &str| text.lines().any(|shown| shown.starts_with(line));
        (shows(r#"fastpubsub_push_deliveries_total{outcome="delivered"}"#)
            && shows(r#"fastpubsub_push_deliveries_total{outcome="failed"}"#)
            && shows("fastpubsub_push_duration_seconds_count")
            && shows("fastpubsub_push_paused_endpoints"))
        .then_some(())
    })
    .await;
}
