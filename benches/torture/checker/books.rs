//! The books at the end: every message is once where it belongs and settled, requests are whole.

use std::collections::HashMap;

use super::super::history::{Call, Delivery, Entry, History, Outcome, State, Verb};
use super::super::story::About;
use super::super::world::{SUBSCRIPTIONS, Subscription, subscription};
use super::Violation;
use super::index::{Index, Publish, Settle, Timeline};
use super::leases::sure_ack;
use super::takes;

pub(super) fn check(history: &History, index: &Index<'_>, books: &[Entry]) -> Vec<Violation> {
    let mut found: HashMap<(&'static str, u64), u32> = HashMap::new();
    let mut violations = Vec::new();
    let mut gone = Vec::new();
    for entry in books {
        let number = number_of(index, entry);
        if let Some(number) = number {
            *found.entry((entry.subscription, number)).or_default() += 1;
        }
        if entry.state == State::Acked && !is_acked(index, entry) {
            gone.push((entry, number));
        }
        let broken = in_place(history, index, entry, number)
            .into_iter()
            .chain(settled(index, entry));
        violations.extend(broken.map(|(promise, text)| Violation {
            promise,
            text,
            about: About {
                subscription: Some(entry.subscription),
                id: Some(entry.id),
                number,
                around: None,
            },
        }));
    }
    for publish in index.publishes() {
        violations.extend(whole(history, index, publish, &found));
    }
    violations.extend(takes::lost(index, gone));
    violations
}

/// Whether somebody may have acked it of whom we know that he had it.
fn is_acked(index: &Index<'_>, entry: &Entry) -> bool {
    let timeline = index.timelines.get(&(entry.subscription, entry.id));
    timeline.is_some_and(|timeline| {
        let mut settles = timeline.settles.iter();
        settles.any(|settle| may_have_acked(index, timeline, settle))
    })
}

type Broken = (&'static str, String);

/// The books forget the payload when nothing needs it any more. What a take without an answer got, others know
/// by its id: those of other subscriptions.
pub(super) fn number_of(index: &Index<'_>, entry: &Entry) -> Option<u64> {
    let known = index.numbers.get(&entry.id).copied();
    entry.number.or(known)
}

fn in_place(
    history: &History,
    index: &Index<'_>,
    entry: &Entry,
    number: Option<u64>,
) -> Option<Broken> {
    let published = number.and_then(|number| Some((number, index.publish_of(number)?)));
    let Some((number, publish)) = published else {
        return Some(("nothing invented", "nobody published it".to_owned()));
    };
    let subscription = subscription(entry.subscription);
    if publish.topic == subscription.topic && subscription.receives(history.seed, number) {
        return None;
    }
    let text = format!("{} must not have it", entry.subscription);
    Some(("filters", text))
}

fn settled(index: &Index<'_>, entry: &Entry) -> Option<Broken> {
    let timeline = index.timelines.get(&(entry.subscription, entry.id));
    let most = subscription(entry.subscription).max_delivery_attempts;
    match entry.state {
        State::Unsettled => {
            let text = "it was neither acked nor dead-lettered in the end".to_owned();
            Some(("everything is settled", text))
        }
        // who acked it is told apart
        State::Acked => {
            let later = timeline.and_then(|timeline| delivered_after(index, timeline, entry))?;
            let text = format!("acked as delivery {}, delivered as {later}", entry.attempts);
            Some(("never again after an ack", text))
        }
        State::Dead => {
            let sure = timeline.and_then(|timeline| sure_ack(index, entry.subscription, timeline));
            if sure.is_some() {
                let text = "dead-lettered after its ack".to_owned();
                return Some(("never again after an ack", text));
            }
            let attempts = entry.attempts;
            (attempts != most).then(|| {
                let text = format!("dead-lettered after {attempts} of {most} attempts");
                ("dead when spent", text)
            })
        }
    }
}

/// A delivery that counts after the one that was acked; reprocessing starts the count anew.
fn delivered_after(index: &Index<'_>, timeline: &Timeline<'_>, entry: &Entry) -> Option<u32> {
    let counted = timeline.deliveries.iter().filter(|(claim, delivery)| {
        timeline.reprocesses.is_empty()
            && index.uncounted_from(timeline, (claim, delivery)).is_none()
    });
    let attempts = counted.map(|(_, delivery)| delivery.attempts);
    attempts.filter(|later| *later > entry.attempts).max()
}

/// Whether it may have been the ack that settled the message: an old receipt settles nothing.
pub(super) fn may_have_acked(
    index: &Index<'_>,
    timeline: &Timeline<'_>,
    settle: &Settle<'_>,
) -> bool {
    let Some(receipt) = settle.receipt else {
        return settle.verb == Verb::Ack && settle.call.outcome.may_have_happened();
    };
    let of_receipt = |(_, delivery): &&(&Call, &Delivery)| *delivery.receipt == *receipt;
    let Some((claim, _)) = timeline.deliveries.iter().find(of_receipt) else {
        return false;
    };
    let is_old = timeline.deliveries.iter().any(|(later, delivery)| {
        // a later claim that a crash undid made no receipt old
        let holds = index
            .undone_from(later, delivery)
            .is_none_or(|from| settle.call.outcome == Outcome::Done && settle.call.done < from);
        later.sent >= claim.done && later.done <= settle.call.sent && holds
    });
    settle.verb == Verb::Ack && settle.call.outcome.may_have_happened() && !is_old
}

/// The messages of a request that the books must have: all, none, or all or none.
fn whole(
    history: &History,
    index: &Index<'_>,
    publish: &Publish<'_>,
    found: &HashMap<(&'static str, u64), u32>,
) -> Vec<Violation> {
    let subscriptions: Vec<&Subscription> = SUBSCRIPTIONS
        .iter()
        .filter(|subscription| subscription.topic == publish.topic)
        .collect();
    let count = |subscription: &Subscription, number| {
        found.get(&(subscription.id, number)).copied().unwrap_or(0)
    };
    // in any subscription, so that a subscription that lacks it is noticed
    let published = publish
        .numbers
        .clone()
        .any(|number| subscriptions.iter().any(|s| count(s, number) > 0));
    let outcome = publish.call.outcome;
    let expected = match outcome {
        Outcome::Done => true,
        _ if publish.rubbish || !outcome.may_have_happened() => false,
        _ => published,
    };
    let mut violations = Vec::new();
    for number in publish.numbers.clone() {
        // what is where it does not belong was noticed above
        let receiving = subscriptions
            .iter()
            .filter(|s| s.receives(history.seed, number));
        for subscription in receiving {
            let expected = u32::from(expected);
            let count = count(subscription, number);
            if count == 0 && index.may_be_purged(subscription.id, publish.call, None) {
                continue;
            }
            let promise = match (expected, count) {
                (1, 0) if outcome == Outcome::Done => "zero lost",
                (0 | 1, 0 | 1) if expected == count => continue,
                (1, 0) | (0, 1) => "a publish is all or nothing",
                _ => "settled once",
            };
            violations.push(Violation {
                promise,
                text: format!(
                    "{} times in {} after a publish that ended {outcome:?}",
                    count, subscription.id
                ),
                about: About {
                    subscription: Some(subscription.id),
                    // where it was delivered, its story knows its acks too
                    id: index.ids.get(&number).copied(),
                    number: Some(number),
                    around: None,
                },
            });
        }
    }
    violations
}
