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
    per_minute: NonZeroU32,
    checks: AtomicU32,
}

/// A client did too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// After what time it may do that.
    pub wait: Duration,
    /// How much less it may do now.
    pub remaining: u32,
}

impl Rate {
    /// So many a minute, which may come at once; none for any number.
    #[must_use]
    pub fn per_minute(requests: u32) -> Option<Self> {
        let per_minute = NonZeroU32::new(requests)?;
        Some(Self {
            limiter: RateLimiter::hashmap(Quota::per_minute(per_minute)),
            per_minute,
            checks: AtomicU32::new(0),
        })
    }

    /// Count a request, if it may be.
    ///
    /// # Errors
    /// After what time there may be another.
    pub fn check(&self, client: &str) -> Result<(), Duration> {
        let one = NonZeroU32::MIN;
        self.check_many(client, one).map_err(|denied| denied.wait)
    }

    /// How many a minute.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.per_minute.get()
    }

    /// Count so many at once, or none of them.
    ///
    /// # Errors
    /// When that is too much; what is more than a minute's can never be.
    pub fn check_many(&self, client: &str, many: NonZeroU32) -> Result<(), Denied> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let now = DefaultClock::default().now();
        let wait = match self.limiter.check_key_n(&client.to_owned(), many) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(now),
            Err(_) => return Err(self.never()),
        };
        // it waits for what it lacks
        let each = Duration::from_secs(60) / self.limit();
        let lacks = wait.as_nanos().div_ceil(each.as_nanos().max(1));
        let lacks = u32::try_from(lacks).unwrap_or(u32::MAX);
        Err(Denied {
            wait,
            remaining: many.get().saturating_sub(lacks),
        })
    }

    fn never(&self) -> Denied {
        Denied {
            wait: Duration::from_secs(60),
            remaining: self.limit(),
        }
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

    #[test]
    fn many_at_once_count_all_or_not_at_all() {
        let rate = Rate::per_minute(10).unwrap();
        let many = |many| rate.check_many("a", NonZeroU32::new(many).unwrap());

        assert_eq!(many(7), Ok(()));
        let denied = many(5).unwrap_err();
        assert_eq!(denied.remaining, 3);
        assert!(denied.wait > Duration::from_secs(10) && denied.wait <= Duration::from_secs(12));
        assert_eq!(many(3), Ok(()));
        assert_eq!(many(1).unwrap_err().remaining, 0);
        assert!(many(11).is_err());
    }
}
