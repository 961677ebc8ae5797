//! Snapshots: `create_snapshot`, `list_snapshots`, `delete_snapshot`.

use super::database::Database;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use super::{Page, Timestamp};
use crate::error::Error;

/// A saved place of a subscription.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Snapshot {
    /// Its id.
    #[schema(example = "before-release")]
    pub id: String,
    /// Whose place it is.
    pub subscription_id: String,
    /// The topic whose subscriptions may seek to it.
    pub topic_id: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Save the place of a subscription.
///
/// # Errors
/// 409 when the id is taken, 404 for an unknown subscription.
pub async fn create(
    database: &Database,
    id: &str,
    subscription_id: &str,
) -> Result<Snapshot, Error> {
    let query = sqlx::query_as("select * from pubsub.create_snapshot($1, $2)");
    Ok(query
        .bind(id)
        .bind(subscription_id)
        .fetch_one(database)
        .await?)
}

/// A page of snapshots of the subscriptions that may be seen, none for all; of one of them or all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    database: &Database,
    subscription_id: Option<&str>,
    page: Page,
    allowed: Option<&[String]>,
) -> Result<Vec<Snapshot>, Error> {
    let query = sqlx::query_as("select * from pubsub.list_snapshots($1, $2, null, $3, $4, $5)");
    Ok(query
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(subscription_id)
        .bind(allowed)
        .fetch_all(database)
        .await?)
}

/// Delete a snapshot of a subscription that may be changed; none for any.
///
/// # Errors
/// 404 when there is none, 409 while a job seeks to it.
pub async fn delete(
    database: &Database,
    id: &str,
    allowed: Option<&[String]>,
) -> Result<(), Error> {
    sqlx::query("select pubsub.delete_snapshot($1, $2)")
        .bind(id)
        .bind(allowed)
        .execute(database)
        .await?;
    Ok(())
}
