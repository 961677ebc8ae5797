//! The integration tests: a real Postgres, real sockets. Names are sentences of behaviour.

mod support;

mod engine;
mod http;
