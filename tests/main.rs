//! The integration tests: a real Postgres, real sockets. Names are sentences of behaviour.
#![expect(unreachable_pub, reason = "tests have no users")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking"
)]

mod support;

mod broker;
mod cli;
mod clock;
mod docs;
mod doors;
mod engine;
mod golden;
mod grants;
mod health;
mod hostile;
mod http;
mod layers;
mod maintenance;
mod poolers;
mod pulsar;
mod push;
mod pyqueue;
mod schema;
mod sql;
mod torture;
mod upgrade;
