//! Publishing, consuming and settling.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::topics::{fault, post_text};
use crate::support::{TestApp, answer, ids, settings};

/// Let time pass for what is leased or waits: what is due within it is due now.
async fn pass_seconds(app: &TestApp, seconds: f64) {
    for statement in [
        "update pubsub_data.deliveries set leased_at = leased_at - make_interval(secs => $1), \
         visible_at = greatest(visible_at - make_interval(secs => $1), \
         least(visible_at, clock_timestamp()))",
        "update pubsub_data.wakeups set due_at = greatest(due_at - make_interval(secs => $1), \
         least(due_at, clock_timestamp()))",
    ] {
        sqlx::query(statement)
            .bind(seconds)
            .execute(&app.pool())
            .await
            .unwrap();
    }
}

async fn number(app: &TestApp, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

/// The earliest and the latest that the wait of the one delivery can have been, in seconds, when it
/// was set between `since` and now.
async fn wait_seconds(app: &TestApp, since: DateTime<Utc>) -> (f64, f64) {
    sqlx::query_as(
        "select extract(epoch from visible_at - clock_timestamp())::float8, \
         extract(epoch from visible_at - $1)::float8 from pubsub_data.deliveries",
    )
    .bind(since)
    .fetch_one(&app.pool())
    .await
    .unwrap()
}

async fn database_time(app: &TestApp) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

async fn publish(app: &TestApp, payloads: Value) {
    app.post("/topics/t/messages", payloads).await.expect(204);
}

/// Topic `t` with subscription `s`.
async fn app_with(fields: Value) -> TestApp {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", fields).await;
    app
}

/// Consume the one message there is.
async fn consume_one(app: &TestApp) -> Value {
    let messages = app.consume("s").await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages[0].clone()
}

async fn settle(app: &TestApp, verb: &str, handles: &[&Value]) {
    let path = format!("/subscriptions/s/{verb}");
    assert_eq!(app.post(&path, json!(handles)).await.expect(204).body, "");
}

/// Counts of available, delivered, scheduled, acked and dead messages of `s`.
async fn counts(app: &TestApp) -> [u64; 5] {
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    assert_eq!(metrics["subscription_id"], "s");
    assert_eq!(metrics.as_object().unwrap().len(), 6, "{metrics}");
    ["available", "delivered", "scheduled", "acked", "dlq"]
        .map(|state| metrics[state].as_u64().unwrap())
}

async fn dead_letters(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app
        .get(&format!("/subscriptions/s/dlq{query}"))
        .await
        .expect(200)
        .json();
    list["data"].as_array().unwrap().clone()
}

fn numbered(range: std::ops::Range<u32>) -> Value {
    range.map(|n| json!({"n": n})).collect()
}

fn payloads(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["payload"].clone())
        .collect()
}

/// Original's defect 26: validation, storing and delivering are one step.
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

#[tokio::test]
async fn a_message_has_the_fields_of_the_contract() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"a": {"b": [1, "x"]}}])).await;

    let path = "/subscriptions/s/messages?consumer_id=";
    let answer = app.get(path).await.expect(200);

    // a GET that leases must not be answered from a cache
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut list = answer.json();
    let message = &mut list["data"][0];
    let id: Uuid = message["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    let created_at = message["created_at"].as_str().unwrap();
    let age = Utc::now() - created_at.parse::<DateTime<Utc>>().unwrap();
    assert!(age.num_seconds() < 60, "{created_at}");
    assert_eq!(created_at.len(), "2026-01-02T03:04:05.678901Z".len());
    assert!(
        message["receipt"]
            .as_str()
            .is_some_and(|receipt| receipt.starts_with('r'))
    );
    for field in ["id", "created_at", "receipt"] {
        message[field].take();
    }
    assert_eq!(
        list,
        json!({"data": [{
            "id": null, "subscription_id": "s", "payload": {"a": {"b": [1, "x"]}},
            "delivery_attempts": 1, "created_at": null, "receipt": null,
        }]})
    );
}

/// Contract point 5. Original's defect 5.
#[tokio::test]
async fn messages_are_handed_out_in_publish_order_with_increasing_ids() {
    let app = app_with(json!({})).await;
    for start in [0, 100, 200] {
        publish(&app, numbered(start..start + 90)).await;
        publish(&app, numbered(start + 90..start + 100)).await;
    }

    let mut messages = Vec::new();
    for batch_size in [1, 7, 92, 100, 100] {
        let query = format!("consumer_id=c&batch_size={batch_size}");
        let path = format!("/subscriptions/s/messages?{query}");
        let batch = app.get(&path).await.expect(200).json();
        assert_eq!(batch["data"].as_array().unwrap().len(), batch_size);
        messages.extend(batch["data"].as_array().unwrap().clone());
    }

    assert_eq!(json!(payloads(&messages)), numbered(0..300));
    let ids: Vec<&str> = messages
        .iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[tokio::test]
async fn a_batch_is_of_ten_unless_asked_otherwise() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..12)).await;

    let list = app
        .get("/subscriptions/s/messages?consumer_id=c")
        .await
        .expect(200)
        .json();

    assert_eq!(
        json!(payloads(list["data"].as_array().unwrap())),
        numbered(0..10)
    );
}

#[tokio::test]
async fn consuming_without_a_consumer_or_with_a_bad_batch_size_is_refused() {
    let app = app_with(json!({})).await;
    let loc = |name: &str| json!(["query", name]);
    let parsing = "Input should be a valid integer, unable to parse string as an integer";
    let ge = "Input should be greater than or equal to 1";
    let le = "Input should be less than or equal to 100";
    let batch = |kind, msg, input, ctx| fault(kind, loc("batch_size"), msg, json!(input), ctx);
    let required = fault(
        "missing",
        loc("consumer_id"),
        "Field required",
        json!(null),
        json!(null),
    );

    for (query, faults) in [
        ("", json!([required])),
        (
            "consumer_id=c&batch_size=0",
            json!([batch("greater_than_equal", ge, "0", json!({"ge": 1}))]),
        ),
        (
            "consumer_id=c&batch_size=101",
            json!([batch("less_than_equal", le, "101", json!({"le": 100}))]),
        ),
        (
            "batch_size=x",
            json!([required, batch("int_parsing", parsing, "x", json!(null))]),
        ),
    ] {
        for subscription in ["s", "unknown"] {
            let path = format!("/subscriptions/{subscription}/messages?{query}");
            let answer = app.get(&path).await;
            assert_eq!(answer.status, 422, "{query}");
            assert_eq!(answer.json(), json!({"detail": faults}), "{query}");
        }
    }
}

/// Original's defect 27: a HEAD would lease messages and throw them away.
#[tokio::test]
async fn a_head_leases_nothing() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"a": 1}])).await;

    let path = "/subscriptions/s/messages?consumer_id=c";
    let refused = answer(app.request("HEAD", path)).await;

    assert_eq!(refused.status, 405);
    assert_eq!(counts(&app).await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn every_subscription_gets_its_own_copy() {
    let app = app_with(json!({})).await;
    app.post("/subscriptions", json!({"id": "other", "topic_id": "t"}))
        .await
        .expect(201);
    publish(&app, numbered(0..3)).await;

    let mine = app.consume("s").await;
    let others = app.consume("other").await;
    let receipts: Vec<&Value> = others.iter().map(|message| &message["receipt"]).collect();
    settle(&app, "acks", &receipts).await;

    assert_eq!(json!(payloads(&mine)), numbered(0..3));
    assert_eq!(ids(&mine), ids(&others));
    // neither the receipts of another subscription nor its acks settle ours
    assert_eq!(counts(&app).await, [0, 3, 0, 0, 0]);
    let mine: Vec<&Value> = mine.iter().map(|message| &message["id"]).collect();
    settle(&app, "acks", &mine).await;
    let other = app.get("/subscriptions/other/metrics").await.json();
    assert_eq!(other["delivered"], 3);
}

/// Contract point 4. Original's defect 1.
#[tokio::test]
async fn a_filter_selects_by_json_equality() {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let cases = [
        // every message
        (json!(null), json!({"a": 1}), true),
        (json!({}), json!({}), true),
        // JSON equality
        (json!({"a": [1]}), json!({"a": 1.0}), true),
        (json!({"a": [1.0]}), json!({"a": 1}), true),
        (json!({"a": [10]}), json!({"a": 1e1}), true),
        (json!({"a": [1]}), json!({"a": "1"}), false),
        (json!({"a": ["1"]}), json!({"a": 1}), false),
        (json!({"a": [true]}), json!({"a": true}), true),
        (json!({"a": [true]}), json!({"a": "true"}), false),
        (json!({"a": [true]}), json!({"a": 1}), false),
        (json!({"a": [false]}), json!({"a": null}), false),
        (json!({"a": [""]}), json!({"a": ""}), true),
        (json!({"a": ["x"]}), json!({"a": "X"}), false),
        (json!({"a": ["x"]}), json!({"a": "x "}), false),
        // a missing field
        (json!({"a": ["x"]}), json!({"b": "x"}), false),
        (json!({"a": ["x"]}), json!({"a": null}), false),
        (json!({"a": ["x"]}), json!({}), false),
        (json!({"a": ["x"]}), json!({"b": {"a": "x"}}), false),
        (json!({"a": ["x"]}), json!({"a": {"x": "x"}}), false),
        (json!({"a.b": ["x"]}), json!({"a": {"b": "x"}}), false),
        (json!({"a.b": ["x"]}), json!({"a.b": "x"}), true),
        // arrays
        (json!({"a": ["x"]}), json!({"a": ["y", "x"]}), true),
        (json!({"a": [1]}), json!({"a": ["1", 1.0]}), true),
        (json!({"a": ["x"]}), json!({"a": ["y"]}), false),
        (json!({"a": ["x"]}), json!({"a": []}), false),
        (json!({"a": ["x"]}), json!({"a": [{"a": "x"}]}), false),
        // an empty list
        (json!({"a": []}), json!({"a": "x"}), false),
        (json!({"a": []}), json!({"a": []}), false),
        (json!({"a": [], "b": [1]}), json!({"b": 1}), false),
        // AND over fields, OR in a list
        (json!({"a": [1, 2]}), json!({"a": 2}), true),
        (json!({"a": [1, 2]}), json!({"a": 3}), false),
        (json!({"a": ["x", 2, true]}), json!({"a": true}), true),
        (
            json!({"a": [1, 2], "b": ["x"]}),
            json!({"a": 2, "b": "x"}),
            true,
        ),
        (
            json!({"a": [1, 2], "b": ["x"]}),
            json!({"a": 2, "b": "y"}),
            false,
        ),
        (json!({"a": [1, 2], "b": ["x"]}), json!({"a": 2}), false),
        (
            json!({"a": [1], "b": [1], "c": [1]}),
            json!({"a": 1, "b": 1, "c": 1}),
            true,
        ),
        (
            json!({"a": [1], "b": [1], "c": [1]}),
            json!({"a": 1, "b": 2, "c": 1}),
            false,
        ),
        // text that needs quoting somewhere
        (json!({"a": ["a&b"]}), json!({"a": "a&b"}), true),
        (json!({"a": ["a&b"]}), json!({"a": "a&amp;b"}), false),
        (json!({"a": ["<script>"]}), json!({"a": "<script>"}), true),
        (json!({"a": ["it's"]}), json!({"a": "it's"}), true),
        (json!({"a": ["\"x\""]}), json!({"a": "\"x\""}), true),
        (json!({"a": ["\\"]}), json!({"a": "\\"}), true),
        (json!({"a": ["\" || 1 == 1"]}), json!({"a": "x"}), false),
        (
            json!({"a": ["\n\t\u{1}\u{7f}"]}),
            json!({"a": "\n\t\u{1}\u{7f}"}),
            true,
        ),
        (json!({"a": ["日本", "😀"]}), json!({"a": "😀"}), true),
        (json!({"a": ["é"]}), json!({"a": "e\u{301}"}), false),
        (
            json!({"it's \"é\" \\ $.* @": [1]}),
            json!({"it's \"é\" \\ $.* @": 1}),
            true,
        ),
        (json!({"": [1]}), json!({"": 1}), true),
        (json!({"$": [1]}), json!({"$": 1}), true),
        (json!({"a": [i64::MAX]}), json!({"a": i64::MAX - 1}), false),
        (json!({"a": [0.1]}), json!({"a": 0.1}), true),
        (json!({"a": [-1]}), json!({"a": -1}), true),
        (json!({"a": [1e300]}), json!({"a": 1e300}), true),
    ];
    for (position, (filter, payload, _)) in cases.iter().enumerate() {
        // one subscription at a time sees the payload of its case
        let id = format!("s{position}");
        let body = json!({"id": id, "topic_id": "t", "filter": filter});
        app.post("/subscriptions", body).await.expect(201);
        publish(&app, json!([payload])).await;
    }

    for (position, (filter, payload, expected)) in cases.iter().enumerate() {
        let messages = app.consume(&format!("s{position}")).await;
        let received = messages.first().map(|message| &message["payload"]);
        assert_eq!(received == Some(payload), *expected, "{filter} {payload}");
    }
}

#[tokio::test]
async fn acks_and_nacks_of_anything_but_a_leased_message_are_ignored() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..3)).await;
    let path = "/subscriptions/s/messages?consumer_id=c&batch_size=2";
    let leased = app.get(path).await.json()["data"].clone();
    let available: Uuid =
        sqlx::query_scalar("select max(message_id::text)::uuid from pubsub_data.deliveries")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    let (unknown, available) = (json!(Uuid::now_v7()), json!(available));
    settle(&app, "acks", &[&leased[0]["id"]]).await;

    for verb in ["acks", "nacks", "dlq/reprocess"] {
        settle(&app, verb, &[]).await;
        settle(&app, verb, &[&unknown, &available, &leased[0]["id"]]).await;
        settle(&app, verb, &[&leased[0]["receipt"]]).await;
        assert_eq!(counts(&app).await, [1, 1, 0, 1, 0], "{verb}");
    }
    // what is known is settled all the same, once
    settle(
        &app,
        "acks",
        &[&unknown, &leased[1]["id"], &leased[1]["id"], &available],
    )
    .await;
    assert_eq!(counts(&app).await, [1, 0, 0, 2, 0]);
}

#[tokio::test]
async fn ids_are_taken_without_dashes_and_in_capitals() {
    let app = app_with(json!({"backoff_min_seconds": 1})).await;
    publish(&app, numbered(0..2)).await;
    let leased = app.consume("s").await;

    let bare = leased[0]["id"].as_str().unwrap().replace('-', "");
    let capitals = leased[1]["id"].as_str().unwrap().to_uppercase();
    settle(&app, "acks", &[&json!(bare), &json!(capitals)]).await;

    assert_eq!(counts(&app).await, [0, 0, 0, 2, 0]);
}

#[tokio::test]
async fn one_bad_id_refuses_the_whole_list() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"a": 1}])).await;
    let id = consume_one(&app).await["id"].clone();

    for verb in ["acks", "nacks", "dlq/reprocess"] {
        let path = format!("/subscriptions/s/{verb}");
        let body = json!([id, "rubbish", 7, null, "r", "rAAAA"]);
        let detail = app.post(&path, body).await.expect(422).json()["detail"].clone();
        let faults: Vec<(&str, &Value, &Value)> = detail
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| {
                (
                    fault["type"].as_str().unwrap(),
                    &fault["loc"],
                    &fault["input"],
                )
            })
            .collect();
        assert_eq!(
            faults,
            [
                ("uuid_parsing", &json!(["body", 1]), &json!("rubbish")),
                ("uuid_type", &json!(["body", 2]), &json!(7)),
                ("uuid_type", &json!(["body", 3]), &json!(null)),
                ("uuid_parsing", &json!(["body", 4]), &json!("r")),
                ("uuid_parsing", &json!(["body", 5]), &json!("rAAAA")),
            ],
            "{verb}"
        );
        let msg = detail[0]["msg"].as_str().unwrap();
        assert!(msg.starts_with("Input should be a valid UUID, "), "{msg}");
        let refused = app.post(&path, json!({"id": id})).await.expect(422).json();
        assert_eq!(refused["detail"][0]["type"], "list_type", "{verb}");
        assert_eq!(refused["detail"][0]["loc"], json!(["body"]), "{verb}");
    }
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
}

/// Original's defect 7: a late ack removed the message that someone else held by then.
#[tokio::test]
async fn a_stale_receipt_settles_nothing() {
    let app = app_with(json!({"backoff_min_seconds": 10})).await;
    publish(&app, json!([{"a": 1}])).await;
    let stale = consume_one(&app).await;
    pass_seconds(&app, 61.0).await;
    let fresh = consume_one(&app).await;
    assert_eq!(stale["id"], fresh["id"]);
    assert_ne!(stale["receipt"], fresh["receipt"]);

    settle(&app, "acks", &[&stale["receipt"]]).await;
    settle(&app, "nacks", &[&stale["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);

    settle(&app, "nacks", &[&fresh["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 1, 0, 0]);
    pass_seconds(&app, 20.0).await;
    let third = consume_one(&app).await;
    settle(&app, "acks", &[&stale["receipt"], &fresh["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
    settle(&app, "acks", &[&third["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn a_plain_id_settles_whoever_holds_the_message() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"a": 1}])).await;
    let id = consume_one(&app).await["id"].clone();
    pass_seconds(&app, 61.0).await;
    consume_one(&app).await;

    settle(&app, "acks", &[&id]).await;

    assert_eq!(counts(&app).await, [0, 0, 0, 1, 0]);
}

/// Contract point 6. Original's defect 3: the first wait was twice the shortest.
#[tokio::test]
async fn the_backoff_doubles_from_the_shortest_to_the_longest() {
    let policy = json!({
        "backoff_min_seconds": 3, "backoff_max_seconds": 20, "max_delivery_attempts": 10,
    });
    let app = app_with(policy).await;
    publish(&app, json!([{"a": 1}])).await;

    for (attempt, wait) in [(1, 3.0), (2, 6.0), (3, 12.0), (4, 20.0), (5, 20.0)] {
        let message = consume_one(&app).await;
        assert_eq!(message["delivery_attempts"], attempt);
        let since = database_time(&app).await;
        settle(&app, "nacks", &[&message["receipt"]]).await;

        let (least, most) = wait_seconds(&app, since).await;
        assert!(
            least <= wait && wait <= most,
            "attempt {attempt}: {least} to {most}"
        );
        pass_seconds(&app, wait - 1.0).await;
        assert_eq!(counts(&app).await, [0, 0, 1, 0, 0], "attempt {attempt}");
        assert_eq!(
            app.consume("s").await,
            Vec::<Value>::new(),
            "attempt {attempt}"
        );
        pass_seconds(&app, 1.0).await;
        assert_eq!(counts(&app).await, [1, 0, 0, 0, 0], "attempt {attempt}");
    }
}

/// Original's defect 4.
#[tokio::test]
async fn no_number_of_attempts_overflows_the_backoff() {
    let app = app_with(json!({
        "max_delivery_attempts": i32::MAX, "backoff_min_seconds": i32::MAX,
    }))
    .await;
    publish(&app, json!([{"a": 1}])).await;

    for attempts in [2000, i32::MAX - 2] {
        pass_seconds(&app, 2_147_483_648.0).await;
        sqlx::query("update pubsub_data.deliveries set attempts = $1")
            .bind(attempts)
            .execute(&app.pool())
            .await
            .unwrap();
        let message = consume_one(&app).await;
        assert_eq!(message["delivery_attempts"], attempts + 1);
        let since = database_time(&app).await;

        settle(&app, "nacks", &[&message["receipt"]]).await;

        let (least, most) = wait_seconds(&app, since).await;
        let wait = f64::from(i32::MAX);
        assert!(
            least <= wait && wait <= most,
            "{attempts}: {least} to {most}"
        );
    }
}

#[tokio::test]
async fn a_nack_on_the_last_attempt_dead_letters() {
    let policy = json!({"max_delivery_attempts": 2, "backoff_min_seconds": 1});
    let app = app_with(policy).await;
    publish(&app, json!([{"a": 1}])).await;
    let first = consume_one(&app).await;
    settle(&app, "nacks", &[&first["id"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 1, 0, 0]);
    pass_seconds(&app, 2.0).await;
    let mut last = consume_one(&app).await;

    settle(&app, "nacks", &[&last["receipt"]]).await;

    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    last.as_object_mut().unwrap().remove("receipt");
    assert_eq!(last["delivery_attempts"], 2);
    assert_eq!(dead_letters(&app, "").await, [last]);
    pass_seconds(&app, 1e6).await;
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

/// Contract point 7. Original's defect 28: nothing came back without a cron job.
#[tokio::test]
async fn an_expired_lease_comes_back_by_itself() {
    for (fields, flags, deadline) in [
        (json!({}), &[][..], 60.0),
        (json!({"ack_deadline_seconds": 7}), &[], 7.0),
        (
            json!({}),
            &["--cleanup-stuck-messages-lock-timeout-seconds", "25"],
            25.0,
        ),
    ] {
        let app = TestApp::start_with(flags).await;
        app.topic_with_subscription("t", "s", fields).await;
        publish(&app, json!([{"a": 1}])).await;
        let since = database_time(&app).await;
        consume_one(&app).await;

        let (least, most) = wait_seconds(&app, since).await;
        assert!(least <= deadline && deadline <= most, "{least} to {most}");
        pass_seconds(&app, deadline - 1.0).await;
        assert_eq!(app.consume("s").await, Vec::<Value>::new());
        assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
        pass_seconds(&app, 1.0).await;
        assert_eq!(counts(&app).await, [1, 0, 0, 0, 0]);
        assert_eq!(consume_one(&app).await["delivery_attempts"], 2);
    }
}

/// Contract point 7. Original's defect 2.
#[tokio::test]
async fn an_expired_lease_whose_attempts_are_spent_is_dead_lettered() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, json!([{"a": 1}])).await;
    let id = consume_one(&app).await["id"].clone();
    pass_seconds(&app, 60.0).await;

    assert_eq!(app.consume("s").await, Vec::<Value>::new());

    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    assert_eq!(dead_letters(&app, "").await[0]["id"], id);
}

/// Original's defect 6.
#[tokio::test]
async fn dead_letters_are_paged_in_publish_order() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, numbered(0..25)).await;
    let messages = app.consume("s").await;
    for message in messages.iter().rev() {
        settle(&app, "nacks", &[&message["id"]]).await;
    }

    let mut paged = dead_letters(&app, "").await;
    assert_eq!(paged.len(), 10);
    for query in ["?offset=10&limit=14", "?offset=24&limit=100", "?offset=25"] {
        paged.extend(dead_letters(&app, query).await);
    }

    assert_eq!(ids(&paged), ids(&messages));
    assert_eq!(json!(payloads(&paged)), numbered(0..25));
}

#[tokio::test]
async fn a_reprocessed_dead_letter_starts_again_at_once() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, numbered(0..2)).await;
    let dead = app.consume("s").await;
    settle(&app, "nacks", &[&dead[0]["id"], &dead[1]["id"]]).await;

    settle(&app, "dlq/reprocess", &[&dead[0]["id"], &dead[0]["id"]]).await;

    assert_eq!(counts(&app).await, [1, 0, 0, 0, 1]);
    let mut again = consume_one(&app).await;
    let mut first = dead[0].clone();
    assert_ne!(again["receipt"].take(), first["receipt"].take());
    assert_eq!(again, first);
    settle(&app, "nacks", &[&again["id"]]).await;
    assert_eq!(ids(&dead_letters(&app, "").await), ids(&dead));
}

/// Contract point 7. Original's defect 2.
#[tokio::test]
async fn cleaning_up_stuck_messages_ends_old_leases_at_once() {
    let cleanup = "select pubsub.cleanup_stuck_messages(30)";
    let app = app_with(json!({"max_delivery_attempts": 2})).await;
    let own_deadline = json!({"id": "own", "topic_id": "t", "ack_deadline_seconds": 600});
    app.post("/subscriptions", own_deadline).await.expect(201);
    publish(&app, json!([{"a": 1}])).await;
    consume_one(&app).await;
    app.consume("own").await;

    pass_seconds(&app, 29.0).await;
    assert_eq!(number(&app, cleanup).await, 0);
    pass_seconds(&app, 1.0).await;
    assert_eq!(number(&app, cleanup).await, 1);
    assert_eq!(counts(&app).await, [1, 0, 0, 0, 0]);
    assert_eq!(consume_one(&app).await["delivery_attempts"], 2);
    pass_seconds(&app, 30.0).await;
    assert_eq!(number(&app, cleanup).await, 1);
    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    let own = app.get("/subscriptions/own/metrics").await.json();
    assert_eq!(own["delivered"], 1);
}

/// Contract point 8. Original's defect 30.
#[tokio::test]
async fn metrics_follow_a_message_through_its_life() {
    let app = app_with(json!({"max_delivery_attempts": 2, "backoff_min_seconds": 5})).await;
    assert_eq!(counts(&app).await, [0, 0, 0, 0, 0]);

    publish(&app, numbered(0..3)).await;
    assert_eq!(counts(&app).await, [3, 0, 0, 0, 0]);
    let messages = app.consume("s").await;
    assert_eq!(counts(&app).await, [0, 3, 0, 0, 0]);
    settle(&app, "acks", &[&messages[0]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 2, 0, 1, 0]);
    settle(&app, "nacks", &[&messages[1]["id"], &messages[2]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 2, 1, 0]);
    pass_seconds(&app, 5.0).await;
    assert_eq!(counts(&app).await, [2, 0, 0, 1, 0]);
    let messages = app.consume("s").await;
    settle(&app, "nacks", &[&messages[0]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 1, 0, 1, 1]);
    settle(&app, "acks", &[&messages[1]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 0, 2, 1]);
    settle(&app, "dlq/reprocess", &[&messages[0]["id"]]).await;
    assert_eq!(counts(&app).await, [1, 0, 0, 2, 0]);
}

/// Contract point 8. Original's defect 25: the number of removed messages was lost.
#[tokio::test]
async fn cleaning_up_acked_messages_removes_only_old_ones_and_counts_them() {
    let cleanup = "select pubsub.cleanup_acked_messages(3600)";
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..7)).await;
    let messages = app.consume("s").await;
    for message in &messages[..6] {
        settle(&app, "acks", &[&message["id"]]).await;
    }
    sqlx::query(
        "update pubsub_data.acked set acked_at = clock_timestamp() - interval '3601 s' \
         where message_id <= $1::uuid",
    )
    .bind(messages[3]["id"].as_str().unwrap())
    .execute(&app.pool())
    .await
    .unwrap();
    assert_eq!(counts(&app).await, [0, 1, 0, 6, 0]);

    assert_eq!(number(&app, cleanup).await, 4);

    assert_eq!(counts(&app).await, [0, 1, 0, 2, 0]);
    assert_eq!(number(&app, cleanup).await, 0);
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
    let too_large = |answer: crate::support::Answer| answer.expect(413).json()["detail"].clone();

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

#[tokio::test]
async fn two_servers_never_hand_out_one_message_twice() {
    let first = app_with(json!({})).await;
    let second = TestApp::start_on(first.database.share(), &[]).await;
    let apps = [Arc::new(first), Arc::new(second)];
    for batch in 0..6 {
        publish(&apps[0], numbered(batch * 100..(batch + 1) * 100)).await;
    }

    let mut consumers = JoinSet::new();
    for consumer in 0..8 {
        let app = Arc::clone(&apps[consumer % 2]);
        consumers.spawn(async move {
            let mut received = Vec::new();
            loop {
                let query = format!("consumer_id=c{consumer}&batch_size=7");
                let path = format!("/subscriptions/s/messages?{query}");
                let list = app.get(&path).await.expect(200).json();
                let batch = list["data"].as_array().unwrap().clone();
                if batch.is_empty() {
                    return received;
                }
                received.extend(batch);
            }
        });
    }
    let mut received: Vec<Value> = consumers.join_all().await.into_iter().flatten().collect();
    received.extend(apps[1].consume("s").await);

    let distinct: BTreeSet<&str> = received
        .iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect();
    assert_eq!((received.len(), distinct.len()), (600, 600));
    assert!(
        received
            .iter()
            .all(|message| message["delivery_attempts"] == 1)
    );
    assert_eq!(counts(&apps[0]).await, [0, 600, 0, 0, 0]);
}
