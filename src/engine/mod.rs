//! The engine as every front door uses it. It decides which calls are merged, wakes those who wait for
//! what a call made available, gives back leases that nobody saw, and holds messages to their limits,
//! so that no door has to think of it.

mod group;
mod merged;
pub mod message;
mod publisher;
mod several;
pub mod upkeep;
mod waiting;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::budget::{Budget, Share};
use crate::config::Settings;
use crate::db::browse;
use crate::db::database::Database;
use crate::db::dead_letters::{self, Reprocessed};
use crate::db::jobs::Job;
use crate::db::json::JsonText;
use crate::db::messages::{self, Claim, Delivery, Handle};
use crate::db::publish::{Publication, Published, RequestKey};
use crate::db::seek::{self, Seek};
use crate::db::settlements::{Action, Settled, Settlement};
use crate::db::subscriptions::{self, Subscription};
use crate::db::transactions::{self, Acks, Publishes};
use crate::error::Error;
use merged::{ClaimKey, Merged};
use publisher::Publisher;
pub use waiting::Attendance;
use waiting::{Waiting, Wanted};

/// Of a delivery whose subscription has shown none yet, in bytes.
const FIRST_EXPECTED: usize = 1024 * 1024;

/// Most bytes that one stream is sent at a time, unless one message alone has more.
const STREAM_BYTES: usize = 256 * 1024;

/// Deliveries, and their share of the bytes of answers in flight.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// About how many bytes they have.
    pub bytes: usize,
    /// To be held until they are on their way.
    pub share: Option<Share>,
}

/// Publishing, claiming, settling, and whatever else brings messages to those who wait. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    database: Database,
    waiting: Waiting,
    publisher: Publisher,
    merged: Merged,
    budget: Budget,
    limits: message::Limits,
    max_answer_bytes: usize,
    idempotency_window_seconds: i32,
    /// The size of the larger deliveries of each subscription lately.
    sizes: Cache<String, usize>,
}

impl Engine {
    /// Over a database, as the settings say.
    #[must_use]
    pub fn new(database: &Database, settings: &Settings, budget: Budget) -> Self {
        let max_answer_bytes = settings.api_max_answer_bytes;
        let waiting = Waiting::new(database.clone());
        let publisher = Publisher {
            database: database.clone(),
            waiting: waiting.clone(),
        };
        let default_ack_deadline = settings.cleanup_stuck_messages_lock_timeout_seconds;
        Self {
            merged: Merged::new(database, &publisher, &waiting, default_ack_deadline),
            database: database.clone(),
            waiting,
            publisher,
            budget,
            limits: message::Limits {
                max_bytes: settings.api_max_message_bytes,
            },
            max_answer_bytes,
            idempotency_window_seconds: settings.idempotency_window_seconds,
            sizes: merged::hints(),
        }
    }

    /// The same for streams: what they are sent is of a lane of its own, little at a time.
    #[must_use]
    pub fn for_streams(&self) -> Self {
        Self {
            max_answer_bytes: self.max_answer_bytes.min(STREAM_BYTES),
            ..self.beside(self.budget.for_streams())
        }
    }

    /// The same engine, for what must not take the memory of answers: it has another budget.
    #[must_use]
    pub fn beside(&self, budget: Budget) -> Self {
        Self {
            budget,
            ..self.clone()
        }
    }

    /// Publish all messages, or none; those whose idempotency key was used before, or whose message key
    /// a live one has, are not published again, nor is a whole request under its key.
    ///
    /// # Errors
    /// 404 for an unknown topic; 413 and 422 for what a message must not be, or when the key of the
    /// request was used for another one.
    pub async fn publish(
        &self,
        topic_id: String,
        publication: Publication,
        request: Option<RequestKey>,
    ) -> Result<Published, Error> {
        self.limits.check(&publication)?;
        if request.is_none() && !publication.has_keys() {
            return self.merged.publishes.request(topic_id, publication).await;
        }
        // alone, because it may wait for another call with the same keys
        let window_seconds = self.idempotency_window_seconds;
        self.publisher
            .publish_once(&topic_id, publication, request, window_seconds)
            .await
    }

    /// Lease ready messages to a consumer, or take them, once there is room for about as many bytes as they
    /// will have.
    ///
    /// # Errors
    /// 404 for an unknown subscription, 503 when there is no room.
    pub async fn consume(&self, subscription_id: String, claim: Claim) -> Result<Claimed, Error> {
        let source = subscription_id.clone();
        let batch_size = claim.batch_size;
        let key = ClaimKey::new(subscription_id, &claim, self.max_answer_bytes);
        let request = self.merged.claims.request(key, claim);
        self.with_room(source, batch_size, request).await
    }

    /// Lease ready messages of several subscriptions to a consumer, or take them: of one after the other, in
    /// random order, until there are enough. Each delivery names its subscription.
    ///
    /// # Errors
    /// 404 for an unknown subscription, 503 when there is no room.
    pub async fn consume_from(
        &self,
        subscription_ids: Vec<String>,
        claim: Claim,
    ) -> Result<Claimed, Error> {
        // of any of them: it is a hint
        let source = subscription_ids.first().cloned().unwrap_or_default();
        let batch_size = claim.batch_size;
        let key = ClaimKey::new(subscription_ids, &claim, self.max_answer_bytes);
        let request = self.merged.claims_from.request(key, claim);
        self.with_room(source, batch_size, request).await
    }

    /// Make a claim once there is room for what it will bring, by what the same source brought lately.
    async fn with_room(
        &self,
        source: String,
        batch_size: i32,
        request: impl Future<Output = Result<Vec<Delivery>, Error>>,
    ) -> Result<Claimed, Error> {
        let known = self.sizes.get(&source).await;
        let batch_size = usize::try_from(batch_size).unwrap_or(1);
        let expected = batch_size.saturating_mul(known.unwrap_or(FIRST_EXPECTED));
        let mut share = self
            .budget
            .answer(expected.min(self.max_answer_bytes))
            .await?;
        let deliveries = request.await?;
        let bytes = deliveries.iter().map(Delivery::size).sum();
        share.fit(bytes);
        if let Some(largest) = deliveries.iter().map(Delivery::size).max() {
            // what was larger lately is forgotten little by little
            let size = largest.max(known.map_or(0, |known| known - known / 8));
            if known != Some(size) {
                self.sizes.insert(source, size).await;
            }
        }
        Ok(Claimed {
            deliveries,
            bytes,
            share: Some(share),
        })
    }

    /// Be there for subscriptions until what this returns is dropped, as who pulls is while he waits: meanwhile none
    /// of them expires.
    #[must_use]
    pub fn attend(&self, subscription_ids: Vec<String>) -> Attendance {
        self.waiting.attend(subscription_ids)
    }

    /// Lease ready messages to a consumer, or take them, as soon as there are any, within some time, and as
    /// long as `allowed` says that it still may.
    ///
    /// # Errors
    /// 404 for an unknown subscription; what `allowed` says.
    pub async fn pull<A>(
        &self,
        subscription_id: String,
        claim: Claim,
        wait: Duration,
        allowed: impl Fn() -> A,
    ) -> Result<Claimed, Error>
    where
        A: Future<Output = Result<(), Error>>,
    {
        if wait.is_zero() {
            return self.consume(subscription_id, claim).await;
        }
        let ids = [subscription_id.clone()];
        let wanted = Wanted::new(&ids, &claim, wait);
        let attempt = || self.consume(subscription_id.clone(), claim.clone());
        self.wait_for(wanted, attempt, allowed).await
    }

    /// [`Self::pull`] of several subscriptions, as [`Self::consume_from`] claims of them: the first that has
    /// something ends the wait.
    ///
    /// # Errors
    /// 404 for an unknown subscription; what `allowed` says.
    pub async fn pull_from<A>(
        &self,
        subscription_ids: Vec<String>,
        claim: Claim,
        wait: Duration,
        allowed: impl Fn() -> A,
    ) -> Result<Claimed, Error>
    where
        A: Future<Output = Result<(), Error>>,
    {
        // of none there is nothing to wait for, which the claim refuses
        if wait.is_zero() || subscription_ids.is_empty() {
            return self.consume_from(subscription_ids, claim).await;
        }
        let wanted = Wanted::new(&subscription_ids, &claim, wait);
        let attempt = || self.consume_from(subscription_ids.clone(), claim.clone());
        self.wait_for(wanted, attempt, allowed).await
    }

    async fn wait_for<F, A>(
        &self,
        wanted: Wanted<'_>,
        attempt: impl Fn() -> F,
        allowed: impl Fn() -> A,
    ) -> Result<Claimed, Error>
    where
        F: Future<Output = Result<Claimed, Error>>,
        A: Future<Output = Result<(), Error>>,
    {
        let last = Mutex::new(Claimed::default());
        let claim = || async {
            let mut claimed = attempt().await?;
            let deliveries = std::mem::take(&mut claimed.deliveries);
            *last.lock().unwrap_or_else(PoisonError::into_inner) = claimed;
            Ok(deliveries)
        };
        let deliveries = self.waiting.claim(wanted, claim, allowed).await?;
        Ok(Claimed {
            deliveries,
            ..last.into_inner().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// Settle deliveries for good.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn ack(&self, subscription_id: String, handles: Vec<Handle>) -> Result<(), Error> {
        let messages = handles.len();
        let acks = &self.merged.acks;
        acks.request(subscription_id.clone(), handles).await?;
        self.waiting.announce_room(&subscription_id, messages);
        Ok(())
    }

    /// Give deliveries back for a retry.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn nack(&self, subscription_id: &str, handles: &[Handle]) -> Result<(), Error> {
        messages::nack(&self.database, subscription_id, handles).await?;
        self.waiting.announce_room(subscription_id, handles.len());
        Ok(())
    }

    /// Undo the leases of deliveries, as if they had not been handed out.
    pub async fn give_back(&self, subscription_id: &str, handles: &[Handle]) {
        merged::release(&self.database, &self.waiting, subscription_id, handles).await;
    }

    /// Settle deliveries, each in its own way; the results are in their order.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn settle(
        &self,
        subscription_id: String,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Settled>, Error> {
        let messages = settlements.len();
        let at_once = |settlement: &&Settlement| {
            let action = &settlement.action;
            matches!(action, Action::Nack { seconds: Some(seconds), .. } if *seconds <= 0.0)
        };
        let at_once = settlements.iter().filter(at_once).count();
        let settled = self
            .merged
            .settlements
            .request(subscription_id.clone(), settlements)
            .await?;
        self.waiting.announce_room(&subscription_id, messages);
        if at_once > 0 {
            self.waiting.announce(&subscription_id, at_once);
        }
        Ok(settled)
    }

    /// Ack all and publish all, or nothing; returns the ids of the messages, in their order.
    ///
    /// # Errors
    /// 404 for an unknown subscription or topic, 409 with the positions of stale leases, 413 and 422
    /// for what a message must not be.
    pub async fn apply(&self, acks: &Acks, publishes: &Publishes) -> Result<Vec<Uuid>, Error> {
        for publication in &publishes.publications {
            self.limits.check(publication)?;
        }
        let window_seconds = self.idempotency_window_seconds;
        let applied = transactions::apply(&self.database, acks, publishes, window_seconds).await?;
        for subscription_id in &acks.subscription_ids {
            self.waiting.announce_room(subscription_id, 1);
        }
        let publications = publishes.publications.iter();
        for (topic_id, publication) in publishes.topic_ids.iter().zip(publications) {
            self.waiting
                .announce_topic(topic_id, publication.payloads.len());
        }
        Ok(applied)
    }

    /// Make dead letters available again.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn reprocess(&self, subscription_id: &str, ids: &[Uuid]) -> Result<(), Error> {
        let reprocessed = dead_letters::reprocess(&self.database, subscription_id, ids).await?;
        self.came_back(subscription_id, reprocessed);
        Ok(())
    }

    /// Make all dead letters available again, or those that match a filter.
    ///
    /// # Errors
    /// 404 for an unknown subscription, 422 for a bad filter.
    pub async fn reprocess_matching(
        &self,
        subscription_id: &str,
        filter: Option<&RawValue>,
        limit: Option<i32>,
        per_second: Option<i32>,
    ) -> Result<Reprocessed, Error> {
        let database = &self.database;
        let reprocessed =
            dead_letters::reprocess_matching(database, subscription_id, filter, limit, per_second)
                .await?;
        self.came_back(subscription_id, reprocessed.reprocessed);
        Ok(reprocessed)
    }

    /// Let the ordering keys of parked messages go on; returns how many messages were parked.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn resume(
        &self,
        subscription_id: &str,
        message_ids: &[Uuid],
        action: &str,
    ) -> Result<i64, Error> {
        let resumed =
            dead_letters::resume(&self.database, subscription_id, message_ids, action).await?;
        // what was parked, or what waited for it
        self.came_back(subscription_id, resumed);
        Ok(resumed)
    }

    /// Change what a message of a topic says, in place; no attributes: they stay. Whether there is one.
    ///
    /// # Errors
    /// 404 for an unknown topic; 413 and 422 for what a message must not be.
    pub async fn update(
        &self,
        topic_id: &str,
        message_id: Uuid,
        payload: &JsonText,
        attributes: Option<&JsonText>,
    ) -> Result<bool, Error> {
        self.limits.check_payload(0, payload)?;
        let updated =
            browse::update(&self.database, topic_id, message_id, payload, attributes).await?;
        // claims may have passed it meanwhile
        self.waiting.announce_topic(topic_id, 1);
        Ok(updated)
    }

    /// Take messages from a subscription that it has not settled, held or not; those that were.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn delete(
        &self,
        subscription_id: &str,
        message_ids: &[Uuid],
    ) -> Result<Vec<Uuid>, Error> {
        let deleted = browse::delete(&self.database, subscription_id, message_ids).await?;
        self.waiting.announce_room(subscription_id, deleted.len());
        Ok(deleted)
    }

    /// Drop everything that a subscription has not settled, at once.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn purge(&self, subscription_id: &str) -> Result<(), Error> {
        browse::purge(&self.database, subscription_id).await?;
        // what limits forbade they may allow now
        self.waiting.announce_room(subscription_id, usize::MAX);
        Ok(())
    }

    /// Begin a seek or a replay; the job, which may be done at once.
    ///
    /// # Errors
    /// 404 for an unknown subscription or snapshot, 409 while another job of the subscription runs, 422
    /// for a bad filter.
    pub async fn seek(&self, subscription_id: &str, seek: &Seek) -> Result<Job, Error> {
        let job = seek::begin(&self.database, subscription_id, seek).await?;
        self.waiting.announce(subscription_id, usize::MAX);
        Ok(job)
    }

    /// Change settings of a subscription, given as a JSON object.
    ///
    /// # Errors
    /// 404 when there is none, 422 for a bad value.
    pub async fn update_subscription(
        &self,
        subscription_id: &str,
        changes: &str,
    ) -> Result<Subscription, Error> {
        let updated = subscriptions::update(&self.database, subscription_id, changes).await?;
        // a pause or a limit may have ended
        if !updated.paused {
            self.waiting.announce(subscription_id, usize::MAX);
        }
        Ok(updated)
    }

    fn came_back(&self, subscription_id: &str, messages: i64) {
        let messages = usize::try_from(messages).unwrap_or_default();
        self.waiting.announce(subscription_id, messages);
    }

    /// Somebody may no longer do what they could: those who wait are asked again.
    pub fn recheck_waits(&self) {
        self.waiting.recheck();
    }

    /// Answer those who wait, now: the server ends.
    pub fn end_waits(&self) {
        self.waiting.close();
    }
}
