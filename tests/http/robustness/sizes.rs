//! Bodies that are long, in pieces, or break off.

use serde_json::{Value, json};
use uuid::Uuid;

use super::bodies::routes;
use super::{app, assert_refused, assert_unharmed, contents, exchange, parse, request, send};
use crate::support::TestApp;

#[tokio::test]
async fn bodies_over_the_limit_are_413_however_they_are_sent() {
    let app = TestApp::start_with(&[
        "--api-max-body-bytes",
        "2048",
        "--api-max-message-bytes",
        "99",
    ])
    .await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let before = contents(&app.pool()).await;
    let text = "the request body exceeds 2048 bytes (FASTPUBSUB_API_MAX_BODY_BYTES)";
    let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));

    for (method, path) in routes() {
        let chunked = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}1\r\n \r\n0\r\n\r\n"
        );
        for bytes in [
            chunked.into_bytes(),
            request(method, &path, "", &[b' '; 2049]),
        ] {
            let answer = send(&app, bytes).await;
            assert_refused(&answer, 413, &format!("{method} {path}"));
            assert_eq!(answer.json(), json!({"detail": text}), "{method} {path}");
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn a_chunked_body_is_read_like_any_other() {
    let app = TestApp::start().await;
    let chunked = "POST /topics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n6\r\n{\"id\":\r\n4\r\n\"t\"}\r\n0\r\n\r\n";

    let answer = send(&app, chunked.as_bytes().to_vec()).await;

    assert_eq!(answer.expect(201).json()["id"], "t");
}

#[tokio::test]
async fn a_body_that_breaks_off_publishes_nothing() {
    let app = app().await;
    let before = contents(&app.pool()).await;
    let head = "POST /topics/t/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";

    for rest in [
        "Content-Length: 100\r\n\r\n[{\"a\":1}]",
        "Transfer-Encoding: chunked\r\n\r\n9\r\n[{\"a\":1}]\r\n",
        "Transfer-Encoding: chunked\r\n\r\n9\r\n[{\"a\":1}]\r\nrubbish\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n[{\"a\":1}]\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n[{\"a\":1}]",
    ] {
        let answer = exchange(&app, format!("{head}{rest}").into_bytes(), true).await;
        if let Some(answer) = parse(&answer) {
            assert_eq!(answer.status, 400, "{rest}: {}", answer.body);
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn a_hundred_thousand_ids_are_settled_in_one_request() {
    let app = app().await;
    // so that what is nacked first still waits at the end
    let patient = json!({"backoff_min_seconds": 300, "backoff_max_seconds": 300});
    app.with_token(None)
        .patch("/subscriptions/s", patient)
        .await
        .expect(200);
    let leased: Uuid =
        sqlx::query_scalar("select message_id from pubsub_data.deliveries where lease is not null")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    let mut ids: Vec<Uuid> = (0..100_000).map(|_| Uuid::now_v7()).collect();
    ids.push(leased);
    let unknown: Value = ids.iter().map(|id| json!(id)).collect();
    let same: Value = (0..100_000).map(|_| json!(leased)).collect();

    for (verb, handles) in [
        ("dlq/reprocess", &unknown),
        ("dlq/reprocess", &same),
        ("nacks", &same),
        ("nacks", &unknown),
        ("acks", &unknown),
        ("acks", &same),
    ] {
        let path = format!("/subscriptions/s/{verb}");
        app.post(&path, handles.clone()).await.expect(204);
    }

    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    assert_eq!(metrics["scheduled"], 1, "{metrics}");
    assert_eq!(metrics["available"], 1, "{metrics}");
}

/// A short request must not make the service build an answer a hundred times as long.
#[tokio::test]
async fn a_body_of_many_faults_has_a_bounded_answer() {
    let app = app().await;
    let before = contents(&app.pool()).await;
    let body = format!("[{}0]", "0,".repeat(90_000));

    for path in [
        "/topics/t/messages",
        "/subscriptions/s/acks",
        "/subscriptions/s/nacks",
        "/subscriptions/s/dlq/reprocess",
    ] {
        let answer = send(&app, request("POST", path, "", body.as_bytes())).await;
        assert_refused(&answer, 422, path);
        let detail = answer.json()["detail"].clone();
        assert_eq!(detail.as_array().unwrap().len(), 100, "{path}");
        assert_eq!(detail[99]["loc"], json!(["body", 99]), "{path}");
        let (given, answered) = (body.len(), answer.body.len());
        assert!(
            answered < 2 * given,
            "{path}: {given} bytes, answered with {answered}"
        );
    }

    assert_unharmed(&app, &before).await;
}

/// A body within the limit must not hold more messages than can be stored in time.
#[tokio::test]
async fn a_body_full_of_tiny_messages_is_no_failure_of_the_service() {
    let app = app().await;
    let before = contents(&app.pool()).await;
    let body = format!("[{}{{}}]", "{},".repeat(3_400_000));

    let answer = send(
        &app,
        request("POST", "/topics/t/messages", "", body.as_bytes()),
    )
    .await;

    assert!(answer.status < 500, "{}: {}", answer.status, answer.body);
    if answer.status != 204 {
        assert_unharmed(&app, &before).await;
    }
}
