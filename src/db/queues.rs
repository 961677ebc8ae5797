//! Queues, a topic and a subscription of one id: `create_queue`, `delete_queue`,
//! `queue_summary`.

use serde_json::Value;
use sqlx::FromRow;

use super::Timestamp;
use super::database::Database;
use crate::error::Error;

/// Make sure that a queue exists, with its dead-letter queue if one is named; whether it was created now.
/// One that was there keeps its settings.
///
/// # Errors
/// 409 when a subscription of another topic has the id, 422 for a bad value.
pub async fn create(
    database: &Database,
    queue_id: &str,
    settings: &Value,
    dead_letter_queue_id: Option<&str>,
) -> Result<bool, Error> {
    // text: the type jsonb would change the filter that was given
    Ok(
        sqlx::query_scalar("select pubsub.create_queue($1, $2::json, $3)")
            .bind(queue_id)
            .bind(settings.to_string())
            .bind(dead_letter_queue_id)
            .fetch_one(database)
            .await?,
    )
}

/// Delete a queue and its messages; its dead-letter queue stays.
///
/// # Errors
/// 404 when there is none.
pub async fn delete(database: &Database, queue_id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_queue($1)")
        .bind(queue_id)
        .execute(database)
        .await?;
    Ok(())
}

/// How large and how old a queue is.
#[derive(Debug, FromRow)]
pub struct Summary {
    /// Of its messages; an estimate where they are many.
    pub bytes: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the newest message that is kept was published, if there is any.
    pub last_published_at: Option<Timestamp>,
}

/// How large and how old a queue is.
///
/// # Errors
/// 404 when there is none.
pub async fn summary(database: &Database, queue_id: &str) -> Result<Summary, Error> {
    let query = sqlx::query_as("select * from pubsub.queue_summary($1)");
    Ok(query.bind(queue_id).fetch_one(database).await?)
}
