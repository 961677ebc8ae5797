//! Consumers that wait for messages. Each subscription that somebody waits for has a bell; whoever
//! waits longest hears it first and claims. It is rung by what this server does itself (publishes,
//! nacks, ...) and by [`watch`], which sees what others do and when the next retry is due.
//!
//! While nothing has happened since a claim found nothing, others who come to wait do not claim: a
//! thousand consumers that ask again and again cost no statement.

mod places;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::database::Database;
use crate::db::messages::Delivery;
use crate::error::Error;
use places::Places;

/// The consumers that wait, of all subscriptions.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Shared>);

struct Shared {
    database: Database,
    places: Mutex<Places>,
    /// Somebody waits where nobody did.
    arrived: Notify,
    /// Somebody may no longer wait.
    recheck: Notify,
    /// Nobody shall wait any more.
    closing: CancellationToken,
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        // nothing in here panics half way
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub(super) fn new(database: Database) -> Self {
        Self(Arc::new(Shared {
            database,
            places: Mutex::default(),
            arrived: Notify::new(),
            recheck: Notify::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Answer those who wait, now.
    pub(super) fn close(&self) {
        self.0.closing.cancel();
    }

    /// Ask those who wait whether they still may.
    pub(super) fn recheck(&self) {
        self.0.recheck.notify_waiters();
    }

    /// So many messages of a subscription may be there to claim.
    pub(super) fn announce(&self, subscription_id: &str, messages: usize) {
        self.0.places().ring(subscription_id, messages);
    }

    /// Whether somebody waits, or did just now.
    pub(super) fn has_places(&self) -> bool {
        !self.0.places().is_empty()
    }

    /// So many messages were published to a topic.
    pub(super) fn announce_topic(&self, topic_id: &str, messages: usize) {
        self.0.places().ring_topic(topic_id, messages);
    }

    /// So many messages of a subscription were settled, which may make others available.
    pub(super) fn announce_room(&self, subscription_id: &str, messages: usize) {
        self.0.places().ring_for_room(subscription_id, messages);
    }

    /// Claim as soon as there is something, for at most so long; empty when there was nothing. Whoever
    /// has waited is `allowed` to claim, or not any more.
    pub(super) async fn claim<F, A>(
        &self,
        subscription_id: &str,
        batch_size: usize,
        until: Instant,
        claim: impl Fn() -> F,
        allowed: impl Fn() -> A,
    ) -> Result<Vec<Delivery>, Error>
    where
        F: Future<Output = Result<Vec<Delivery>, Error>>,
        A: Future<Output = Result<(), Error>>,
    {
        let waiter = self.enter(subscription_id);
        let mut nothing_new = waiter.nothing_new();
        let mut has_waited = false;
        loop {
            // before the claim: a message that comes after it is heard of
            let mut rung = std::pin::pin!(waiter.bell.notified());
            rung.as_mut().enable();
            let mut recheck = std::pin::pin!(self.0.recheck.notified());
            recheck.as_mut().enable();
            if has_waited && nothing_new {
                allowed().await?;
            }
            if !nothing_new {
                let attempt = waiter.attempt();
                if has_waited {
                    allowed().await?;
                }
                let claimed = claim().await;
                attempt.end(&claimed, batch_size);
                let deliveries = claimed?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            has_waited = true;
            nothing_new = tokio::select! {
                biased;
                () = rung => false,
                () = recheck => true,
                () = tokio::time::sleep_until(until) => break,
                () = self.0.closing.cancelled() => return Ok(Vec::new()),
            };
        }
        allowed().await?;
        Ok(Vec::new())
    }

    fn enter(&self, subscription_id: &str) -> Waiter {
        let entered = self.0.places().enter(subscription_id);
        if entered.is_new {
            self.0.arrived.notify_one();
        }
        if entered.starts_watch {
            tokio::spawn(watch::run(Arc::clone(&self.0)));
        }
        Waiter {
            shared: Arc::clone(&self.0),
            subscription_id: subscription_id.to_owned(),
            bell: entered.bell,
        }
    }
}

/// One who waits.
struct Waiter {
    shared: Arc<Shared>,
    subscription_id: String,
    bell: Arc<Notify>,
}

impl Waiter {
    fn nothing_new(&self) -> bool {
        self.shared.places().nothing_new(&self.subscription_id)
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            waiter: self,
            news: self.shared.places().news(&self.subscription_id),
            ended: false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shared.places().leave(&self.subscription_id);
    }
}

/// A claim under way. When it is dropped, its client is gone: the bell it heard is the next one's.
struct Attempt<'a> {
    waiter: &'a Waiter,
    /// What was known before it.
    news: u64,
    ended: bool,
}

impl Attempt<'_> {
    fn end(mut self, claimed: &Result<Vec<Delivery>, Error>, batch_size: usize) {
        self.ended = true;
        let id = &self.waiter.subscription_id;
        let mut places = self.waiter.shared.places();
        match claimed {
            Ok(deliveries) if deliveries.is_empty() => places.found_nothing(id, self.news),
            // there may be more
            Ok(deliveries) if deliveries.len() >= batch_size => places.ring(id, 1),
            Ok(_) => places.found(id),
            // such as of a deleted subscription: the others are to know it, too
            Err(Error::Refused { .. }) => places.ring(id, 1),
            Err(_) => places.try_later(id),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let id = &self.waiter.subscription_id;
            self.waiter.shared.places().ring(id, 1);
        }
    }
}
