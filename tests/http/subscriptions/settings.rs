//! Settings beyond the original's, and changing them.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer};

async fn patch(app: &TestApp, path: &str, body: Value) -> Answer {
    answer(app.request("PATCH", path).json(&body)).await
}

#[tokio::test]
async fn every_setting_is_taken_shown_and_listed() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "plain", json!({})).await;
    app.post("/topics", json!({"id": "dead"})).await.expect(201);
    let settings = json!({
        "enable_ordering": true, "ordering_failure": "park", "max_in_flight": 10,
        "max_in_flight_per_consumer": 5, "max_rate": 100, "message_ttl_seconds": 3600,
        "dead_letter_expired": true, "dead_letter_topic_id": "dead", "paused": true,
        "backoff_strategy": "linear", "expires_after_seconds": 31_536_000,
    });
    let mut body = settings.clone();
    body["id"] = json!("s");
    body["topic_id"] = json!("t");

    let created = app.post("/subscriptions", body).await.expect(201).json();
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    let plain = app.get("/subscriptions/plain").await.expect(200).json();

    for (field, value) in settings.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
        assert_eq!(plain.get(field), None, "{field}");
    }
    assert_eq!(shown, created);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let app = TestApp::start().await;
    app.topic_with_subscription(
        "t",
        "s",
        json!({"filter": {"a": [1]}, "ack_deadline_seconds": 9}),
    )
    .await;
    let mut expected = app.get("/subscriptions/s").await.expect(200).json();

    for (changes, shown) in [
        (
            json!({"max_delivery_attempts": 8}),
            json!({"max_delivery_attempts": 8}),
        ),
        (
            json!({"fairness_key": "tenant"}),
            json!({"fairness_key": "tenant"}),
        ),
        (
            json!({"fairness_key": null, "enable_ordering": true, "ordering_failure": "skip"}),
            json!({"fairness_key": null, "enable_ordering": true, "ordering_failure": "skip"}),
        ),
        (
            json!({"ack_deadline_seconds": null}),
            json!({"ack_deadline_seconds": null}),
        ),
        (
            json!({"filter": {"b": [{"exists": true}]}}),
            json!({"filter": {"b": [{"exists": true}]}}),
        ),
        (
            json!({"backoff_min_seconds": 0.25, "backoff_max_seconds": 2.0}),
            json!({"backoff_min_seconds": 0.25, "backoff_max_seconds": 2}),
        ),
        (
            json!({"backoff_strategy": "fixed"}),
            json!({"backoff_strategy": "fixed"}),
        ),
        (
            json!({"expires_after_seconds": 10}),
            json!({"expires_after_seconds": 10}),
        ),
        (
            json!({"expires_after_seconds": null}),
            json!({"expires_after_seconds": null}),
        ),
        (json!({}), json!({})),
    ] {
        let changed = patch(&app, "/subscriptions/s", changes.clone())
            .await
            .expect(200)
            .json();
        for (field, value) in shown.as_object().unwrap() {
            expected[field] = value.clone();
        }
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&changed[field], value, "{changes}: {field}");
        }
        assert_eq!(
            app.get("/subscriptions/s").await.expect(200).json(),
            changed,
            "{changes}"
        );
    }
    app.post("/topics/t/messages", json!([{"a": 1}, {"b": 1}]))
        .await
        .expect(204);
    assert_eq!(app.consume("s").await.len(), 1);
}

#[tokio::test]
async fn a_patch_that_is_wrong_names_the_field_and_changes_nothing() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({"fairness_key": "tenant"}))
        .await;
    let before = app.get("/subscriptions/s").await.expect(200).json();

    for (field, value, kind) in [
        ("id", json!("x"), "extra_forbidden"),
        ("topic_id", json!("t"), "extra_forbidden"),
        (
            "start_from",
            json!("2026-01-02T03:04:05Z"),
            "extra_forbidden",
        ),
        ("max_rates", json!(1), "extra_forbidden"),
        ("filter", json!([1]), "dict_type"),
        ("max_rate", json!(0), "value_error"),
        ("max_rate", json!("7"), "value_error"),
        ("max_delivery_attempts", json!(null), "value_error"),
        ("enable_ordering", json!(1), "value_error"),
        ("ordering_failure", json!("explode"), "value_error"),
        ("backoff_strategy", json!("random"), "value_error"),
        ("backoff_strategy", json!(null), "value_error"),
        ("backoff_min_seconds", json!(0.0005), "value_error"),
        ("backoff_min_seconds", json!("1"), "value_error"),
        ("paused", json!("yes"), "value_error"),
        ("paused", json!(null), "value_error"),
        ("dead_letter_topic_id", json!("t"), "value_error"),
        ("dead_letter_topic_id", json!("none"), "value_error"),
    ] {
        let body = json!({"max_in_flight": 3, field: value});
        let refused = patch(&app, "/subscriptions/s", body)
            .await
            .expect(422)
            .json();
        let fault = &refused["detail"][0];
        assert_eq!(fault["loc"], json!(["body", field]), "{field} {value}");
        assert_eq!(fault["type"], kind, "{field} {value}");
        assert_eq!(fault["input"], value, "{field}");
    }
    let both = patch(&app, "/subscriptions/s", json!({"enable_ordering": true}))
        .await
        .expect(422);
    assert!(
        both.body
            .contains("fairness_key cannot go together with enable_ordering")
    );
    let inside = patch(
        &app,
        "/subscriptions/s",
        json!({"filter": {"a": [{"prefx": "x"}]}}),
    )
    .await;
    assert_eq!(
        inside.expect(422).json()["detail"][0]["loc"],
        json!(["body", "filter", "a", 0, "prefx"])
    );
    for text in ["[]", "7", "null", "{", "{\"fairness_key\": \"\\u0000\"}"] {
        let request = app.request("PATCH", "/subscriptions/s").body(text);
        answer(request).await.expect(422);
    }
    assert_eq!(app.get("/subscriptions/s").await.expect(200).json(), before);
    patch(&app, "/subscriptions/none", json!({}))
        .await
        .expect(404);
}

#[tokio::test]
async fn new_settings_out_of_range_are_refused_at_creation() {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);

    for (field, value) in [
        ("max_in_flight", json!(0)),
        ("max_in_flight_per_consumer", json!(1_000_001)),
        ("max_rate", json!(-1)),
        ("message_ttl_seconds", json!(31_536_001)),
        ("fairness_key", json!("")),
        ("fairness_key", json!("k".repeat(257))),
        ("ordering_failure", json!("stop")),
        ("backoff_strategy", json!("quadratic")),
        ("backoff_min_seconds", json!(0.5)),
        ("backoff_max_seconds", json!(300.5)),
        ("paused", json!("perhaps")),
        ("enable_ordering", json!("perhaps")),
        ("dead_letter_expired", json!([])),
        ("dead_letter_topic_id", json!("a b")),
        ("dead_letter_topic_id", json!("none")),
        ("start_from", json!("yesterday")),
        ("start_from", json!(7)),
    ] {
        let body = json!({"id": "s", "topic_id": "t", field: value});
        let refused = app.post("/subscriptions", body).await.expect(422).json();
        assert_eq!(
            refused["detail"][0]["loc"],
            json!(["body", field]),
            "{field} {value}"
        );
        assert_eq!(refused["detail"][0]["input"], value, "{field}");
    }
    app.get("/subscriptions/s").await.expect(404);
}

#[tokio::test]
async fn a_topic_has_a_retention_that_can_be_changed() {
    let app = TestApp::start().await;

    let body = json!({"id": "t", "message_retention_seconds": 60});
    let created = app.post("/topics", body).await.expect(201).json();
    assert_eq!(created["message_retention_seconds"], 60);
    let changes = json!({"message_retention_seconds": 31_536_000});
    let changed = patch(&app, "/topics/t", changes).await.expect(200).json();
    assert_eq!(changed["message_retention_seconds"], 31_536_000);
    assert_eq!(changed["created_at"], created["created_at"]);
    let reset = patch(
        &app,
        "/topics/t",
        json!({"message_retention_seconds": null}),
    )
    .await;
    assert_eq!(
        reset.expect(200).json().get("message_retention_seconds"),
        None
    );

    for (field, value) in [
        ("message_retention_seconds", json!(-1)),
        ("message_retention_seconds", json!(31_536_001)),
        ("message_retention_seconds", json!("60")),
        ("id", json!("u")),
        ("filter", json!({})),
    ] {
        let refused = patch(&app, "/topics/t", json!({field: value}))
            .await
            .expect(422)
            .json();
        assert_eq!(
            refused["detail"][0]["loc"],
            json!(["body", field]),
            "{field} {value}"
        );
    }
    let body = json!({"id": "u", "message_retention_seconds": 31_536_001});
    app.post("/topics", body).await.expect(422);
    patch(&app, "/topics/none", json!({})).await.expect(404);
}
