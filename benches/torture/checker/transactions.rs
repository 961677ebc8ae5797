//! Transactions: what one acks and what it publishes are there both or not at all. That its messages are
//! there all or not at all, and are if it was answered, the books tell of any publish.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::super::history::{Entry, Event, History, State, What};
use super::super::story::About;
use super::Violation;
use super::books::{may_have_acked, number_of};
use super::index::{Index, Timeline};

pub(super) fn check(history: &History, index: &Index<'_>, books: &[Entry]) -> Vec<Violation> {
    let published: HashSet<u64> = books
        .iter()
        .filter_map(|entry| number_of(index, entry))
        .collect();
    let ends: HashMap<(&str, Uuid), State> = books
        .iter()
        .map(|entry| ((entry.subscription, entry.id), entry.state))
        .collect();
    let mut violations = Vec::new();
    for event in &history.events {
        let What::Transact {
            subscription,
            handles,
            numbers,
            ..
        } = &event.what
        else {
            continue;
        };
        let published = numbers.clone().any(|number| published.contains(&number));
        for handle in handles {
            let place = (*subscription, handle.id);
            let timeline = &index.timelines[&place];
            let end = ends.get(&place).copied();
            if let Some(text) = broken(index, timeline, event, published, end) {
                violations.push(Violation {
                    promise: "a transaction is all or nothing",
                    text,
                    about: About {
                        subscription: Some(subscription),
                        id: Some(handle.id),
                        ..About::default()
                    },
                });
            }
        }
    }
    violations
}

/// What is wrong with a delivery that a transaction acked, if it published or if it did not.
fn broken(
    index: &Index<'_>,
    timeline: &Timeline<'_>,
    event: &Event,
    published: bool,
    end: Option<State>,
) -> Option<String> {
    let outcome = event.call.outcome;
    if published {
        let again = timeline
            .deliveries
            .iter()
            // a claim that a crash undid made no lease old
            .any(|(claim, delivery)| {
                claim.sent >= event.call.done && index.undone_from(claim, delivery).is_none()
            });
        return (end != Some(State::Acked) || again).then(|| {
            format!("it is {end:?} or came again, but the transaction published, {outcome:?}")
        });
    }
    let others_acked = timeline.settles.iter().any(|settle| {
        !std::ptr::eq(settle.call, &event.call) && may_have_acked(index, timeline, settle)
    });
    (end == Some(State::Acked) && !others_acked)
        .then(|| format!("nobody else acked it, but the transaction did not publish, {outcome:?}"))
}
