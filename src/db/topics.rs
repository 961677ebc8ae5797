//! Topics: `create_topic`, `get_topic`, `list_topics`, `delete_topic`.

use serde::Serialize;
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;

use super::{Page, Timestamp};
use crate::error::Error;

/// A topic.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Topic {
    /// Its id.
    #[schema(example = "user-events")]
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Create a topic.
///
/// # Errors
/// 409 when the id is taken.
pub async fn create(pool: &PgPool, id: &str) -> Result<Topic, Error> {
    let query = sqlx::query_as("select id, created_at from pubsub.create_topic($1)");
    Ok(query.bind(id).fetch_one(pool).await?)
}

/// One topic.
///
/// # Errors
/// 404 when there is none.
pub async fn get(pool: &PgPool, id: &str) -> Result<Topic, Error> {
    let query = sqlx::query_as("select id, created_at from pubsub.get_topic($1)");
    Ok(query.bind(id).fetch_one(pool).await?)
}

/// A page of topics.
///
/// # Errors
/// When the database fails.
pub async fn list(pool: &PgPool, page: Page) -> Result<Vec<Topic>, Error> {
    let query = sqlx::query_as("select id, created_at from pubsub.list_topics($1, $2)");
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .fetch_all(pool)
        .await?)
}

/// Delete a topic and its subscriptions.
///
/// # Errors
/// 404 when there is none.
pub async fn delete(pool: &PgPool, id: &str) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_topic($1)")
        .bind(id)
        .execute(pool)
        .await?;
    Ok(())
}
