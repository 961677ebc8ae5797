//! What doors of other systems count under those systems' names, by queue.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::metrics::approximate;
use crate::db::subscriptions::SubscriptionMetrics;

/// Most queues of a door that are told apart; the others are counted together.
const MAX_LABELS: usize = 1000;
pub(super) const OTHERS: &str = "other";

/// Those of each door, which is what the names of its counters begin with.
static LABELS: LazyLock<Mutex<HashMap<&str, HashSet<String>>>> = LazyLock::new(Mutex::default);

/// Counters by queue, each with what it counts.
const COUNTERS: [(&str, &str); 8] = [
    (
        "pyqueue_messages_added_total",
        "Messages that were added through the PyQueue door",
    ),
    (
        "pyqueue_messages_received_total",
        "Messages that were received through the PyQueue door",
    ),
    (
        "pyqueue_messages_deleted_total",
        "Messages that were deleted one by one, or by the receive, through the PyQueue door",
    ),
    (
        "broker_messages_published_total",
        "Messages that were published through the Message Broker door",
    ),
    (
        "broker_messages_delivered_total",
        "Deliveries of messages through the Message Broker door",
    ),
    (
        "broker_messages_acked_total",
        "Messages that were acked, or pulled with auto_ack, through the Message Broker door",
    ),
    (
        "broker_messages_nacked_total",
        "Deliveries that were nacked through the Message Broker door",
    ),
    (
        "broker_retries_total",
        "Deliveries through the Message Broker door that were not the first of their message",
    ),
];

/// Sizes of dead-letter queues, by whose they are.
const DEAD_LETTERS: &str = "broker_dlq_size";
/// What begins the ids of the queues that have them.
const QUEUES: &str = "broker/queues/";

/// Show every counter from the start.
pub(super) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(name, text);
        counter!(name, "queue" => OTHERS).absolute(0);
    }
    describe_gauge!(
        DEAD_LETTERS,
        "Messages in the dead-letter queue of a queue or topic of the Message Broker door"
    );
}

/// Show how large the dead-letter queues are, whose names end in `suffix`.
pub(super) fn set_dead_letters(subscriptions: &[SubscriptionMetrics], suffix: &str) {
    // the name is there where no queue is
    gauge!(DEAD_LETTERS, "queue" => OTHERS).set(0.0);
    for counts in subscriptions {
        let name = counts.subscription_id.strip_prefix(QUEUES);
        if let Some(queue) = name.and_then(|name| name.strip_suffix(suffix)) {
            gauge!(DEAD_LETTERS, "queue" => queue.to_owned()).set(approximate(counts.backlog()));
        }
    }
}

/// So many more, of a queue.
pub fn count(name: &'static str, queue: &str, more: usize) {
    if more > 0 {
        let queue = label(name, queue);
        counter!(name, "queue" => queue).increment(u64::try_from(more).unwrap_or_default());
    }
}

/// The queue or topic, unless it is one too many for the door that the name begins with.
pub(super) fn label(name: &'static str, queue: &str) -> String {
    let door = name.split('_').next().unwrap_or_default();
    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    let labels = labels.entry(door).or_default();
    let is_known = labels.contains(queue);
    if !is_known && labels.len() >= MAX_LABELS {
        return OTHERS.to_owned();
    }
    if !is_known {
        labels.insert(queue.to_owned());
    }
    queue.to_owned()
}
