//! The integration tests: a real Postgres, real sockets. Names are sentences of behaviour.
#![expect(missing_docs, unreachable_pub, reason = "tests have no users")]

mod support;

mod cli;
mod engine;
mod golden;
mod http;
mod layers;
mod schema;
mod sql;
