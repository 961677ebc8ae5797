//! Filters: `preview_filter`.

use super::database::Database;
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use super::Timestamp;
use super::json::JsonText;
use crate::error::Error;

/// What a filter would let pass of the newest messages of a topic.
#[derive(Debug)]
pub struct Preview {
    /// How many messages were looked at.
    pub scanned: i64,
    /// How many of them match.
    pub matched: i64,
    /// The newest that match.
    pub samples: Vec<Sample>,
}

/// A message that matches.
#[derive(Debug)]
pub struct Sample {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: JsonText,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// When it was published.
    pub published_at: Timestamp,
}

/// The counts, beside a sample where there is one.
#[derive(FromRow)]
struct Row {
    scanned: i64,
    matched: i64,
    message_id: Option<Uuid>,
    payload: Option<JsonText>,
    attributes: Option<JsonText>,
    published_at: Option<Timestamp>,
}

impl Row {
    fn sample(self) -> Option<Sample> {
        Some(Sample {
            message_id: self.message_id?,
            payload: self.payload?,
            attributes: self.attributes,
            published_at: self.published_at?,
        })
    }
}

/// Try a filter on the newest `last` messages of a subscription's topic.
///
/// # Errors
/// 404 for an unknown subscription, 422 for a bad filter.
pub async fn preview(
    pool: &Database,
    subscription_id: &str,
    filter: Option<&RawValue>,
    last: i32,
) -> Result<Preview, Error> {
    let query = sqlx::query_as("select * from pubsub.preview_filter($1, $2::json, $3)");
    let rows: Vec<Row> = query
        .bind(subscription_id)
        .bind(filter.map(RawValue::get))
        .bind(last)
        .fetch_all(pool)
        .await?;
    let (scanned, matched) = rows
        .first()
        .map_or((0, 0), |row| (row.scanned, row.matched));
    Ok(Preview {
        scanned,
        matched,
        samples: rows.into_iter().filter_map(Row::sample).collect(),
    })
}
