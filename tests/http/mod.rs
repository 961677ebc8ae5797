//! The HTTP surface, over real sockets; mirrors `src/doors/native`.

mod clients;
mod messages;
mod monitoring;
mod oauth;
mod robustness;
mod streams;
pub mod subscriptions;
mod topics;
mod unknown;
