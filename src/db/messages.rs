//! Messages: `publish_messages`, `consume_messages_for`, `ack_messages`, `nack_messages`,
//! `list_dlq_messages`, `reprocess_dlq_messages`.

use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use super::json::JsonText;
use super::{Page, Timestamp};
use crate::error::Error;

/// A delivery of a message, or a dead letter.
#[derive(Debug, FromRow)]
pub struct Delivery {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: JsonText,
    /// How often it was delivered.
    pub attempts: i32,
    /// When it was published.
    pub published_at: Timestamp,
    /// The lease that fences this delivery; none for a dead letter.
    #[sqlx(default)]
    pub lease: Option<i64>,
    /// Its attributes, if it has any.
    #[sqlx(default)]
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    #[sqlx(default)]
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    #[sqlx(default)]
    pub priority: Option<i16>,
    /// When the lease ends; never for a dead letter.
    #[sqlx(default)]
    pub ack_deadline: Option<Timestamp>,
}

/// A delivery as a client names it: with its lease, or whichever holds the message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The message.
    pub message_id: Uuid,
    /// The lease it was delivered with.
    pub lease: Option<i64>,
}

/// Who wants how many messages.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who holds the lease.
    pub consumer_id: String,
    /// Most messages to lease.
    pub batch_size: i32,
    /// For how long; none: as long as the subscription says.
    pub ack_deadline_seconds: Option<i32>,
}

/// Publish all payloads, or none.
///
/// # Errors
/// 404 for an unknown topic.
pub(super) async fn publish(
    pool: &PgPool,
    topic_id: &str,
    payloads: Vec<&JsonText>,
) -> Result<(), Error> {
    sqlx::query("select 1 from pubsub.publish_messages($1, $2)")
        .bind(topic_id)
        .bind(payloads)
        .execute(pool)
        .await?;
    Ok(())
}

/// What consumers were handed out.
#[derive(Debug)]
pub(super) struct Claimed {
    /// The deliveries of each, in the order of the claims.
    pub(super) deliveries: Vec<Vec<Delivery>>,
    /// How far the subscription has been read, if anything was found.
    pub(super) head: Option<Uuid>,
}

/// Lease ready messages to consumers, the oldest to the first, for as long as the first one asks;
/// `head` is that of an earlier call.
///
/// # Errors
/// 404 for an unknown subscription.
pub(super) async fn consume(
    pool: &PgPool,
    subscription_id: &str,
    claims: &[Claim],
    default_ack_deadline_seconds: i32,
    head: Option<Uuid>,
) -> Result<Claimed, Error> {
    let (consumer_ids, batch_sizes): (Vec<&str>, Vec<i32>) = claims
        .iter()
        .map(|claim| (claim.consumer_id.as_str(), claim.batch_size))
        .unzip();
    // a claim that a crash undoes is only a redelivery, so its commit need not wait for the disk
    let query = sqlx::query(
        "select c.consumer, c.message_id, c.payload, c.attempts, c.published_at, c.lease, \
         c.head, c.attributes, c.ordering_key, c.priority, c.ack_deadline \
         from (select set_config('synchronous_commit', 'off', true)) fast, \
         pubsub.consume_messages_for($1, $2, $3, $6, $4, $5) c",
    );
    let rows = query
        .bind(subscription_id)
        .bind(consumer_ids)
        .bind(batch_sizes)
        .bind(default_ack_deadline_seconds)
        .bind(head)
        .bind(claims.first().and_then(|claim| claim.ack_deadline_seconds))
        .fetch_all(pool)
        .await?;
    let head = rows.first().map(|row| row.try_get(6)).transpose()?;
    let mut deliveries: Vec<_> = claims.iter().map(|_| Vec::new()).collect();
    for row in rows {
        let consumer = usize::try_from(row.try_get::<i32, _>(0)?).unwrap_or_default();
        if let Some(of_consumer) = deliveries.get_mut(consumer.wrapping_sub(1)) {
            of_consumer.push(Delivery {
                message_id: row.try_get(1)?,
                payload: row.try_get(2)?,
                attempts: row.try_get(3)?,
                published_at: row.try_get(4)?,
                lease: row.try_get(5)?,
                attributes: row.try_get(7)?,
                ordering_key: row.try_get(8)?,
                priority: row.try_get(9)?,
                ack_deadline: row.try_get(10)?,
            });
        }
    }
    Ok(Claimed { deliveries, head })
}

/// Settle deliveries for good; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub(super) async fn ack(
    pool: &PgPool,
    subscription_id: &str,
    handles: impl Iterator<Item = &Handle>,
) -> Result<i64, Error> {
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
pub(super) async fn nack(
    pool: &PgPool,
    subscription_id: &str,
    handles: &[Handle],
) -> Result<i64, Error> {
    let (message_ids, leases) = columns(handles.iter());
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

fn columns<'a>(handles: impl Iterator<Item = &'a Handle>) -> (Vec<Uuid>, Vec<Option<i64>>) {
    handles
        .map(|handle| (handle.message_id, handle.lease))
        .unzip()
}
