//! Consumers that go away while they wait.

use serde_json::json;

use super::super::{app_with, counts, number, numbered, payloads, publish};
use super::{Hold, answers, consuming, messages, received};

#[tokio::test]
async fn consumers_that_disconnect_lose_nothing() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..10)).await;
    let mut hold = Hold::of(&app, "s").await;

    let claims = vec![
        consuming(&app, "s", "running", 3),
        consuming(&app, "s", "queued", 3),
        consuming(&app, "s", "stays", 2),
    ];
    let mut sent = hold.send(&app, claims).await;
    sent[0].abort();
    sent[1].abort();
    // so that the service sees them go
    received(&app).await;
    hold.release().await;
    let stays = answers(sent.split_off(2)).await.remove(0);

    // the call that ran was made, and undone before the next one; the queued claim was not made
    assert_eq!(
        payloads(&messages(stays)),
        [json!({"n": 0}), json!({"n": 1})]
    );
    assert_eq!(counts(&app).await, [8, 2, 0, 0, 0]);
    let mut rest = app.consume("s").await;
    rest.sort_by_key(|message| message["payload"]["n"].as_u64());
    assert_eq!(json!(payloads(&rest)), numbered(2..10));
    assert!(rest.iter().all(|message| message["delivery_attempts"] == 1));
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}
