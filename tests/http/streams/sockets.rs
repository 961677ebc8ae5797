//! WebSockets.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    app_with, connect, hear, hear_or_close, publish, pull, refused, say, send, socket_request,
    until,
};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

#[tokio::test]
async fn each_frame_is_answered_with_what_became_of_it() {
    let app = app_with(json!({"backoff_min_seconds": 1000, "backoff_max_seconds": 1000})).await;
    publish(&app, (1..=5).map(|n| json!({"n": n})).collect()).await;
    let mut socket = connect(&app, "").await;
    let mut receipts = Vec::new();
    for n in 1..=5 {
        let message = hear(&mut socket).await;
        assert_eq!(message["type"], "message");
        assert_eq!(message["payload"], json!({"n": n}));
        assert_eq!(message["subscription_id"], "s");
        receipts.push(message["receipt"].clone());
    }

    for (frame, status) in [
        (json!({"type": "ack", "receipt": receipts[0]}), "acked"),
        (json!({"type": "ack", "receipt": receipts[0]}), "lease_lost"),
        (
            json!({"type": "nack", "receipt": receipts[1], "delay_seconds": 900, "reason": "busy"}),
            "nacked",
        ),
        (json!({"type": "nack", "receipt": receipts[2]}), "nacked"),
        (
            json!({"type": "reject", "receipt": receipts[3], "reason": "bad"}),
            "dead_lettered",
        ),
        (
            json!({"type": "extend", "receipt": receipts[4], "seconds": 3600}),
            "extended",
        ),
    ] {
        let told = say(&mut socket, frame.clone()).await;
        assert_eq!(told["type"], "result", "{frame}: {told}");
        assert_eq!(told["receipt"], frame["receipt"]);
        assert_eq!(told["status"], status, "{frame}");
        assert_eq!(told["ack_deadline"].is_string(), status == "extended");
    }
    for (state, count) in [("acked", 1), ("scheduled", 2), ("dlq", 1), ("delivered", 1)] {
        until(&app, state, count).await;
    }

    drop(socket);

    until(&app, "available", 1).await;
    let pulled = pull(&app).await;
    assert_eq!(
        (&pulled["payload"], &pulled["delivery_attempts"]),
        (&json!({"n": 5}), &json!(1))
    );
}

#[tokio::test]
async fn a_frame_that_is_wrong_is_told_which_field_and_changes_nothing() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{}])).await;
    let mut socket = connect(&app, "?credit=10").await;
    let receipt = hear(&mut socket).await["receipt"].clone();

    for (frame, place) in [
        (json!({"receipt": receipt}), json!(["body", "type"])),
        (
            json!({"type": "take", "receipt": receipt}),
            json!(["body", "type"]),
        ),
        (json!({"type": 5}), json!(["body", "type"])),
        (json!({"type": "ack"}), json!(["body", "receipt"])),
        (
            json!({"type": "ack", "receipt": "x"}),
            json!(["body", "receipt"]),
        ),
        (
            json!({"type": "ack", "receipt": receipt, "reason": "r"}),
            json!(["body", "reason"]),
        ),
        (
            json!({"type": "nack", "receipt": receipt, "delay_seconds": -1}),
            json!(["body", "delay_seconds"]),
        ),
        (
            json!({"type": "nack", "receipt": receipt, "delay_seconds": 43201}),
            json!(["body", "delay_seconds"]),
        ),
        (
            json!({"type": "reject", "receipt": receipt, "reason": "r".repeat(1025)}),
            json!(["body", "reason"]),
        ),
        (
            json!({"type": "extend", "receipt": receipt}),
            json!(["body", "seconds"]),
        ),
        (
            json!({"type": "extend", "receipt": receipt, "seconds": 0}),
            json!(["body", "seconds"]),
        ),
        (json!({"type": "credit"}), json!(["body", "messages"])),
        (
            json!({"type": "credit", "messages": 0}),
            json!(["body", "messages"]),
        ),
        (json!(5), json!(["body"])),
    ] {
        let told = say(&mut socket, frame.clone()).await;
        assert_eq!(told["type"], "error", "{frame}: {told}");
        assert_eq!(told["detail"][0]["loc"], place, "{frame}: {told}");
        assert_eq!(
            told.get("receipt"),
            frame.get("receipt").filter(|r| r.is_string())
        );
    }
    for frame in [Message::text("{"), Message::binary(vec![1])] {
        socket.send(frame).await.unwrap();
        assert_eq!(hear(&mut socket).await["type"], "error");
    }
    until(&app, "delivered", 1).await;
    let ack = json!({"type": "ack", "receipt": receipt});
    assert_eq!(say(&mut socket, ack).await["status"], "acked");

    socket
        .send(Message::text(" ".repeat(20_000)))
        .await
        .unwrap();
    assert_eq!(hear_or_close(&mut socket).await.unwrap_err().0, 1002);
}

#[tokio::test]
async fn a_client_that_holds_all_it_may_is_sent_more_as_it_settles() {
    let app = app_with(json!({})).await;
    publish(&app, (0..50).map(|n| json!({"n": n})).collect()).await;
    let mut socket = connect(&app, "?max_in_flight=2").await;
    let mut held = vec![hear(&mut socket).await, hear(&mut socket).await];
    // nothing more has come when this answer comes
    assert_eq!(say(&mut socket, json!({})).await["type"], "error");
    until(&app, "available", 48).await;

    let (mut seen, mut acked) = (2, 0);
    while acked < 50 {
        for message in held.drain(..) {
            let ack = json!({"type": "ack", "receipt": message["receipt"]});
            send(&mut socket, ack).await;
        }
        let told = hear(&mut socket).await;
        if told["type"] == "message" {
            assert_eq!(told["payload"], json!({"n": seen}));
            seen += 1;
            held.push(told);
        } else {
            assert_eq!(told["status"], "acked");
            acked += 1;
        }
    }
}

#[tokio::test]
async fn frames_need_not_wait_for_the_answers_to_those_before() {
    let app = app_with(json!({})).await;
    publish(&app, (0..300).map(|n| json!({"n": n})).collect()).await;
    let mut socket = connect(&app, "?max_in_flight=300").await;
    let mut receipts = Vec::new();
    while receipts.len() < 300 {
        receipts.push(hear(&mut socket).await["receipt"].clone());
    }

    for receipt in &receipts {
        send(&mut socket, json!({"type": "ack", "receipt": receipt})).await;
    }
    // what was said before the end is done
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}

    until(&app, "acked", 300).await;
}

#[tokio::test]
async fn a_receipt_of_an_older_lease_changes_nothing_of_what_is_held() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let mut socket = connect(&app, "?max_in_flight=1&ack_deadline_seconds=600").await;
    let older = hear(&mut socket).await["receipt"].clone();
    let nack = json!({"type": "nack", "receipt": older, "delay_seconds": 0});
    send(&mut socket, nack.clone()).await;
    let told = [hear(&mut socket).await, hear(&mut socket).await];
    let again = told.iter().find(|told| told["type"] == "message").unwrap();
    publish(&app, json!([{"n": 2}])).await;

    for stale in [
        json!({"type": "ack", "receipt": older}),
        json!({"type": "extend", "receipt": older, "seconds": 60}),
        nack,
    ] {
        assert_eq!(say(&mut socket, stale).await["status"], "lease_lost");
    }

    let more = tokio::time::timeout(Duration::from_millis(300), hear(&mut socket)).await;
    assert!(more.is_err(), "it holds one: {more:?}");
    let ack = json!({"type": "ack", "receipt": again["receipt"]});
    assert_eq!(say(&mut socket, ack).await["status"], "acked");
    assert_eq!(hear(&mut socket).await["payload"], json!({"n": 2}));
}

#[tokio::test]
async fn with_credit_only_as_many_are_sent_as_it_says() {
    let app = app_with(json!({})).await;
    publish(&app, (0..10).map(|n| json!({"n": n})).collect()).await;
    let mut socket = connect(&app, "?credit=0").await;
    // nothing is sent before this answer
    let told = say(&mut socket, json!({"type": "ack", "receipt": "x"})).await;
    assert_eq!(told["type"], "error");
    until(&app, "available", 10).await;

    let told = say(&mut socket, json!({"type": "credit", "messages": 3})).await;

    assert_eq!(
        told,
        json!({"type": "result", "status": "credited", "messages": 3})
    );
    for n in 0..3 {
        let message = hear(&mut socket).await;
        assert_eq!(message["payload"], json!({"n": n}));
        let ack = json!({"type": "ack", "receipt": message["receipt"]});
        if n == 2 {
            // settling is not asking for more
            assert_eq!(say(&mut socket, ack).await["status"], "acked");
        }
    }
    until(&app, "available", 7).await;
    say(&mut socket, json!({"type": "credit", "messages": 1})).await;
    assert_eq!(hear(&mut socket).await["payload"], json!({"n": 3}));

    let mut without = connect(&app, "").await;
    let mut told = say(&mut without, json!({"type": "credit", "messages": 1})).await;
    while told["type"] == "message" {
        told = hear(&mut without).await;
    }
    assert_eq!(told["detail"][0]["loc"], json!(["body", "type"]));
}

#[tokio::test]
async fn with_auto_ack_what_was_sent_is_acked() {
    let app = app_with(json!({})).await;
    publish(&app, (0..20).map(|n| json!({"n": n})).collect()).await;
    let mut socket = connect(&app, "?auto_ack=true&max_in_flight=3").await;

    for n in 0..20 {
        assert_eq!(hear(&mut socket).await["payload"], json!({"n": n}));
    }

    until(&app, "acked", 20).await;
}

#[tokio::test]
async fn what_is_no_opening_of_a_socket_is_refused() {
    let app = app_with(json!({})).await;
    app.get("/subscriptions/s/ws").await.expect(400);
    app.get("/subscriptions/x/ws").await.expect(404);
    app.get("/subscriptions/s/ws?credit=-1").await.expect(422);
    app.get("/subscriptions/s/ws?x=1").await.expect(422);
    let (status, body) = refused(socket_request(&app, "?max_in_flight=0")).await;
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("max_in_flight"), "{body}");
}

#[tokio::test]
async fn pages_of_other_origins_may_not_connect_unless_they_are_allowed() {
    let flags = ["--api-cors-origins", "https://app.example.com"];
    let database = TestDatabase::create().await;
    let strict = TestApp::start_on(database.share(), &[]).await;
    strict.topic_with_subscription("t", "s", json!({})).await;
    let open = TestApp::start_on(database.share(), &flags).await;
    let of = |app: &TestApp, origin: &str| {
        let mut request = socket_request(app, "");
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        request
    };

    for (app, origin) in [
        (&strict, "https://app.example.com"),
        (&strict, "null"),
        (&open, "https://evil.example.com"),
    ] {
        let (status, body) = refused(of(app, origin)).await;
        assert_eq!(status, 403, "{origin}: {body}");
    }
    for (app, origin) in [
        (&strict, strict.url.as_str()),
        (&open, "https://app.example.com"),
    ] {
        tokio_tungstenite::connect_async(of(app, origin))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_socket_of_a_deleted_subscription_closes() {
    let app = app_with(json!({})).await;
    let mut socket = connect(&app, "").await;
    crate::http::messages::waiting::watched_by(&app, 1).await;

    app.delete("/subscriptions/s").await.expect(204);

    let told = hear(&mut socket).await;
    let expected: Value = json!({"type": "error", "detail": "Subscription not found"});
    assert_eq!(told, expected);
    let closed = hear_or_close(&mut socket).await.unwrap_err();
    assert_eq!(closed, (1008, "Subscription not found".to_owned()));
}

#[tokio::test]
async fn a_server_that_ends_closes_with_going_away_and_leaves_nothing_in_flight() {
    let database = TestDatabase::create().await;
    let app = TestApp::start_on(database.share(), &[]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let other = TestApp::start_on(database.share(), &[]).await;
    let mut socket = connect(&app, "").await;
    hear(&mut socket).await;

    drop(app);

    assert_eq!(hear_or_close(&mut socket).await.unwrap_err().0, 1001);
    until(&other, "delivered", 0).await;
    let mut again = connect(&other, "").await;
    assert_eq!(hear(&mut again).await["delivery_attempts"], 1);
}
