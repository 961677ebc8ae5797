//! The streams that are open.

use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{describe_gauge, gauge};

/// Open streams, by kind.
const STREAMS: &str = "pubsub_open_streams";

/// How many of a kind are open. A gauge of the recorder would be forgotten while none comes or goes.
#[derive(Debug)]
pub struct Kind {
    name: &'static str,
    open: AtomicU32,
}

/// Server-Sent Events.
pub static EVENTS: Kind = Kind {
    name: "sse",
    open: AtomicU32::new(0),
};

/// WebSockets.
pub static SOCKETS: Kind = Kind {
    name: "websocket",
    open: AtomicU32::new(0),
};

/// A stream, until it ends.
#[derive(Debug)]
pub struct Open(&'static Kind);

/// One begins.
#[must_use]
pub fn open(kind: &'static Kind) -> Open {
    kind.open.fetch_add(1, Ordering::Relaxed);
    Open(kind)
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn describe() {
    describe_gauge!(STREAMS, "Streams of messages that are open, by kind");
}

pub(super) fn set_gauges() {
    for kind in [&EVENTS, &SOCKETS] {
        gauge!(STREAMS, "kind" => kind.name).set(kind.open.load(Ordering::Relaxed));
    }
}
