//! Subscriptions: `create_subscription`, `get_subscription`, `list_subscriptions`,
//! `update_subscription`, `delete_subscription`, `keep_subscriptions`, `expire_subscriptions`,
//! `subscription_metrics`.

use super::database::Database;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sqlx::FromRow;
use sqlx::types::Json;
use utoipa::ToSchema;

use super::push::Push;
use super::{Page, Timestamp};
use crate::error::Error;

/// Of a subscription beside its filter, as it is answered.
const OTHER_BYTES: usize = 1000;

/// A subscription.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Subscription {
    /// Its id.
    #[schema(example = "user-processor")]
    pub id: String,
    /// The topic it receives from.
    #[schema(example = "user-events")]
    pub topic_id: String,
    /// The filter, exactly as it was given; null and {} let every message pass.
    #[schema(required = true, value_type = Option<Object>)]
    pub filter: Option<Json<Box<RawValue>>>,
    /// Deliveries of a message before it is dead-lettered.
    pub max_delivery_attempts: i32,
    /// First wait before a retry.
    // the column of that name is a whole number, for servers of before
    #[sqlx(rename = "exact_backoff_min_seconds")]
    #[serde(serialize_with = "seconds")]
    pub backoff_min_seconds: f64,
    /// Longest wait before a retry.
    #[sqlx(rename = "exact_backoff_max_seconds")]
    #[serde(serialize_with = "seconds")]
    pub backoff_max_seconds: f64,
    /// How the wait grows from retry to retry: `fixed` or `linear`; absent for `exponential`.
    #[serde(skip_serializing_if = "is_exponential")]
    pub backoff_strategy: String,
    /// How long a delivery is leased; absent when the server's default applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ack_deadline_seconds: Option<i32>,
    /// Messages of one ordering key are handed out one after the other; absent when they are not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enable_ordering: bool,
    /// What happens to a key whose message is spent: `park` or `skip`; absent for `dead_letter`.
    #[serde(skip_serializing_if = "is_dead_letter")]
    pub ordering_failure: String,
    /// The attribute whose values share deliveries evenly, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fairness_key: Option<String>,
    /// Most messages that are leased at a time, if limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_in_flight: Option<i32>,
    /// Most messages that one consumer holds at a time, if limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_in_flight_per_consumer: Option<i32>,
    /// Most messages handed out a second, if limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_rate: Option<i32>,
    /// After how long unconsumed messages expire, if all of them do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message_ttl_seconds: Option<i32>,
    /// Expired messages become dead letters; absent when they do not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter_expired: bool,
    /// The topic that spent messages are published to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dead_letter_topic_id: Option<String>,
    /// Nothing is handed out; absent when it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// After how long without anybody who pulls, waits or keeps it, it is deleted, if ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_after_seconds: Option<i32>,
    /// Where its messages are sent to; absent when they wait for consumers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Push)]
    pub push: Option<Json<Push>>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Subscription {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, |json| json.get().len());
        let push = self.push.as_ref().map_or(0, |push| push.size());
        filter + push + OTHER_BYTES
    }
}

/// What a new subscription is made of.
#[derive(Debug)]
pub struct NewSubscription {
    /// Its id.
    pub id: String,
    /// The topic it receives from.
    pub topic_id: String,
    /// Its settings; those left out have their defaults.
    pub settings: NewSettings,
    /// Receive the retained messages published at or after it, too.
    pub start_from: Option<DateTime<Utc>>,
}

/// Settings, as `create_subscription` takes them.
#[derive(Debug, Serialize)]
pub struct NewSettings {
    /// Which messages it receives.
    pub filter: Option<Box<RawValue>>,
    /// The others, by name.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Whole numbers without a fraction, as they were given.
fn seconds<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match seconds.to_string().parse::<i64>() {
        Ok(whole) => serializer.serialize_i64(whole),
        Err(_) => serializer.serialize_f64(*seconds),
    }
}

fn is_exponential(strategy: &str) -> bool {
    strategy == "exponential"
}

fn is_dead_letter(failure: &str) -> bool {
    failure == "dead_letter"
}

/// How many messages a subscription has, by state.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct SubscriptionMetrics {
    /// The subscription.
    pub subscription_id: String,
    /// Can be consumed now.
    pub available: i64,
    /// Leased to a consumer.
    pub delivered: i64,
    /// Acked and still kept.
    pub acked: i64,
    /// Dead letters.
    pub dlq: i64,
    /// Waiting for their time: backoff or delay.
    pub scheduled: i64,
    /// Never acked because their time was over, since the subscription was created.
    pub expired: i64,
    /// Holding their ordering key until an operator acts.
    pub parked: i64,
    /// What happened since the subscription was created.
    #[sqlx(flatten)]
    pub totals: Totals,
}

/// How many messages of a subscription something happened to since it was created, on all servers and
/// from SQL. They never fall.
#[derive(Clone, Copy, Debug, Default, FromRow, Serialize, ToSchema)]
pub struct Totals {
    /// Published into it.
    #[sqlx(rename = "published_total")]
    pub published: i64,
    /// Leased to a consumer.
    #[sqlx(rename = "delivered_total")]
    pub delivered: i64,
    /// Acked.
    #[sqlx(rename = "acked_total")]
    pub acked: i64,
    /// Nacked, those included whose attempts were spent by that.
    #[sqlx(rename = "nacked_total")]
    pub nacked: i64,
    /// Rejected by a consumer.
    #[sqlx(rename = "rejected_total")]
    pub rejected: i64,
    /// Never acked because their time was over.
    #[sqlx(rename = "expired_total")]
    pub expired: i64,
    /// Given up: kept as dead letters, or published to the dead letter topic.
    #[sqlx(rename = "dead_lettered_total")]
    pub dead_lettered: i64,
    /// Those of delivered that had been delivered before.
    #[sqlx(rename = "redelivered_total")]
    pub redelivered: i64,
    /// Leases that were extended.
    #[sqlx(rename = "extended_total")]
    pub extended: i64,
}

impl Totals {
    /// Each with its name.
    #[must_use]
    pub fn named(self) -> [(&'static str, i64); 9] {
        [
            ("published", self.published),
            ("delivered", self.delivered),
            ("acked", self.acked),
            ("nacked", self.nacked),
            ("rejected", self.rejected),
            ("expired", self.expired),
            ("dead_lettered", self.dead_lettered),
            ("redelivered", self.redelivered),
            ("extended", self.extended),
        ]
    }
}

impl SubscriptionMetrics {
    /// How many wait to be consumed, or are being.
    #[must_use]
    pub fn backlog(&self) -> i64 {
        self.available + self.delivered + self.scheduled
    }
}

/// Create a subscription.
///
/// # Errors
/// 409 when the id is taken, 404 for an unknown topic, 422 for a bad value.
pub async fn create(database: &Database, new: &NewSubscription) -> Result<Subscription, Error> {
    // text: the type jsonb, which a Json parameter has, would change the filter that was given
    let settings = serde_json::to_string(&new.settings)
        .map_err(|error| Error::Internal(std::sync::Arc::new(error)))?;
    let query = sqlx::query_as("select * from pubsub.create_subscription($1, $2, $3::json, $4)");
    Ok(query
        .bind(&new.id)
        .bind(&new.topic_id)
        .bind(settings)
        .bind(new.start_from)
        .fetch_one(database)
        .await?)
}

/// Change settings of a subscription, given as a JSON object.
///
/// # Errors
/// 404 when there is none, 422 for a bad value.
pub async fn update(database: &Database, id: &str, changes: &str) -> Result<Subscription, Error> {
    // text, as in create
    let query = sqlx::query_as("select * from pubsub.update_subscription($1, $2::json)");
    Ok(query.bind(id).bind(changes).fetch_one(database).await?)
}

/// One subscription.
///
/// # Errors
/// 404 when there is none.
pub async fn get(database: &Database, id: &str) -> Result<Subscription, Error> {
    let query = sqlx::query_as("select * from pubsub.get_subscription($1)");
    Ok(query.bind(id).fetch_one(database).await?)
}

/// A page of the subscriptions that may be seen, none for all; of one topic or all. It ends early where
/// it would have more bytes.
///
/// # Errors
/// When the database fails.
pub async fn list(
    database: &Database,
    topic_id: Option<&str>,
    page: Page,
    allowed: Option<&[String]>,
    max_bytes: usize,
) -> Result<Vec<Subscription>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.list_subscriptions($1, $2, $3, $4, $5)",
        "1000 + coalesce(octet_length(l.filter::text), 0) + coalesce(octet_length(l.push::text), 0)",
        "$6"
    ));
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(topic_id)
        .bind(allowed)
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}

/// Delete a subscription and its messages.
///
/// # Errors
/// 404 when there is none.
pub async fn delete(database: &Database, id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_subscription($1)")
        .bind(id)
        .execute(database)
        .await?;
    Ok(())
}

/// Be there for subscriptions, so that they do not expire; those that exist.
///
/// # Errors
/// When the database fails.
pub async fn keep(database: &Database, ids: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select pubsub.keep_subscriptions($1)")
        .bind(ids)
        .fetch_all(database)
        .await
}

/// Delete subscriptions that nobody kept for as long as they live without; those it deleted.
///
/// # Errors
/// When the database fails.
pub async fn expire(database: &Database) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select pubsub.expire_subscriptions()")
        .fetch_all(database)
        .await
}

/// Exact counts of one subscription.
///
/// # Errors
/// 404 when there is none.
pub async fn metrics(database: &Database, id: &str) -> Result<SubscriptionMetrics, Error> {
    let query = sqlx::query_as("select * from pubsub.subscription_metrics($1)");
    Ok(query.bind(id).fetch_one(database).await?)
}

/// Exact counts of the first `limit` subscriptions by id, none for all, whose ids begin so.
///
/// # Errors
/// When the database fails.
pub async fn list_metrics(
    database: &Database,
    limit: Option<i32>,
    prefix: &str,
) -> Result<Vec<SubscriptionMetrics>, Error> {
    let query =
        sqlx::query_as("select * from pubsub.list_subscription_metrics($1, p_prefix => $2)");
    Ok(query.bind(limit).bind(prefix).fetch_all(database).await?)
}
