//! Whether an endpoint is worth trying, as this server knows it.

use std::time::Duration;

use tokio::time::Instant;

use super::endpoints::Listed;
use crate::db::push::Pause;

/// From so many failures in a row on an endpoint is paused, or is on trial after a pause.
const FAILURES: i32 = 5;

/// What to do about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Push.
    Open,
    /// Leave it alone for so long.
    Paused(Duration),
    /// Its pause is over: one push decides.
    Due,
    /// Leave it alone until somebody sets it again.
    Stopped,
}

/// The failures of an endpoint, and what follows from them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    failures: i32,
    pause: Option<Pause>,
    known_at: Instant,
}

impl Health {
    pub(super) fn of(listed: &Listed) -> Self {
        Self {
            failures: listed.endpoint.failures,
            pause: listed.endpoint.pause,
            known_at: listed.at,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.pause {
            Some(Pause::Stopped) => Phase::Stopped,
            Some(Pause::Until(until)) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    Phase::Due
                } else {
                    Phase::Paused(left)
                }
            }
            None if self.failures >= FAILURES => Phase::Due,
            None => Phase::Open,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// The result of a push was noted, which made this of the pause.
    pub(super) fn noted(&mut self, is_success: bool, pause: Option<Pause>) {
        self.failures = match (is_success, pause) {
            (true, _) => 0,
            (false, None) => self.failures.saturating_add(1).min(FAILURES - 1),
            (false, Some(_)) => FAILURES.max(self.failures),
        };
        self.pause = pause;
        self.known_at = Instant::now();
    }

    /// What is known from elsewhere, if that is newer.
    pub(super) fn learn(&mut self, other: Self) {
        if self.known_at < other.known_at {
            *self = other;
        }
    }
}
