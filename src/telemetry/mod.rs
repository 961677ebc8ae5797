//! What the service tells about itself: logs, metrics, the database's health.

pub mod doors;
pub mod health;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod proxy;
pub mod push;
pub mod streams;
mod totals;
