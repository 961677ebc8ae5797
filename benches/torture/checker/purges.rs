//! Purges: what was there is gone, and nothing else is. Of what was published after a purge and before the next,
//! the books tell that it arrived: the purger looks into them before it purges.

use std::collections::HashSet;

use super::super::history::{Call, Entry, History, Micros, Outcome};
use super::super::story::About;
use super::super::world::subscription;
use super::Violation;
use super::books::may_have_acked;
use super::index::Index;
use super::leases::about;

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut violations = came_back(index);
    for (call, name, found) in &index.inspections {
        violations.extend(missing(history, index, (call, name), found));
    }
    violations
}

/// What surely was there when a purge was asked for comes no more after its answer, but from the dead letters.
fn came_back(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((name, id), timeline) in &index.timelines {
        let Some(purges) = index.purges.get(name) else {
            continue;
        };
        let number = timeline
            .deliveries
            .iter()
            .find_map(|(_, delivery)| delivery.number);
        let publish = number.and_then(|number| index.publish_of(number));
        let Some(publish) = publish.filter(|publish| publish.call.outcome == Outcome::Done) else {
            continue;
        };
        let reprocessed = timeline
            .reprocesses
            .iter()
            .any(|reprocess| reprocess.outcome.may_have_happened());
        let purge = purges
            .iter()
            .find(|purge| purge.outcome == Outcome::Done && purge.sent >= publish.call.done);
        let Some(purge) = purge.filter(|_| !reprocessed) else {
            continue;
        };
        let again = timeline
            .deliveries
            .iter()
            .find(|(claim, _)| claim.sent >= purge.done);
        if let Some((claim, _)) = again {
            violations.push(Violation {
                promise: "a purge takes all there is",
                text: format!(
                    "purged by {} us, delivered at {} us",
                    purge.done, claim.sent
                ),
                about: about(name, *id, timeline),
            });
        }
    }
    violations
}

/// What was published since the last purge and is not in the books now, although nobody acked it.
fn missing(
    history: &History,
    index: &Index<'_>,
    (call, name): (&Call, &'static str),
    found: &[Entry],
) -> Vec<Violation> {
    let numbers: HashSet<u64> = found.iter().filter_map(|entry| entry.number).collect();
    let ids: HashSet<_> = found.iter().map(|entry| entry.id).collect();
    let subscription = subscription(name);
    let published = index.publishes().filter(|publish| {
        publish.topic == subscription.topic
            && publish.call.outcome == Outcome::Done
            && publish.call.done <= call.sent
            && !index.may_be_purged(name, publish.call, Some(call.done))
    });
    let numbers = published
        .flat_map(|publish| publish.numbers.clone())
        .filter(|number| !numbers.contains(number) && subscription.receives(history.seed, *number));
    let missing = numbers.filter(|number| {
        let id = index.ids.get(number);
        let is_there = id.is_some_and(|id| ids.contains(id));
        !is_there && !may_be_forgotten(index, name, *number, call.done)
    });
    missing
        .map(|number| Violation {
            promise: "zero lost",
            text: format!(
                "published after the last purge and not there at {} us",
                call.sent
            ),
            about: About {
                subscription: Some(name),
                id: index.ids.get(&number).copied(),
                number: Some(number),
                around: None,
            },
        })
        .collect()
}

/// Whether it may have been acked by then, and have left the books.
fn may_be_forgotten(index: &Index<'_>, name: &'static str, number: u64, by: Micros) -> bool {
    let id = index.ids.get(&number).copied();
    let timeline = id.and_then(|id| index.timelines.get(&(name, id)));
    let acked = timeline.is_some_and(|timeline| {
        let settles = timeline.settles.iter();
        let mut in_time = settles.filter(|settle| settle.call.sent <= by);
        in_time.any(|settle| may_have_acked(index, timeline, settle))
    });
    let takes = index.lost_takes.get(name).into_iter().flatten();
    acked || takes.into_iter().any(|(take, _)| take.sent <= by)
}
