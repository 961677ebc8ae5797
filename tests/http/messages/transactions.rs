//! `/transactions`.

use serde_json::{Value, json};

use super::{app_with, counts, fault_place, number, numbered, publish, receipt, settle};
use crate::support::{TestApp, ids};

const PATH: &str = "/transactions";

/// Topic `t` with messages that `s` was handed out, their receipts, and topic `out` with `o`.
async fn app_with_receipts(count: u32) -> (TestApp, Vec<Value>) {
    let app = app_with(json!({})).await;
    app.topic_with_subscription("out", "o", json!({})).await;
    publish(&app, numbered(0..count)).await;
    let messages = app.consume("s").await;
    let receipts = messages
        .iter()
        .map(|message| message["receipt"].clone())
        .collect();
    (app, receipts)
}

fn acks(receipts: &[Value]) -> Vec<Value> {
    receipts
        .iter()
        .map(|receipt| json!({"subscription_id": "s", "receipt": receipt}))
        .collect()
}

#[tokio::test]
async fn acks_and_publishes_are_one_step() {
    let (app, receipts) = app_with_receipts(3).await;

    let body = json!({"acks": acks(&receipts[..2]), "publishes": [
        {"topic_id": "out", "messages": [{"payload": {"n": 1}}, {"payload": {"n": 2}}]},
        {"topic_id": "t", "messages": [{"payload": {"n": 3}}]},
        {"topic_id": "out", "messages": [{"payload": {"n": 4}, "attributes": {"a": "b"}}]},
    ]});
    let answer = app.post(PATH, body).await.expect(201).json();

    let published = app.consume("o").await;
    let numbers: Vec<&Value> = published
        .iter()
        .map(|message| &message["payload"]["n"])
        .collect();
    assert_eq!(numbers, [1, 2, 4]);
    let ids = ids(&published);
    let fresh = &app.consume("s").await[0]["id"];
    assert_eq!(
        answer,
        json!({"message_ids": [[ids[0], ids[1]], [fresh], [ids[2]]]})
    );
    assert_eq!(counts(&app).await, [0, 2, 0, 2, 0]);
    let attributes =
        "select count(*) from pubsub_data.messages where attributes = '{\"a\": \"b\"}'";
    assert_eq!(number(&app, attributes).await, 1);
}

#[tokio::test]
async fn a_message_may_have_all_that_a_publish_takes() {
    let (app, _) = app_with_receipts(0).await;
    let body = json!({"publishes": [{"topic_id": "out", "messages": [
        {"payload": {"n": 1}, "ordering_key": "k", "priority": 3, "attributes": {"a": "b"},
            "idempotency_key": "once"},
        {"payload": {"n": 2}, "delay_seconds": 60, "ttl_seconds": 120},
    ]}, {"topic_id": "t", "messages": [{"payload": {"n": 3}, "idempotency_key": "once"}]}]});

    let first = app.post(PATH, body.clone()).await.expect(201).json();
    let again = app.post(PATH, body).await.expect(201).json();

    let (first, again) = (&first["message_ids"], &again["message_ids"]);
    assert_eq!(first[0][0], again[0][0]);
    assert_ne!(first[0][1], again[0][1]);
    assert_eq!(first[1], again[1]);
    let stored = "select count(*) from pubsub_data.messages where ordering_key = 'k' \
        and priority = 3 and attributes = '{\"a\": \"b\"}'";
    assert_eq!(number(&app, stored).await, 1);
    let delayed = "select count(*) from pubsub_data.deliveries \
        where visible_at between clock_timestamp() + interval '50 s' \
            and clock_timestamp() + interval '60 s' \
        and expires_at - visible_at = interval '120 s'";
    assert_eq!(number(&app, delayed).await, 2);
    assert_eq!(ids(&app.consume("s").await), [first[1][0].clone()]);
}

#[tokio::test]
async fn payloads_reach_consumers_as_they_came() {
    let (app, _) = app_with_receipts(0).await;
    let body = r#"{"publishes": [{"topic_id": "out", "messages": [
        {"payload": {"price": 1.50, "big": 123456789012345678901234567890}}]}]}"#;

    let request = app.request("POST", PATH).body(body);
    crate::support::answer(request).await.expect(201);

    let got = app
        .get("/subscriptions/o/messages?consumer_id=c")
        .await
        .expect(200);
    assert!(got.body.contains("1.50"), "{}", got.body);
    assert!(
        got.body.contains("123456789012345678901234567890"),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn one_stale_receipt_undoes_all_and_all_stale_ones_are_named() {
    let (app, receipts) = app_with_receipts(4).await;
    settle(&app, "acks", &[&receipts[1], &receipts[3]]).await;

    let body = json!({"acks": acks(&receipts), "publishes": [
        {"topic_id": "out", "messages": [{"payload": {}}]}]});
    let answer = app.post(PATH, body).await.expect(409).json();

    assert_eq!(
        answer,
        json!({"detail": "2 of 4 leases to ack are stale; nothing was done",
            "about": [receipts[1], receipts[3]]})
    );
    assert_eq!(counts(&app).await, [0, 2, 0, 2, 0]);
    assert!(app.consume("o").await.is_empty());
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (app, receipts) = app_with_receipts(1).await;
    let publishes = json!([{"topic_id": "none", "messages": [{"payload": {}}]}]);
    let unknown = json!([{"subscription_id": "none", "receipt": receipts[0]}]);

    let topic = app
        .post(
            PATH,
            json!({"acks": acks(&receipts), "publishes": publishes}),
        )
        .await;
    let subscription = app.post(PATH, json!({"acks": unknown})).await;

    assert_eq!(topic.expect(404).json()["detail"], "Topic not found: none");
    let detail = subscription.expect(404).json()["detail"].clone();
    assert_eq!(detail, "Subscription not found: none");
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_wrong_request_is_refused_and_names_the_place() {
    let (app, receipts) = app_with_receipts(1).await;
    let messages =
        |messages: Value| json!({"publishes": [{"topic_id": "t", "messages": messages}]});
    for (body, loc) in [
        (json!([]), json!(["body"])),
        (json!({"ack": []}), json!(["body", "ack"])),
        (json!({"acks": {}}), json!(["body", "acks"])),
        (json!({"publishes": "x"}), json!(["body", "publishes"])),
        (json!({"acks": ["x"]}), json!(["body", "acks", 0])),
        (
            json!({"acks": [{"receipt": receipts[0]}]}),
            json!(["body", "acks", 0, "subscription_id"]),
        ),
        (
            json!({"acks": [{"subscription_id": "s"}]}),
            json!(["body", "acks", 0, "receipt"]),
        ),
        (
            json!({"acks": [{"subscription_id": "s", "receipt": uuid::Uuid::now_v7()}]}),
            json!(["body", "acks", 0, "receipt"]),
        ),
        (
            json!({"acks": [{"subscription_id": "s", "receipt": receipts[0], "x": 1}]}),
            json!(["body", "acks", 0, "x"]),
        ),
        (
            json!({"publishes": [{"messages": [{"payload": {}}]}]}),
            json!(["body", "publishes", 0, "topic_id"]),
        ),
        (
            messages(json!([])),
            json!(["body", "publishes", 0, "messages"]),
        ),
        (
            messages(json!({})),
            json!(["body", "publishes", 0, "messages"]),
        ),
        (
            messages(json!([{"payload": {}}, {}])),
            json!(["body", "publishes", 0, "messages", 1, "payload"]),
        ),
        (
            messages(json!([{"payload": []}])),
            json!(["body", "publishes", 0, "messages", 0, "payload"]),
        ),
        (
            messages(json!([{"payload": {"a": "\u{0}"}}])),
            json!(["body", "publishes", 0, "messages", 0, "payload"]),
        ),
        (
            messages(json!([{"payload": {}, "attributes": {"a": 1}}])),
            json!(["body", "publishes", 0, "messages", 0, "attributes", "a"]),
        ),
        (
            messages(json!([{"payload": {}, "priority": 10}])),
            json!(["body", "publishes", 0, "messages", 0, "priority"]),
        ),
        (
            messages(json!([{"payload": {}, "attribute": {}}])),
            json!(["body", "publishes", 0, "messages", 0, "attribute"]),
        ),
        (
            messages(json!(vec![json!({"payload": {}}); 1001])),
            json!(["body", "publishes"]),
        ),
    ] {
        let answer = app.post(PATH, body.clone()).await;
        assert_eq!(fault_place(&answer), loc, "{}", answer.body);
    }
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
    let nothing = app.post(PATH, json!({})).await.expect(201).json();
    assert_eq!(nothing, json!({"message_ids": []}));
}

#[tokio::test]
async fn a_message_over_the_limit_is_413() {
    let app = TestApp::start_with(&["--api-max-message-bytes", "100"]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let message = json!({"payload": {"a": "x".repeat(120)}});
    let body = json!({"publishes": [{"topic_id": "t", "messages": [message]}]});

    app.post(PATH, body).await.expect(413);

    assert!(app.consume("s").await.is_empty());
}

#[tokio::test]
async fn each_object_that_the_body_names_needs_its_scope() {
    let app = TestApp::start_with_auth("*").await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.topic_with_subscription("other", "o", json!({})).await;
    let body = json!({"publishes": [{"topic_id": "t", "messages": [{"payload": {}}]}]});
    let other = json!({"publishes": [{"topic_id": "other", "messages": [{"payload": {}}]}]});
    let acks = json!({"acks": [{"subscription_id": "o", "receipt": receipt()}]});
    for (scopes, body, status) in [
        ("*", &body, 201),
        ("subscriptions:consume topics:publish", &body, 201),
        ("subscriptions:consume:s topics:publish:t", &body, 201),
        ("subscriptions:consume:s topics:publish:t", &other, 403),
        ("subscriptions:consume:s topics:publish:t", &acks, 403),
        ("subscriptions:consume:o topics:publish:t", &acks, 409),
        ("subscriptions:consume", &body, 403),
        ("topics:publish", &body, 403),
        // before the body is looked at
        ("topics:publish", &json!("x"), 403),
    ] {
        let token = app.token_for(scopes).await;
        let answer = app.with_token(Some(&token)).post(PATH, body.clone()).await;
        assert_eq!(answer.status, status, "{scopes} {body}: {}", answer.body);
    }
    app.with_token(None).post(PATH, body).await.expect(401);
}

#[tokio::test]
async fn a_step_whose_topic_is_deleted_while_it_waits_does_nothing() {
    let (app, receipts) = app_with_receipts(1).await;
    app.topic_with_subscription("dst", "d", json!({})).await;
    let pool = app.pool();
    let mut open = pool.pool().begin().await.unwrap();
    sqlx::query("select from pubsub_data.deliveries for update")
        .execute(&mut *open)
        .await
        .unwrap();
    let waits = "select count(*) from pg_locks where not granted";

    let body = json!({"acks": acks(&receipts), "publishes": [
        {"topic_id": "dst", "messages": [{"payload": {"n": 1}}]},
        {"topic_id": "out", "messages": [{"payload": {"n": 2}}]},
    ]});
    let (answer, ()) = tokio::join!(app.post(PATH, body.clone()), async {
        while number(&app, waits).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        app.delete("/topics/dst").await.expect(204);
        open.rollback().await.unwrap();
    });

    let gone = json!({"detail": "Topic not found: dst"});
    assert_eq!(answer.expect(404).json(), gone);
    assert_eq!(app.post(PATH, body).await.expect(404).json(), gone);
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
    assert!(app.consume("o").await.is_empty());
}
