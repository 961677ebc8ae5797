//! Messages on their way to consumers, and what becomes of them.

pub mod browse;
pub mod consume;
pub mod dead_letters;
pub mod handles;
pub mod parked;
pub mod pull;
pub mod settle;
pub mod timeline;
pub mod transactions;
