//! Publishing: `publish_messages_for`.

use super::database::Database;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::json::JsonText;
use crate::error::Error;

/// What a message has beside its payload. Times are given as such or in seconds.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Strings by name.
    pub attributes: Option<JsonText>,
    /// Messages with the same one are delivered in order, where a subscription asks for it.
    pub ordering_key: Option<String>,
    /// 0 to 9; the higher ones are delivered first.
    pub priority: Option<i16>,
    /// When it becomes available.
    pub deliver_at: Option<DateTime<Utc>>,
    /// How long until it becomes available.
    pub delay_seconds: Option<f64>,
    /// When it is over.
    pub expires_at: Option<DateTime<Utc>>,
    /// How long it is available.
    pub ttl_seconds: Option<f64>,
    /// Under which it is published once.
    pub idempotency_key: Option<String>,
    /// Under which it is not published while another one is live.
    pub message_key: Option<String>,
}

impl Extras {
    /// Whether the message has nothing but its payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(
            self,
            Self {
                attributes: None,
                ordering_key: None,
                priority: None,
                deliver_at: None,
                delay_seconds: None,
                expires_at: None,
                ttl_seconds: None,
                idempotency_key: None,
                message_key: None,
            }
        )
    }
}

/// The key under which a whole request is published once.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// What the client chose.
    pub key: String,
    /// Tells another request under the same key.
    pub fingerprint: String,
}

/// Messages that are published together.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// The payloads.
    pub payloads: Vec<JsonText>,
    /// What each has beside its payload; empty when none has anything.
    pub extras: Vec<Extras>,
    /// Whether the answer is to have the ids.
    pub wants_ids: bool,
    /// Whether the answer is to tell which subscriptions got any.
    pub wants_subscriptions: bool,
}

impl Publication {
    /// Whether a message may be one that was published already.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.extras
            .iter()
            .any(|extras| extras.idempotency_key.is_some() || extras.message_key.is_some())
    }

    /// Each message's extras, if it has any.
    fn each(&self) -> impl Iterator<Item = Option<&Extras>> {
        (0..self.payloads.len()).map(|position| self.extras.get(position))
    }
}

/// What came of a publish.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The messages, in order; empty when nobody wants to know.
    pub message_ids: Vec<Uuid>,
    /// Which of them were published before; empty when none was.
    pub duplicates: Vec<bool>,
    /// The subscriptions that got any of the call; none when nobody wants to know.
    pub subscription_ids: Option<Vec<String>>,
}

impl Published {
    /// Whether a subscription that takes every message has got those that were published, now or before.
    #[must_use]
    pub fn has_reached(&self, subscription_id: &str) -> bool {
        let mut reached = self.subscription_ids.iter().flatten();
        self.duplicates.contains(&true) || reached.any(|id| id == subscription_id)
    }
}

/// What came of a call.
#[derive(Debug, FromRow)]
pub(crate) struct Answer {
    /// The messages of all publications, one after the other.
    pub(crate) message_ids: Option<Vec<Uuid>>,
    /// Which of them were published before; none if none was.
    pub(crate) duplicates: Option<Vec<bool>>,
    /// Who got any; none if nobody wants to know.
    pub(crate) subscription_ids: Option<Vec<String>>,
}

/// How keys are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once {
    pub(crate) request: Option<RequestKey>,
    pub(crate) window_seconds: i32,
}

/// Publish all messages of all publications, or none.
///
/// # Errors
/// 404 for an unknown topic; 422 for what a message must not be.
pub(crate) async fn publish(
    database: &Database,
    topic_id: &str,
    publications: &[Publication],
    once: Option<&Once>,
    tells_subscriptions: bool,
) -> Result<Answer, Error> {
    let payloads: Vec<&JsonText> = publications
        .iter()
        .flat_map(|publication| &publication.payloads)
        .collect();
    let wants_ids = publications.iter().any(|publication| publication.wants_ids);
    let plain = publications
        .iter()
        .all(|publication| publication.extras.is_empty());
    if plain && once.is_none() {
        let query = sqlx::query(
            "select case when $3 then p.message_ids end, p.subscription_ids \
             from pubsub.publish_messages_for($1, $2, p_tell_subscriptions => $4) p",
        );
        let row = query
            .bind(topic_id)
            .bind(payloads)
            .bind(wants_ids)
            .bind(tells_subscriptions)
            .fetch_one(database)
            .await?;
        return Ok(Answer {
            message_ids: row.try_get(0)?,
            duplicates: None,
            subscription_ids: row.try_get(1)?,
        });
    }
    // seconds count by the database's clock, like everything else
    let query = sqlx::query_as(
        "select p.message_ids, p.duplicates, p.subscription_ids \
         from pubsub.message_times($4, $5) d (times), \
             pubsub.message_times($6, $7, d.times) e (times), \
             pubsub.publish_messages_for($1, $2, $3, d.times, e.times, $8, $9, $10, $11, $12, \
                 $13, $14, $15) p",
    );
    let request = once.and_then(|once| once.request.as_ref());
    Ok(query
        .bind(topic_id)
        .bind(payloads)
        .bind(column(publications, |extras| extras.attributes.as_ref()))
        .bind(column(publications, |extras| extras.deliver_at))
        .bind(column(publications, |extras| extras.delay_seconds))
        .bind(column(publications, |extras| extras.expires_at))
        .bind(column(publications, |extras| extras.ttl_seconds))
        .bind(column(publications, |extras| {
            extras.ordering_key.as_deref()
        }))
        .bind(column(publications, |extras| extras.priority))
        .bind(column(publications, |extras| {
            extras.idempotency_key.as_deref()
        }))
        .bind(request.map(|request| &request.key))
        .bind(request.map(|request| &request.fingerprint))
        .bind(once.map(|once| once.window_seconds))
        .bind(tells_subscriptions)
        .bind(column(publications, |extras| extras.message_key.as_deref()))
        .fetch_one(database)
        .await?)
}

/// The transactions that publish now: they may not see a subscription that was made meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn open(database: &Database) -> Result<Vec<String>, Error> {
    let query = sqlx::query_scalar(
        "select l.virtualtransaction from pg_catalog.pg_locks l \
         where l.relation = 'pubsub_data.messages'::pg_catalog.regclass \
             and l.mode = 'RowExclusiveLock' and l.database = (select d.oid \
                 from pg_catalog.pg_database d \
                 where d.datname = pg_catalog.current_database())",
    );
    Ok(query.fetch_all(database).await?)
}

/// One thing of all messages, in order; none when no message has it.
pub(super) fn column<'a, T>(
    publications: &'a [Publication],
    of: impl Fn(&'a Extras) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let values: Vec<Option<T>> = publications
        .iter()
        .flat_map(Publication::each)
        .map(|extras| extras.and_then(&of))
        .collect();
    values.iter().any(Option::is_some).then_some(values)
}
