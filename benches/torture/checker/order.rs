//! Order: ids increase as messages are published, answers are in id order, fresh messages come in
//! publish order.
//!
//! Stragglers are excepted: a message whose publisher committed after a claim had read further, one of which a
//! claim that was under way hid the rest of its publish call from another, or whose first claim did not come
//! to its end. So is what happens around a fault.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::super::history::{Call, History, Kind, Micros, Outcome, What};
use super::super::story::About;
use super::super::world::{By, subscription};
use super::Violation;
use super::index::{Index, Timeline};
use super::leases::about;

/// How many later ids each first delivery is compared with.
const WINDOW: usize = 100;
/// A claim whose answer was lost ends within this time.
const LINGER: Micros = 2_000_000;

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut violations = answers(history);
    violations.extend(ids(index));
    let mut firsts: HashMap<&'static str, Vec<First<'_>>> = HashMap::new();
    for ((subscription, id), timeline) in &index.timelines {
        if let Some(first) = first(history, index, (subscription, *id), timeline) {
            firsts.entry(subscription).or_default().push(first);
        }
    }
    for (subscription, mut firsts) in firsts {
        firsts.sort_by_key(|first| first.id);
        let disturbances = disturbances(history, subscription);
        violations.extend(overtaken(subscription, &firsts, &disturbances));
    }
    violations
}

fn answers(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for event in &history.events {
        let What::Consume {
            subscription,
            deliveries,
            ..
        } = &event.what
        else {
            continue;
        };
        for pair in deliveries
            .windows(2)
            .filter(|pair| pair[0].id >= pair[1].id)
        {
            violations.push(Violation {
                promise: "publish order",
                text: format!("{} before {} in one answer", pair[0].id, pair[1].id),
                about: About {
                    subscription: Some(subscription),
                    id: Some(pair[1].id),
                    number: pair[1].number,
                    around: None,
                },
            });
        }
    }
    violations
}

/// Ids increase within a request, and from a request to those that its publisher sent after its end.
fn ids(index: &Index<'_>) -> Vec<Violation> {
    let mut known: BTreeMap<u64, (Uuid, &'static str)> = BTreeMap::new();
    for ((subscription, id), timeline) in &index.timelines {
        for (_, delivery) in &timeline.deliveries {
            if let Some(number) = delivery.number {
                known.insert(number, (*id, subscription));
            }
        }
    }
    let mut highest: HashMap<&str, Uuid> = HashMap::new();
    let mut violations = Vec::new();
    // the numbers of a publisher increase
    for publish in index.publishes() {
        let publisher: &str = &publish.call.client;
        let mut above = highest.get(publisher).copied().unwrap_or_default();
        for (number, (id, subscription)) in known.range(publish.numbers.clone()) {
            if *id <= above {
                violations.push(Violation {
                    promise: "publish order",
                    text: format!("its id is not above {above}, which was published before"),
                    about: About {
                        subscription: Some(subscription),
                        id: Some(*id),
                        number: Some(*number),
                        around: None,
                    },
                });
            }
            above = above.max(*id);
        }
        if publish.call.outcome == Outcome::Done {
            highest.insert(publisher, above);
        }
    }
    violations
}

/// The first delivery of a message, where it was seen.
struct First<'a> {
    id: Uuid,
    lane: u64,
    published: &'a Call,
    claim: &'a Call,
    timeline: &'a Timeline<'a>,
}

fn first<'a>(
    history: &History,
    index: &'a Index<'a>,
    (name, id): (&str, Uuid),
    timeline: &'a Timeline<'a>,
) -> Option<First<'a>> {
    let mut deliveries = timeline.deliveries.iter();
    let (claim, delivery) = deliveries.find(|(_, delivery)| delivery.attempts == 1)?;
    let number = delivery.number?;
    let publish = index.publish_of(number)?;
    // when what is pushed was claimed, nobody knows
    let is_first = timeline.reprocesses.is_empty()
        && publish.call.outcome == Outcome::Done
        && subscription(name).by != By::Pushes;
    is_first.then_some(First {
        id,
        lane: subscription(name).lane(history.seed, number),
        published: publish.call,
        claim,
        timeline,
    })
}

/// When claims of a subscription may not have come to their end.
fn disturbances(history: &History, subscription: &str) -> Vec<(Micros, Micros)> {
    let lost = history.events.iter().filter(|event| {
        let ours =
            matches!(&event.what, What::Consume { subscription: of, .. } if *of == subscription);
        ours && event.call.outcome.may_have_happened() && event.call.outcome != Outcome::Done
    });
    let faults = history.faults.iter().filter(|fault| {
        fault.kind.hits_database() || matches!(fault.kind, Kind::KillServer | Kind::FreezeServer)
    });
    let mut disturbances: Vec<(Micros, Micros)> = lost
        .map(|event| (event.call.sent, event.call.done + LINGER))
        .chain(faults.map(|fault| (fault.from, fault.until + LINGER)))
        .collect();
    disturbances.sort_unstable();
    disturbances
}

fn overtaken(
    subscription: &'static str,
    firsts: &[First<'_>],
    disturbances: &[(Micros, Micros)],
) -> Vec<Violation> {
    let disturbed = |from: Micros, until: Micros| {
        disturbances
            .iter()
            .take_while(|(start, _)| *start <= until)
            .any(|(_, end)| *end >= from)
    };
    let mut violations = Vec::new();
    for (position, first) in firsts.iter().enumerate() {
        let later = &firsts[position + 1..];
        let later = &later[..later.len().min(WINDOW)];
        let overtaker = later.iter().find(|later| {
            later.published.client == first.published.client
                && later.lane == first.lane
                && later.claim.sent > first.published.done
                && later.claim.done < first.claim.sent
        });
        let Some(overtaker) = overtaker else { continue };
        // claims had read further before it was committed
        let is_straggler = later
            .iter()
            .any(|later| later.claim.sent < first.published.done);
        if is_straggler
            || was_hidden(first, position, firsts)
            || disturbed(first.published.sent, first.claim.done)
        {
            continue;
        }
        violations.push(Violation {
            promise: "publish order",
            text: format!(
                "{} was published after it and delivered before",
                overtaker.id
            ),
            about: about(subscription, first.id, first.timeline),
        });
    }
    violations
}

/// Whether a claim got others of the same publish call while another one read further: until the first is
/// committed, what it left of up to a hundred messages is not there for anybody else.
fn was_hidden(first: &First<'_>, position: usize, firsts: &[First<'_>]) -> bool {
    let around = &firsts[position.saturating_sub(WINDOW)..];
    let around = &around[..around.len().min(2 * WINDOW)];
    let mut mates = around
        .iter()
        .filter(|mate| mate.id != first.id && std::ptr::eq(mate.published, first.published));
    mates.any(|mate| {
        around.iter().any(|reader| {
            reader.id > first.id
                && !std::ptr::eq(reader.claim, mate.claim)
                && !std::ptr::eq(reader.claim, first.claim)
                && reader.claim.sent < mate.claim.done
                && mate.claim.sent < reader.claim.done
        })
    })
}
