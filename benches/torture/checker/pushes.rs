//! Pushes: what a receiver took comes no more. It hears nothing of what became of its answer, so this holds only
//! where nothing disturbed the service around it; that what is acked was taken, the books tell.

use super::super::history::{Call, Delivery, History, Kind, Micros, Verb};
use super::super::world::{By, subscription};
use super::Violation;
use super::index::{Index, Timeline};
use super::leases::about;

/// How long before it arrives a push may have been claimed, unless something disturbed it.
const BEFORE: Micros = 1_000_000;
/// How long after its answer it may be acked, unless something disturbs it.
const AFTER: Micros = 2_000_000;
/// An answer that comes later may be too late.
const PROMPT: Micros = 300_000;

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((name, id), timeline) in &index.timelines {
        if subscription(name).by != By::Pushes || !timeline.reprocesses.is_empty() {
            continue;
        }
        let mut took = timeline
            .deliveries
            .iter()
            .filter(|(push, delivery)| has_taken(history, timeline, push, delivery));
        let again = took.find_map(|(_, taken)| {
            let mut others = timeline.deliveries.iter();
            let later = others.find(|(_, other)| other.attempts > taken.attempts)?;
            Some((taken.attempts, later.1.attempts))
        });
        if let Some((taken, later)) = again {
            violations.push(Violation {
                promise: "never again after an ack",
                text: format!("a receiver took push {taken}, and got push {later}"),
                about: about(name, *id, timeline),
            });
        }
    }
    violations
}

/// Whether a receiver surely took a push, and the service surely heard and noted it.
fn has_taken(history: &History, timeline: &Timeline<'_>, push: &Call, delivery: &Delivery) -> bool {
    let mut answers = timeline
        .settles
        .iter()
        .filter(|settle| settle.receipt == Some(&*delivery.receipt));
    let answer = answers.next().filter(|answer| {
        answer.verb == Verb::Ack && answer.call.done <= push.done.saturating_add(PROMPT)
    });
    let Some(answer) = answer.filter(|_| answers.next().is_none()) else {
        return false;
    };
    let (from, until) = (
        push.done.saturating_sub(BEFORE),
        answer.call.done.saturating_add(AFTER),
    );
    !history.faults.iter().any(|fault| {
        let disturbs = fault.kind.hits_database()
            || matches!(fault.kind, Kind::KillServer | Kind::FreezeServer);
        disturbs && fault.overlaps(from, until)
    })
}
