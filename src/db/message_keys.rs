//! What is live under message keys: `find_messages`.

use uuid::Uuid;

use super::database::Database;
use crate::error::Error;

/// The live messages of a subscription under some keys, in the order of the keys.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn find(
    database: &Database,
    subscription_id: &str,
    keys: &[&str],
) -> Result<Vec<(String, Uuid)>, Error> {
    let query =
        sqlx::query_as("select f.message_key, f.message_id from pubsub.find_messages($1, $2) f");
    Ok(query
        .bind(subscription_id)
        .bind(keys)
        .fetch_all(database)
        .await?)
}
