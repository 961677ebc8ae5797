//! Takes: what one gets is gone with its answer. Whoever else has it later, leases and acks tell; here is that
//! nothing is taken from its holder, and that only what takes without an answer got is acked unseen.

use std::collections::HashMap;

use super::super::history::{Entry, Micros};
use super::super::story::About;
use super::Violation;
use super::index::{Index, over_by};
use super::leases::about;

pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((name, id), timeline) in &index.timelines {
        for (take, _) in timeline
            .deliveries
            .iter()
            .filter(|(_, delivery)| delivery.taken)
        {
            let holder = timeline.deliveries.iter().find(|(claim, delivery)| {
                claim.done <= take.sent
                    && take.done < index.leased_until(name, timeline, (claim, delivery), None)
            });
            if let Some((holder, _)) = holder {
                violations.push(Violation {
                    promise: "one holder",
                    text: format!("taken at {} us from {}", take.done, holder.client),
                    about: about(name, *id, timeline),
                });
            }
        }
    }
    violations
}

/// The acked ones of which nobody known may have acked them, and that takes without an answer do not explain: of
/// those that came late, no more than late takes asked for, and so on.
pub(super) fn lost(index: &Index<'_>, gone: Vec<(&Entry, Option<u64>)>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut explained: HashMap<&str, usize> = HashMap::new();
    let mut gone: Vec<(Micros, &Entry, Option<u64>)> = gone
        .into_iter()
        .map(|(entry, number)| (left_at(index, entry, number), entry, number))
        .collect();
    gone.sort_by_key(|(left_at, entry, _)| (std::cmp::Reverse(*left_at), entry.id));
    for (left_at, entry, number) in gone {
        let takes = index.lost_takes.get(entry.subscription);
        let may_have = takes
            .into_iter()
            .flatten()
            .filter(|(take, _)| over_by(take) >= left_at);
        let most: usize = may_have.map(|(_, most)| most).sum();
        let explained = explained.entry(entry.subscription).or_default();
        if *explained < most {
            *explained += 1;
            continue;
        }
        violations.push(Violation {
            promise: "zero lost",
            text: "acked, but by nobody who held it".to_owned(),
            about: About {
                subscription: Some(entry.subscription),
                id: Some(entry.id),
                number,
                around: None,
            },
        });
    }
    violations
}

/// When it was seen last: published, or handed out to somebody who did not ack it.
fn left_at(index: &Index<'_>, entry: &Entry, number: Option<u64>) -> Micros {
    let published = number.and_then(|number| index.publish_of(number));
    let timeline = index.timelines.get(&(entry.subscription, entry.id));
    let claims = timeline
        .into_iter()
        .flat_map(|timeline| &timeline.deliveries);
    let seen = claims.map(|(claim, _)| claim.sent);
    seen.chain(published.map(|publish| publish.call.sent))
        .max()
        .unwrap_or_default()
}
