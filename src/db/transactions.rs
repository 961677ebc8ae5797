//! Acks and publishes in one step: `apply_transaction`.

use sqlx::PgPool;
use uuid::Uuid;

use super::json::JsonText;
use crate::error::Error;

/// Deliveries to ack: an element of each list per delivery.
#[derive(Debug, Default)]
pub struct Acks {
    /// Their subscriptions.
    pub subscription_ids: Vec<String>,
    /// Their messages.
    pub message_ids: Vec<Uuid>,
    /// Their leases.
    pub leases: Vec<i64>,
}

/// Messages to publish: an element of each list per message.
#[derive(Debug, Default)]
pub struct Messages {
    /// Their topics.
    pub topic_ids: Vec<String>,
    /// What is published.
    pub payloads: Vec<JsonText>,
    /// Their attributes.
    pub attributes: Vec<Option<JsonText>>,
}

/// Ack all and publish all, or nothing; returns the ids of the messages, in their order.
///
/// # Errors
/// 404 for an unknown subscription or topic, 409 with the positions of stale leases.
pub async fn apply(pool: &PgPool, acks: &Acks, messages: &Messages) -> Result<Vec<Uuid>, Error> {
    let query = sqlx::query_scalar(
        "select t.message_id from pubsub.apply_transaction($1, $2, $3, $4, $5, $6) t",
    );
    Ok(query
        .bind(&acks.subscription_ids)
        .bind(&acks.message_ids)
        .bind(&acks.leases)
        .bind(&messages.topic_ids)
        .bind(&messages.payloads)
        .bind(&messages.attributes)
        .fetch_all(pool)
        .await?)
}
