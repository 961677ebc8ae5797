//! Creating and updating the schema, and checking that it fits this binary.
//!
//! Tables come from the numbered files of `migrations/`, routines and views from the files of `sql/`,
//! which are dropped and created anew as one set. All of it is one transaction, which depends on no
//! setting of the database or the role.

use refinery_core::Migration;
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::errors::{describe, is_deadlock};
use super::owners;
use super::stamp::Stamp;

/// The files of `migrations/`.
mod tables {
    refinery::embed_migrations!("migrations");
}
pub(super) use tables::migrations;

/// The text of every file of the folders, under its name, such as `base/ids.sql`.
macro_rules! files {
    ($($folder:ident { $($file:ident),* $(,)? })*) => {
        &[$($((
            concat!(stringify!($folder), "/", stringify!($file), ".sql"),
            include_str!(concat!("../../sql/", stringify!($folder), "/", stringify!($file), ".sql")),
        )),*),*]
    };
}

/// The files of `sql/`, in the order in which they are applied: each folder builds on those before it.
pub const ROUTINES: &[(&str, &str)] = files! {
    base { reset, faults, ids, allowed, sequences }
    filters { routing_keys, operators, filters, sets, trials }
    catalog {
        keys, runs, counters, rewinds, settings, topics, push_endpoints, subscriptions, push, expiry, clients, api_keys,
    }
    publish { lanes, limits, idempotency, message_keys, deliveries, in_runs, publish, edits }
    claim {
        hints, departures, dead_letters, wakeups, terms, ranges, chosen, whole_runs, open_lanes, ordering,
        priorities, by_id, fairness, leases, flow, fresh, unseen, claims, consume, several, waiting,
    }
    settle { ack_runs, settle, take, extend, settlements, transactions, deletions }
    replay { reprocess, parking, replay, seek_steps, jobs, seek, new_subscriptions, snapshots, purge, queues }
    observe { states, browse, log, metrics, filter_previews, timeline, views, health }
    upkeep { partitions, cleanup, clock, leadership, search_path, grants }
};

/// "fpubsub" in bytes: the advisory lock that migrators queue on.
const MIGRATION_LOCK: i64 = 0x66_70_75_62_73_75_62;

/// What the text of our files means, whatever the database's and the role's settings are.
const MEANING: &str = "set local search_path = pg_catalog, pg_temp; \
    set local standard_conforming_strings = on; set local transform_null_equals = off; \
    set local array_nulls = on; set local datestyle = 'ISO'; set local intervalstyle = 'postgres'; \
    set local timezone = 'UTC'; set local xmloption = 'content'; \
    set local quote_all_identifiers = off; set local check_function_bodies = on; \
    set local plpgsql.extra_errors = 'none'; set local row_security = on; \
    set local default_tablespace = ''";

/// A migrator waits for others as long as they take, whatever the defaults of the database are.
const NO_LIMITS: &str = "set local lock_timeout = 0; set local statement_timeout = 0; \
    set local idle_in_transaction_session_timeout = 0";

/// Every call reads one of these first. So calls that run end before a migration begins, the others wait
/// here, and none holds a table that the migration wants while it wants one that the migration holds.
const GATE: &str = "do $$ begin \
    if to_regclass('pubsub_data.topics') is not null \
        and to_regclass('pubsub_data.subscriptions') is not null then \
        lock table pubsub_data.topics, pubsub_data.subscriptions in access exclusive mode; \
    end if; \
    end $$";

/// How long a migration waits for a table that is in use.
const PATIENCE: &str = "set local lock_timeout = '10s'";

const BEGIN: &str = "begin isolation level read committed read write not deferrable";

/// How often a migration that got into a deadlock with the traffic around it is tried.
const TRIES: usize = 5;

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
    /// Somebody else made the schemas, or something in them.
    #[error("{0}; nothing was changed")]
    Foreign(String),
    /// The database refused a statement or cannot be reached.
    #[error("{}", describe(.0))]
    Database(#[from] sqlx::Error),
    /// A numbered migration failed, or its file was edited after it was applied.
    #[error("{}", describe(.0))]
    Migration(#[from] refinery_core::Error),
}

/// The checksum of this binary's schema: equal checksums mean equal schemas.
#[must_use]
pub fn checksum() -> String {
    Stamp::ours().checksum
}

/// Compare the schema of the database with this binary's.
///
/// # Errors
/// When the schema, or something in it, belongs to somebody else, or the database cannot be reached.
pub async fn check(connection: &mut PgConnection) -> Result<Fit, MigrateError> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(MEANING).execute(&mut *transaction).await?;
    if let Some(foreign) = owners::foreign(&mut transaction).await? {
        return Err(MigrateError::Foreign(foreign));
    }
    let fit = Stamp::ours().fit(stamp(&mut transaction).await?.as_ref());
    transaction.rollback().await?;
    Ok(fit)
}

async fn stamp(connection: &mut PgConnection) -> Result<Option<Stamp>, sqlx::Error> {
    // not prepared: the session may be a pooler's
    let rows = connection
        .fetch_all(sqlx::raw_sql(
            "select c.comment \
             from (values \
                 (1, pg_catalog.obj_description( \
                     pg_catalog.to_regnamespace('pubsub'), 'pg_namespace')), \
                 (2, pg_catalog.obj_description( \
                     pg_catalog.to_regclass('pubsub_data.refinery_schema_history'), 'pg_class')) \
             ) as c (turn, comment) \
             where c.comment is not null order by c.turn",
        ))
        .await?;
    let comments: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    Ok(comments.iter().find_map(|comment| Stamp::parse(comment)))
}

/// Bring the schema up to this binary's, all or nothing. Concurrent calls wait for each other.
///
/// # Errors
/// When the schema is newer or somebody else's, or a statement fails; the database is then as it was.
pub async fn migrate(connection: &mut PgConnection) -> Result<Migrated, MigrateError> {
    for _ in 1..TRIES {
        match try_migrate(connection).await {
            Err(error) if is_deadlock(&error) => {}
            migrated => return migrated,
        }
    }
    try_migrate(connection).await
}

async fn try_migrate(connection: &mut PgConnection) -> Result<Migrated, MigrateError> {
    let ours = Stamp::ours();
    let mut transaction = connection.begin_with(BEGIN).await?;
    sqlx::raw_sql(NO_LIMITS).execute(&mut *transaction).await?;
    sqlx::raw_sql(MEANING).execute(&mut *transaction).await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .persistent(false)
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(PATIENCE).execute(&mut *transaction).await?;
    owners::create_schemas(&mut transaction).await?;
    if let Some(foreign) = owners::foreign(&mut transaction).await? {
        return Err(MigrateError::Foreign(foreign));
    }
    match ours.fit(stamp(&mut transaction).await?.as_ref()) {
        Fit::Same => return Ok(Migrated::UpToDate),
        Fit::Newer => return Err(MigrateError::Newer),
        Fit::Older => {}
    }

    let owns_schema = owners::become_owner(&mut transaction).await?;
    sqlx::raw_sql(GATE).execute(&mut *transaction).await?;
    let (reset, routines) = ROUTINES.split_at(1);
    apply(&mut transaction, reset).await?;
    let mut runner = migrations::runner();
    runner.set_migration_table_name(HISTORY_TABLE);
    runner.run_async(&mut History(&mut transaction)).await?;
    apply(&mut transaction, routines).await?;
    let place = if owns_schema {
        "schema pubsub".to_owned()
    } else {
        format!("table {HISTORY_TABLE}")
    };
    let comment = format!("comment on {place} is '{}'", ours.comment());
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
