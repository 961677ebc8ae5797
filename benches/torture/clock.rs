//! The one clock of a run.

use std::time::Instant;

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
}
