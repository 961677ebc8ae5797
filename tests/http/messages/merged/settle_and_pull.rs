//! Settlements and pulls at once: each request gets what it asks for.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::super::{app_with, counts, number, numbered, publish};
use super::{Hold, answers, receipts};
use crate::support::TestApp;

fn settling(app: &TestApp, body: &Value) -> RequestBuilder {
    app.request("POST", "/subscriptions/s/settle").json(body)
}

fn statuses(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn each_request_gets_its_own_results_also_where_two_name_one_delivery() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..6)).await;
    let receipts = receipts(&app.consume("s").await);
    let mut hold = Hold::of(&app, "s").await;

    let requests = vec![
        settling(&app, &json!({"acks": [receipts[0]]})),
        settling(&app, &json!({"acks": [receipts[0], receipts[1]]})),
        settling(
            &app,
            &json!({"rejects": [{"receipt": receipts[2]}],
            "extends": [{"receipt": receipts[3], "seconds": 5}]}),
        ),
        // the next call cannot name it twice
        settling(&app, &json!({"acks": [receipts[4]]})),
        settling(
            &app,
            &json!({"nacks": [{"receipt": receipts[4]}, {"receipt": receipts[5]}]}),
        ),
    ];
    let sent = hold.send(&app, requests).await;
    hold.release().await;
    let answers: Vec<Value> = answers(sent)
        .await
        .into_iter()
        .map(|answer| answer.expect(200).json())
        .collect();

    assert_eq!(statuses(&answers[0]), ["acked"]);
    assert_eq!(statuses(&answers[1]), ["lease_lost", "acked"]);
    assert_eq!(statuses(&answers[2]), ["dead_lettered", "extended"]);
    let of_both = [statuses(&answers[3]), statuses(&answers[4])].concat();
    assert!(
        of_both == ["acked", "lease_lost", "nacked"]
            || of_both == ["lease_lost", "nacked", "nacked"],
        "{of_both:?}"
    );
    let [_, delivered, scheduled, acked, dead] = counts(&app).await;
    assert_eq!((delivered, scheduled + acked, dead), (1, 4, 1));
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}

#[tokio::test]
async fn each_consumer_gets_the_ack_deadline_it_asks_for() {
    let app = app_with(json!({"ack_deadline_seconds": 300})).await;
    publish(&app, numbered(0..8)).await;
    let mut hold = Hold::of(&app, "s").await;
    let pulling = |consumer: &str, deadline: Value| {
        let body = json!({"consumer_id": consumer, "max_messages": 2,
            "ack_deadline_seconds": deadline});
        app.request("POST", "/subscriptions/s/pull").json(&body)
    };

    let requests = vec![
        pulling("first", json!(100)),
        pulling("short", json!(10)),
        pulling("long", json!(1000)),
        pulling("as told", json!(null)),
    ];
    let sent = hold.send(&app, requests).await;
    hold.release().await;

    for answer in answers(sent).await {
        let pulled = answer.expect(200).json();
        assert_eq!(pulled["messages"].as_array().unwrap().len(), 2);
    }
    let held: Vec<(String, i64)> = sqlx::query_as(
        "select consumer_id, min(extract(epoch from visible_at - leased_at))::bigint \
         from pubsub_data.deliveries group by consumer_id order by 2",
    )
    .fetch_all(&app.pool())
    .await
    .unwrap();
    let expected = [
        ("short", 10),
        ("first", 100),
        ("as told", 300),
        ("long", 1000),
    ];
    assert_eq!(
        held,
        expected.map(|(name, seconds)| (name.to_owned(), seconds))
    );
}
