//! `/subscriptions/{id}/dlq`.

use serde_json::{Value, json};

use super::{
    app_with, consume_one, counts, dead_letters, numbered, pass_seconds, payloads, publish, settle,
};
use crate::support::ids;

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
