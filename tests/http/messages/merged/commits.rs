//! When a request is answered: at once where it is alone, and never before its commit.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;

use super::super::{app_with, number, numbered, publish};
use super::{Hold, acking, answers, consuming, messages, publishing, receipts, received};
use crate::support::{TestApp, answer};

const STORED: &str = "select count(*) from pubsub_data.messages";
const LEASED: &str = "select count(lease) from pubsub_data.deliveries";
const ACKED: &str = "select coalesce(sum(cardinality(message_ids)), 0)::bigint \
    from pubsub_data.acked";

/// Several at once are answered with `status` after the commit, and not while it waits.
async fn answered_after_commit(
    app: &TestApp,
    hold: &mut Hold,
    requests: Vec<RequestBuilder>,
    (rows, before, after): (&'static str, i64, i64),
    status: u16,
) {
    let sent = hold.send(app, requests).await;

    assert!(sent.iter().all(|answer| !answer.is_finished()), "{rows}");
    assert_eq!(number(app, rows).await, before, "{rows}");

    hold.release().await;
    for answer in answers(sent).await {
        answer.expect(status);
    }
    assert_eq!(number(app, rows).await, after, "{rows}");
}

#[tokio::test]
async fn nothing_is_answered_before_its_commit() {
    let app = app_with(json!({})).await;
    let mut hold = Hold::of(&app, "s").await;

    let publishes = vec![
        publishing(&app, "t", &numbered(0..2)),
        publishing(&app, "t", &numbered(2..6)),
        publishing(&app, "t", &numbered(6..9)),
    ];
    answered_after_commit(&app, &mut hold, publishes, (STORED, 0, 9), 204).await;
    let acked = messages(answer(consuming(&app, "s", "acks", 6)).await);
    let claims = vec![consuming(&app, "s", "a", 1), consuming(&app, "s", "b", 2)];
    answered_after_commit(&app, &mut hold, claims, (LEASED, 6, 9), 200).await;
    let acks = receipts(&acked);
    let acks = acks.chunks(2).map(|handles| acking(&app, "s", handles));
    answered_after_commit(&app, &mut hold, acks.collect(), (ACKED, 0, 6), 204).await;
}

#[tokio::test]
async fn a_lone_request_waits_for_no_other_topic_or_subscription() {
    let app = app_with(json!({})).await;
    app.topic_with_subscription("t2", "s2", json!({})).await;
    let mut hold = Hold::of(&app, "s").await;
    publish(&app, numbered(0..4)).await;
    let held = messages(answer(consuming(&app, "s", "c", 1)).await);
    let kinds = [
        publishing(&app, "t", &numbered(0..1)),
        consuming(&app, "s", "c", 1),
        acking(&app, "s", &receipts(&held)),
    ];

    for kind in kinds {
        let sent = hold.send(&app, vec![kind]).await;
        let others = async {
            let payload = json!([{"other": 1}]);
            answer(publishing(&app, "t2", &payload)).await.expect(204);
            let got = messages(answer(consuming(&app, "s2", "c", 1)).await);
            assert_eq!(got.len(), 1);
            let acked = acking(&app, "s2", &receipts(&got));
            answer(acked).await.expect(204);
        };
        tokio::time::timeout(Duration::from_secs(10), others)
            .await
            .expect("it waits for another");
        received(&app).await;
        assert!(!sent[0].is_finished());
        hold.release().await;
        assert!(answers(sent).await[0].status < 300);
    }
    assert_eq!(number(&app, ACKED).await, 3 + 1);
}
