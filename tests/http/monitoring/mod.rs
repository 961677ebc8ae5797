//! Health, request ids, metrics, the documentation, and a database that is gone.

mod docs;
mod examples;
mod metrics;
mod outages;

use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestApp, answer};

#[tokio::test]
async fn a_running_service_is_alive_and_ready() {
    let app = TestApp::start_with_auth("topics:read").await;

    // open to everybody
    let nobody = app.with_token(None);
    let liveness = nobody.get("/liveness").await.expect(200);
    let readiness = nobody.get("/readiness").await.expect(200);

    assert_eq!(liveness.json(), json!({"status": "alive"}));
    assert_eq!(readiness.json(), json!({"status": "ready"}));
}

/// Contract point 11.
/// Original's defect 20.
#[tokio::test]
async fn every_answer_has_a_request_id() {
    let app = TestApp::start_with(&[
        "--api-max-body-bytes",
        "1024",
        "--api-max-message-bytes",
        "99",
    ])
    .await;
    let long = json!([" ".repeat(2000)]);
    let mut seen = Vec::new();

    for (method, path, body, status) in [
        ("POST", "/topics", json!({"id": "t"}), 201),
        ("POST", "/topics", json!({"id": "t"}), 409),
        ("GET", "/topics/t", Value::Null, 200),
        ("POST", "/topics/t/messages", json!([]), 204),
        ("POST", "/topics/t/messages", json!({}), 422),
        ("POST", "/topics/t/messages", long, 413),
        ("GET", "/topics/", Value::Null, 307),
        ("GET", "/topics/x", Value::Null, 404),
        ("GET", "/nope", Value::Null, 404),
        ("PATCH", "/topics", Value::Null, 405),
        ("HEAD", "/topics", Value::Null, 200),
        ("GET", "/docs", Value::Null, 200),
        ("GET", "/metrics", Value::Null, 200),
        ("GET", "/liveness", Value::Null, 200),
    ] {
        let answer = answer(app.request(method, path).json(&body)).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let id: Uuid = answer.header("x-request-id").unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7, "{method} {path}");
        seen.push(id);
    }

    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

/// Contract point 11.
#[tokio::test]
async fn a_valid_request_id_of_the_client_is_kept_and_any_other_replaced() {
    let app = TestApp::start().await;
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);

    for (given, kept) in [
        (&b"a"[..], true),
        (b"01890000-0000-7000-8000-000000000000", true),
        (b"trace:1/2=3,{\"a\"}~!", true),
        (longest.as_bytes(), true),
        (too_long.as_bytes(), false),
        (b"", false),
        (b"a b", false),
        (b"a\tb", false),
        (b"caf\xc3\xa9", false),
        (b"\xff", false),
    ] {
        for path in ["/topics", "/nope", "/topics/x"] {
            let given = HeaderValue::from_bytes(given).unwrap();
            let answer = answer(app.request("GET", path).header("x-request-id", &given)).await;
            let id = &answer.headers["x-request-id"];

            assert_eq!(id == given, kept, "{path} {given:?}: {id:?}");
            assert!(
                kept || id.to_str().unwrap().parse::<Uuid>().is_ok(),
                "{given:?}: {id:?}"
            );
            assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
        }
    }
}

/// Original's defect 20.
/// Original's defect 21.
/// No request id on a 500, and a traceback for everybody.
#[tokio::test]
async fn a_defect_is_a_500_that_tells_nothing_but_its_request_id() {
    let app = TestApp::start_with(&["--api-debug", "true"]).await;
    sqlx::raw_sql("drop function pubsub.list_topics")
        .execute(&app.pool())
        .await
        .unwrap();

    let answer = app.get("/topics").await.expect(500);

    assert_eq!(answer.json(), json!({"detail": "internal server error"}));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("retry-after"), None);
    app.get("/topics/x").await.expect(404);
}
