//! `GET /subscriptions/{id}/messages`.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{app_with, counts, numbered, payloads, publish, settle};
use crate::http::topics::fault;
use crate::support::{TestApp, answer, ids};

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

/// Contract point 5.
/// Original's defect 5.
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

/// Original's defect 27.
/// A HEAD would lease messages and throw them away.
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

/// The door takes objects only, but SQL and other doors publish any JSON value.
#[tokio::test]
async fn payloads_that_are_no_objects_are_handed_out_as_they_are() {
    let app = app_with(json!({})).await;
    let mut connection = app.database.connect().await;
    sqlx::raw_sql(
        "select pubsub.publish_messages('t', array['null', '[1]', '\"x\"', '2.50', 'true']::jsonb[])",
    )
    .execute(&mut connection)
    .await
    .unwrap();

    // by hand: the document knows objects only
    let path = "/subscriptions/s/messages?consumer_id=c&batch_size=10";
    let response = app.request("GET", path).send().await.unwrap();
    let list: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();

    let payloads: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["payload"])
        .collect();
    assert_eq!(
        json!(payloads),
        json!([null, [1], "x", 2.50, true]),
        "{list}"
    );
}
