//! The calls that are merged where they come at once: publishes to a topic, claims, acks and other
//! settlements of a subscription.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::group::{Calls, Group};
use super::publisher::Publisher;
use super::several::ClaimsFrom;
use super::waiting::Waiting;
use crate::db::database::Database;
use crate::db::messages::{self, Claim, Delivery, Handle, Head, Only, Terms};
use crate::db::publish::{Publication, Published};
use crate::db::settlements::{self, Settled, Settlement};
use crate::error::Error;

/// A payload of so many bytes weighs as much as a small message.
const BYTES_PER_MESSAGE: usize = 1024;

/// Subscriptions of which something is remembered. It is a hint: a forgotten one costs a scan.
pub(super) const MAX_HINTS: u64 = 10_000;
pub(super) const HINT_KEPT_FOR: Duration = Duration::from_secs(60);

/// The groups of calls; cheap to clone.
#[derive(Clone)]
pub(super) struct Merged {
    pub(super) publishes: Arc<Group<Publishes>>,
    pub(super) claims: Arc<Group<Claims>>,
    pub(super) claims_from: Arc<Group<ClaimsFrom>>,
    pub(super) acks: Arc<Group<Acks>>,
    pub(super) settlements: Arc<Group<Settlements>>,
}

impl Merged {
    pub(super) fn new(
        database: &Database,
        publisher: &Publisher,
        waiting: &Waiting,
        default_ack_deadline_seconds: i32,
    ) -> Self {
        // one key must not take all connections
        let connections = database.pool().options().get_max_connections();
        let most_running = usize::try_from(connections).unwrap_or(1).div_ceil(2);
        let database = || database.clone();
        let claims = Claims {
            database: database(),
            waiting: waiting.clone(),
            default_ack_deadline_seconds,
            heads: hints(),
        };
        let claims_from = ClaimsFrom {
            database: database(),
            waiting: waiting.clone(),
            default_ack_deadline_seconds,
        };
        let publisher = publisher.clone();
        Self {
            publishes: Group::new(Publishes { publisher }, most_running),
            claims: Group::new(claims, most_running),
            claims_from: Group::new(claims_from, most_running),
            acks: Group::new(
                Acks {
                    database: database(),
                },
                most_running,
            ),
            settlements: Group::new(
                Settlements {
                    database: database(),
                },
                most_running,
            ),
        }
    }
}

/// Something that is remembered of each subscription.
pub(super) fn hints<T: Clone + Send + Sync + 'static>() -> Cache<String, T> {
    Cache::builder()
        .max_capacity(MAX_HINTS)
        .time_to_idle(HINT_KEPT_FOR)
        .build()
}

/// Claims are merged where they ask for one and the same, but for who they are and how much they want.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ClaimKey<S = String> {
    pub(super) source: S,
    pub(super) ack_deadline_seconds: Option<i32>,
    pub(super) only: Option<Only>,
    pub(super) auto_ack: bool,
    /// Most bytes of the messages of one call, unless one message alone has more.
    max_bytes: i64,
}

impl<S> ClaimKey<S> {
    pub(super) fn new(source: S, claim: &Claim, max_bytes: usize) -> Self {
        Self {
            source,
            ack_deadline_seconds: claim.ack_deadline_seconds,
            only: claim.only,
            auto_ack: claim.auto_ack,
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        }
    }

    /// What holds for the claims.
    pub(super) fn terms(&self, default_ack_deadline_seconds: i32) -> Terms {
        Terms {
            default_ack_deadline_seconds,
            max_bytes: self.max_bytes,
        }
    }
}

pub(super) struct Publishes {
    publisher: Publisher,
}

impl Calls for Publishes {
    type Key = String;
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
        topic_id: &String,
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
            subscription_ids: publication
                .wants_subscriptions
                .then(|| answer.subscription_ids.clone())
                .flatten(),
        };
        Ok(publications.iter().map(of).collect())
    }
}

pub(super) struct Claims {
    database: Database,
    waiting: Waiting,
    default_ack_deadline_seconds: i32,
    /// How far each subscription was read by the last call, on whichever connection.
    heads: Cache<String, Head>,
}

impl Calls for Claims {
    type Key = ClaimKey;
    type Request = Claim;
    type Answer = Vec<Delivery>;

    fn weight(&self, claim: &Claim) -> usize {
        usize::try_from(claim.batch_size).unwrap_or(1)
    }

    async fn call(&self, key: &ClaimKey, claims: &[Claim]) -> Result<Vec<Vec<Delivery>>, Error> {
        let subscription_id = &key.source;
        let head = self.heads.get(subscription_id).await;
        let terms = key.terms(self.default_ack_deadline_seconds);
        let claimed =
            messages::consume(&self.database, subscription_id, claims, terms, head).await?;
        if key.auto_ack {
            let acked = claimed.deliveries.iter().map(Vec::len).sum();
            self.waiting.announce_room(subscription_id, acked);
        }
        if let Some(head) = claimed.head {
            self.heads.insert(subscription_id.clone(), head).await;
        }
        Ok(claimed.deliveries)
    }

    async fn undelivered(&self, key: &ClaimKey, deliveries: Vec<Delivery>) {
        give_back(&self.database, &self.waiting, &key.source, &deliveries).await;
    }
}

/// The messages go to the next one who asks, not only after their ack deadline; but those that were acked
/// already are gone.
pub(super) async fn give_back(
    database: &Database,
    waiting: &Waiting,
    subscription_id: &str,
    deliveries: &[Delivery],
) {
    if deliveries.is_empty() {
        return;
    }
    if deliveries.iter().any(|delivery| delivery.lease.is_none()) {
        tracing::warn!(
            subscription.id = %subscription_id,
            messages = deliveries.len(),
            "messages were acked for a client that is gone"
        );
        return;
    }
    let handles: Vec<Handle> = deliveries.iter().map(Delivery::handle).collect();
    release(database, waiting, subscription_id, &handles).await;
}

/// The next one who asks gets these.
pub(super) async fn release(
    database: &Database,
    waiting: &Waiting,
    subscription_id: &str,
    deliveries: &[Handle],
) {
    match settlements::release(database, subscription_id, deliveries).await {
        Ok(_) => waiting.announce(subscription_id, deliveries.len()),
        Err(error) => {
            tracing::warn!(error = %error, "a lease that nobody saw stays until its deadline");
        }
    }
}

pub(super) struct Acks {
    database: Database,
}

impl Calls for Acks {
    type Key = String;
    type Request = Vec<Handle>;
    type Answer = ();

    fn weight(&self, handles: &Vec<Handle>) -> usize {
        handles.len()
    }

    async fn call(
        &self,
        subscription_id: &String,
        requests: &[Vec<Handle>],
    ) -> Result<Vec<()>, Error> {
        let handles = requests.iter().flatten();
        messages::ack(&self.database, subscription_id, handles).await?;
        Ok(vec![(); requests.len()])
    }
}

pub(super) struct Settlements {
    database: Database,
}

impl Calls for Settlements {
    type Key = String;
    type Request = Vec<Settlement>;
    type Answer = Vec<Settled>;

    fn weight(&self, settlements: &Vec<Settlement>) -> usize {
        settlements.len()
    }

    async fn call(
        &self,
        subscription_id: &String,
        requests: &[Vec<Settlement>],
    ) -> Result<Vec<Vec<Settled>>, Error> {
        let all: Vec<_> = requests.iter().flatten().collect();
        let mut results = settlements::settle(&self.database, subscription_id, &all)
            .await?
            .into_iter();
        let of_request = |request: &Vec<_>| results.by_ref().take(request.len()).collect();
        Ok(requests.iter().map(of_request).collect())
    }
}
