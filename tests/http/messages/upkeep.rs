//! Counting and cleaning up.

use serde_json::json;

use super::{app_with, consume_one, counts, number, numbered, publish, settle};

/// Contract point 8.
/// Original's defect 30.
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
    app.pass_seconds(5.0).await;
    assert_eq!(counts(&app).await, [2, 0, 0, 1, 0]);
    let messages = app.consume("s").await;
    settle(&app, "nacks", &[&messages[0]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 1, 0, 1, 1]);
    settle(&app, "acks", &[&messages[1]["id"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 0, 2, 1]);
    settle(&app, "dlq/reprocess", &[&messages[0]["id"]]).await;
    assert_eq!(counts(&app).await, [1, 0, 0, 2, 0]);
}

/// Contract point 7.
/// Original's defect 2.
#[tokio::test]
async fn cleaning_up_stuck_messages_ends_old_leases_at_once() {
    let cleanup = "select pubsub.cleanup_stuck_messages(30)";
    let app = app_with(json!({"max_delivery_attempts": 2})).await;
    let own_deadline = json!({"id": "own", "topic_id": "t", "ack_deadline_seconds": 600});
    app.post("/subscriptions", own_deadline).await.expect(201);
    publish(&app, json!([{"a": 1}])).await;
    consume_one(&app).await;
    app.consume("own").await;

    app.pass_seconds(29.0).await;
    assert_eq!(number(&app, cleanup).await, 0);
    app.pass_seconds(1.0).await;
    assert_eq!(number(&app, cleanup).await, 1);
    assert_eq!(counts(&app).await, [1, 0, 0, 0, 0]);
    assert_eq!(consume_one(&app).await["delivery_attempts"], 2);
    app.pass_seconds(30.0).await;
    assert_eq!(number(&app, cleanup).await, 1);
    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    let own = app.get("/subscriptions/own/metrics").await.json();
    assert_eq!(own["delivered"], 1);
}

/// Contract point 8.
/// Original's defect 25.
/// The number of removed messages was lost.
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
         where message_ids[1] <= $1::uuid",
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
