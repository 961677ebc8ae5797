//! Queues, a topic and a subscription of one id: `create_queue`, `delete_queue`.

use serde_json::Value;

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
