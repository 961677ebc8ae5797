//! Maintenance: `cleanup_acked_messages`, `cleanup_stuck_messages`, `dead_letter_spent_messages`,
//! `purge_deleted_subscriptions`, partitions and leadership.

use sqlx::PgExecutor;
use sqlx::postgres::PgConnection;

/// Become or stay the one holder of the maintenance job.
///
/// # Errors
/// When the database fails.
pub async fn try_lead(
    executor: impl PgExecutor<'_>,
    holder: &str,
    seconds: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pubsub.try_lead('maintenance', $1, $2)")
        .bind(holder)
        .bind(seconds)
        .fetch_one(executor)
        .await
}

/// End the leases of crashed consumers; returns how many.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_stuck_messages(
    executor: impl PgExecutor<'_>,
    lock_timeout_seconds: i32,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select pubsub.cleanup_stuck_messages($1)")
        .bind(lock_timeout_seconds)
        .fetch_one(executor)
        .await
}

/// Dead-letter messages whose last lease has run out, of those due in the last `within_seconds` or,
/// without a limit, ever.
///
/// # Errors
/// When the database fails.
pub async fn dead_letter_spent_messages(
    executor: impl PgExecutor<'_>,
    within_seconds: Option<i32>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select pubsub.dead_letter_spent_messages(\
         coalesce(clock_timestamp() - make_interval(secs => $1), '-infinity'))",
    )
    .bind(within_seconds)
    .fetch_one(executor)
    .await
}

/// Forget acked messages older than a threshold, batch by batch; returns how many.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_acked_messages(
    connection: &mut PgConnection,
    older_than_seconds: i32,
) -> Result<i64, sqlx::Error> {
    let mut total = 0;
    loop {
        let removed: i64 = sqlx::query_scalar("select pubsub.cleanup_acked_messages($1)")
            .bind(older_than_seconds)
            .fetch_one(&mut *connection)
            .await?;
        total += removed;
        if removed == 0 {
            return Ok(total);
        }
    }
}

/// Make the partitions that are due, drop those that nothing needs, and clear what deleted
/// subscriptions left.
///
/// # Errors
/// When the database fails, a lock that is not to be had in time included; the next call goes on.
pub async fn rotate(
    connection: &mut PgConnection,
    retention_seconds: i32,
) -> Result<(), sqlx::Error> {
    for statement in [
        "select pubsub.make_partitions('messages', $1)",
        "select pubsub.make_partitions('acked', $1)",
        "select pubsub.drop_message_partitions(clock_timestamp() - make_interval(secs => $1))",
        "select pubsub.cleanup_default_messages(clock_timestamp() - make_interval(secs => $1))",
        "select pubsub.purge_deleted_subscriptions() where $1 > 0",
    ] {
        sqlx::query(statement)
            .bind(retention_seconds)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
