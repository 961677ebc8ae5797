//! Looking at what a subscription has not settled, and changing it: `browse_messages`, `update_message`,
//! `delete_messages`, `purge_subscription`.

use sqlx::FromRow;
use uuid::Uuid;

use super::Timestamp;
use super::database::Database;
use super::json::JsonText;
use crate::error::Error;

/// Of a message beside its payload and attributes, as it is answered.
const OTHER_BYTES: usize = 1000;

/// Which messages to look at.
#[derive(Clone, Copy, Debug)]
pub struct Browse<'a> {
    /// available, delivered, scheduled, parked or expired; none for any.
    pub state: Option<&'a str>,
    /// Only those after it.
    pub after: Option<Uuid>,
    /// How many to skip.
    pub offset: i32,
    /// Most of them, up to 1000.
    pub limit: i32,
    /// Only these; none for all.
    pub message_ids: Option<&'a [Uuid]>,
    /// End before the one with which they had more bytes, but for the first.
    pub max_bytes: usize,
}

/// A message that is not settled.
#[derive(Debug, FromRow)]
pub struct Browsed {
    /// The message.
    pub message_id: Uuid,
    /// Its payload; none when someone removed it by hand.
    pub payload: Option<JsonText>,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    pub priority: Option<i16>,
    /// How often it was delivered.
    pub attempts: i32,
    /// When it was published.
    pub published_at: Timestamp,
    /// available, delivered, scheduled, parked or expired.
    pub state: String,
    /// Who holds it.
    pub consumer_id: Option<String>,
    /// When its lease ends.
    pub ack_deadline: Option<Timestamp>,
    /// When its backoff or delay ends.
    pub available_at: Option<Timestamp>,
    /// The number of its lease.
    pub lease: Option<i64>,
}

impl Browsed {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let json = |text: &Option<JsonText>| text.as_ref().map_or(0, JsonText::size);
        json(&self.payload) + json(&self.attributes) + OTHER_BYTES
    }
}

/// Messages that a subscription has not settled, the oldest first; leases none.
///
/// # Errors
/// 404 for an unknown subscription, 422 for a state that there is not.
pub async fn browse(
    database: &Database,
    subscription_id: &str,
    browse: &Browse<'_>,
) -> Result<Vec<Browsed>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.browse_messages($1, $2, $3, $4, $5, $6)",
        "1000 + coalesce(octet_length(l.payload::text), 0) \
            + coalesce(octet_length(l.attributes::text), 0)",
        "$7"
    ));
    Ok(query
        .bind(subscription_id)
        .bind(browse.state)
        .bind(browse.after)
        .bind(browse.limit)
        .bind(browse.offset)
        .bind(browse.message_ids)
        .bind(i64::try_from(browse.max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}

/// Those of some messages that are leased, each with its lease.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn leases(
    database: &Database,
    subscription_id: &str,
    message_ids: &[Uuid],
) -> Result<Vec<(Uuid, Option<i64>)>, Error> {
    let query = sqlx::query_as(
        "select b.message_id, b.lease from pubsub.browse_messages($1, 'delivered', \
         p_message_ids => $2) b",
    );
    Ok(query
        .bind(subscription_id)
        .bind(message_ids)
        .fetch_all(database)
        .await?)
}

/// Change what a message of a topic says, in place; no attributes: they stay. Whether there is one.
///
/// # Errors
/// 404 for an unknown topic, 422 for what a message must not be.
pub async fn update(
    database: &Database,
    topic_id: &str,
    message_id: Uuid,
    payload: &JsonText,
    attributes: Option<&JsonText>,
) -> Result<bool, Error> {
    Ok(
        sqlx::query_scalar("select pubsub.update_message($1, $2, $3, $4)")
            .bind(topic_id)
            .bind(message_id)
            .bind(payload)
            .bind(attributes)
            .fetch_one(database)
            .await?,
    )
}

/// Take messages from a subscription that it has not settled, held or not; those that were.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn delete(
    database: &Database,
    subscription_id: &str,
    message_ids: &[Uuid],
) -> Result<Vec<Uuid>, Error> {
    Ok(sqlx::query_scalar("select pubsub.delete_messages($1, $2)")
        .bind(subscription_id)
        .bind(message_ids)
        .fetch_one(database)
        .await?)
}

/// Drop everything that a subscription has not settled, at once, however much it is.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn purge(database: &Database, subscription_id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.purge_subscription($1)")
        .bind(subscription_id)
        .execute(database)
        .await?;
    Ok(())
}
