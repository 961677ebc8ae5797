//! What is pushed to endpoints, in metrics.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Pushes, by how they ended.
const DELIVERIES: &str = "fastpubsub_push_deliveries_total";
/// Time of a push.
pub(super) const DURATION: &str = "fastpubsub_push_duration_seconds";
/// Endpoints that are left alone.
const PAUSED: &str = "fastpubsub_push_paused_endpoints";

pub(super) fn describe() {
    describe_counter!(DELIVERIES, "Messages pushed to endpoints, by how it ended");
    describe_histogram!(DURATION, "Time of a push to an endpoint, in seconds");
    describe_gauge!(
        PAUSED,
        "Endpoints that are paused or stopped after failures"
    );
}

/// A push ended like this.
pub fn count(outcome: &'static str, took: Duration) {
    counter!(DELIVERIES, "outcome" => outcome).increment(1);
    histogram!(DURATION).record(took);
}

/// So many endpoints are left alone.
pub fn set_paused(endpoints: usize) {
    gauge!(PAUSED).set(u32::try_from(endpoints).unwrap_or(u32::MAX));
}
