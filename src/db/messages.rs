//! Messages: `publish_messages`, `consume_messages`, `ack_messages`, `nack_messages`,
//! `list_dlq_messages`, `reprocess_dlq_messages`.

use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::{Page, Timestamp};
use crate::error::Error;

/// A delivery of a message, or a dead letter.
#[derive(Debug, FromRow)]
pub struct Delivery {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: Json<Box<RawValue>>,
    /// How often it was delivered.
    pub attempts: i32,
    /// When it was published.
    pub published_at: Timestamp,
    /// The lease that fences this delivery; none for a dead letter.
    #[sqlx(default)]
    pub lease: Option<i64>,
}

/// A delivery as a client names it: with its lease, or whichever holds the message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The message.
    pub message_id: Uuid,
    /// The lease it was delivered with.
    pub lease: Option<i64>,
}

/// How a claim is leased.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who holds the lease.
    pub consumer_id: &'a str,
    /// Most messages to lease.
    pub batch_size: i32,
    /// The ack deadline of subscriptions without one of their own.
    pub default_ack_deadline_seconds: i32,
}

/// Publish all payloads, or none.
///
/// # Errors
/// 404 for an unknown topic.
pub async fn publish(pool: &PgPool, topic_id: &str, payloads: &[&RawValue]) -> Result<(), Error> {
    let payloads: Vec<Json<&RawValue>> = payloads.iter().map(|payload| Json(*payload)).collect();
    sqlx::query("select 1 from pubsub.publish_messages($1, $2)")
        .bind(topic_id)
        .bind(payloads)
        .execute(pool)
        .await?;
    Ok(())
}

/// Lease ready messages to a consumer.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn consume(
    pool: &PgPool,
    subscription_id: &str,
    claim: Claim<'_>,
) -> Result<Vec<Delivery>, Error> {
    let query = sqlx::query_as(
        "select message_id, payload, attempts, published_at, lease \
         from pubsub.consume_messages($1, $2, $3, null, $4)",
    );
    Ok(query
        .bind(subscription_id)
        .bind(claim.consumer_id)
        .bind(claim.batch_size)
        .bind(claim.default_ack_deadline_seconds)
        .fetch_all(pool)
        .await?)
}

/// Settle deliveries for good; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn ack(pool: &PgPool, subscription_id: &str, handles: &[Handle]) -> Result<i64, Error> {
    let (message_ids, leases) = columns(handles);
    Ok(sqlx::query_scalar("select pubsub.ack_messages($1, $2, $3)")
        .bind(subscription_id)
        .bind(message_ids)
        .bind(leases)
        .fetch_one(pool)
        .await?)
}

/// Give deliveries back for a retry; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn nack(pool: &PgPool, subscription_id: &str, handles: &[Handle]) -> Result<i64, Error> {
    let (message_ids, leases) = columns(handles);
    Ok(
        sqlx::query_scalar("select pubsub.nack_messages($1, $2, $3)")
            .bind(subscription_id)
            .bind(message_ids)
            .bind(leases)
            .fetch_one(pool)
            .await?,
    )
}

/// A page of dead letters.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn list_dlq(
    pool: &PgPool,
    subscription_id: &str,
    page: Page,
) -> Result<Vec<Delivery>, Error> {
    let query = sqlx::query_as(
        "select message_id, payload, attempts, published_at \
         from pubsub.list_dlq_messages($1, $2, $3)",
    );
    Ok(query
        .bind(subscription_id)
        .bind(page.offset)
        .bind(page.limit)
        .fetch_all(pool)
        .await?)
}

/// Make dead letters available again; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn reprocess_dlq(
    pool: &PgPool,
    subscription_id: &str,
    message_ids: &[Uuid],
) -> Result<i64, Error> {
    Ok(
        sqlx::query_scalar("select pubsub.reprocess_dlq_messages($1, $2)")
            .bind(subscription_id)
            .bind(message_ids)
            .fetch_one(pool)
            .await?,
    )
}

fn columns(handles: &[Handle]) -> (Vec<Uuid>, Vec<Option<i64>>) {
    handles
        .iter()
        .map(|handle| (handle.message_id, handle.lease))
        .unzip()
}
