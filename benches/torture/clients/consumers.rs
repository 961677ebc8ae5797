//! Consumers of every manner: steady ones that ack, nackers, sloths, who settle after the
//! deadline, with old receipts, or never, and takers, who lease nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::history::{Delivery, Event, Handle, Outcome, Verb, What};
use super::super::stage::{Phase, Stage};
use super::super::world::{KEYED_TOPIC, Subscription, digest};
use super::Session;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Steady,
    Nacker,
    Sloth,
    Taker,
}

/// Consume until the run is over; whoever does not ack everything leaves before the drain.
pub async fn consume(
    stage: Arc<Stage>,
    subscription: &'static Subscription,
    manner: Manner,
    number: usize,
) -> Vec<Event> {
    let name = format!("{manner:?} {number} of {}", subscription.id).to_lowercase();
    let mut session = Session::new(&stage, &name);
    let most = if manner == Manner::Steady { 30 } else { 6 };
    while session.is_running() || manner == Manner::Steady && stage.phase() == Phase::Draining {
        let held = if manner == Manner::Taker {
            take(&mut session, subscription, &name).await
        } else {
            claim(&mut session, subscription, &name, most).await
        };
        if held.is_empty() {
            session.pause(50..150).await;
            continue;
        }
        match manner {
            Manner::Taker => session.pause(0..100).await,
            Manner::Steady => work(&mut session, subscription, held).await,
            Manner::Nacker => {
                let (bad, good) = held.split_at(held.len().div_ceil(2));
                settle(&mut session, subscription, Verb::Nack, bad.to_vec()).await;
                settle(&mut session, subscription, Verb::Ack, good.to_vec()).await;
                session.pause(200..600).await;
            }
            Manner::Sloth => {
                let late = Duration::from_micros(subscription.lease_micros());
                tokio::time::sleep(late).await;
                // often its own messages again: from then on its receipts are old and settle nothing
                if session.one_in(2) {
                    claim(&mut session, subscription, &name, most).await;
                }
                session.pause(0..300).await;
                match session.random.random_range(0..3) {
                    0 => settle(&mut session, subscription, Verb::Ack, held).await,
                    1 => settle(&mut session, subscription, Verb::Nack, held).await,
                    _ => Outcome::Done,
                };
            }
        }
    }
    session.finish()
}

pub(super) async fn claim(
    session: &mut Session,
    subscription: &'static Subscription,
    name: &str,
    most: u32,
) -> Vec<Handle> {
    let consumer = name.replace(' ', "-");
    // where messages have no keys, never a few: they come in runs
    let batch = if subscription.topic == KEYED_TOPIC {
        session.random.random_range(1..=most)
    } else {
        session.random.random_range(5..=most.max(8))
    };
    let id = subscription.id;
    let path = format!("/subscriptions/{id}/messages?consumer_id={consumer}&batch_size={batch}");
    let what = |body: Option<&Value>| What::Consume {
        subscription: id,
        deliveries: body
            .map(|body| deliveries(&body["data"]))
            .unwrap_or_default(),
        takes: None,
    };
    receive(session, ("GET", &path, ""), what).await
}

/// Claim and ack in one.
async fn take(
    session: &mut Session,
    subscription: &'static Subscription,
    name: &str,
) -> Vec<Handle> {
    let most = session.random.random_range(1..=20);
    let path = format!("/subscriptions/{}/pull", subscription.id);
    let body = json!({
        "consumer_id": name,
        "max_messages": most,
        "auto_ack": true,
    });
    let what = |body: Option<&Value>| What::Consume {
        subscription: subscription.id,
        deliveries: body
            .map(|body| deliveries(&body["messages"]))
            .unwrap_or_default(),
        takes: Some(most),
    };
    receive(session, ("POST", &path, &body.to_string()), what).await
}

/// Ask for messages; what came.
async fn receive(
    session: &mut Session,
    request: (&str, &str, &str),
    what: impl FnOnce(Option<&Value>) -> What,
) -> Vec<Handle> {
    let (_, what) = session.call(request, what).await;
    let What::Consume { deliveries, .. } = what else {
        return Vec::new();
    };
    let handles: Vec<Handle> = deliveries
        .iter()
        .map(|delivery| Handle {
            id: delivery.id,
            receipt: Some(Arc::clone(&delivery.receipt)),
        })
        .collect();
    let delivered = u64::try_from(handles.len()).unwrap();
    let tally = &session.stage.tally;
    tally.delivered.fetch_add(delivered, Ordering::Relaxed);
    handles
}

/// Ack all: now and then in two parts, by ids, twice.
async fn work(session: &mut Session, subscription: &'static Subscription, mut held: Vec<Handle>) {
    if session.one_in(3) {
        session.pause(0..60).await;
    }
    // an id settles whoever holds the message: only where nobody minds
    if subscription.id == "events-all" && session.one_in(10) {
        for handle in &mut held {
            handle.receipt = None;
        }
    }
    let rest = if session.one_in(5) {
        held.split_off(held.len() / 2)
    } else {
        Vec::new()
    };
    for part in [held, rest] {
        let outcome = settle(session, subscription, Verb::Ack, part.clone()).await;
        if session.one_in(if outcome == Outcome::Done { 50 } else { 2 }) {
            settle(session, subscription, Verb::Ack, part).await;
        }
    }
}

async fn settle(
    session: &mut Session,
    subscription: &'static Subscription,
    verb: Verb,
    handles: Vec<Handle>,
) -> Outcome {
    if handles.is_empty() {
        return Outcome::Done;
    }
    let named: Vec<String> = handles
        .iter()
        .map(|handle| match &handle.receipt {
            Some(receipt) => format!("\"{receipt}\""),
            None => format!("\"{}\"", handle.id),
        })
        .collect();
    let count = u64::try_from(named.len()).unwrap();
    let route = match verb {
        Verb::Ack => "acks",
        Verb::Nack => "nacks",
        Verb::GiveBack => unreachable!("only the service gives back"),
    };
    let path = format!("/subscriptions/{}/{route}", subscription.id);
    let body = format!("[{}]", named.join(","));
    let what = |_: Option<&Value>| What::Settle {
        subscription: subscription.id,
        verb,
        handles,
        confirmed: false,
    };
    let (outcome, _) = session.call(("POST", &path, &body), what).await;
    if outcome == Outcome::Done && verb == Verb::Ack {
        session
            .stage
            .tally
            .acked
            .fetch_add(count, Ordering::Relaxed);
    }
    outcome
}

fn deliveries(messages: &Value) -> Vec<Delivery> {
    let messages = messages.as_array().unwrap().iter();
    messages.map(delivery).collect()
}

pub(super) fn delivery(message: &Value) -> Delivery {
    let id = message["id"].as_str().unwrap();
    let receipt = message["receipt"].as_str();
    Delivery {
        id: Uuid::parse_str(id).unwrap(),
        number: message["payload"]["n"].as_u64(),
        revision: message["payload"]["revision"].as_u64().unwrap_or_default(),
        digest: digest(&message["payload"]),
        attempts: u32::try_from(message["delivery_attempts"].as_u64().unwrap()).unwrap(),
        receipt: receipt.map_or_else(|| format!("taken {id}").into(), Arc::from),
        taken: receipt.is_none(),
    }
}
