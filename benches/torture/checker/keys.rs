//! Ordering keys: a message is handed out only when no earlier one of its key is left, and to one
//! consumer at a time, unless one claim has both.

use std::collections::HashMap;

use uuid::Uuid;

use super::super::history::{Call, Delivery, History, Micros, Outcome};
use super::super::world::{Manner, key, subscription};
use super::Violation;
use super::index::{Index, Timeline};
use super::leases::about;

/// A delivery of a message of a key.
struct Turn<'a> {
    id: Uuid,
    timeline: &'a Timeline<'a>,
    claim: &'a Call,
    delivery: &'a Delivery,
    /// When its message was surely there; never, if nobody knows.
    published: Micros,
    /// Until when it surely was leased.
    until: Micros,
}

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut turns: HashMap<(&'static str, u64), Vec<Turn<'_>>> = HashMap::new();
    for ((name, id), timeline) in &index.timelines {
        if subscription(name).manner != Manner::Ordered {
            continue;
        }
        for (claim, delivery) in &timeline.deliveries {
            let Some(number) = delivery.number else {
                continue;
            };
            let published = index
                .publish_of(number)
                .filter(|publish| publish.call.outcome == Outcome::Done)
                .map_or(Micros::MAX, |publish| publish.call.done);
            let turn = Turn {
                id: *id,
                timeline,
                claim,
                delivery,
                published,
                until: index.leased_until(name, timeline, (claim, delivery), None),
            };
            let key = key(history.seed, number);
            turns.entry((name, key)).or_default().push(turn);
        }
    }
    let mut violations = Vec::new();
    for ((name, _), mut turns) in turns {
        turns.sort_by_key(|turn| turn.claim.sent);
        violations.extend(
            out_of_turn(&turns)
                .chain(at_once(&turns))
                .map(|(turn, text)| Violation {
                    promise: "order of a key",
                    text,
                    about: about(name, turn.id, turn.timeline),
                }),
        );
    }
    violations
}

/// Whether one claim has both.
fn are_together(one: &Turn<'_>, other: &Turn<'_>) -> bool {
    std::ptr::eq(one.claim, other.claim)
}

/// A message that was there, and was handed out after a later one of its key, was left out then.
fn out_of_turn<'a>(turns: &'a [Turn<'a>]) -> impl Iterator<Item = (&'a Turn<'a>, String)> {
    turns.iter().enumerate().filter_map(|(position, later)| {
        let overtaken = turns[position + 1..].iter().find(|turn| {
            let came_back = turn.timeline.reprocesses.iter().any(|reprocess| {
                reprocess.outcome.may_have_happened() && reprocess.sent <= turn.claim.done
            });
            let together = || {
                let mut deliveries = turn.timeline.deliveries.iter();
                deliveries.any(|(claim, _)| std::ptr::eq(*claim, later.claim))
            };
            turn.id < later.id
                && turn.claim.sent >= later.claim.done
                && turn.published < later.claim.sent
                && !came_back
                && !together()
        })?;
        let attempt = later.delivery.attempts;
        let text = format!("{} came before it as delivery {attempt}", later.id);
        Some((overtaken, text))
    })
}

/// Two messages of a key were surely leased to two claims at once.
fn at_once<'a>(turns: &'a [Turn<'a>]) -> impl Iterator<Item = (&'a Turn<'a>, String)> {
    turns.iter().enumerate().filter_map(|(position, first)| {
        let second = turns[position + 1..].iter().find(|second| {
            second.id != first.id
                && !are_together(first, second)
                && second.claim.sent >= first.claim.done
                && second.claim.done < first.until
        })?;
        let text = format!("{} was handed out while it was in flight", second.id);
        Some((first, text))
    })
}
