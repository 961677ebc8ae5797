use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use chrono::{DateTime, Duration, Utc};
use serde_json::json;

use super::{
    Receiver, count, counted, end_pause, endpoint, eventually, publish, status, subscribe,
};
use crate::http::subscriptions::expiry::{expire, expires, gone_for};
use crate::support::TestApp;

async fn paused(app: &TestApp) {
    eventually("a pause", async || {
        let shown = endpoint(app).await;
        (!shown["paused_until"].is_null()).then_some(())
    })
    .await;
}

/// Wait for so many failures in a row.
async fn failed(app: &TestApp, failures: i64) {
    eventually(format!("{failures} failures"), async || {
        let so_far = endpoint(app).await["failures"].as_i64();
        (so_far >= Some(failures)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_is_dead_is_left_alone_and_what_waits_for_it_spends_no_attempts() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let fields =
        json!({"backoff_min_seconds": 600, "backoff_max_seconds": 600, "max_in_flight": 5});
    subscribe(&app, &receiver, json!({}), fields).await;
    publish(&app, [0]).await;
    counted(&app, "acked", 1).await;

    receiver.die();
    publish(&app, 1..=20).await;
    paused(&app).await;
    counted(&app, "delivered", 0).await;
    // what is on its way when the fifth fails may be four more
    let spent = count(&app, "scheduled").await;
    assert!((5..=9).contains(&spent), "{spent}");
    assert_eq!(count(&app, "available").await, 20 - spent);

    // two probes fail; each pause is longer than the one before
    let before = endpoint(&app).await["failures"].as_i64().unwrap();
    for failures in [before + 1, before + 2] {
        end_pause(&app).await;
        failed(&app, failures).await;
        counted(&app, "available", 20 - spent).await;
    }
    receiver.revive().await;
    end_pause(&app).await;
    counted(&app, "acked", 21 - spent).await;

    let shown = endpoint(&app).await;
    assert_eq!(
        (&shown["failures"], &shown["paused_until"]),
        (&json!(0), &json!(null))
    );
    let pushes = receiver.pushes();
    assert!(pushes.iter().all(|push| push.body["attempt"] == 1));
    app.pass_seconds(601.0).await;
    counted(&app, "acked", 21).await;
    assert_eq!(count(&app, "dlq").await, 0);
}

#[tokio::test]
async fn a_message_that_no_receiver_takes_does_not_keep_an_endpoint_paused() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|push| {
        status(if push.body["message"]["n"] == 9 {
            204
        } else {
            400
        })
    });
    let fields =
        json!({"backoff_min_seconds": 600, "backoff_max_seconds": 600, "max_in_flight": 1});
    subscribe(&app, &receiver, json!({}), fields).await;

    publish(&app, 1..=9).await;
    paused(&app).await;
    for failures in 6..=8 {
        end_pause(&app).await;
        failed(&app, failures).await;
    }
    end_pause(&app).await;

    counted(&app, "acked", 1).await;
    assert_eq!(endpoint(&app).await["failures"], 0);
}

#[tokio::test]
async fn who_is_gone_gets_nothing_more_until_a_test_says_otherwise() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|_| status(410));
    subscribe(&app, &receiver, json!({}), json!({"max_in_flight": 1})).await;

    publish(&app, 1..=3).await;
    eventually("the end", async || {
        (endpoint(&app).await["stopped"] == true).then_some(())
    })
    .await;
    counted(&app, "available", 3).await;
    assert_eq!(receiver.pushes().len(), 1);
    let still = app.post("/subscriptions/s/push/test", json!(null)).await;
    assert_eq!(still.expect(200).json()["status"], 410);
    assert_eq!(endpoint(&app).await["stopped"], true);

    receiver.otherwise(|_| status(204));
    let tested = app.post("/subscriptions/s/push/test", json!(null)).await;
    assert_eq!(tested.expect(200).json()["status"], 204);
    counted(&app, "acked", 3).await;

    let pushes = receiver.pushes();
    let attempts: Vec<_> = pushes.iter().map(|push| &push.body["attempt"]).collect();
    assert_eq!(attempts, [1, 1, 1, 1, 1, 1], "a 410 spends none");
}

#[tokio::test]
async fn a_subscription_that_pushes_expires_only_once_its_endpoint_is_gone() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|_| status(503));
    let fields = json!({"max_in_flight": 5, "expires_after_seconds": 10});
    subscribe(&app, &receiver, json!({}), fields).await;
    publish(&app, 1..=5).await;
    paused(&app).await;
    gone_for(&app, 11.0).await;
    assert_eq!(expire(&app).await, Vec::<String>::new());

    receiver.otherwise(|_| status(410));
    app.pass_seconds(3600.0).await;
    end_pause(&app).await;
    eventually("the end", async || {
        (endpoint(&app).await["stopped"] == true).then_some(())
    })
    .await;

    expires(&app).await;
}

#[tokio::test]
async fn messages_that_a_receiver_cannot_digest_do_not_stop_its_endpoint() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|push| {
        status(if push.body["message"]["n"] == 9 {
            204
        } else {
            504
        })
    });
    let fields =
        json!({"backoff_min_seconds": 600, "backoff_max_seconds": 600, "max_in_flight": 5});
    subscribe(&app, &receiver, json!({}), fields).await;
    publish(&app, 1..=5).await;
    paused(&app).await;
    counted(&app, "scheduled", 5).await;

    // they come again, before what is new
    app.pass_seconds(601.0).await;
    publish(&app, [9]).await;
    eventually("an ack", async || {
        end_pause(&app).await;
        (count(&app, "acked").await == 1).then_some(())
    })
    .await;

    assert_eq!(count(&app, "dlq").await, 0);
}

#[tokio::test]
async fn a_receiver_that_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    receiver.otherwise(|_| {
        let busy = (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1000")],
        );
        busy.into_response()
    });
    subscribe(&app, &receiver, json!({}), json!({"max_in_flight": 5})).await;

    publish(&app, 1..=5).await;
    paused(&app).await;

    let until = endpoint(&app).await["paused_until"].clone();
    let until: DateTime<Utc> = until.as_str().unwrap().parse().unwrap();
    assert!(until > Utc::now() + Duration::seconds(900), "{until}");
}
