//! What the service tells about itself: logs, metrics and the line per request.

pub mod health;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod requests;
