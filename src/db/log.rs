//! What a topic retains, read without a subscription: `read_messages`, `nth_newest_messages`.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::Timestamp;
use super::database::Database;
use super::json::JsonText;
use crate::error::Error;

/// Which messages to read.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// Only those after it.
    pub after: Option<Uuid>,
    /// Only those published at or after it, to the millisecond.
    pub since: Option<DateTime<Utc>>,
    /// Only those of these ordering keys, up to 100; none for all.
    pub ordering_keys: Option<&'a [String]>,
    /// Most of them, up to 1000.
    pub limit: i32,
    /// End before the one with which they had more bytes, but for the first.
    pub max_bytes: usize,
    /// End before anything that a transaction which is open may still come below.
    pub complete: bool,
}

/// About how many bytes an answer has beside what its message has.
const OTHER_BYTES: usize = 400;

/// A message that its topic retains.
#[derive(Debug, FromRow)]
pub struct LoggedMessage {
    /// The message.
    pub message_id: Uuid,
    /// What was published.
    pub payload: JsonText,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    pub priority: Option<i16>,
    /// When it was published.
    pub published_at: Timestamp,
    /// When it can no longer be consumed, if ever.
    pub expires_at: Option<Timestamp>,
}

impl LoggedMessage {
    /// About how many bytes it has as an answer.
    #[must_use]
    pub fn size(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, JsonText::size);
        let key = self.ordering_key.as_ref().map_or(0, String::len);
        self.payload.size() + attributes + key + OTHER_BYTES
    }
}

/// A page of what a topic retains, the oldest first; an empty one is the end.
///
/// # Errors
/// 404 for an unknown topic, 422 for ordering keys that no message can have.
pub async fn read(
    database: &Database,
    topic_id: &str,
    read: &Read<'_>,
) -> Result<Vec<LoggedMessage>, Error> {
    let query = sqlx::query_as("select * from pubsub.read_messages($1, $2, $3, $4, $5, $6, $7)");
    Ok(query
        .bind(topic_id)
        .bind(read.after)
        .bind(read.limit)
        .bind(read.ordering_keys)
        .bind(read.since)
        .bind(i64::try_from(read.max_bytes).unwrap_or(i64::MAX))
        .bind(read.complete)
        .fetch_all(database)
        .await?)
}

/// Of each of some ordering keys that has so many messages since a time, the `n`th newest.
///
/// # Errors
/// 404 for an unknown topic, 422 for `n` or ordering keys that cannot be.
pub async fn nth_newest(
    database: &Database,
    topic_id: &str,
    n: i32,
    ordering_keys: &[String],
    since: Option<DateTime<Utc>>,
) -> Result<Vec<(String, Uuid)>, Error> {
    let query = sqlx::query_as("select * from pubsub.nth_newest_messages($1, $2, $3, $4)");
    Ok(query
        .bind(topic_id)
        .bind(n)
        .bind(ordering_keys)
        .bind(since)
        .fetch_all(database)
        .await?)
}
