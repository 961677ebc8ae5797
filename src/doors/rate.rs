//! How many requests a client may make. Each server counts for itself.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Checks after which clients that have been quiet are forgotten.
const FORGET_EVERY: u32 = 1000;

/// Requests of clients, by what tells them apart.
#[derive(Debug)]
pub struct Rate {
    limiter: RateLimiter<String, HashMapStateStore<String>, DefaultClock>,
    checks: AtomicU32,
}

impl Rate {
    /// So many a minute, which may come at once; none for any number.
    #[must_use]
    pub fn per_minute(requests: u32) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(requests)?);
        Some(Self {
            limiter: RateLimiter::hashmap(quota),
            checks: AtomicU32::new(0),
        })
    }

    /// Count a request, if it may be.
    ///
    /// # Errors
    /// After what time there may be another.
    pub fn check(&self, client: &str) -> Result<(), Duration> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let checked = self.limiter.check_key(&client.to_owned());
        checked.map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asked_often_has_to_wait_and_others_have_not() {
        let rate = Rate::per_minute(2).unwrap();

        assert_eq!(rate.check("a"), Ok(()));
        assert_eq!(rate.check("a"), Ok(()));

        let wait = rate.check("a").unwrap_err();
        assert!(
            wait > Duration::from_secs(20) && wait <= Duration::from_secs(30),
            "{wait:?}"
        );
        assert_eq!(rate.check("b"), Ok(()));
        assert!(Rate::per_minute(0).is_none());
    }
}
