//! What the Pulsar Proxy door counts under the proxy's own names, by topic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::doors::{OTHERS, label};

const RECEIVED: &str = "proxy_messages_received_total";
const DELIVERED: &str = "proxy_messages_delivered_total";
pub(super) const LATENCY: &str = "proxy_message_latency_seconds";
const ACTIVE: &str = "proxy_websocket_connections_active";
const CONNECTIONS: &str = "proxy_websocket_connections_total";
const DISCONNECTIONS: &str = "proxy_websocket_disconnections_total";
const ACKS: &str = "proxy_acks_total";
const COUNT: &str = "proxy_topic_message_count";
const ERRORS: &str = "proxy_errors_total";

/// WebSockets that are open.
static OPEN: AtomicU64 = AtomicU64::new(0);
/// Messages that the hub of this process took, by topic: gauges that nobody touches are forgotten.
static TAKEN: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

/// How a message is delivered.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// As a frame of a WebSocket.
    WebSocket,
    /// As the answer to a poll.
    LongPoll,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPoll => "long_poll",
        }
    }
}

/// Show every name from the start.
pub(super) fn describe() {
    describe_counter!(
        RECEIVED,
        "Messages that were accepted by the Pulsar Proxy door"
    );
    counter!(RECEIVED, "topic" => OTHERS).absolute(0);
    describe_counter!(
        DELIVERED,
        "Messages that were sent to a client of the Pulsar Proxy door"
    );
    for how in [Delivery::WebSocket, Delivery::LongPoll] {
        counter!(DELIVERED, "topic" => OTHERS, "delivery_type" => how.name()).absolute(0);
    }
    describe_histogram!(
        LATENCY,
        "Time from the acceptance of a message to its last send by this process, in seconds"
    );
    let _registered = histogram!(LATENCY, "topic" => OTHERS);
    describe_gauge!(ACTIVE, "WebSockets of the Pulsar Proxy door that are open");
    describe_counter!(
        CONNECTIONS,
        "WebSockets of the Pulsar Proxy door that were opened"
    );
    describe_counter!(
        DISCONNECTIONS,
        "WebSockets of the Pulsar Proxy door that ended"
    );
    describe_counter!(ACKS, "Acks that clients of the Pulsar Proxy door sent");
    for name in [CONNECTIONS, DISCONNECTIONS, ACKS] {
        counter!(name).absolute(0);
    }
    describe_gauge!(
        COUNT,
        "Messages of a topic that passed through this process to clients"
    );
    describe_counter!(ERRORS, "What clients of the Pulsar Proxy door were refused");
    counter!(ERRORS, "type" => "websocket", "code" => "PROCESSING_ERROR").absolute(0);
}

/// Show the gauges as they are.
pub(super) fn refresh() {
    gauge!(ACTIVE).set(approximate(OPEN.load(Ordering::Relaxed)));
    gauge!(COUNT, "topic" => OTHERS).set(0.0);
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for (topic, count) in taken.iter() {
        gauge!(COUNT, "topic" => topic.clone()).set(approximate(*count));
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a gauge is a float"
)]
fn approximate(count: u64) -> f64 {
    count as f64
}

/// A message was accepted.
pub fn received(topic: &str) {
    counter!(RECEIVED, "topic" => label(RECEIVED, topic)).increment(1);
}

/// The hub of this process took a message.
pub fn taken(topic: &str) {
    let topic = label(COUNT, topic);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    *taken.entry(topic).or_default() += 1;
}

/// Counts deliveries of a topic.
pub fn delivered(topic: &str, how: Delivery) -> Counter {
    counter!(DELIVERED, "topic" => label(DELIVERED, topic), "delivery_type" => how.name())
}

/// Records how long messages of a topic took.
pub fn latency(topic: &str) -> Histogram {
    histogram!(LATENCY, "topic" => label(LATENCY, topic))
}

/// A client acked.
pub fn acked() {
    counter!(ACKS).increment(1);
}

/// A client was told of an error: over HTTP or on a WebSocket.
pub fn error(over: &'static str, code: &str) {
    counter!(ERRORS, "type" => over, "code" => code.to_owned()).increment(1);
}

/// A WebSocket that is open, and counted so.
#[derive(Debug)]
pub struct Open(());

impl Open {
    /// It was opened, as one of at most so many; none where it is one too many.
    #[must_use]
    pub fn new(most: usize) -> Option<Self> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let one_more = |open: u64| (open < most).then_some(open + 1);
        let counted = OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.ok()?;
        counter!(CONNECTIONS).increment(1);
        Some(Self(()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        counter!(DISCONNECTIONS).increment(1);
    }
}
