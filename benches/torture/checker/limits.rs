//! Limits: never more in flight than `max_in_flight`. Only what surely was counts.

use std::collections::HashMap;

use super::super::history::Micros;
use super::super::story::About;
use super::super::world::{Manner, subscription};
use super::Violation;
use super::index::Index;

pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    // when leases begin and end; an end comes before a begin at the same time
    let mut changes: HashMap<&'static str, Vec<(Micros, i32)>> = HashMap::new();
    for ((name, _), timeline) in &index.timelines {
        if !matches!(subscription(name).manner, Manner::Limited(_)) {
            continue;
        }
        for (claim, delivery) in &timeline.deliveries {
            let until = index.leased_until(name, timeline, (claim, delivery), None);
            if claim.done < until {
                let changes = changes.entry(name).or_default();
                changes.extend([(claim.done, 1), (until, -1)]);
            }
        }
    }
    let mut violations = Vec::new();
    for (name, mut changes) in changes {
        let Manner::Limited(most) = subscription(name).manner else {
            continue;
        };
        changes.sort_unstable();
        let mut in_flight = 0;
        for (at, change) in changes {
            in_flight += change;
            if usize::try_from(in_flight).is_ok_and(|in_flight| in_flight > most) {
                violations.push(Violation {
                    promise: "never more in flight than allowed",
                    text: format!("{in_flight} of {most} in flight in {name} at {at} us"),
                    about: About {
                        around: Some((at, at)),
                        ..About::default()
                    },
                });
                break;
            }
        }
    }
    violations
}
