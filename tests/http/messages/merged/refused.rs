//! Requests of one call of which some are refused.

use serde_json::json;

use super::super::{app_with, counts, number, numbered};
use super::{Hold, answers, publishing};

/// More decimals than Postgres can store, which only Postgres knows.
fn unstorable() -> String {
    format!(r#"[{{"bad":1}},{{"bad":0.{}1}}]"#, "0".repeat(17_000))
}

#[tokio::test]
async fn a_publish_that_postgres_refuses_fails_alone() {
    let app = app_with(json!({})).await;
    let mut hold = Hold::of(&app, "s").await;
    let mut publishes: Vec<_> = (0..6)
        .map(|n| publishing(&app, "t", &numbered(2 * n..2 * n + 2)))
        .collect();
    let bad = app.request("POST", "/topics/t/messages");
    let bad = bad.header("content-type", "application/json");
    publishes.insert(3, bad.body(unstorable()));

    let sent = hold.send(&app, publishes).await;
    hold.release().await;
    let statuses: Vec<_> = answers(sent).await.iter().map(|a| a.status).collect();

    assert_eq!(statuses, [204, 204, 204, 422, 204, 204, 204]);
    assert_eq!(counts(&app).await, [12, 0, 0, 0, 0]);
    let right = "select count(distinct payload) from pubsub_data.messages \
        where payload->>'n' is not null";
    assert_eq!(number(&app, right).await, 12);
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}
