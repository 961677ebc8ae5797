//! One message in one subscription: one holder at a time, never again after its ack, attempts that
//! count up.

use uuid::Uuid;

use super::super::history::{Call, Delivery, Micros, Outcome, Verb};
use super::super::story::About;
use super::Violation;
use super::index::{Index, Timeline, ends_at_or_after};

pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((subscription, id), timeline) in &index.timelines {
        let found = two_holders(index, subscription, timeline)
            .into_iter()
            .chain(again_after_ack(index, subscription, timeline))
            .chain(attempts(index, timeline));
        violations.extend(found.map(|(promise, text)| Violation {
            promise,
            text,
            about: about(subscription, *id, timeline),
        }));
    }
    violations
}

pub(super) fn about(subscription: &'static str, id: Uuid, timeline: &Timeline<'_>) -> About {
    About {
        subscription: Some(subscription),
        id: Some(id),
        number: timeline
            .deliveries
            .iter()
            .find_map(|(_, delivery)| delivery.number),
        around: None,
    }
}

type Broken = (&'static str, String);

fn two_holders(index: &Index<'_>, name: &str, timeline: &Timeline<'_>) -> Vec<Broken> {
    let mut held: Vec<(Micros, Micros)> = timeline
        .deliveries
        .iter()
        .map(|(call, delivery)| {
            let until = index.leased_until(name, timeline, (call, delivery), None);
            (call.done, until)
        })
        .filter(|(from, until)| from < until)
        .collect();
    held.sort_unstable();
    let overlaps = held.windows(2).filter(|pair| pair[1].0 < pair[0].1);
    overlaps
        .map(|pair| {
            let text = format!(
                "held by two from {} to {} us",
                pair[1].0,
                pair[0].1.min(pair[1].1)
            );
            ("one holder", text)
        })
        .collect()
}

fn again_after_ack(index: &Index<'_>, name: &str, timeline: &Timeline<'_>) -> Vec<Broken> {
    let Some((acked, ack)) = sure_ack(index, name, timeline) else {
        return Vec::new();
    };
    let again = timeline.deliveries.iter().filter(|(call, delivery)| {
        call.sent >= ack.done
            // without a reprocess, attempts tell the order
            || timeline.reprocesses.is_empty() && delivery.attempts > acked.attempts
    });
    again
        .map(|(_, delivery)| {
            let text = format!(
                "acked as delivery {}, delivered again as {}",
                acked.attempts, delivery.attempts
            );
            ("never again after an ack", text)
        })
        .collect()
}

/// A delivery that was taken, or whose ack was answered while its lease surely held or said that it was done,
/// so that the ack surely counted.
pub(super) fn sure_ack<'a>(
    index: &Index<'_>,
    name: &str,
    timeline: &Timeline<'a>,
) -> Option<(&'a Delivery, &'a Call)> {
    timeline.deliveries.iter().find_map(|(call, delivery)| {
        if delivery.taken {
            return Some((*delivery, *call));
        }
        let ack = timeline.settles.iter().find(|settle| {
            settle.verb == Verb::Ack
                && settle.call.outcome == Outcome::Done
                && settle.receipt == Some(&*delivery.receipt)
                && (settle.confirmed
                    || settle.call.done
                        < index.leased_until(name, timeline, (call, delivery), Some(settle.call)))
        })?;
        Some((*delivery, ack.call))
    })
}

fn attempts(index: &Index<'_>, timeline: &Timeline<'_>) -> Vec<Broken> {
    let mut deliveries = timeline.deliveries.clone();
    deliveries.sort_by_key(|(call, _)| call.done);
    let mut broken = Vec::new();
    for (position, (earlier, first)) in deliveries.iter().enumerate() {
        for (later, second) in &deliveries[position + 1..] {
            // reprocessing starts the count anew
            let restarted = timeline.reprocesses.iter().any(|reprocess| {
                reprocess.outcome.may_have_happened()
                    && reprocess.sent <= later.done.max(earlier.done)
                    && ends_at_or_after(reprocess, earlier.sent.min(later.sent))
            });
            let in_turn = earlier.done <= later.sent;
            let is_repeated = first.attempts == second.attempts
                && !is_one_uncounted(index, timeline, (earlier, first), (later, second));
            if restarted {
                continue;
            }
            if is_repeated || in_turn && first.attempts > second.attempts {
                let text = format!(
                    "delivery {} came after delivery {}",
                    second.attempts, first.attempts
                );
                broken.push(("attempts count up", text));
            }
        }
    }
    broken
}

/// Whether one of two deliveries may have been as if it had never been before the other happened, which counts
/// on from the same number then.
fn is_one_uncounted(
    index: &Index<'_>,
    timeline: &Timeline<'_>,
    one: (&Call, &Delivery),
    other: (&Call, &Delivery),
) -> bool {
    [(one, other), (other, one)]
        .into_iter()
        .any(|(uncounted, (next, _))| {
            let from = index.uncounted_from(timeline, uncounted);
            from.is_some_and(|from| next.done >= from)
        })
}
