//! Creating and updating the schema, and checking that it fits this binary.
//!
//! Tables come from the numbered files of `migrations/`, routines and views from the files of `sql/`,
//! which are dropped and created anew as one set. All of it is one transaction.

use refinery_core::Migration;
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The files of `migrations/`.
mod tables {
    refinery::embed_migrations!("migrations");
}
use super::database::BEGIN;
use tables::migrations;

/// The files of `sql/`, in the order in which they are applied.
pub const ROUTINES: &[(&str, &str)] = &[
    ("reset.sql", include_str!("../../sql/reset.sql")),
    ("ids.sql", include_str!("../../sql/ids.sql")),
    ("hints.sql", include_str!("../../sql/hints.sql")),
    ("allowed.sql", include_str!("../../sql/allowed.sql")),
    (
        "filter_operators.sql",
        include_str!("../../sql/filter_operators.sql"),
    ),
    ("filters.sql", include_str!("../../sql/filters.sql")),
    ("filter_sets.sql", include_str!("../../sql/filter_sets.sql")),
    ("states.sql", include_str!("../../sql/states.sql")),
    ("sequences.sql", include_str!("../../sql/sequences.sql")),
    ("topics.sql", include_str!("../../sql/topics.sql")),
    (
        "subscription_settings.sql",
        include_str!("../../sql/subscription_settings.sql"),
    ),
    (
        "subscriptions.sql",
        include_str!("../../sql/subscriptions.sql"),
    ),
    (
        "filter_trials.sql",
        include_str!("../../sql/filter_trials.sql"),
    ),
    ("lanes.sql", include_str!("../../sql/lanes.sql")),
    (
        "message_limits.sql",
        include_str!("../../sql/message_limits.sql"),
    ),
    ("idempotency.sql", include_str!("../../sql/idempotency.sql")),
    ("deliveries.sql", include_str!("../../sql/deliveries.sql")),
    ("publish.sql", include_str!("../../sql/publish.sql")),
    ("wakeups.sql", include_str!("../../sql/wakeups.sql")),
    ("ordering.sql", include_str!("../../sql/ordering.sql")),
    ("priorities.sql", include_str!("../../sql/priorities.sql")),
    ("fairness.sql", include_str!("../../sql/fairness.sql")),
    ("flow.sql", include_str!("../../sql/flow.sql")),
    ("claims.sql", include_str!("../../sql/claims.sql")),
    ("answers.sql", include_str!("../../sql/answers.sql")),
    ("consume.sql", include_str!("../../sql/consume.sql")),
    ("settle.sql", include_str!("../../sql/settle.sql")),
    ("extend.sql", include_str!("../../sql/extend.sql")),
    ("settlements.sql", include_str!("../../sql/settlements.sql")),
    ("waiting.sql", include_str!("../../sql/waiting.sql")),
    (
        "dead_letters.sql",
        include_str!("../../sql/dead_letters.sql"),
    ),
    ("reprocess.sql", include_str!("../../sql/reprocess.sql")),
    ("parking.sql", include_str!("../../sql/parking.sql")),
    ("replay.sql", include_str!("../../sql/replay.sql")),
    ("seek.sql", include_str!("../../sql/seek.sql")),
    ("snapshots.sql", include_str!("../../sql/snapshots.sql")),
    ("jobs.sql", include_str!("../../sql/jobs.sql")),
    ("partitions.sql", include_str!("../../sql/partitions.sql")),
    (
        "transactions.sql",
        include_str!("../../sql/transactions.sql"),
    ),
    ("timeline.sql", include_str!("../../sql/timeline.sql")),
    ("cleanup.sql", include_str!("../../sql/cleanup.sql")),
    ("metrics.sql", include_str!("../../sql/metrics.sql")),
    ("clients.sql", include_str!("../../sql/clients.sql")),
    ("leadership.sql", include_str!("../../sql/leadership.sql")),
    ("clock.sql", include_str!("../../sql/clock.sql")),
    ("views.sql", include_str!("../../sql/views.sql")),
    ("health.sql", include_str!("../../sql/health.sql")),
    ("grants.sql", include_str!("../../sql/grants.sql")),
];

/// "fpubsub" in bytes: the advisory lock that migrators queue on.
const MIGRATION_LOCK: i64 = 0x66_70_75_62_73_75_62;

/// How long a migration waits for a table that is in use.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '10s'; set local statement_timeout = 0";

const HISTORY_TABLE: &str = "pubsub_data.refinery_schema_history";

/// What a migration did.
#[derive(Debug, PartialEq, Eq)]
pub enum Migrated {
    /// The schema was as this binary wants it.
    UpToDate,
    /// The schema is now as this binary wants it.
    Applied,
}

/// How the schema of a database compares to this binary.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is this binary's.
    Same,
    /// It is older, or there is none: `db-migrate` is needed.
    Older,
    /// A newer fastpubsub made it.
    Newer,
}

/// Why a migration failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer fastpubsub has been here; going back would break it.
    #[error("the database schema was made by a newer fastpubsub; nothing was changed")]
    Newer,
    /// The database refused a statement or cannot be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A numbered migration failed, or its file was edited after it was applied.
    #[error(transparent)]
    Migration(#[from] refinery_core::Error),
}

/// What the comment on schema pubsub says: which migrations, which release, which files.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    migration: u32,
    release: (u32, u32, u32),
    checksum: String,
}

impl Stamp {
    fn ours() -> Self {
        let migrations = migrations::runner().get_migrations().clone();
        let mut digest = Sha256::new();
        for migration in &migrations {
            digest.update(migration.checksum().to_le_bytes());
        }
        for (name, sql) in ROUTINES {
            digest.update(name);
            digest.update(sql);
        }
        let checksum = digest
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            migration: migrations
                .iter()
                .filter_map(|migration| u32::try_from(migration.version()).ok())
                .max()
                .unwrap_or_default(),
            release: release(env!("CARGO_PKG_VERSION")),
            checksum,
        }
    }

    fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix("fastpubsub ")?.split(' ');
        let release = release(words.next()?);
        let migration = words.next()?.strip_prefix("schema=")?.parse().ok()?;
        let checksum = words.next()?.strip_prefix("checksum=")?.to_owned();
        Some(Self {
            migration,
            release,
            checksum,
        })
    }

    fn comment(&self) -> String {
        let (major, minor, patch) = self.release;
        format!(
            "fastpubsub {major}.{minor}.{patch} schema={} checksum={}",
            self.migration, self.checksum
        )
    }

    fn fit(&self, database: Option<&Self>) -> Fit {
        match database {
            Some(stamp) if stamp.checksum == self.checksum => Fit::Same,
            Some(stamp) if (stamp.migration, stamp.release) > (self.migration, self.release) => {
                Fit::Newer
            }
            _ => Fit::Older,
        }
    }
}

fn release(version: &str) -> (u32, u32, u32) {
    let mut numbers = version
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    (next(), next(), next())
}

/// The checksum of this binary's schema: equal checksums mean equal schemas.
#[must_use]
pub fn checksum() -> String {
    Stamp::ours().checksum
}

/// Compare the schema of the database with this binary's.
///
/// # Errors
/// When the database cannot be reached.
pub async fn check(connection: &mut PgConnection) -> Result<Fit, sqlx::Error> {
    Ok(Stamp::ours().fit(stamp(connection).await?.as_ref()))
}

async fn stamp(connection: &mut PgConnection) -> Result<Option<Stamp>, sqlx::Error> {
    // not prepared: the session may be a pooler's
    let row = connection
        .fetch_one(sqlx::raw_sql(
            "select pg_catalog.obj_description(\
             pg_catalog.to_regnamespace('pubsub'), 'pg_namespace')",
        ))
        .await?;
    let comment: Option<String> = row.try_get(0)?;
    Ok(comment.as_deref().and_then(Stamp::parse))
}

/// Bring the schema up to this binary's, all or nothing. Concurrent calls wait for each other.
///
/// # Errors
/// When the schema is newer, or a statement fails; the database is then as it was.
pub async fn migrate(connection: &mut PgConnection) -> Result<Migrated, MigrateError> {
    let ours = Stamp::ours();
    let mut transaction = connection.begin_with(BEGIN).await?;
    sqlx::query("select pg_catalog.pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .persistent(false)
        .execute(&mut *transaction)
        .await?;
    match ours.fit(stamp(&mut transaction).await?.as_ref()) {
        Fit::Same => return Ok(Migrated::UpToDate),
        Fit::Newer => return Err(MigrateError::Newer),
        Fit::Older => {}
    }

    sqlx::raw_sql(LOCK_TIMEOUT)
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql("create schema if not exists pubsub; create schema if not exists pubsub_data")
        .execute(&mut *transaction)
        .await?;
    let (reset, routines) = ROUTINES.split_at(1);
    apply(&mut transaction, reset).await?;
    let mut runner = migrations::runner();
    runner.set_migration_table_name(HISTORY_TABLE);
    runner.run_async(&mut History(&mut transaction)).await?;
    apply(&mut transaction, routines).await?;
    let comment = format!("comment on schema pubsub is '{}'", ours.comment());
    sqlx::raw_sql(AssertSqlSafe(comment))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Migrated::Applied)
}

async fn apply(
    connection: &mut PgConnection,
    files: &[(&str, &'static str)],
) -> Result<(), sqlx::Error> {
    for (_, sql) in files {
        sqlx::raw_sql(*sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Lets refinery run inside our transaction, over sqlx.
struct History<'a>(&'a mut PgConnection);

impl AsyncTransaction for History<'_> {
    type Error = sqlx::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, sqlx::Error> {
        let mut count = 0;
        for query in queries {
            sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
                .execute(&mut *self.0)
                .await?;
            count += 1;
        }
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for History<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, sqlx::Error> {
        let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
        let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
            .fetch_all(&mut *self.0)
            .await?;
        rows.iter()
            .map(|row| {
                let applied_on = OffsetDateTime::parse(row.try_get("applied_on")?, &Rfc3339)
                    .map_err(|error| decode(error.into()))?;
                let checksum = row
                    .try_get::<&str, _>("checksum")?
                    .parse()
                    .map_err(|error: std::num::ParseIntError| decode(error.into()))?;
                let (version, name) = (row.try_get("version")?, row.try_get("name")?);
                Ok(Migration::applied(version, name, applied_on, checksum))
            })
            .collect()
    }
}

impl AsyncMigrate for History<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(migration: u32, release: (u32, u32, u32), checksum: &str) -> Stamp {
        Stamp {
            migration,
            release,
            checksum: checksum.to_owned(),
        }
    }

    #[test]
    fn a_stamp_survives_its_comment() {
        let ours = Stamp::ours();
        assert_eq!(Stamp::parse(&ours.comment()), Some(ours));
    }

    #[test]
    fn a_schema_is_newer_by_migration_or_by_release() {
        let ours = stamp(2, (1, 2, 0), "a");
        assert_eq!(ours.fit(Some(&stamp(2, (1, 2, 0), "a"))), Fit::Same);
        assert_eq!(ours.fit(Some(&stamp(3, (1, 2, 0), "b"))), Fit::Newer);
        assert_eq!(ours.fit(Some(&stamp(2, (1, 10, 0), "b"))), Fit::Newer);
        assert_eq!(ours.fit(Some(&stamp(2, (1, 2, 0), "b"))), Fit::Older);
        assert_eq!(ours.fit(Some(&stamp(1, (1, 1, 0), "b"))), Fit::Older);
        assert_eq!(ours.fit(None), Fit::Older);
    }
}
