//! fastpubsub: Postgres-native pub/sub. All queue semantics live in the SQL functions of `sql/`;
//! this crate is a thin HTTP, OAuth2 and command-line layer over them.
//!
//! The path of a request: [`http`] parses it and [`auth`] checks the caller, a function of [`db`]
//! makes exactly one SQL function call, the rows that come back are serialised. The function decides
//! and raises; [`error`] is the only place that turns a failure into a status.
//!
//! Around it: [`cli`] has one function per subcommand, [`config`] the settings, [`budget`] the memory of requests, [`given`] what refusals show of them,
//! [`postgres`] the private Postgres of the embedded default, [`telemetry`] logs and
//! metrics, [`shutdown`] the stop signal, [`descriptors`] their limit.

pub mod app;
pub mod auth;
pub mod budget;
pub mod cli;
pub mod config;
pub mod db;
pub mod descriptors;
pub mod doors;
pub mod engine;
pub mod error;
pub mod postgres;
pub mod shutdown;
pub mod telemetry;
