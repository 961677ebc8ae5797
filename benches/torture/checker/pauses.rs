//! Pauses: from the answer of one until its end is asked for, nothing is handed out. That everything arrives
//! afterwards, the books tell of any subscription.

use std::collections::HashMap;

use super::super::history::{Call, History, Micros, Outcome, What};
use super::super::story::About;
use super::Violation;
use super::index::{may_linger, over_by};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut asked: HashMap<&'static str, Vec<(&Call, bool)>> = HashMap::new();
    for event in &history.events {
        if let What::Pause {
            subscription,
            paused,
        } = &event.what
        {
            asked
                .entry(subscription)
                .or_default()
                .push((&event.call, *paused));
        }
    }
    let pauses: HashMap<_, _> = asked
        .iter()
        .map(|(name, calls)| (*name, surely(calls)))
        .collect();
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
        let (Some(pauses), Some(first)) = (pauses.get(subscription), deliveries.first()) else {
            continue;
        };
        let call = &event.call;
        let pause = pauses
            .iter()
            .find(|(from, until)| call.sent >= *from && call.done <= *until);
        if let Some((from, until)) = pause {
            violations.push(Violation {
                promise: "a pause holds back",
                text: format!(
                    "{} handed out in {subscription}, paused from {from} to {until} us",
                    deliveries.len()
                ),
                about: About {
                    subscription: Some(subscription),
                    id: Some(first.id),
                    number: first.number,
                    around: None,
                },
            });
        }
    }
    violations
}

/// When it surely was paused.
fn surely(calls: &[(&Call, bool)]) -> Vec<(Micros, Micros)> {
    let mut pauses = Vec::new();
    for (place, (pause, paused)) in calls.iter().enumerate() {
        if !paused || pause.outcome != Outcome::Done {
            continue;
        }
        let ends = |(_, paused): &&(&Call, bool)| !paused;
        // one of before that nobody waits for may end it
        let (before, after) = calls.split_at(place);
        let mut lingering = before.iter().filter(ends);
        if lingering.any(|(end, _)| may_linger(end) && over_by(end) >= pause.sent) {
            continue;
        }
        let until = after
            .iter()
            .find(ends)
            .map_or(Micros::MAX, |(end, _)| end.sent);
        pauses.push((pause.done, until));
    }
    pauses
}
