//! `/subscriptions/{id}/dlq`.

use serde_json::{Value, json};

use super::{
    app_with, consume_one, counts, dead_letters, fault_place, numbered, payloads, publish, settle,
};
use crate::support::{TestApp, ids};

const DLQ: &str = "/subscriptions/s/dlq";
const REPROCESS: &str = "/subscriptions/s/dlq/reprocess";

/// Topic `t` with so many messages, all dead letters of `s`.
async fn app_with_dead(count: u32) -> (TestApp, Vec<Value>) {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, numbered(0..count)).await;
    let messages = app.consume("s").await;
    let ids = ids(&messages);
    settle(&app, "nacks", &ids.iter().collect::<Vec<_>>()).await;
    (app, ids)
}

#[tokio::test]
async fn a_nack_on_the_last_attempt_dead_letters() {
    let policy = json!({"max_delivery_attempts": 2, "backoff_min_seconds": 1});
    let app = app_with(policy).await;
    publish(&app, json!([{"a": 1}])).await;
    let first = consume_one(&app).await;
    settle(&app, "nacks", &[&first["id"]]).await;
    assert_eq!(counts(&app).await, [0, 0, 1, 0, 0]);
    app.pass_seconds(2.0).await;
    let mut last = consume_one(&app).await;

    settle(&app, "nacks", &[&last["receipt"]]).await;

    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    last.as_object_mut().unwrap().remove("receipt");
    assert_eq!(last["delivery_attempts"], 2);
    let dead = dead_letters(&app, "").await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    for (field, value) in last.as_object().unwrap() {
        assert_eq!(&dead[0][field], value, "{field}");
    }
    app.pass_seconds(1e6).await;
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

#[tokio::test]
async fn a_dead_letter_tells_its_deliveries() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    sqlx::query(
        "select pubsub.publish_messages('t', array['{\"n\": 1.50}'::jsonb], \
         array['{\"region\": \"eu\"}'::jsonb])",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    let message = consume_one(&app).await;
    settle(&app, "nacks", &[&message["receipt"]]).await;

    let answer = app.get(DLQ).await.expect(200);

    assert!(answer.body.contains(r#""n": 1.50"#), "{}", answer.body);
    let mut letter = answer.json()["data"][0].clone();
    for (field, time) in [
        ("created_at", letter["created_at"].clone()),
        ("dead_at", letter["dead_at"].clone()),
        (
            "delivered_at",
            letter["deliveries"][0]["delivered_at"].clone(),
        ),
        ("ended_at", letter["deliveries"][0]["ended_at"].clone()),
    ] {
        let time = time.as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == 27, "{field}: {time}");
    }
    for time in ["delivered_at", "ended_at"] {
        letter["deliveries"][0][time].take();
    }
    letter["dead_at"].take();
    assert_eq!(
        letter,
        json!({"id": message["id"], "subscription_id": "s", "payload": {"n": 1.5},
            "delivery_attempts": 1, "created_at": message["created_at"],
            "attributes": {"region": "eu"}, "ordering_key": null, "priority": 0,
            "reason": "attempts", "last_error": null, "dead_at": null,
            "deliveries": [{"attempt": 1, "consumer_id": "c", "delivered_at": null,
                "ended_at": null, "outcome": "nacked"}]})
    );
}

#[tokio::test]
async fn all_dead_letters_come_back_or_those_that_match() {
    let (app, dead) = app_with_dead(5).await;

    let matching = json!({"filter": {"n": [{"numeric": ["<", 3]}]}, "limit": 2});
    let matching = app.post(REPROCESS, matching).await.expect(200).json();
    assert_eq!(matching, json!({"reprocessed": 2, "remaining": 1}));
    assert_eq!(ids(&app.consume("s").await), dead[..2]);

    let all = json!({"all": true, "filter": null});
    let all = app.post(REPROCESS, all).await.expect(200).json();
    assert_eq!(all, json!({"reprocessed": 3, "remaining": 0}));
    assert_eq!(ids(&app.consume("s").await), dead[2..]);
    assert_eq!(counts(&app).await, [0, 5, 0, 0, 0]);
}

#[tokio::test]
async fn a_paced_reprocessing_waits_its_turn() {
    let (app, dead) = app_with_dead(5).await;

    let paced = json!({"all": true, "per_second": 1});
    app.post(REPROCESS, paced).await.expect(200);

    assert_eq!(counts(&app).await, [1, 0, 4, 0, 0]);
    assert_eq!(ids(&app.consume("s").await), dead[..1]);
    app.pass_seconds(2.0).await;
    assert_eq!(ids(&app.consume("s").await), dead[1..3]);
}

#[tokio::test]
async fn dead_letters_are_purged() {
    let (app, _) = app_with_dead(3).await;

    assert_eq!(
        app.delete(DLQ).await.expect(200).json(),
        json!({"purged": 3})
    );
    assert_eq!(
        app.delete(DLQ).await.expect(200).json(),
        json!({"purged": 0})
    );

    assert_eq!(dead_letters(&app, "").await, Vec::<Value>::new());
    assert_eq!(counts(&app).await, [0, 0, 0, 0, 0]);
    app.delete("/subscriptions/none/dlq").await.expect(404);
}

#[tokio::test]
async fn reprocessing_that_does_not_say_what_is_refused() {
    let (app, dead) = app_with_dead(2).await;
    for (body, loc) in [
        (json!({}), json!(["body", "all"])),
        (json!({"all": false}), json!(["body", "all"])),
        (json!({"limit": 1}), json!(["body", "all"])),
        (
            json!({"all": true, "filter": {"n": [1]}}),
            json!(["body", "filter"]),
        ),
        (json!({"filter": [1]}), json!(["body", "filter"])),
        (json!({"filter": {"n": 1}}), json!(["body", "filter", "n"])),
        (json!({"all": true, "limit": 0}), json!(["body", "limit"])),
        (
            json!({"all": true, "limit": 10001}),
            json!(["body", "limit"]),
        ),
        (
            json!({"all": true, "per_second": "x"}),
            json!(["body", "per_second"]),
        ),
        (
            json!({"all": true, "per_second": 1_000_001}),
            json!(["body", "per_second"]),
        ),
        (json!({"all": true, "rate": 1}), json!(["body", "rate"])),
    ] {
        let answer = app.post(REPROCESS, body.clone()).await;
        assert_eq!(fault_place(&answer), loc, "{body}");
    }
    assert_eq!(ids(&dead_letters(&app, "").await), dead);
    let all = json!({"all": true});
    app.post("/subscriptions/none/dlq/reprocess", all)
        .await
        .expect(404);
}
