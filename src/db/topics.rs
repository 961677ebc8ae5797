//! Topics: `create_topic`, `get_topic`, `list_topics`, `update_topic`, `delete_topic`.

use super::database::Database;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use super::{Page, Timestamp};
use crate::error::Error;

/// A topic.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Topic {
    /// Its id.
    #[schema(example = "user-events")]
    pub id: String,
    /// How long messages are kept for replay; absent when the server's retention applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message_retention_seconds: Option<i32>,
    /// Its retained messages are found by their ordering key; absent when they are not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub index_ordering_keys: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Create a topic.
///
/// # Errors
/// 409 when the id is taken, 422 for a bad value.
pub async fn create(
    database: &Database,
    id: &str,
    message_retention_seconds: Option<i32>,
    index_ordering_keys: bool,
) -> Result<Topic, Error> {
    let query = sqlx::query_as("select * from pubsub.create_topic($1, $2, $3)");
    Ok(query
        .bind(id)
        .bind(message_retention_seconds)
        .bind(index_ordering_keys)
        .fetch_one(database)
        .await?)
}

/// Change settings of a topic, given as a JSON object.
///
/// # Errors
/// 404 when there is none, 422 for a bad value.
pub async fn update(database: &Database, id: &str, changes: &str) -> Result<Topic, Error> {
    let query = sqlx::query_as("select * from pubsub.update_topic($1, $2::json)");
    Ok(query.bind(id).bind(changes).fetch_one(database).await?)
}

/// One topic.
///
/// # Errors
/// 404 when there is none.
pub async fn get(database: &Database, id: &str) -> Result<Topic, Error> {
    let query = sqlx::query_as("select * from pubsub.get_topic($1)");
    Ok(query.bind(id).fetch_one(database).await?)
}

/// A page of the topics that may be seen; none for all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    database: &Database,
    page: Page,
    allowed: Option<&[String]>,
) -> Result<Vec<Topic>, Error> {
    let query = sqlx::query_as("select * from pubsub.list_topics($1, $2, $3, $4)");
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(allowed)
        .fetch_all(database)
        .await?)
}

/// Delete a topic and its subscriptions.
///
/// # Errors
/// 404 when there is none.
pub async fn delete(database: &Database, id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_topic($1)")
        .bind(id)
        .execute(database)
        .await?;
    Ok(())
}
