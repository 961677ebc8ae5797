//! Consumers that go away while they wait.

use serde_json::json;

use super::super::{app_with, counts, number, numbered, pass_seconds, payloads, publish};
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

    // the call that ran was made; the queued claim was not, its messages are the next one's
    assert_eq!(
        payloads(&messages(stays)),
        [json!({"n": 3}), json!({"n": 4})]
    );
    assert_eq!(counts(&app).await, [5, 5, 0, 0, 0]);
    let of_queued = "select count(*) from pubsub_data.deliveries where consumer_id = 'queued'";
    assert_eq!(number(&app, of_queued).await, 0);

    // the ack deadline
    pass_seconds(&app, 60.0).await;
    let mut again = app.consume("s").await;
    again.sort_by_key(|message| message["payload"]["n"].as_u64());
    let attempts: Vec<_> = again
        .iter()
        .map(|message| message["delivery_attempts"].as_u64().unwrap())
        .collect();
    assert_eq!(json!(payloads(&again)), numbered(0..10));
    assert_eq!(attempts, [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}
