//! Messages that come in: one, many, and those that are refused.

use serde_json::{Value, json};

use super::{door, door_with, faults};

const ONE: &str = "/api/v1/messages";
const BULK: &str = "/api/v1/messages/bulk";

#[tokio::test]
async fn a_message_is_answered_with_its_id_topic_and_time() {
    let door = door().await;
    for place in door.places() {
        let sent = place.send("orders", json!({})).await;

        let id = sent["message_id"].as_str().unwrap();
        assert!(id.starts_with("msg_") && id.len() == 36, "{id}");
        assert!(id[4..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(sent["topic"], "orders");
        let at = sent["timestamp"].as_str().unwrap();
        assert!(at.ends_with('Z') && at.len() == 24, "{at}");
        let at = chrono::DateTime::parse_from_rfc3339(at).unwrap();
        let age = chrono::Utc::now() - at.to_utc();
        assert!(age.num_seconds().abs() < 10, "{age}");
        assert_eq!(sent.as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn what_a_message_may_be_is_taken() {
    let door = door().await;
    for place in door.places() {
        let longest = "x".repeat(255);
        let metadata: serde_json::Map<String, Value> = (0..99)
            .map(|n| (format!("{n:0>256}"), json!("v".repeat(1024))))
            .collect();
        for body in [
            json!({"topic": longest, "payload": {"a": [1, null, {"b": "c"}]}}),
            json!({"topic": "\u{fc}ber_\u{4e2d}-9", "payload": {}}),
            json!({"topic": "a", "payload": {}, "ttl": 1}),
            json!({"topic": "a", "payload": {}, "ttl": 99_999_999_999_u64}),
            json!({"topic": "a", "payload": {}, "ttl": 1e300}),
            json!({"topic": "a", "payload": {}, "ttl": null, "metadata": null, "more": 1}),
            json!({"topic": "a", "payload": {}, "metadata": {}}),
            json!({"topic": "a", "payload": {}, "metadata": metadata}),
        ] {
            place.post(ONE, &body).await.expect(201);
        }
    }
}

#[tokio::test]
async fn what_a_message_must_not_be_is_told_with_its_place() {
    let door = door().await;
    for place in door.places() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"topic": "a", "payload": {}});
            body[name] = value;
            body
        };
        let many: serde_json::Map<String, Value> =
            (0..100).map(|n| (n.to_string(), json!("v"))).collect();
        for (body, loc, kind) in [
            (json!({"payload": {}}), "topic", "missing"),
            (with("topic", json!("")), "topic", "string_too_short"),
            (
                with("topic", json!("x".repeat(256))),
                "topic",
                "string_too_long",
            ),
            (with("topic", json!("a b")), "topic", "value_error"),
            (with("topic", json!("a.b")), "topic", "value_error"),
            (with("topic", json!("--")), "topic", "value_error"),
            (with("topic", json!(5)), "topic", "string_type"),
            (json!({"topic": "a"}), "payload", "missing"),
            (with("payload", json!([])), "payload", "dict_type"),
            (with("payload", json!("text")), "payload", "dict_type"),
            (with("payload", Value::Null), "payload", "dict_type"),
            (
                with("payload", json!({"a": "\0"})),
                "payload",
                "value_error",
            ),
            (with("ttl", json!(0)), "ttl", "greater_than_equal"),
            (with("ttl", json!(-1)), "ttl", "greater_than_equal"),
            (with("ttl", json!(1.5)), "ttl", "int_from_float"),
            (with("ttl", json!("soon")), "ttl", "int_parsing"),
            (with("metadata", json!([])), "metadata", "dict_type"),
            (
                with("metadata", json!({"a": 1})),
                "metadata.a",
                "string_type",
            ),
            (with("metadata", json!(many)), "metadata", "too_long"),
            (
                with("metadata", json!({"": "v"})),
                "metadata.",
                "string_too_short",
            ),
            (
                with("metadata", json!({"a": "v".repeat(1025)})),
                "metadata.a",
                "string_too_long",
            ),
            (
                with("metadata", json!({"pulsar/topic": "b"})),
                "metadata.pulsar/topic",
                "value_error",
            ),
            (
                with("metadata", json!({"a": "\0"})),
                "metadata.a",
                "value_error",
            ),
        ] {
            let refused = place.post(ONE, &body).await.expect(422);
            let expected = (format!("body.{loc}"), kind.to_owned());
            assert_eq!(faults(&refused), [expected], "{body:.200}");

            let bulk = json!({"messages": [{"topic": "a", "payload": {}}, body]});
            let refused = place.post(BULK, &bulk).await.expect(422);
            let expected = (format!("body.messages.1.{loc}"), kind.to_owned());
            assert_eq!(faults(&refused), [expected], "{body:.200}");
        }
        for body in ["", "{", "[]", "5", "null", "\u{0}"] {
            let request = place.request("POST", ONE).body(body);
            let request = request.header("content-type", "application/json");
            place.answer(request).await.expect(422);
        }
        let request = place
            .request("POST", ONE)
            .body(r#"{"topic": "a", "payload": {}}"#);
        let form = request.header("content-type", "application/x-www-form-urlencoded");
        place.answer(form).await.expect(422);
    }
}

#[tokio::test]
async fn a_bulk_is_accepted_in_its_order_all_or_none() {
    let door = door().await;
    for place in door.places() {
        let mut socket = place.subscribe(&[&place.topic, "other"], "last").await;
        let messages: Vec<Value> = (0..100)
            .map(|n| {
                let topic = if n % 2 == 0 { &place.topic } else { "other" };
                json!({"topic": topic, "payload": {"n": n}})
            })
            .collect();

        let answer = place.post(BULK, &json!({"messages": messages})).await;

        let answer = answer.expect(207).json();
        let summary = json!({"total": 100, "accepted": 100, "rejected": 0});
        assert_eq!(answer["summary"], summary);
        let results = answer["results"].as_array().unwrap();
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result["topic"], messages[n]["topic"]);
            assert_eq!(
                (&result["status"], &result["error"]),
                (&json!("accepted"), &Value::Null)
            );
            let frame = socket.hear().await;
            assert_eq!(frame["message_id"], result["message_id"]);
            assert_eq!(frame["payload"]["n"], n);
        }
        let bad = json!({"messages": [{"topic": "other", "payload": {}}, {"topic": "a b", "payload": {}}]});
        place.post(BULK, &bad).await.expect(422);
        for (body, kind) in [
            (json!({}), "missing"),
            (json!({"messages": []}), "too_short"),
            (json!({"messages": {}}), "list_type"),
            (json!({"messages": vec![&messages[0]; 101]}), "too_long"),
        ] {
            let refused = place.post(BULK, &body).await.expect(422);
            assert_eq!(
                faults(&refused),
                [("body.messages".to_owned(), kind.to_owned())]
            );
        }
        let refused = place
            .post(BULK, &json!({"messages": [5]}))
            .await
            .expect(422);
        assert_eq!(faults(&refused)[0].0, "body.messages.0");
        socket.hears_nothing().await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_413() {
    let door = door_with(&["--pulsar-max-message-size", "1000"]).await;
    for place in door.places() {
        let of = |bytes: usize| {
            let rest = json!({"topic": "a", "payload": {"a": ""}})
                .to_string()
                .len();
            json!({"topic": "a", "payload": {"a": "x".repeat(bytes - rest)}})
        };
        place.post(ONE, &of(1000)).await.expect(201);
        let refused = place.post(ONE, &of(1001)).await.expect(413).json();
        assert!(refused["detail"].is_string(), "{refused}");
        let bulk = json!({"messages": vec![of(1000); 99]});
        place.post(BULK, &bulk).await.expect(207);
        let bulk = json!({"messages": [of(500), of(1001)]});
        let refused = place.post(BULK, &bulk).await.expect(413).json();
        let text = refused["detail"].as_str().unwrap();
        assert!(
            text.contains("FASTPUBSUB_PULSAR_MAX_MESSAGE_SIZE"),
            "{text}"
        );
    }
}
