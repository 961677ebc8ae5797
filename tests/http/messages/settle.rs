//! Acks and nacks, by id and by receipt.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{app_with, consume_one, counts, numbered, publish, settle};

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
        // an object says which dead letters come back
        if verb == "dlq/reprocess" {
            continue;
        }
        let refused = app.post(&path, json!({"id": id})).await.expect(422).json();
        assert_eq!(refused["detail"][0]["type"], "list_type", "{verb}");
        assert_eq!(refused["detail"][0]["loc"], json!(["body"]), "{verb}");
    }
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
}

/// Original's defect 7.
/// A late ack removed the message that someone else held by then.
#[tokio::test]
async fn a_stale_receipt_settles_nothing() {
    let app = app_with(json!({"backoff_min_seconds": 10})).await;
    publish(&app, json!([{"a": 1}])).await;
    let stale = consume_one(&app).await;
    app.pass_seconds(61.0).await;
    let fresh = consume_one(&app).await;
    assert_eq!(stale["id"], fresh["id"]);
    assert_ne!(stale["receipt"], fresh["receipt"]);

    settle(&app, "acks", &[&stale["receipt"]]).await;
    settle(&app, "nacks", &[&stale["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);

    settle(&app, "nacks", &[&fresh["receipt"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 1, 0, 0]);
    app.pass_seconds(20.0).await;
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
    app.pass_seconds(61.0).await;
    consume_one(&app).await;

    settle(&app, "acks", &[&id]).await;

    assert_eq!(counts(&app).await, [0, 0, 0, 1, 0]);
}
