//! The books are the same, whether requests come one after the other or at once.

use std::collections::BTreeMap;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::super::{app_with, counts, number, numbered, payloads};
use super::{Hold, acking, answers, consuming, messages, publishing, receipts};
use crate::support::{Answer, TestApp, answer, ids};

const PUBLISHES: &str = "select count(distinct published_at) from pubsub_data.messages";
const CLAIMS: &str = "select count(distinct lease) from pubsub_data.deliveries";
const ACKS: &str = "select count(distinct acked_at) from pubsub_data.acked";

/// What consumers are answered: of whom, which messages.
type Shares = Vec<(String, Vec<Value>)>;

/// What is left of a run of the script.
#[derive(Debug, PartialEq)]
struct Books {
    /// How many messages each consumer of each step got.
    shares: Vec<Vec<usize>>,
    /// State and attempts of each message.
    messages: Vec<(i32, String, i32)>,
    counts: Vec<[u64; 5]>,
}

/// Sends the requests of a step.
struct Sender {
    app: TestApp,
    /// At once, where there is one.
    hold: Option<Hold>,
}

impl Sender {
    async fn send(&mut self, requests: Vec<RequestBuilder>) -> Vec<Answer> {
        let Some(hold) = &mut self.hold else {
            let mut answers = Vec::new();
            for request in requests {
                answers.push(answer(request).await);
            }
            return answers;
        };
        let sent = hold.send(&self.app, requests).await;
        assert!(sent.iter().all(|answer| !answer.is_finished()));
        hold.release().await;
        answers(sent).await
    }

    /// Messages in the order of their publish, none for two consumers, none above the batch size.
    async fn consume(&mut self, step: &str, batches: &[usize]) -> Shares {
        let name = |position: usize| format!("{step}{position}");
        let requests = batches.iter().enumerate();
        let requests = requests.map(|(n, batch)| consuming(&self.app, "s", &name(n), *batch));
        let answers = self.send(requests.collect()).await;
        let shares: Shares = answers
            .into_iter()
            .enumerate()
            .map(|(position, answer)| (name(position), messages(answer)))
            .collect();
        for ((consumer, share), batch) in shares.iter().zip(batches) {
            assert!(share.len() <= *batch, "{consumer}: {share:?}");
            let ids = ids(share);
            assert!(ids.is_sorted_by_key(|id| id.as_str().unwrap().to_owned()));
        }
        let mut all = ids(&shares
            .iter()
            .flat_map(|share| share.1.clone())
            .collect::<Vec<_>>());
        let given = all.len();
        all.sort_by_key(ToString::to_string);
        all.dedup();
        assert_eq!(all.len(), given, "{step}: a message for two consumers");
        shares
    }

    async fn ack(&mut self, handles: &[Vec<Value>]) {
        let requests = handles
            .iter()
            .map(|handles| acking(&self.app, "s", handles));
        for answer in self.send(requests.collect()).await {
            answer.expect(204);
        }
    }

    async fn calls(&self, query: &'static str) -> i64 {
        number(&self.app, query).await
    }
}

/// Ten publishers; six consumers, who ack all but their last message; three for what is left; after
/// the deadlines five more, who ack everything, while older receipts fit nothing any more.
/// Returns the books and the calls of the first publishes, claims and acks.
async fn run(at_once: bool) -> (Books, [i64; 3]) {
    let app = app_with(json!({})).await;
    let hold = if at_once {
        Some(Hold::of(&app, "s").await)
    } else {
        None
    };
    let mut sender = Sender { app, hold };

    let batches = (0..10).map(|n| publishing(&sender.app, "t", &numbered(3 * n..3 * n + 3)));
    for answer in sender.send(batches.collect()).await {
        answer.expect(204);
    }
    let mut calls = [sender.calls(PUBLISHES).await, 0, 0];
    let mut counted = vec![counts(&sender.app).await];

    let first = sender.consume("first", &[2, 1, 3, 4, 5, 7]).await;
    calls[1] = sender.calls(CLAIMS).await;
    counted.push(counts(&sender.app).await);
    let settled: Vec<_> = first
        .iter()
        .map(|(_, share)| receipts(&share[..share.len() - 1]))
        .collect();
    sender.ack(&settled).await;
    calls[2] = sender.calls(ACKS).await;
    counted.push(counts(&sender.app).await);

    let second = sender.consume("second", &[3, 10, 10]).await;
    sender.app.pass_seconds(60.0).await;
    let third = sender.consume("third", &[1, 4, 4, 4, 4]).await;
    let mut settled: Vec<_> = third.iter().map(|(_, share)| receipts(share)).collect();
    settled.push(receipts(&second[0].1));
    // ids will do as well
    settled[1] = ids(&third[1].1);
    counted.push(counts(&sender.app).await);
    sender.ack(&settled).await;
    counted.push(counts(&sender.app).await);

    let holders = first.iter().map(|(consumer, share)| {
        let acked = &share[..share.len() - 1];
        (consumer, acked)
    });
    let holders = holders.chain(third.iter().map(|(consumer, share)| (consumer, &share[..])));
    check_history(&sender.app, holders).await;
    let off = "select pubsub.recount_messages('s')";
    assert_eq!(number(&sender.app, off).await, 0);
    let shares = [first, second, third].map(|shares| {
        let mut sizes: Vec<_> = shares.iter().map(|share| share.1.len()).collect();
        sizes.sort_unstable();
        sizes
    });
    let books = Books {
        shares: shares.into(),
        messages: sqlx::query_as(
            "select (payload->>'n')::int, state, attempts from pubsub.subscription_messages \
             order by 1",
        )
        .fetch_all(&sender.app.pool())
        .await
        .unwrap(),
        counts: counted,
    };
    (books, calls)
}

/// Each message is stored once, was acked once, by the consumer that got it and after as many
/// deliveries as that one was told; those of one publish have ids in its order.
async fn check_history<'a>(
    app: &TestApp,
    holders: impl Iterator<Item = (&'a String, &'a [Value])>,
) {
    let acked: Vec<(i64, String, i32)> = sqlx::query_as(
        "select (payload->>'n')::bigint, consumer_id, attempts from pubsub.subscription_messages \
         where state = 'acked' order by 1",
    )
    .fetch_all(&app.pool())
    .await
    .unwrap();
    let mut told = BTreeMap::new();
    for (consumer, share) in holders {
        for (message, payload) in share.iter().zip(payloads(share)) {
            let attempts = i32::try_from(message["delivery_attempts"].as_i64().unwrap()).unwrap();
            let n = payload["n"].as_i64().unwrap();
            let twice = told.insert(n, (consumer.clone(), attempts));
            assert_eq!(twice, None, "{n}");
        }
    }
    let told: Vec<_> = told.into_iter().map(|(n, (c, a))| (n, c, a)).collect();
    assert_eq!(acked, told);

    let stored: Vec<i64> = sqlx::query_scalar(
        "select (payload->>'n')::bigint from pubsub_data.messages \
         order by (payload->>'n')::int / 3, message_id",
    )
    .fetch_all(&app.pool())
    .await
    .unwrap();
    assert_eq!(stored, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_at_once_go_into_one_call_and_leave_the_books_of_one_after_the_other() {
    let (one_by_one, calls) = run(false).await;
    // whoever got a single message acked none
    assert_eq!(calls, [10, 6, 6 - 1]);

    let (at_once, calls) = run(true).await;
    assert_eq!(calls, [2, 2, 2]);

    assert_eq!(at_once, one_by_one);
    assert_eq!(one_by_one.counts.last(), Some(&[0, 0, 0, 30, 0]));
    assert_eq!(one_by_one.shares[0], [1, 2, 3, 4, 5, 7]);
    assert_eq!(one_by_one.shares[1], [0, 3, 5]);
    assert_eq!(one_by_one.shares[2], [1, 1, 4, 4, 4]);
}
