//! Publishers: requests of one to many messages, each number once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::super::history::{Event, Outcome, What};
use super::super::stage::Stage;
use super::super::world::{KEYED_TOPIC, TOPICS, key, payload};
use super::Session;

/// No two publishers share numbers.
pub(super) const NUMBERS: u64 = 1_000_000_000;

pub async fn publish(stage: Arc<Stage>, publisher: u64) -> Vec<Event> {
    let mut session = Session::new(&stage, &format!("publisher {publisher}"));
    let mut next = publisher * NUMBERS;
    while session.is_running() {
        let topic = *TOPICS.choose(&mut session.random).unwrap();
        let most = if session.one_in(20) { 60 } else { 8 };
        let count = session.random.random_range(1..=most);
        let numbers = next..next + count;
        next += count;
        // what has keys is checked one by one
        let rubbish = topic != KEYED_TOPIC && session.one_in(50);
        let mut messages: Vec<String> = numbers
            .clone()
            .map(|number| payload(stage.seed, number).to_string())
            .collect();
        if rubbish {
            messages.insert(messages.len() / 2, "\"not an object\"".to_owned());
        }
        let (path, body) = if topic == KEYED_TOPIC {
            let numbers = numbers.clone().map(|number| key(stage.seed, number));
            (
                format!("/topics/{topic}/publish"),
                with_keys(&messages, numbers),
            )
        } else {
            let body = format!("[{}]", messages.join(","));
            (format!("/topics/{topic}/messages"), body)
        };
        let what = |_: Option<&_>| What::Publish {
            topic,
            numbers,
            rubbish,
        };
        let (outcome, _) = session.call(("POST", &path, &body), what).await;
        if outcome == Outcome::Done {
            stage.tally.published.fetch_add(count, Ordering::Relaxed);
        }
        session.pause(10..70).await;
    }
    session.finish()
}

/// The body that publishes messages under keys, for ordered and for fair subscriptions.
fn with_keys(payloads: &[String], keys: impl Iterator<Item = u64>) -> String {
    let messages: Vec<String> = payloads
        .iter()
        .zip(keys)
        .map(|(payload, key)| {
            format!(
                r#"{{"payload": {payload}, "ordering_key": "{key}", "attributes": {{"key": "{key}"}}}}"#
            )
        })
        .collect();
    format!(r#"{{"messages": [{}]}}"#, messages.join(","))
}
