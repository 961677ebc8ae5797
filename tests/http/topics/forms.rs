//! Pages and bodies, as every route reads them.

use serde_json::{Value, json};

use super::{fault, post_text};
use crate::support::{TestApp, answer};

/// Original's defect 10.
#[tokio::test]
async fn pages_outside_their_limits_are_refused() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let ge = |name: &str, min: i64, input: &str| {
        let msg = format!("Input should be greater than or equal to {min}");
        let loc = json!(["query", name]);
        fault(
            "greater_than_equal",
            loc,
            &msg,
            json!(input),
            json!({"ge": min}),
        )
    };
    let le = |name: &str, max: i64, input: &str| {
        let msg = format!("Input should be less than or equal to {max}");
        let loc = json!(["query", name]);
        fault(
            "less_than_equal",
            loc,
            &msg,
            json!(input),
            json!({"le": max}),
        )
    };
    let parsing = |name: &str, input: &str| {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        let loc = json!(["query", name]);
        fault("int_parsing", loc, msg, json!(input), Value::Null)
    };

    for (query, faults) in [
        ("offset=-1", json!([ge("offset", 0, "-1")])),
        ("limit=0", json!([ge("limit", 1, "0")])),
        ("limit=101", json!([le("limit", 100, "101")])),
        ("limit=2147483648", json!([le("limit", 100, "2147483648")])),
        (
            "offset=9223372036854775808",
            json!([le("offset", i64::MAX, "9223372036854775808")]),
        ),
        (
            "offset=99999999999999999999999999999999999999999999",
            json!([le(
                "offset",
                i64::MAX,
                "99999999999999999999999999999999999999999999"
            )]),
        ),
        ("offset=x", json!([parsing("offset", "x")])),
        ("limit=1.5", json!([parsing("limit", "1.5")])),
        ("limit=", json!([parsing("limit", "")])),
        (
            "offset=-1&limit=x",
            json!([ge("offset", 0, "-1"), parsing("limit", "x")]),
        ),
    ] {
        for list in [
            "/topics",
            "/subscriptions",
            "/clients",
            "/subscriptions/s/dlq",
        ] {
            let answer = app.get(&format!("{list}?{query}")).await;
            assert_eq!(answer.status, 422, "{list}?{query}");
            assert_eq!(answer.json(), json!({"detail": faults}), "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn bodies_of_the_wrong_form_are_refused_with_their_faults() {
    let app = TestApp::start().await;
    let id = || json!(["body", "id"]);
    let pattern = |input: &str| {
        let msg = "String should match pattern '^[a-zA-Z0-9-._]+$'";
        let ctx = json!({"pattern": "^[a-zA-Z0-9-._]+$"});
        fault("string_pattern_mismatch", id(), msg, json!(input), ctx)
    };
    let required = |input| fault("missing", id(), "Field required", input, Value::Null);
    let string = |input| {
        let msg = "Input should be a valid string";
        fault("string_type", id(), msg, input, Value::Null)
    };
    let object = |input| {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        let kind = "model_attributes_type";
        fault(kind, json!(["body"]), msg, input, Value::Null)
    };
    let long = "x".repeat(129);
    let too_long = fault(
        "string_too_long",
        id(),
        "String should have at most 128 characters",
        json!(long),
        json!({"max_length": 128}),
    );

    for (body, expected) in [
        ("{}", required(json!({}))),
        (r#"{"id": 7}"#, string(json!(7))),
        (r#"{"id": null}"#, string(json!(null))),
        (r#"{"id": ["a"]}"#, string(json!(["a"]))),
        (r#"{"id": ""}"#, pattern("")),
        (r#"{"id": "a b"}"#, pattern("a b")),
        (r#"{"id": "a/b"}"#, pattern("a/b")),
        (r#"{"id": "a\n"}"#, pattern("a\n")),
        (r#"{"id": "é"}"#, pattern("é")),
        (&format!(r#"{{"id": "{long}"}}"#), too_long),
        ("[]", object(json!([]))),
        ("\"a\"", object(json!("a"))),
        ("7", object(json!(7))),
    ] {
        let answer = post_text(&app, "/topics", body).await;
        assert_eq!(answer.status, 422, "{body}");
        assert_eq!(answer.json(), json!({"detail": [expected]}), "{body}");
    }
    assert_eq!(app.get("/topics").await.json(), json!({"data": []}));
}

#[tokio::test]
async fn malformed_json_is_refused_with_the_place_of_the_mistake() {
    let app = TestApp::start().await;

    for (body, position) in [
        (r#"{"id": }"#, 7),
        ("{\n\"id\": }", 8),
        (r#"{'id': "a"}"#, 1),
        (r#"{"id": NaN}"#, 7),
        (r#"{"id": "a"} x"#, 12),
    ] {
        let mut detail = post_text(&app, "/topics", body).await.expect(422).json();
        let why = detail["detail"][0]["ctx"]["error"].take();

        assert!(why.as_str().is_some_and(|why| !why.is_empty()), "{body}");
        let loc = json!(["body", position]);
        let ctx = json!({"error": null});
        let expected = fault("json_invalid", loc, "JSON decode error", json!({}), ctx);
        assert_eq!(detail, json!({"detail": [expected]}), "{body}");
    }
}

#[tokio::test]
async fn a_missing_body_is_refused() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;

    for path in [
        "/topics",
        "/topics/t/messages",
        "/subscriptions",
        "/subscriptions/s/acks",
        "/subscriptions/s/nacks",
        "/subscriptions/s/dlq/reprocess",
        "/clients",
    ] {
        let answer = answer(app.request("POST", path)).await.expect(422);
        let missing = fault(
            "missing",
            json!(["body"]),
            "Field required",
            Value::Null,
            Value::Null,
        );
        assert_eq!(answer.json(), json!({"detail": [missing]}), "{path}");
    }
}

#[tokio::test]
async fn a_body_is_read_as_json_unless_it_says_otherwise() {
    let app = TestApp::start().await;
    let post = |id: &str, content_type: &str| {
        let request = app.request("POST", "/topics");
        let body = json!({"id": id}).to_string();
        answer(request.header("content-type", content_type).body(body))
    };

    post_text(&app, "/topics", r#"{"id": "none"}"#)
        .await
        .expect(201);
    for (id, content_type) in [
        ("plain", "application/json"),
        ("charset", "application/json; charset=utf-8"),
        ("case", "Application/JSON"),
        ("suffix", "application/vnd.example+json"),
    ] {
        assert_eq!(post(id, content_type).await.status, 201, "{content_type}");
    }
    for content_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
        "multipart/form-data; boundary=x",
    ] {
        let refused = post("refused", content_type).await;
        assert_eq!(refused.status, 422, "{content_type}");
        let detail = refused.json()["detail"].clone();
        assert_eq!(detail[0]["type"], "model_attributes_type", "{content_type}");
        assert_eq!(detail[0]["loc"], json!(["body"]), "{content_type}");
        assert_eq!(detail[0]["input"], r#"{"id":"refused"}"#, "{content_type}");
    }
    app.get("/topics/refused").await.expect(404);
}

#[tokio::test]
async fn of_a_field_that_is_there_twice_the_last_counts() {
    let app = TestApp::start().await;

    let body = r#"{"id": "a", "id": "b"}"#;
    let topic = post_text(&app, "/topics", body).await.expect(201).json();

    assert_eq!(topic["id"], "b");
    assert_eq!(topic.as_object().unwrap().len(), 2);
    app.get("/topics/a").await.expect(404);
}
