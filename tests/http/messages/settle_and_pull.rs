//! A pull that settles what the one before brought.

use serde_json::json;

use super::settlements::{pull, refusal};
use super::{app_with, counts, numbered, payloads, publish};

#[tokio::test]
async fn a_pull_settles_first_what_it_is_told_to() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, numbered(1..5)).await;
    let held = pull(&app, json!({"max_messages": 3})).await;
    let receipt = |at: usize| held[at]["receipt"].clone();

    let pulled = app
        .post(
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "max_messages": 10, "settle": {
                "acks": [receipt(0)],
                "rejects": [{"receipt": receipt(1), "reason": "no such user"}],
                "extends": [{"receipt": receipt(2), "seconds": 600}],
            }}),
        )
        .await
        .expect(200)
        .json();

    let statuses: Vec<_> = pulled["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["acked", "dead_lettered", "extended"]);
    assert_eq!(pulled["results"][0]["receipt"], receipt(0));
    let messages = pulled["messages"].as_array().unwrap();
    assert_eq!(payloads(messages), [json!({"n": 4})]);
    assert_eq!(counts(&app).await, [0, 2, 0, 1, 1]);

    // the same again, as after a lost answer; without settle there are no results
    let again = app
        .post(
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "settle": {"acks": [receipt(0)]}}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        again,
        json!({"results": [{"receipt": receipt(0), "status": "lease_lost"}], "messages": []})
    );
    let plain = app.post("/subscriptions/s/pull", json!({"consumer_id": "c"}));
    assert_eq!(plain.await.expect(200).json(), json!({"messages": []}));
}

#[tokio::test]
async fn a_message_that_is_nacked_by_a_pull_may_be_in_its_answer() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(1..2)).await;
    let held = pull(&app, json!({})).await;

    let again = pull(
        &app,
        json!({"wait_seconds": 5, "settle": {"nacks": [
            {"receipt": held[0]["receipt"], "delay_seconds": 0}]}}),
    )
    .await;

    assert_eq!(payloads(&again), [json!({"n": 1})]);
    assert_eq!(again[0]["delivery_attempts"], 2);
}

#[tokio::test]
async fn a_pull_whose_settlements_cannot_be_is_refused_by_place_and_nothing_is_done() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(1..3)).await;
    let held = pull(&app, json!({"max_messages": 1})).await;
    let receipt = &held[0]["receipt"];
    let many: Vec<_> = (0..1001).map(|_| receipt).collect();

    for (settle, place) in [
        (
            json!({"acks": [receipt, "x"]}),
            r#"["body","settle","acks",1]"#,
        ),
        (
            json!({"acks": [receipt, receipt]}),
            r#"["body","settle","acks",1]"#,
        ),
        (
            json!({"acks": [receipt], "nacks": [{"receipt": receipt, "delay_seconds": -1}]}),
            r#"["body","settle","nacks",0,"delay_seconds"]"#,
        ),
        (json!({"ack": [receipt]}), r#"["body","settle","ack"]"#),
        (json!([receipt]), r#"["body","settle"]"#),
        (json!({"acks": many}), r#"["body","settle"]"#),
    ] {
        let body = json!({"consumer_id": "c", "settle": settle});
        let (_, found) = refusal(&app, "/subscriptions/s/pull", body).await;
        assert_eq!(found, place);
    }
    let both = app
        .post(
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "max_messages": 0, "settle": {"acks": ["x"]}}),
        )
        .await
        .expect(422)
        .json();
    assert_eq!(both["detail"].as_array().unwrap().len(), 2, "{both}");
    assert_eq!(counts(&app).await, [1, 1, 0, 0, 0]);
    app.post(
        "/subscriptions/none/pull",
        json!({"consumer_id": "c", "settle": {"acks": [receipt]}}),
    )
    .await
    .expect(404);
}
