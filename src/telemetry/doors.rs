//! What doors of other systems count under those systems' names, by queue.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use metrics::{counter, describe_counter};

/// Most queues that are told apart; the others are counted together.
const MAX_LABELS: usize = 1000;
const OTHERS: &str = "other";

static LABELS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Counters by queue, each with what it counts.
const COUNTERS: [(&str, &str); 3] = [
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
];

/// Show every counter from the start.
pub(super) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(name, text);
        counter!(name, "queue" => OTHERS).absolute(0);
    }
}

/// So many more, of a queue.
pub fn count(name: &'static str, queue: &str, more: usize) {
    if more > 0 {
        counter!(name, "queue" => label(queue)).increment(u64::try_from(more).unwrap_or_default());
    }
}

/// The queue, unless it is one too many.
fn label(queue: &str) -> String {
    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_known = labels.contains(queue);
    if !is_known && labels.len() >= MAX_LABELS {
        return OTHERS.to_owned();
    }
    if !is_known {
        labels.insert(queue.to_owned());
    }
    queue.to_owned()
}
