//! The calls of the hot path, merged where they come at once: publishes to a topic, claims and acks
//! of a subscription. Each request is answered as if it had been called alone.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sqlx::PgPool;

use super::group::{Calls, Group};
use super::json::JsonText;
use super::messages::{self, Claim, Delivery, Handle, Head};
use crate::error::Error;

/// A payload of so many bytes weighs as much as a small message.
const BYTES_PER_MESSAGE: usize = 1024;

/// Subscriptions whose head is remembered. It is a hint: a forgotten one costs a scan.
const MAX_HEADS: u64 = 10_000;
const HEAD_KEPT_FOR: Duration = Duration::from_secs(60);

/// Publishes, claims and acks.
#[derive(Clone)]
pub struct Merged {
    publishes: Arc<Group<Publishes>>,
    claims: Arc<Group<Claims>>,
    acks: Arc<Group<Acks>>,
}

impl Merged {
    /// Over the connections of a pool; a subscription without an ack deadline of its own gets the
    /// default.
    #[must_use]
    pub fn new(pool: &PgPool, default_ack_deadline_seconds: i32) -> Self {
        // one key must not take all connections
        let connections = usize::try_from(pool.options().get_max_connections()).unwrap_or(1);
        let most_running = connections.div_ceil(2);
        let pool = || pool.clone();
        Self {
            publishes: Group::new(Publishes { pool: pool() }, most_running),
            claims: Group::new(
                Claims {
                    pool: pool(),
                    default_ack_deadline_seconds,
                    heads: Cache::builder()
                        .max_capacity(MAX_HEADS)
                        .time_to_idle(HEAD_KEPT_FOR)
                        .build(),
                },
                most_running,
            ),
            acks: Group::new(Acks { pool: pool() }, most_running),
        }
    }

    /// Publish all payloads, or none.
    ///
    /// # Errors
    /// 404 for an unknown topic.
    pub async fn publish(&self, topic_id: String, payloads: Vec<JsonText>) -> Result<(), Error> {
        self.publishes.request(topic_id, payloads).await
    }

    /// Lease ready messages to a consumer.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn consume(
        &self,
        subscription_id: String,
        claim: Claim,
    ) -> Result<Vec<Delivery>, Error> {
        self.claims.request(subscription_id, claim).await
    }

    /// Settle deliveries for good.
    ///
    /// # Errors
    /// 404 for an unknown subscription.
    pub async fn ack(&self, subscription_id: String, handles: Vec<Handle>) -> Result<(), Error> {
        self.acks.request(subscription_id, handles).await
    }
}

struct Publishes {
    pool: PgPool,
}

impl Calls for Publishes {
    type Request = Vec<JsonText>;
    type Answer = ();

    fn weight(&self, payloads: &Vec<JsonText>) -> usize {
        payloads
            .iter()
            .map(|payload| 1 + payload.size() / BYTES_PER_MESSAGE)
            .sum()
    }

    async fn call(&self, topic_id: &str, requests: &[Self::Request]) -> Result<Vec<()>, Error> {
        let payloads = requests.iter().flatten().collect();
        messages::publish(&self.pool, topic_id, payloads).await?;
        Ok(vec![(); requests.len()])
    }
}

struct Claims {
    pool: PgPool,
    default_ack_deadline_seconds: i32,
    /// How far each subscription was read by the last call, on whichever connection.
    heads: Cache<String, Head>,
}

impl Calls for Claims {
    type Request = Claim;
    type Answer = Vec<Delivery>;

    fn weight(&self, claim: &Claim) -> usize {
        usize::try_from(claim.batch_size).unwrap_or(1)
    }

    async fn call(
        &self,
        subscription_id: &str,
        claims: &[Claim],
    ) -> Result<Vec<Vec<Delivery>>, Error> {
        let head = self.heads.get(subscription_id).await;
        let default = self.default_ack_deadline_seconds;
        let claimed = messages::consume(&self.pool, subscription_id, claims, default, head).await?;
        if let Some(head) = claimed.head {
            self.heads.insert(subscription_id.to_owned(), head).await;
        }
        Ok(claimed.deliveries)
    }
}

struct Acks {
    pool: PgPool,
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
