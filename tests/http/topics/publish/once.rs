//! Idempotency keys, of messages and of requests.

use serde_json::{Value, json};

use super::{app, at_once, number, publish};
use crate::support::{Answer, TestApp, answer};

/// Publish under a key for the whole request.
async fn under(app: &TestApp, key: &str, messages: Value) -> Answer {
    let body = json!({"messages": messages});
    let request = app.request("POST", "/topics/t/publish");
    answer(request.header("Idempotency-Key", key).json(&body)).await
}

#[tokio::test]
async fn the_same_key_returns_the_first_messages_id() {
    let app = app().await;

    let first = publish(&app, json!([{"payload": {"n": 1}, "idempotency_key": "a"}]))
        .await
        .expect(201)
        .json();
    let again = publish(
        &app,
        json!([
            {"payload": {"n": 2}},
            {"payload": {"n": 1}, "idempotency_key": "a"},
            {"payload": {"n": 3}, "idempotency_key": "b"},
            {"payload": {"n": 3}, "idempotency_key": "b"},
        ]),
    )
    .await
    .expect(201)
    .json();

    assert_eq!(first["duplicates"], json!([]));
    assert_eq!(again["duplicates"], json!([1, 3]));
    assert_eq!(again["message_ids"][1], first["message_ids"][0]);
    assert_eq!(again["message_ids"][2], again["message_ids"][3]);
    let numbers: Vec<Value> = app
        .consume("s")
        .await
        .iter()
        .map(|message| message["payload"]["n"].clone())
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn retries_at_once_on_two_servers_publish_one_message() {
    let app = app().await;
    let other = TestApp::start_on(app.database.share(), &[]).await;

    for key in ["a", "b", "c"] {
        let message = json!([{"payload": {"key": key}, "idempotency_key": key}]);
        let servers = [&app, &other];
        let tries = (0..20).map(|n| publish(servers[n % 2], message.clone()));
        let answers: Vec<Value> = at_once(tries)
            .await
            .into_iter()
            .map(|answer| answer.expect(201).json())
            .collect();

        let ids: std::collections::HashSet<_> = answers
            .iter()
            .map(|answer| answer["message_ids"][0].as_str().unwrap())
            .collect();
        let new = answers
            .iter()
            .filter(|answer| answer["duplicates"] == json!([]));
        assert_eq!((ids.len(), new.count()), (1, 1), "{answers:?}");
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        3
    );
    assert_eq!(app.consume("s").await.len(), 3);
}

#[tokio::test]
async fn a_request_under_a_key_is_answered_once() {
    let app = app().await;
    // whose absolute times would differ, were they what is compared
    let messages = json!([{"payload": {"n": 1}, "delay_seconds": 0, "ttl_seconds": 100},
        {"payload": {"n": 2}}]);

    let first = under(&app, "r", messages.clone()).await.expect(201).json();
    let again = under(&app, "r", messages.clone()).await.expect(201).json();
    let other = under(&app, "q", messages).await.expect(201).json();

    assert_eq!(again["message_ids"], first["message_ids"]);
    assert_eq!(first["duplicates"], json!([]));
    assert_eq!(again["duplicates"], json!([0, 1]));
    assert_ne!(other["message_ids"], first["message_ids"]);
    assert_eq!(app.consume("s").await.len(), 4);
}

#[tokio::test]
async fn requests_at_once_under_one_key_publish_once() {
    let app = app().await;
    let other = TestApp::start_on(app.database.share(), &[]).await;
    let servers = [&app, &other];

    let tries = (0..20).map(|n| {
        under(
            servers[n % 2],
            "r",
            json!([{"payload": {}}, {"payload": {}}]),
        )
    });
    let answers: Vec<Value> = at_once(tries)
        .await
        .into_iter()
        .map(|answer| answer.expect(201).json()["message_ids"].clone())
        .collect();

    assert!(answers.iter().all(|ids| ids == &answers[0]), "{answers:?}");
    assert_eq!(app.consume("s").await.len(), 2);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_request_is_refused() {
    let app = app().await;
    under(&app, "r", json!([{"payload": {"n": 1}}]))
        .await
        .expect(201);

    let answer = under(&app, "r", json!([{"payload": {"n": 2}}])).await;

    assert_eq!(
        answer.expect(422).json()["detail"],
        json!([{
            "type": "value_error",
            "loc": ["header", "Idempotency-Key"],
            "msg": "Value error, idempotency_key was used for another request",
            "input": null,
            "ctx": {"error": {}},
        }])
    );
    assert_eq!(app.consume("s").await.len(), 1);
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_its_key_free() {
    let app = app().await;
    let late = json!([{"payload": {}, "expires_at": "2001-01-01T00:00:00Z"}]);

    under(&app, "r", late).await.expect(422);

    under(&app, "r", json!([{"payload": {}}])).await.expect(201);
}

#[tokio::test]
async fn a_key_has_1_to_256_visible_characters() {
    let app = app().await;
    let body = json!({"messages": [{"payload": {}}]});

    under(&app, &"k".repeat(256), json!([{"payload": {}}]))
        .await
        .expect(201);
    for keys in [
        &[""][..],
        &["a b"],
        &["a", "b"],
        &[&"k".repeat(257)],
        &["é"],
    ] {
        let mut request = app.request("POST", "/topics/t/publish").json(&body);
        for key in keys {
            request = request.header("Idempotency-Key", *key);
        }
        let refusal = answer(request).await.expect(422).json();
        let loc = &refusal["detail"][0]["loc"];
        assert_eq!(loc, &json!(["header", "Idempotency-Key"]), "{keys:?}");
    }
    assert_eq!(app.consume("s").await.len(), 1);
}

#[tokio::test]
async fn after_the_window_of_the_settings_a_key_is_free() {
    let app = TestApp::start_with(&["--idempotency-window-seconds", "60"]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let message = json!([{"payload": {}, "idempotency_key": "a"}]);
    for seconds in [0, 59, 2] {
        sqlx::query(
            "update pubsub_data.idempotency_keys \
             set created_at = created_at - make_interval(secs => $1)",
        )
        .bind(seconds)
        .execute(&app.pool())
        .await
        .unwrap();
        publish(&app, message.clone()).await.expect(201);
    }

    assert_eq!(app.consume("s").await.len(), 2);
}
