//! Subscriptions: `create_subscription`, `get_subscription`, `list_subscriptions`,
//! `delete_subscription`, `subscription_metrics`.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;

use super::{Page, Timestamp};
use crate::error::Error;

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
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Json<Box<RawValue>>>,
    /// Deliveries of a message before it is dead-lettered.
    pub max_delivery_attempts: i32,
    /// First wait before a retry.
    pub backoff_min_seconds: i32,
    /// Longest wait before a retry.
    pub backoff_max_seconds: i32,
    /// How long a delivery is leased; absent when the server's default applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_deadline_seconds: Option<i32>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a new subscription is made of.
#[derive(Debug)]
pub struct NewSubscription {
    /// Its id.
    pub id: String,
    /// The topic it receives from.
    pub topic_id: String,
    /// Which messages it receives.
    pub filter: Option<Box<RawValue>>,
    /// Deliveries of a message before it is dead-lettered.
    pub max_delivery_attempts: i32,
    /// First wait before a retry.
    pub backoff_min_seconds: i32,
    /// Longest wait before a retry.
    pub backoff_max_seconds: i32,
    /// How long a delivery is leased; the default if none.
    pub ack_deadline_seconds: Option<i32>,
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
    /// Waiting for their time: backoff or delay; or parked.
    pub scheduled: i64,
    /// Never acked because their time was over, since the subscription was created.
    pub expired: i64,
}

/// Create a subscription.
///
/// # Errors
/// 409 when the id is taken, 404 for an unknown topic, 422 for a bad value.
pub async fn create(pool: &PgPool, new: &NewSubscription) -> Result<Subscription, Error> {
    let query = sqlx::query_as(
        "select * from pubsub.create_subscription($1, $2, $3::json, $4, $5, $6, $7)",
    );
    Ok(query
        .bind(&new.id)
        .bind(&new.topic_id)
        // text: the type jsonb, which a Json parameter has, would change what was given
        .bind(new.filter.as_deref().map(RawValue::get))
        .bind(new.max_delivery_attempts)
        .bind(new.backoff_min_seconds)
        .bind(new.backoff_max_seconds)
        .bind(new.ack_deadline_seconds)
        .fetch_one(pool)
        .await?)
}

/// One subscription.
///
/// # Errors
/// 404 when there is none.
pub async fn get(pool: &PgPool, id: &str) -> Result<Subscription, Error> {
    let query = sqlx::query_as("select * from pubsub.get_subscription($1)");
    Ok(query.bind(id).fetch_one(pool).await?)
}

/// A page of subscriptions.
///
/// # Errors
/// When the database fails.
pub async fn list(pool: &PgPool, page: Page) -> Result<Vec<Subscription>, Error> {
    let query = sqlx::query_as("select * from pubsub.list_subscriptions($1, $2)");
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .fetch_all(pool)
        .await?)
}

/// Delete a subscription and its messages.
///
/// # Errors
/// 404 when there is none.
pub async fn delete(pool: &PgPool, id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_subscription($1)")
        .bind(id)
        .execute(pool)
        .await?;
    Ok(())
}

/// Exact counts of one subscription.
///
/// # Errors
/// 404 when there is none.
pub async fn metrics(pool: &PgPool, id: &str) -> Result<SubscriptionMetrics, Error> {
    let query = sqlx::query_as("select * from pubsub.subscription_metrics($1)");
    Ok(query.bind(id).fetch_one(pool).await?)
}

/// Exact counts of the first `limit` subscriptions by id.
///
/// # Errors
/// When the database fails.
pub async fn list_metrics(pool: &PgPool, limit: i32) -> Result<Vec<SubscriptionMetrics>, Error> {
    let query = sqlx::query_as("select * from pubsub.list_subscription_metrics($1)");
    Ok(query.bind(limit).fetch_all(pool).await?)
}
