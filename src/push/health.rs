//! Whether an endpoint is worth trying, as this server knows it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::endpoints::Listed;
use crate::db::push::PushEndpoint;

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
    paused_until: Option<DateTime<Utc>>,
    noted_at: Option<Instant>,
}

impl Health {
    pub(super) fn of(endpoint: &PushEndpoint) -> Self {
        Self {
            failures: endpoint.failures,
            paused_until: endpoint.paused_until.map(|until| until.0),
            noted_at: None,
        }
    }

    pub(super) fn phase(&self, now: DateTime<Utc>) -> Phase {
        match self.paused_until {
            Some(until) if until > now + chrono::Duration::days(3650) => Phase::Stopped,
            Some(until) => match (until - now).to_std() {
                Ok(left) if !left.is_zero() => Phase::Paused(left),
                _ => Phase::Due,
            },
            None if self.failures >= FAILURES => Phase::Due,
            None => Phase::Open,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// The result of a push was noted, which made this of the pause.
    pub(super) fn noted(&mut self, is_success: bool, paused_until: Option<DateTime<Utc>>) {
        self.failures = match (is_success, paused_until) {
            (true, _) => 0,
            (false, None) => self.failures.saturating_add(1).min(FAILURES - 1),
            (false, Some(_)) => FAILURES.max(self.failures),
        };
        self.paused_until = paused_until;
        self.noted_at = Some(Instant::now());
    }

    /// It was listed like this, unless something was noted since.
    pub(super) fn listed(&mut self, listed: &Listed) {
        if self.noted_at.is_none_or(|noted_at| noted_at < listed.at) {
            *self = Self {
                noted_at: self.noted_at,
                ..Self::of(&listed.endpoint)
            };
        }
    }
}
