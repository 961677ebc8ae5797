//! What cannot be published, and how the place is told.

use serde_json::{Value, json};

use super::{app, number, publish};
use crate::http::topics::post_text;
use crate::support::TestApp;

/// Where and why: "type loc".
fn faults(body: &Value) -> Vec<String> {
    body["detail"]
        .as_array()
        .unwrap_or_else(|| panic!("{body}"))
        .iter()
        .map(|fault| format!("{} {}", fault["type"].as_str().unwrap(), fault["loc"]))
        .collect()
}

/// A good message before it, so that something could be half done.
async fn refused(app: &TestApp, message: Value) -> Vec<String> {
    let answer = publish(app, json!([{"payload": {}}, message])).await;
    assert_eq!(answer.status, 422, "{message}: {}", answer.body);
    faults(&answer.json())
}

#[tokio::test]
async fn each_field_of_the_wrong_type_or_beyond_its_limit_is_named_and_nothing_is_done() {
    let app = app().await;
    let many: serde_json::Map<_, _> = (0..101).map(|n| (n.to_string(), json!("x"))).collect();

    for (field, value, kind, inside) in [
        ("payload", json!([]), "dict_type", None),
        ("payload", json!(null), "dict_type", None),
        ("payload", json!({"a": "\0"}), "value_error", None),
        ("attributes", json!([]), "dict_type", None),
        ("attributes", json!("x"), "dict_type", None),
        ("attributes", json!({"a": 1}), "string_type", Some("a")),
        ("attributes", json!({"a": null}), "string_type", Some("a")),
        ("attributes", json!({"a": {}}), "string_type", Some("a")),
        ("attributes", json!({"": "x"}), "string_too_short", Some("")),
        (
            "attributes",
            json!({"a": "é".repeat(1025)}),
            "string_too_long",
            Some("a"),
        ),
        ("attributes", json!({"a": "\0"}), "value_error", None),
        ("attributes", json!(many), "too_long", None),
        ("ordering_key", json!(""), "string_too_short", None),
        (
            "ordering_key",
            json!("é".repeat(1025)),
            "string_too_long",
            None,
        ),
        ("ordering_key", json!(5), "string_type", None),
        ("ordering_key", json!("\0"), "value_error", None),
        ("priority", json!(-1), "greater_than_equal", None),
        ("priority", json!(10), "less_than_equal", None),
        ("priority", json!("high"), "int_parsing", None),
        ("priority", json!(1.5), "int_from_float", None),
        ("priority", json!([]), "int_type", None),
        ("delay_seconds", json!(-1), "greater_than_equal", None),
        ("delay_seconds", json!(31_536_001), "less_than_equal", None),
        ("delay_seconds", json!("soon"), "int_parsing", None),
        ("deliver_at", json!(5), "datetime_type", None),
        ("deliver_at", json!("tomorrow"), "datetime_parsing", None),
        (
            "deliver_at",
            json!("2030-01-01T00:00:00"),
            "datetime_parsing",
            None,
        ),
        (
            "deliver_at",
            json!("2901-01-01T00:00:00Z"),
            "value_error",
            None,
        ),
        ("ttl_seconds", json!(0), "greater_than_equal", None),
        ("ttl_seconds", json!(31_536_001), "less_than_equal", None),
        (
            "expires_at",
            json!("2001-01-01T00:00:00Z"),
            "value_error",
            None,
        ),
        ("expires_at", json!({}), "datetime_type", None),
        ("idempotency_key", json!(""), "string_too_short", None),
        (
            "idempotency_key",
            json!("é".repeat(257)),
            "string_too_long",
            None,
        ),
        ("idempotency_key", json!(true), "string_type", None),
        ("prioritty", json!(1), "extra_forbidden", None),
    ] {
        let mut message = json!({"payload": {}});
        message[field] = value;
        let mut loc = vec![json!("body"), json!("messages"), json!(1), json!(field)];
        loc.extend(inside.map(Value::from));

        assert_eq!(
            refused(&app, message).await,
            [format!("{kind} {}", json!(loc))]
        );
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        0
    );
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.idempotency_keys").await,
        0
    );
}

#[tokio::test]
async fn a_time_is_given_in_one_way() {
    let app = app().await;
    let message = json!({
        "payload": {},
        "deliver_at": "2030-01-01T00:00:00Z", "delay_seconds": 0,
        "expires_at": "2030-01-01T00:00:00Z", "ttl_seconds": 1,
    });

    assert_eq!(
        refused(&app, message).await,
        [
            r#"value_error ["body","messages",1,"deliver_at"]"#,
            r#"value_error ["body","messages",1,"expires_at"]"#,
        ]
    );
}

#[tokio::test]
async fn the_longest_of_everything_is_taken() {
    let app = app().await;
    let attributes: serde_json::Map<_, _> = (0..100)
        .map(|n| (format!("{n:0>256}"), json!("é".repeat(1024))))
        .collect();

    publish(
        &app,
        json!([
            {"payload": {}, "attributes": attributes, "ordering_key": "k".repeat(1024),
             "priority": 9, "delay_seconds": 31_536_000, "ttl_seconds": 31_536_000,
             "idempotency_key": "é".repeat(256)},
            {"payload": {}, "priority": 0, "delay_seconds": 0, "ttl_seconds": 1,
             "ordering_key": "é"},
        ]),
    )
    .await
    .expect(201);
}

#[tokio::test]
async fn a_body_of_another_form_is_refused() {
    let app = app().await;
    let message = r#"{"payload": {}}"#;
    let too_many = vec![message; 1001].join(",");

    for (body, fault) in [
        ("[]", r#"model_attributes_type ["body"]"#),
        ("{}", r#"missing ["body","messages"]"#),
        (r#"{"messages": {}}"#, r#"list_type ["body","messages"]"#),
        (r#"{"messages": null}"#, r#"list_type ["body","messages"]"#),
        (r#"{"messages": []}"#, r#"too_short ["body","messages"]"#),
        (
            &format!(r#"{{"messages": [{too_many}]}}"#),
            r#"too_long ["body","messages"]"#,
        ),
        (
            &format!(r#"{{"messages": [{message}], "mesages": []}}"#),
            r#"extra_forbidden ["body","mesages"]"#,
        ),
        (
            &format!(r#"{{"messages": [{message}, 5]}}"#),
            r#"model_attributes_type ["body","messages",1]"#,
        ),
        (
            &format!(r#"{{"messages": [{message}, {{"a": 1, "payload": {{}}}}]}}"#),
            r#"extra_forbidden ["body","messages",1,"a"]"#,
        ),
        (
            &format!(r#"{{"messages": [{message}, {{"priority": 1}}]}}"#),
            r#"missing ["body","messages",1,"payload"]"#,
        ),
        (
            &format!(r#"{{"messages": [{message}, {{"payload": {{}}, "priority": 1e999}}]}}"#),
            r#"int_type ["body","messages",1,"priority"]"#,
        ),
        (r#"{"messages": ["#, r#"json_invalid ["body",13]"#),
    ] {
        let answer = post_text(&app, "/topics/t/publish", body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        assert_eq!(faults(&answer.json()), [fault], "{body}");
    }
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        0
    );
}

#[tokio::test]
async fn a_thousand_messages_are_taken_and_one_that_is_too_large_is_not() {
    let app = TestApp::start_with(&["--api-max-message-bytes", "100"]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let large = json!({"payload": {"a": "x".repeat(100)}});

    publish(&app, json!(vec![json!({"payload": {}}); 1000]))
        .await
        .expect(201);
    let answer = publish(&app, json!([{"payload": {}}, large])).await;

    assert_eq!(
        answer.expect(413).json(),
        json!({"detail": "message 1 has 108 bytes, the limit is 100 \
            (FASTPUBSUB_API_MAX_MESSAGE_BYTES)"})
    );
    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        1000
    );
}

#[tokio::test]
async fn a_refusal_tells_the_value_that_was_given() {
    let app = app().await;

    let answer = publish(
        &app,
        json!([{"payload": {}, "expires_at": "2001-01-01T00:00:00Z"}]),
    )
    .await;

    assert_eq!(
        answer.expect(422).json()["detail"],
        json!([{
            "type": "value_error",
            "loc": ["body", "messages", 0, "expires_at"],
            "msg": "Value error, expires_at must lie ahead",
            "input": "2001-01-01T00:00:00Z",
            "ctx": {"error": {}},
        }])
    );
}
