//! Transactors: what they consume they ack in the transaction that publishes something for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::history::{Event, Outcome, What};
use super::super::stage::Stage;
use super::super::world::{MOVED, TRANSFERS, payload, subscription};
use super::Session;
use super::consumers::claim;
use super::publishers::NUMBERS;

/// After the numbers of all publishers.
const FIRST: u64 = 1000;

pub async fn transact(stage: Arc<Stage>, transactor: u64) -> Vec<Event> {
    let name = format!("transactor {transactor}");
    let mut session = Session::new(&stage, &name);
    let mut next = (FIRST + transactor) * NUMBERS;
    while session.is_running() {
        let handles = claim(&mut session, subscription(MOVED), &name, 8).await;
        if handles.is_empty() {
            session.pause(50..150).await;
            continue;
        }
        // now and then a lease is over by then, and all of it must be refused
        if session.one_in(20) {
            session.pause(1900..2300).await;
        }
        let count = u64::try_from(handles.len()).unwrap();
        let numbers = next..next + count;
        next += count;
        let acks: Vec<_> = handles
            .iter()
            .map(|handle| json!({"subscription_id": MOVED, "receipt": handle.receipt.as_deref()}))
            .collect();
        let messages: Vec<_> = numbers
            .clone()
            .map(|number| json!({"payload": payload(stage.seed, number)}))
            .collect();
        let publishes = json!([{"topic_id": TRANSFERS, "messages": messages}]);
        let body = json!({"acks": acks, "publishes": publishes}).to_string();
        let what = |_: Option<&_>| What::Transact {
            subscription: MOVED,
            handles,
            topic: TRANSFERS,
            numbers,
        };
        let call = ("POST", "/transactions", body.as_str());
        let (outcome, _) = session.call(call, what).await;
        if outcome == Outcome::Done {
            stage.tally.published.fetch_add(count, Ordering::Relaxed);
            stage.tally.acked.fetch_add(count, Ordering::Relaxed);
        }
        session.pause(10..70).await;
    }
    session.finish()
}
