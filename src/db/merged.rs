//! The calls of the hot path, merged where they come at once: publishes to a topic, claims, acks and
//! other settlements of a subscription. Each request is answered as if it had been called alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::database::Database;
use moka::future::Cache;
use tokio::time::Instant;
use uuid::Uuid;

use super::group::{Calls, Group};
use super::messages::{self, Claim, Claimed, Delivery, Handle, Head, Terms};
use super::publish::{Once, Publication, Published, Publisher, RequestKey};
use super::settlements::{self, Action, Settled, Settlement};
use super::transactions;
use super::waiting::Waiting;
use crate::budget::Budget;
use crate::error::Error;

/// A payload of so many bytes weighs as much as a small message.
const BYTES_PER_MESSAGE: usize = 1024;

/// Subscriptions whose head is remembered. It is a hint: a forgotten one costs a scan.
const MAX_HEADS: u64 = 10_000;
const HEAD_KEPT_FOR: Duration = Duration::from_secs(60);

/// Of a delivery whose subscription has shown none yet.
const FIRST_EXPECTED: usize = 1024 * 1024;

/// Publishes, claims, acks and settlements, and those who wait for messages.
#[derive(Clone)]
pub struct Merged {
    pool: Database,
    waiting: Waiting,
    publisher: Publisher,
    publishes: Arc<Group<Publishes>>,
    claims: Arc<Group<Claims>>,
    acks: Arc<Group<Acks>>,
    settlements: Arc<Group<Settlements>>,
    budget: Budget,
    max_answer_bytes: usize,
    /// The size of the larger deliveries of each subscription lately.
    sizes: Cache<String, usize>,
}

impl Merged {
    /// Over the connections of a pool; a subscription without an ack deadline of its own gets the
    /// default; messages that are handed out together have at most so many bytes.
    #[must_use]
    pub fn new(
        pool: &Database,
        default_ack_deadline_seconds: i32,
        max_answer_bytes: usize,
        budget: Budget,
    ) -> Self {
        // one key must not take all connections
        let connections = usize::try_from(pool.pool().options().get_max_connections()).unwrap_or(1);
        let most_running = connections.div_ceil(2);
        let pool = || pool.clone();
        let waiting = Waiting::new(pool());
        let publisher = Publisher {
            pool: pool(),
            waiting: waiting.clone(),
        };
        Self {
            pool: pool(),
            waiting: waiting.clone(),
            publisher: publisher.clone(),
            publishes: Group::new(Publishes { publisher }, most_running),
            claims: Group::new(
                Claims {
                    pool: pool(),
                    waiting,
                    terms: Terms {
                        default_ack_deadline_seconds,
                        max_bytes: i64::try_from(max_answer_bytes).unwrap_or(i64::MAX),
                    },
                    heads: Cache::builder()
                        .max_capacity(MAX_HEADS)
                        .time_to_idle(HEAD_KEPT_FOR)
                        .build(),
                },
                most_running,
            ),
            acks: Group::new(Acks { pool: pool() }, most_running),
            settlements: Group::new(Settlements { pool: pool() }, most_running),
            budget,
            max_answer_bytes,
            sizes: Cache::builder()
                .max_capacity(MAX_HEADS)
                .time_to_idle(HEAD_KEPT_FOR)
                .build(),
        }
    }

    /// Publish all messages, or none.
    ///
    /// # Errors
    /// 404 for an unknown topic; 422 for what a message must not be.
    pub async fn publish(
        &self,
        topic_id: String,
        publication: Publication,
    ) -> Result<Published, Error> {
        self.publishes.request(topic_id, publication).await
    }

    /// Publish what was not published before under its idempotency keys: alone, because it may wait
    /// for another call with the same keys.
    ///
    /// # Errors
    /// As above; 422 when the key of the request was used for another one.
    pub async fn publish_once(
        &self,
        topic_id: &str,
        publication: Publication,
        request: Option<RequestKey>,
        window_seconds: i32,
    ) -> Result<Published, Error> {
        let once = Once {
            request,
            window_seconds,
        };
        let publisher = &self.publisher;
        let answer = publisher
            .publish(topic_id, &[publication], Some(&once))
            .await?;
        Ok(Published {
            message_ids: answer.message_ids.unwrap_or_default(),
            duplicates: answer.duplicates.unwrap_or_default(),
        })
    }

    /// Lease ready messages to a consumer, once there is room for about as many bytes as they will have.
    ///
    /// # Errors
    /// 404 for an unknown subscription, 503 when there is no room.
    pub async fn consume(&self, subscription_id: String, claim: Claim) -> Result<Claimed, Error> {
        let known = self.sizes.get(&subscription_id).await;
        let batch_size = usize::try_from(claim.batch_size).unwrap_or(1);
        let expected = batch_size.saturating_mul(known.unwrap_or(FIRST_EXPECTED));
        let mut share = self
            .budget
            .answer(expected.min(self.max_answer_bytes))
            .await?;
        let key = claim_key(&subscription_id, claim.ack_deadline_seconds);
        let deliveries = self.claims.request(key, claim).await?;
        let bytes = deliveries.iter().map(Delivery::size).sum();
        share.fit(bytes);
        if let Some(largest) = deliveries.iter().map(Delivery::size).max() {
            // what was larger lately is forgotten little by little
            let size = largest.max(known.map_or(0, |known| known - known / 8));
            if known != Some(size) {
                self.sizes.insert(subscription_id, size).await;
            }
        }
        Ok(Claimed {
            deliveries,
            bytes,
            share: Some(share),
        })
    }

    /// Lease ready messages to a consumer, as soon as there are any, within some time, and as long as
    /// `allowed` says that it still may.
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
        let batch_size = usize::try_from(claim.batch_size).unwrap_or(1);
        let last = Mutex::new(Claimed::default());
        let attempt = || async {
            let mut claimed = self.consume(subscription_id.clone(), claim.clone()).await?;
            let deliveries = std::mem::take(&mut claimed.deliveries);
            *last.lock().unwrap_or_else(PoisonError::into_inner) = claimed;
            Ok(deliveries)
        };
        let until = Instant::now() + wait;
        let deliveries = self
            .waiting
            .claim(&subscription_id, batch_size, until, attempt, allowed)
            .await?;
        Ok(Claimed {
            deliveries,
            ..last.into_inner().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// Somebody may no longer do what they could: those who wait are asked again.
    pub fn recheck_waits(&self) {
        self.waiting.recheck();
    }

    /// Answer those who wait, now: the server ends.
    pub fn end_waits(&self) {
        self.waiting.close();
    }

    /// Settle deliveries for good.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn ack(&self, subscription_id: String, handles: Vec<Handle>) -> Result<(), Error> {
        let messages = handles.len();
        self.acks.request(subscription_id.clone(), handles).await?;
        self.waiting.announce_room(&subscription_id, messages);
        Ok(())
    }

    /// Give deliveries back for a retry.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn nack(&self, subscription_id: &str, handles: &[Handle]) -> Result<(), Error> {
        messages::nack(&self.pool, subscription_id, handles).await?;
        self.waiting.announce_room(subscription_id, handles.len());
        Ok(())
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
        let at_once = settlements.iter().filter(|settlement| {
            matches!(
                settlement.action,
                Action::Nack {
                    seconds: Some(0),
                    ..
                }
            )
        });
        let at_once = at_once.count();
        let settled = self
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
    /// 404 for an unknown subscription or topic, 409 with the positions of stale leases, 422 for what
    /// a message must not be.
    pub async fn apply(
        &self,
        acks: &transactions::Acks,
        publishes: &transactions::Publishes,
        idempotency_window_seconds: i32,
    ) -> Result<Vec<Uuid>, Error> {
        let applied =
            transactions::apply(&self.pool, acks, publishes, idempotency_window_seconds).await?;
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

    /// So many messages of a subscription came back.
    pub fn announce(&self, subscription_id: &str, messages: i64) {
        let messages = usize::try_from(messages).unwrap_or_default();
        self.waiting.announce(subscription_id, messages);
    }
}

/// Claims are merged where they ask for one and the same ack deadline.
fn claim_key(subscription_id: &str, ack_deadline_seconds: Option<i32>) -> String {
    match ack_deadline_seconds {
        Some(seconds) => format!("{seconds} {subscription_id}"),
        None => format!(" {subscription_id}"),
    }
}

/// The subscription of such a key.
fn claimed_from(key: &str) -> &str {
    key.split_once(' ')
        .map_or(key, |(_, subscription_id)| subscription_id)
}

struct Publishes {
    publisher: Publisher,
}

impl Calls for Publishes {
    type Request = Publication;
    type Answer = Published;

    fn weight(&self, publication: &Publication) -> usize {
        publication
            .payloads
            .iter()
            .map(|payload| 1 + payload.size() / BYTES_PER_MESSAGE)
            .sum()
    }

    async fn call(
        &self,
        topic_id: &str,
        publications: &[Publication],
    ) -> Result<Vec<Published>, Error> {
        let answer = self.publisher.publish(topic_id, publications, None).await?;
        let mut message_ids = answer.message_ids.unwrap_or_default().into_iter();
        let of = |publication: &Publication| Published {
            message_ids: message_ids
                .by_ref()
                .take(publication.payloads.len())
                .collect(),
            duplicates: Vec::new(),
        };
        Ok(publications.iter().map(of).collect())
    }
}

struct Claims {
    pool: Database,
    waiting: Waiting,
    terms: Terms,
    /// How far each subscription was read by the last call, on whichever connection.
    heads: Cache<String, Head>,
}

impl Calls for Claims {
    type Request = Claim;
    type Answer = Vec<Delivery>;

    fn weight(&self, claim: &Claim) -> usize {
        usize::try_from(claim.batch_size).unwrap_or(1)
    }

    async fn call(&self, key: &str, claims: &[Claim]) -> Result<Vec<Vec<Delivery>>, Error> {
        let subscription_id = claimed_from(key);
        let head = self.heads.get(subscription_id).await;
        let claimed =
            messages::consume(&self.pool, subscription_id, claims, self.terms, head).await?;
        if let Some(head) = claimed.head {
            self.heads.insert(subscription_id.to_owned(), head).await;
        }
        Ok(claimed.deliveries)
    }

    /// The messages go to the next one who asks, not only after their ack deadline.
    async fn undelivered(&self, key: &str, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let subscription_id = claimed_from(key);
        match settlements::release(&self.pool, subscription_id, &deliveries).await {
            Ok(_) => self.waiting.announce(subscription_id, deliveries.len()),
            Err(error) => {
                tracing::warn!(error = %error, "a lease that nobody saw stays until its deadline");
            }
        }
    }
}

struct Acks {
    pool: Database,
}

impl Calls for Acks {
    type Request = Vec<Handle>;
    type Answer = ();

    fn weight(&self, handles: &Vec<Handle>) -> usize {
        handles.len()
    }

    async fn call(
        &self,
        subscription_id: &str,
        requests: &[Vec<Handle>],
    ) -> Result<Vec<()>, Error> {
        let handles = requests.iter().flatten();
        messages::ack(&self.pool, subscription_id, handles).await?;
        Ok(vec![(); requests.len()])
    }
}

struct Settlements {
    pool: Database,
}

impl Calls for Settlements {
    type Request = Vec<Settlement>;
    type Answer = Vec<Settled>;

    fn weight(&self, settlements: &Vec<Settlement>) -> usize {
        settlements.len()
    }

    async fn call(
        &self,
        subscription_id: &str,
        requests: &[Vec<Settlement>],
    ) -> Result<Vec<Vec<Settled>>, Error> {
        let all: Vec<_> = requests.iter().flatten().collect();
        let mut results = settlements::settle(&self.pool, subscription_id, &all)
            .await?
            .into_iter();
        let of_request = |request: &Vec<_>| results.by_ref().take(request.len()).collect();
        Ok(requests.iter().map(of_request).collect())
    }
}
