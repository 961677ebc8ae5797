//! Deliveries: nothing invented, nothing changed, nothing that a filter keeps out, one id a message.

use std::collections::HashMap;

use uuid::Uuid;

use super::super::history::{History, What};
use super::super::story::About;
use super::super::world::{digest, revised, subscription};
use super::Violation;
use super::index::Index;

pub(super) fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut ids: HashMap<u64, Uuid> = HashMap::new();
    for event in &history.events {
        let What::Consume {
            subscription: name,
            deliveries,
            ..
        } = &event.what
        else {
            continue;
        };
        let subscription = subscription(name);
        for delivery in deliveries {
            let mut violate = |promise, text: String| {
                let about = About {
                    subscription: Some(name),
                    id: Some(delivery.id),
                    number: delivery.number,
                    around: None,
                };
                violations.push(Violation {
                    promise,
                    text,
                    about,
                });
            };
            let published = delivery
                .number
                .and_then(|number| Some((number, index.publish_of(number)?)));
            let Some((number, publish)) = published else {
                violate("nothing invented", "nobody published it".to_owned());
                continue;
            };
            let sent = revised(history.seed, number, delivery.revision);
            if digest(&sent) != delivery.digest {
                violate("payload intact", "its payload was changed".to_owned());
            }
            if !publish.call.outcome.may_have_happened() {
                let outcome = publish.call.outcome;
                violate("nothing invented", format!("its publish ended {outcome:?}"));
            }
            let belongs =
                publish.topic == subscription.topic && subscription.receives(history.seed, number);
            if !belongs {
                violate("filters", format!("{name} must not receive it"));
            }
            if delivery.attempts > subscription.max_delivery_attempts || delivery.attempts == 0 {
                let text = format!("delivery {} is not to be", delivery.attempts);
                violate("at most max attempts", text);
            }
            let id = *ids.entry(number).or_insert(delivery.id);
            if id != delivery.id {
                violate("stored once", format!("the same message is also {id}"));
            }
        }
    }
    violations
}
