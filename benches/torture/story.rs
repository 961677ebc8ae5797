//! The part of a history that one message lived through, for people.

use std::fmt::Write;

use uuid::Uuid;

use super::history::{Call, Delivery, Entry, History, Micros, PSQL, SOME, What};

/// Which messages, calls or times a violation is about; what is None restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub subscription: Option<&'static str>,
    pub id: Option<Uuid>,
    pub number: Option<u64>,
    /// With what the faults were then.
    pub around: Option<(Micros, Micros)>,
}

/// Every event of it in the order of time, one a line.
#[must_use]
pub fn tell(history: &History, about: &About) -> Vec<String> {
    let mut lines: Vec<(Micros, String)> = Vec::new();
    for event in &history.events {
        if let Some(text) = part(&event.what, about) {
            lines.push((event.call.sent, format!("{} {text}", called(&event.call))));
        }
    }
    let (from, until) = about.around.unwrap_or_else(|| {
        let times = lines.iter().map(|(at, _)| *at);
        let (first, last) = (times.clone().min(), times.max());
        (first.unwrap_or_default(), last.unwrap_or_default())
    });
    if about.around.is_some() {
        for probe in &history.probes {
            if probe.call.sent <= until && probe.call.done >= from {
                let line = format!("{} probe {:?}", called(&probe.call), probe.door);
                lines.push((probe.call.sent, line));
            }
        }
    }
    for fault in history
        .faults
        .iter()
        .filter(|fault| fault.overlaps(from, until))
    {
        let server = fault.server.map(|server| format!(" of server {server}"));
        let line = format!(
            "{}  fault {:?}{}{}",
            span(fault.from, fault.until),
            fault.kind,
            server.unwrap_or_default(),
            fault.crashed.map_or("", |_| ", a crash")
        );
        lines.push((fault.from, line));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn span(from: Micros, until: Micros) -> String {
    let seconds = |at: Micros| format!("{}.{:06}", at / 1_000_000, at % 1_000_000);
    format!("{:>11} .. {:>11}", seconds(from), seconds(until))
}

fn called(call: &Call) -> String {
    let place = match call.server {
        PSQL => "the database".to_owned(),
        SOME => "some server".to_owned(),
        server => format!("server {server}"),
    };
    format!(
        "{}  {} at {place}: {:?},",
        span(call.sent, call.done),
        call.client,
        call.outcome
    )
}

/// What a call did to the message, if it named it.
fn part(what: &What, about: &About) -> Option<String> {
    let is_subscription = |named: &str| {
        about
            .subscription
            .is_none_or(|subscription| subscription == named)
    };
    match what {
        What::Publish { topic, numbers, .. } => {
            let number = about.number.filter(|number| numbers.contains(number))?;
            Some(format!("publish of {number} among {numbers:?} to {topic}"))
        }
        What::Consume {
            subscription,
            deliveries,
            ..
        } if is_subscription(subscription) => {
            let mut text = String::new();
            for delivery in deliveries.iter().filter(|delivery| is_of(delivery, about)) {
                let Delivery { id, attempts, .. } = delivery;
                let _infallible = write!(
                    text,
                    "delivery {id} of {} attempts {attempts} revision {} receipt {} from {subscription}",
                    delivery
                        .number
                        .map_or("?".to_owned(), |number| number.to_string()),
                    delivery.revision,
                    delivery.receipt
                );
            }
            (!text.is_empty()).then_some(text)
        }
        What::Settle {
            subscription,
            verb,
            handles,
            ..
        } if is_subscription(subscription) => {
            let handle = handles.iter().find(|handle| Some(handle.id) == about.id)?;
            let by = handle.receipt.as_deref().unwrap_or("its id");
            Some(format!("{verb:?} by {by} in {subscription}"))
        }
        What::Transact {
            subscription,
            handles,
            topic,
            numbers,
        } => {
            let acks = is_subscription(subscription)
                && handles.iter().any(|handle| Some(handle.id) == about.id);
            let publishes = about.number.is_some_and(|number| numbers.contains(&number));
            (acks || publishes).then(|| {
                let acked = handles.len();
                format!("ack of {acked} in {subscription} with publish of {numbers:?} to {topic}")
            })
        }
        What::Reprocess { subscription, ids } if is_subscription(subscription) => {
            let id = ids.iter().find(|id| Some(**id) == about.id)?;
            Some(format!("reprocess {id} in {subscription}"))
        }
        // whatever message it is about
        What::Pause {
            subscription,
            paused,
        } if about.subscription == Some(subscription) => {
            let verb = if *paused { "pause" } else { "resume" };
            Some(format!("{verb} {subscription}"))
        }
        What::Purge { subscription } if about.subscription == Some(subscription) => {
            Some(format!("purge {subscription}"))
        }
        What::Update { id, revision } if Some(*id) == about.id => {
            Some(format!("update to revision {revision}"))
        }
        What::Inspect {
            subscription,
            found,
        } if is_subscription(subscription) => {
            let is_it = |entry: &&Entry| {
                Some(entry.id) == about.id || entry.number.is_some() && entry.number == about.number
            };
            let found: Vec<_> = found
                .iter()
                .filter(is_it)
                .map(|entry| entry.state)
                .collect();
            let is_asked = about.id.is_some() || about.number.is_some();
            is_asked.then(|| format!("look into {subscription}, which has it as {found:?}"))
        }
        _ => None,
    }
}

fn is_of(delivery: &Delivery, about: &About) -> bool {
    match about.id {
        Some(id) => delivery.id == id,
        None => about.number.is_some() && delivery.number == about.number,
    }
}
