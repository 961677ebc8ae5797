//! fastpubsub: Postgres-native pub/sub. All queue semantics live in the SQL functions of `sql/`;
//! this crate is a thin HTTP, OAuth2 and command-line layer over them.
//!
//! The path of a request: a door of [`doors`] parses it and checks the caller with [`auth`]; the
//! [`engine`], or a function of [`db`] for what only reads, makes exactly one SQL function call; the rows
//! that come back are serialised. The function decides and raises, [`error`] says what went wrong in the
//! words of no door, and the door's envelope puts it into its own.
//!
//! Around it: [`app`] is the state of the service, [`cli`] has one function per subcommand, [`config`]
//! the settings, [`push`] what sends messages to endpoints, [`budget`] the memory of requests, [`postgres`] the private Postgres of the embedded
//! default, [`telemetry`] logs and metrics, [`shutdown`] the stop signal, [`descriptors`] their limit.

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
pub mod push;
pub mod shutdown;
pub mod telemetry;
