//! Maintenance: `cleanup_acked_messages`, `cleanup_failures`, `cleanup_idempotency_keys`,
//! `cleanup_message_keys`, `cleanup_stuck_messages`, `cleanup_handed_out`, `cleanup_fair_lanes`,
//! `dead_letter_spent_messages`, `fold_counters`, `purge_deleted_subscriptions`, `notice_clock`,
//! partitions and leadership.

use sqlx::PgExecutor;

use super::database::Database;

/// lock_not_available: a table was in use for longer than a function waits.
const LOCK_NOT_AVAILABLE: &str = "55P03";

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

/// Notice whether the database's clock was set back since the last call; by how many seconds.
///
/// # Errors
/// When the database fails.
pub async fn notice_clock(executor: impl PgExecutor<'_>) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar("select extract(epoch from pubsub.notice_clock())::float8")
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

/// Replace the counters of busy subscriptions by their sums.
///
/// # Errors
/// When the database fails.
pub async fn fold_counters(executor: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("select pubsub.fold_counters()")
        .execute(executor)
        .await?;
    Ok(())
}

/// Forget what rate limits do not look at any more, batch by batch.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_handed_out(database: &Database) -> Result<(), sqlx::Error> {
    until_nothing_is_left(database, "select pubsub.cleanup_handed_out()").await
}

/// Take lanes without messages off the lists of fair subscriptions, batch by batch.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_fair_lanes(database: &Database) -> Result<(), sqlx::Error> {
    until_nothing_is_left(database, "select pubsub.cleanup_fair_lanes()").await
}

async fn until_nothing_is_left(
    database: &Database,
    batch: &'static str,
) -> Result<(), sqlx::Error> {
    loop {
        let done: i64 = sqlx::query_scalar(batch).fetch_one(database).await?;
        if done == 0 {
            return Ok(());
        }
    }
}

/// Forget acked messages older than a threshold, batch by batch; returns how many.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_acked_messages(
    database: &Database,
    older_than_seconds: i32,
) -> Result<i64, sqlx::Error> {
    let mut total = 0;
    loop {
        let removed = sqlx::query_scalar("select pubsub.cleanup_acked_messages($1)")
            .bind(older_than_seconds)
            .fetch_one(database)
            .await;
        let removed: i64 = match removed {
            // what is left of a partition in use is for the next time
            Err(error) if is_lock_timeout(&error) => 0,
            removed => removed?,
        };
        total += removed;
        if removed == 0 {
            return Ok(total);
        }
    }
}

/// Forget failed deliveries older than a threshold, batch by batch.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_failures(
    database: &Database,
    older_than_seconds: i32,
) -> Result<(), sqlx::Error> {
    loop {
        let removed: i64 = sqlx::query_scalar("select pubsub.cleanup_failures($1)")
            .bind(older_than_seconds)
            .fetch_one(database)
            .await?;
        if removed == 0 {
            return Ok(());
        }
    }
}

/// Forget idempotency keys older than a threshold, batch by batch; returns how many.
///
/// # Errors
/// When the database fails.
pub async fn cleanup_idempotency_keys(
    database: &Database,
    older_than_seconds: i32,
) -> Result<i64, sqlx::Error> {
    let mut total = 0;
    loop {
        let removed: i64 = sqlx::query_scalar("select pubsub.cleanup_idempotency_keys($1)")
            .bind(older_than_seconds)
            .fetch_one(database)
            .await?;
        total += removed;
        if removed == 0 {
            return Ok(total);
        }
    }
}

/// Forget the message keys of partitions that are to be dropped, batch by batch.
async fn cleanup_message_keys(
    database: &Database,
    retention_seconds: i32,
) -> Result<(), sqlx::Error> {
    loop {
        let removed: i64 = sqlx::query_scalar(
            "select pubsub.cleanup_message_keys(\
             clock_timestamp() - make_interval(secs => pubsub.longest_retention($1)))",
        )
        .bind(retention_seconds)
        .fetch_one(database)
        .await?;
        if removed == 0 {
            return Ok(());
        }
    }
}

/// Make the partitions that are due, drop those that nothing needs, and clear what deleted
/// subscriptions left. A step whose table is in use is left to the next call.
///
/// # Errors
/// When the database fails.
pub async fn rotate(database: &Database, retention_seconds: i32) -> Result<(), sqlx::Error> {
    cleanup_message_keys(database, retention_seconds).await?;
    for step in [
        "select pubsub.make_partitions('messages', pubsub.longest_retention($1))",
        "select pubsub.make_partitions('acked', $1)",
        "select pubsub.drop_message_partitions(\
         clock_timestamp() - make_interval(secs => pubsub.longest_retention($1)))",
        "select pubsub.cleanup_default_messages(clock_timestamp() - make_interval(secs => $1))",
        "select pubsub.purge_deleted_subscriptions() where $1 > 0",
    ] {
        let done = sqlx::query(step)
            .bind(retention_seconds)
            .execute(database)
            .await;
        match done {
            Err(error) if is_lock_timeout(&error) => tracing::debug!(step, "left to the next time"),
            done => {
                done?;
            }
        }
    }
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}
