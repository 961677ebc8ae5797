//! The one clock of a run.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::history::Micros;

#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(self) -> Micros {
        Micros::try_from(self.0.elapsed().as_micros()).unwrap()
    }

    /// When a time of day is.
    pub fn of(self, time: DateTime<Utc>) -> Micros {
        let ahead = time.signed_duration_since(Utc::now());
        let ahead = ahead.num_microseconds().unwrap_or_default();
        self.now().saturating_add_signed(ahead)
    }
}
