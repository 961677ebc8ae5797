//! What became of a message: `message_timeline`.

use super::database::Database;
use sqlx::FromRow;
use uuid::Uuid;

use super::Timestamp;
use crate::error::Error;

/// One event, with the message and the subscription it belongs to.
#[derive(Debug, FromRow)]
pub struct Event {
    /// The topic of the message.
    pub topic_id: String,
    /// When the message was published.
    pub published_at: Timestamp,
    /// The subscription; none when the topic has none, and so has everything below.
    pub subscription_id: Option<String>,
    /// What the message is there now.
    pub state: Option<String>,
    /// When it happened.
    pub at: Option<Timestamp>,
    /// What happened.
    pub event: Option<String>,
    /// Which delivery it was.
    pub attempt: Option<i32>,
    /// Who had the message.
    pub consumer_id: Option<String>,
    /// Why it happened.
    pub reason: Option<String>,
}

/// Of an event beside its texts.
const OTHER_BYTES: usize = 400;

impl Event {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        text(&self.consumer_id) + text(&self.reason) + OTHER_BYTES
    }
}

/// What became of a message in the subscriptions that may be seen, none for all; by subscription, then
/// in the order of time; at least one row, and no more than have so many bytes.
///
/// # Errors
/// 404 for a message that nothing remembers, or whose topic has none of these subscriptions.
pub async fn get(
    database: &Database,
    message_id: Uuid,
    allowed: Option<&[String]>,
    max_bytes: usize,
) -> Result<Vec<Event>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.message_timeline($1, $2)",
        "400 + coalesce(octet_length(l.consumer_id), 0) + coalesce(octet_length(l.reason), 0)",
        "$3"
    ));
    Ok(query
        .bind(message_id)
        .bind(allowed)
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}
