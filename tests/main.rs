//! The integration tests: a real Postgres, real sockets. Names are sentences of behaviour.
#![expect(missing_docs, unreachable_pub, reason = "tests have no users")]

mod support;

mod cli;
mod docs;
mod engine;
mod golden;
mod http;
mod layers;
mod maintenance;
mod schema;
mod sql;
