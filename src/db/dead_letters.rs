//! Messages that a subscription gave up: `list_dlq_messages`, `reprocess_dlq_messages`,
//! `reprocess_matching_dlq_messages`, `purge_dlq_messages`, `list_parked_messages`, `resume_messages`.

use super::database::Database;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::json::JsonText;
use super::{Page, Timestamp};
use crate::error::Error;

/// So many dead letters a call of `purge_dlq_messages` deletes, unless there are fewer.
const PURGED_AT_ONCE: i64 = 10_000;

/// Of a message beside its payload, attributes and deliveries, as it is answered.
const OTHER_BYTES: usize = 1000;
/// Of a failed delivery beside its texts.
const DELIVERY_BYTES: usize = 200;

/// A dead letter.
#[derive(Debug, FromRow)]
pub struct DeadLetter {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: JsonText,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    pub priority: Option<i16>,
    /// When it was published.
    pub published_at: Timestamp,
    /// How often it was delivered.
    pub attempts: i32,
    /// Why it is a dead letter.
    pub reason: String,
    /// What the consumer said of the last attempt.
    pub last_error: Option<String>,
    /// Since when it is a dead letter.
    pub dead_at: Timestamp,
    /// The deliveries that failed.
    pub deliveries: Json<Vec<FailedDelivery>>,
}

impl DeadLetter {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, JsonText::size);
        let deliveries = self.deliveries.iter().map(FailedDelivery::size);
        self.payload.size() + attributes + deliveries.sum::<usize>() + OTHER_BYTES
    }
}

/// A delivery that did not end in an ack.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct FailedDelivery {
    /// Which delivery it was; the first is 1.
    attempt: i32,
    /// Who had it; absent when nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    consumer_id: Option<String>,
    /// When it began; absent when it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    delivered_at: Option<Timestamp>,
    /// When it ended.
    ended_at: Timestamp,
    /// How it ended: nacked, rejected, expired, `consumer_lost`, parked or skipped.
    #[schema(example = "nacked")]
    outcome: String,
    /// What the consumer said, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

impl FailedDelivery {
    fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        text(&self.consumer_id) + text(&self.reason) + DELIVERY_BYTES
    }
}

/// A message that holds its ordering key until an operator acts.
#[derive(Debug, FromRow)]
pub struct ParkedMessage {
    /// The message.
    pub message_id: Uuid,
    /// Its payload; none when someone removed it by hand.
    pub payload: Option<JsonText>,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// The key that it holds.
    pub ordering_key: String,
    /// When it was published.
    pub published_at: Option<Timestamp>,
    /// How often it was delivered.
    pub attempts: i32,
    /// Who had it last, while that is remembered.
    pub consumer_id: Option<String>,
    /// What the consumer said of the last attempt.
    pub last_error: Option<String>,
    /// Since when it is parked, while that is remembered.
    pub parked_at: Option<Timestamp>,
    /// How many messages of its key wait for it.
    pub behind: i64,
}

impl ParkedMessage {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let json = |text: &Option<JsonText>| text.as_ref().map_or(0, JsonText::size);
        json(&self.payload) + json(&self.attributes) + OTHER_BYTES
    }
}

/// How many dead letters came back, and how many more would.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Reprocessed {
    /// How many are available again, or will be at their time.
    pub reprocessed: i64,
    /// How many dead letters that match are left.
    pub remaining: i64,
}

/// A page of dead letters, which ends early where it would have more bytes.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn list(
    database: &Database,
    subscription_id: &str,
    page: Page<Uuid>,
    max_bytes: usize,
) -> Result<Vec<DeadLetter>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.list_dlq_messages($1, $2, $3, $4)",
        "1000 + octet_length(l.payload::text) + octet_length(l.deliveries::text) \
            + coalesce(octet_length(l.attributes::text), 0)",
        "$5"
    ));
    Ok(query
        .bind(subscription_id)
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}

/// Make the dead letters with these ids available again; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn reprocess(
    database: &Database,
    subscription_id: &str,
    message_ids: &[Uuid],
) -> Result<i64, Error> {
    Ok(
        sqlx::query_scalar("select pubsub.reprocess_dlq_messages($1, $2)")
            .bind(subscription_id)
            .bind(message_ids)
            .fetch_one(database)
            .await?,
    )
}

/// Make dead letters available again, the oldest first: all, or those that match a filter; at once,
/// or so many a second.
///
/// # Errors
/// 404 for an unknown subscription, 422 for a bad filter.
pub async fn reprocess_matching(
    database: &Database,
    subscription_id: &str,
    filter: Option<&RawValue>,
    limit: Option<i32>,
    per_second: Option<i32>,
) -> Result<Reprocessed, Error> {
    let query = sqlx::query_as(
        "select * from pubsub.reprocess_matching_dlq_messages($1, $2::json, $3, $4)",
    );
    Ok(query
        .bind(subscription_id)
        .bind(filter.map(RawValue::get))
        .bind(limit)
        .bind(per_second)
        .fetch_one(database)
        .await?)
}

/// Delete all dead letters, batch by batch; returns how many.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn purge(database: &Database, subscription_id: &str) -> Result<i64, Error> {
    let mut total = 0;
    loop {
        let purged: i64 = sqlx::query_scalar("select pubsub.purge_dlq_messages($1)")
            .bind(subscription_id)
            .fetch_one(database)
            .await?;
        total += purged;
        if purged < PURGED_AT_ONCE {
            return Ok(total);
        }
    }
}

/// A page of parked messages.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn list_parked(
    database: &Database,
    subscription_id: &str,
    page: Page<Uuid>,
    max_bytes: usize,
) -> Result<Vec<ParkedMessage>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.list_parked_messages($1, $2, $3, $4)",
        "1000 + coalesce(octet_length(l.payload::text), 0) \
            + coalesce(octet_length(l.attributes::text), 0)",
        "$5"
    ));
    Ok(query
        .bind(subscription_id)
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}

/// Let the keys of parked messages go on; returns how many messages were parked.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn resume(
    database: &Database,
    subscription_id: &str,
    message_ids: &[Uuid],
    action: &str,
) -> Result<i64, Error> {
    Ok(
        sqlx::query_scalar("select pubsub.resume_messages($1, $2, $3)")
            .bind(subscription_id)
            .bind(message_ids)
            .bind(action)
            .fetch_one(database)
            .await?,
    )
}
