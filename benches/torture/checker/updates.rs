//! Updates of messages: what is handed out after one was answered is what it wrote, or something later. That a
//! payload is whole, that of one revision, is checked of every delivery.

use super::super::history::{Call, Outcome};
use super::Violation;
use super::index::{Index, Timeline, over_by};
use super::leases::about;

pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((name, id), timeline) in &index.timelines {
        let updates = index.updates.get(id).map_or(&[][..], Vec::as_slice);
        for (claim, delivery) in &timeline.deliveries {
            let text = broken(timeline, updates, (claim, delivery.revision));
            violations.extend(text.map(|(promise, text)| Violation {
                promise,
                text,
                about: about(name, *id, timeline),
            }));
        }
    }
    violations
}

/// What is wrong with a claim that handed out a revision.
fn broken(
    timeline: &Timeline<'_>,
    updates: &[(&Call, u64)],
    (claim, revision): (&Call, u64),
) -> Option<(&'static str, String)> {
    let written = updates.iter().find(|(_, written)| *written == revision);
    if revision > 0 && written.is_none_or(|(update, _)| update.sent > claim.done) {
        let text = format!("nobody had written revision {revision}");
        return Some(("nothing invented", text));
    }
    // dead letters are copies, of when they died
    let was_dead = timeline
        .reprocesses
        .iter()
        .any(|reprocess| reprocess.outcome.may_have_happened() && reprocess.sent <= claim.done);
    let later = updates.iter().find(|(update, later)| {
        *later > revision
            && update.outcome == Outcome::Done
            && update.done <= claim.sent
            // what went unanswered may have been written after it
            && written.is_none_or(|(written, _)| over_by(written) <= update.sent)
    });
    later.filter(|_| !was_dead).map(|(update, later)| {
        let text = format!(
            "revision {revision} was handed out, but revision {later} was there at {} us",
            update.done
        );
        ("an update holds", text)
    })
}
