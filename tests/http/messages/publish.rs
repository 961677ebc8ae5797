//! `POST /topics/{id}/messages`.

use serde_json::{Value, json};

use super::{app_with, counts, number, publish};
use crate::http::topics::{fault, post_text};
use crate::support::{Answer, TestApp, settings};

/// Original's defect 26.
/// Validation, storing and delivering are one step.
#[tokio::test]
async fn a_publish_is_all_or_nothing() {
    let app = app_with(json!({})).await;
    let dictionary = |position: usize, input: Value| {
        let msg = "Input should be a valid dictionary";
        fault(
            "dict_type",
            json!(["body", position]),
            msg,
            input,
            Value::Null,
        )
    };
    let list = |input: Value| {
        let msg = "Input should be a valid list";
        json!([fault("list_type", json!(["body"]), msg, input, Value::Null)])
    };

    for (body, faults) in [
        (json!({"a": 1}), list(json!({"a": 1}))),
        (json!("x"), list(json!("x"))),
        (json!(5), list(json!(5))),
        (json!([5]), json!([dictionary(0, json!(5))])),
        (
            json!([{"a": 1}, "x", {"b": 1}, null, [{}]]),
            json!([
                dictionary(1, json!("x")),
                dictionary(3, json!(null)),
                dictionary(4, json!([{}]))
            ]),
        ),
    ] {
        let answer = app.post("/topics/t/messages", body.clone()).await;
        assert_eq!(answer.status, 422, "{body}");
        assert_eq!(answer.json(), json!({"detail": faults}), "{body}");
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        0
    );
    assert_eq!(counts(&app).await, [0; 5]);
}

/// Original's defect 11.
#[tokio::test]
async fn a_payload_that_postgres_cannot_store_is_refused_with_its_position() {
    let app = app_with(json!({})).await;
    let digits = "9".repeat(140_000);
    let nested = format!("{}{}", "[".repeat(600), "]".repeat(600));

    for payload in [
        r#"{"a":"\u0000"}"#,
        r#"{"\u0000":1}"#,
        r#"{"a":["\ud800"]}"#,
        r#"{"a":"\ude00\ud83d"}"#,
        r#"{"a":1e309}"#,
        r#"{"a":-1E+400}"#,
        r#"{"a":1e-400}"#,
        &format!(r#"{{"a":{nested}}}"#),
    ] {
        let body = format!(r#"[{{"fine":1}},{payload}]"#);
        let answer = post_text(&app, "/topics/t/messages", body).await;
        assert_eq!(answer.status, 422, "{payload}");
        let detail = answer.json()["detail"].clone();
        assert_eq!(detail[0]["type"], "value_error", "{payload}");
        assert_eq!(detail[0]["loc"], json!(["body", 1]), "{payload}");
    }
    for payload in [
        &format!(r#"{{"a":{digits}}}"#),
        &format!(r#"{{"a":0.{digits}}}"#),
        r#"{"a":NaN}"#,
        r#"{"a":-Infinity}"#,
    ] {
        let body = format!(r#"[{{"fine":1}},{payload}]"#);
        let answer = post_text(&app, "/topics/t/messages", body).await;
        assert_eq!(answer.status, 422, "{}: {}", &payload[..9], answer.body);
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        0
    );
}

#[tokio::test]
async fn payloads_come_back_as_they_were_published() {
    let app = app_with(json!({})).await;
    let nested = format!("{}1{}", "[".repeat(400), "]".repeat(400));
    let texts = [
        r#"{}"#,
        r#"{"text":"a&b <script> it's \"quoted\" é日本😀 \\ \n\t","":null,"$.a":[true,false]}"#,
        r#"{"numbers":[0,-1,1.50,123456789012345678901234567890,0.1]}"#,
        &format!(r#"{{"nested":{nested}}}"#),
    ];

    let body = format!("[{}]", texts.join(","));
    post_text(&app, "/topics/t/messages", body)
        .await
        .expect(204);
    let path = "/subscriptions/s/messages?consumer_id=c";
    let answer = app.get(path).await.expect(200).body;

    let squeezed = answer.replace(": ", ":").replace(", ", ",");
    for text in [
        "123456789012345678901234567890",
        "1.50",
        "0.1",
        "😀",
        "a&b <script> it's",
    ] {
        assert!(answer.contains(text), "{text}: {answer}");
    }
    assert!(squeezed.contains(texts[3]), "{answer}");
}

#[tokio::test]
async fn an_empty_publish_and_one_that_nobody_receives_are_204() {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);

    publish(&app, json!([])).await;
    publish(&app, json!([{"before": 1}])).await;
    app.post(
        "/subscriptions",
        json!({"id": "s", "topic_id": "t", "filter": {"a": [1]}}),
    )
    .await
    .expect(201);
    publish(&app, json!([])).await;
    publish(&app, json!([{"a": 2}])).await;

    assert_eq!(counts(&app).await, [0; 5]);
}

/// Contract point 9.
#[tokio::test]
async fn bodies_and_messages_over_their_limits_are_413_naming_the_setting() {
    let flags = [
        "--api-max-body-bytes",
        "2048",
        "--api-max-message-bytes",
        "100",
    ];
    let app = TestApp::start_with(&flags).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let message = |bytes: usize| json!({"a": "x".repeat(bytes - 8)}).to_string();
    let padded = |bytes: usize| format!("[{}]", " ".repeat(bytes - 2));
    let too_large = |answer: Answer| answer.expect(413).json()["detail"].clone();

    let exact = post_text(&app, "/topics/t/messages", format!("[{}]", message(100))).await;
    let body = format!("[{},{}]", message(100), message(101));
    let message_over = post_text(&app, "/topics/t/messages", body).await;

    exact.expect(204);
    assert_eq!(
        too_large(message_over),
        "message 1 has 101 bytes, the limit is 100 (FASTPUBSUB_API_MAX_MESSAGE_BYTES)"
    );
    for path in [
        "/topics/t/messages",
        "/subscriptions/s/acks",
        "/subscriptions/s/nacks",
        "/subscriptions/s/dlq/reprocess",
    ] {
        post_text(&app, path, padded(2048)).await.expect(204);
        assert_eq!(
            too_large(post_text(&app, path, padded(2049)).await),
            "the request body exceeds 2048 bytes (FASTPUBSUB_API_MAX_BODY_BYTES)",
            "{path}"
        );
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        1
    );
    assert_eq!(settings(&[]).api_max_body_bytes, 10 * 1024 * 1024);
    assert_eq!(settings(&[]).api_max_message_bytes, 1024 * 1024);
}
