//! Consumers that wait for messages. Each subscription that somebody waits for has a bell; whoever
//! waits longest hears it first and claims. It is rung by what this server does itself (publishes,
//! nacks, ...) and by [`watch`], which sees what others do and when the next retry is due.
//!
//! While nothing has happened since a claim found nothing, others who come to wait do not claim: a
//! thousand consumers that ask again and again cost no statement.

mod places;
mod watch;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::database::Database;
use crate::db::messages::{Claim, Delivery};
use crate::error::Error;
use places::{Entered, Places};

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

    /// Be there for subscriptions, so that they do not expire, until what this returns is dropped.
    pub(super) fn attend(&self, subscription_ids: Vec<String>) -> Attendance {
        for id in &subscription_ids {
            let entered = self.0.places().attend(id);
            self.note(&entered);
        }
        Attendance {
            shared: Arc::clone(&self.0),
            subscription_ids,
        }
    }

    /// Claim as soon as there is something; empty when there was nothing in time. Whoever has waited is
    /// `allowed` to claim, or not any more.
    pub(super) async fn claim<F, A>(
        &self,
        wanted: Wanted<'_>,
        claim: impl Fn() -> F,
        allowed: impl Fn() -> A,
    ) -> Result<Vec<Delivery>, Error>
    where
        F: Future<Output = Result<Vec<Delivery>, Error>>,
        A: Future<Output = Result<(), Error>>,
    {
        let ids = wanted.subscription_ids.iter();
        let waiters: Vec<_> = ids.map(|id| self.enter(id, wanted.is_choosy)).collect();
        let mut nothing_new = waiters.iter().all(Waiter::nothing_new);
        let mut has_waited = false;
        loop {
            // before the claim: a message that comes after it is heard of
            let mut rung: Vec<_> = waiters.iter().map(Waiter::listen).collect();
            let mut recheck = std::pin::pin!(self.0.recheck.notified());
            recheck.as_mut().enable();
            if has_waited && nothing_new {
                allowed().await?;
            }
            if !nothing_new {
                let attempts: Vec<_> = waiters.iter().map(Waiter::attempt).collect();
                if has_waited {
                    allowed().await?;
                }
                let claimed = claim().await;
                for attempt in attempts {
                    attempt.end(&claimed, &wanted);
                }
                let deliveries = claimed?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            has_waited = true;
            nothing_new = tokio::select! {
                biased;
                _ = select_all(rung.iter_mut()) => false,
                () = recheck => true,
                () = tokio::time::sleep_until(wanted.until) => break,
                () = self.0.closing.cancelled() => return Ok(Vec::new()),
            };
        }
        allowed().await?;
        Ok(Vec::new())
    }

    fn enter(&self, subscription_id: &str, is_choosy: bool) -> Waiter {
        let entered = self.0.places().enter(subscription_id, is_choosy);
        self.note(&entered);
        Waiter {
            shared: Arc::clone(&self.0),
            subscription_id: subscription_id.to_owned(),
            bell: entered.bell,
            is_choosy,
        }
    }

    /// Watch from now on, if nobody did.
    fn note(&self, entered: &Entered) {
        if entered.is_new {
            self.0.arrived.notify_one();
        }
        if entered.starts_watch {
            tokio::spawn(watch::run(Arc::clone(&self.0)));
        }
    }
}

/// A consumer that is there for subscriptions: while it lives, they do not expire.
pub struct Attendance {
    shared: Arc<Shared>,
    subscription_ids: Vec<String>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut places = self.shared.places();
        for id in &self.subscription_ids {
            places.depart(id);
        }
    }
}

/// What somebody waits for.
pub(super) struct Wanted<'a> {
    /// Of which subscriptions.
    subscription_ids: &'a [String],
    /// How many messages, at most.
    batch_size: usize,
    /// Not whatever is ready.
    is_choosy: bool,
    /// Until when.
    until: Instant,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(subscription_ids: &'a [String], claim: &Claim, wait: Duration) -> Self {
        Self {
            subscription_ids,
            batch_size: usize::try_from(claim.batch_size).unwrap_or(1),
            is_choosy: claim.only.is_some(),
            until: Instant::now() + wait,
        }
    }
}

/// One who waits for a subscription.
struct Waiter {
    shared: Arc<Shared>,
    subscription_id: String,
    bell: Arc<Notify>,
    is_choosy: bool,
}

impl Waiter {
    fn nothing_new(&self) -> bool {
        self.shared.places().nothing_new(&self.subscription_id)
    }

    /// Hear the bell from now on.
    fn listen(&self) -> Pin<Box<Notified<'_>>> {
        let mut rung = Box::pin(self.bell.notified());
        rung.as_mut().enable();
        rung
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
        let mut places = self.shared.places();
        places.leave(&self.subscription_id, self.is_choosy);
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
    fn end(mut self, claimed: &Result<Vec<Delivery>, Error>, wanted: &Wanted<'_>) {
        self.ended = true;
        let id = &self.waiter.subscription_id;
        let mut places = self.waiter.shared.places();
        match claimed {
            // there may be more, also where the others left nothing to ask it for
            Ok(deliveries) if !deliveries.is_empty() && deliveries.len() >= wanted.batch_size => {
                places.ring(id, 1);
            }
            Ok(deliveries) if deliveries.iter().any(|delivery| delivery.is_of(id)) => {
                places.found(id);
            }
            Ok(_) => places.found_nothing(id, self.news, self.waiter.is_choosy),
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
