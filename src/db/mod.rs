//! The only place that speaks SQL: one function per call of an SQL function, by concept.

/// The statement for the first rows of a call, in its order: at least one, and no more than have so many
/// bytes. Columns of the call are those of `l`.
macro_rules! up_to_bytes {
    ($call:literal, $bytes:literal, $most:literal) => {
        concat!(
            "select p.* from (select l.*, sum(",
            $bytes,
            ") over (order by l.ordinality) as bytes from ",
            $call,
            " with ordinality l) p where p.ordinality = 1 or p.bytes <= ",
            $most,
            " order by p.ordinality"
        )
    };
}

pub mod browse;
pub mod clients;
pub mod database;
pub mod dead_letters;
pub mod errors;
mod failures;
pub mod filters;
pub mod health;
pub mod jobs;
pub mod json;
pub mod log;
pub mod maintenance;
pub mod message_keys;
pub mod messages;
mod owners;
pub mod pooler;
pub mod publish;
pub mod push;
pub mod queues;
mod refusal;
mod room;
pub mod schema;
pub mod seek;
pub mod settlements;
pub mod snapshots;
mod stamp;
pub mod storable;
pub mod subscriptions;
pub mod timeline;
pub mod topics;
pub mod transactions;
pub(crate) mod waiting;

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tracing::log::LevelFilter;

use crate::config::Settings;
use database::Database;
use pooler::Sessions;

/// How long a request waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a subcommand, or a server that starts, waits for the database.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a session of our own starts with, whatever the database's or the role's defaults are:
/// qualified names only, the isolation that the functions are written for, no statement without an
/// end, no wait that ends before it, and no JIT, which costs tens of milliseconds per function call.
const SESSION: &str = "set search_path = ''; set jit = off; set timezone = 'UTC'; \
    set default_transaction_isolation = 'read committed'; set lock_timeout = 0; \
    set idle_session_timeout = 0; \
    set statement_timeout = '30s'; set idle_in_transaction_session_timeout = '60s'";

/// What to do when a number of ours comes for the second time; `fail_sequences` says the same.
pub const SEQUENCES_BEHIND: &str = "The sequences of this database are behind its tables, as after a \
    move by logical replication: call \"select pubsub.reset_sequences()\" in it";

/// A time as the API shows it: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(pub DateTime<Utc>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// Where a page of a list starts and how long it is.
#[derive(Clone, Debug)]
pub struct Page<Id = String> {
    /// How many entries to skip.
    pub offset: i64,
    /// How many entries to return.
    pub limit: i32,
    /// Only entries after the one of this id.
    pub after: Option<Id>,
}

/// Connection options for a database URL.
///
/// # Errors
/// When the URL cannot be understood.
pub fn options(settings: &Settings, url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("fastpubsub")
        // poolers refuse it, and floats are read in binary
        .extra_float_digits(None);
    Ok(if settings.database_echo {
        options.log_statements(LevelFilter::Info)
    } else {
        options.disable_statement_logging()
    })
}

/// The connections of a [`database::Database`]. Nothing is connected yet.
fn pool(
    settings: &Settings,
    options: PgConnectOptions,
    sessions: Sessions,
    most_connections: u32,
) -> PgPool {
    let pre_ping = settings.database_pool_pre_ping;
    PgPoolOptions::new()
        .max_connections(most_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                match sessions {
                    Sessions::Own => prepare_session(connection).await,
                    Sessions::Shared => Ok(()),
                }
            })
        })
        .before_acquire(move |connection, meta| {
            Box::pin(async move {
                // a busy connection needs no test
                if pre_ping && meta.idle_for > Duration::from_secs(1) {
                    return Ok(connection.ping().await.is_ok());
                }
                Ok(true)
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                // else each keeps room for the largest publish that it ever sent
                connection.shrink_buffers();
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// One connection whose session is left as it is.
///
/// # Errors
/// When the database cannot be reached.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let too_long = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CONNECT_TIMEOUT, options.connect())
        .await
        .map_err(too_long)?
}

/// Break off what the session of this application name does.
///
/// # Errors
/// When the database cannot be reached.
pub async fn cancel(options: &PgConnectOptions, application_name: &str) -> Result<(), sqlx::Error> {
    let mut connection = options.connect().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "select pg_catalog.pg_cancel_backend(a.pid) from pg_catalog.pg_stat_activity a \
         where a.application_name operator(pg_catalog.=) $1 \
             and a.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()",
    )
    .bind(application_name)
    // the session may be a pooler's
    .persistent(false)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Set a session of our own up as the service does.
///
/// # Errors
/// When the database fails.
pub async fn prepare_session(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SESSION).execute(connection).await?;
    Ok(())
}

/// Why the database takes no writes; none when it does.
///
/// # Errors
/// When it does not answer.
pub async fn why_read_only(database: &Database) -> Result<Option<&'static str>, sqlx::Error> {
    let mut held = database.acquire().await?;
    let mut transaction = held.connection()?.begin().await?;
    let query = sqlx::query_as(
        "select pg_is_in_recovery(), current_setting('transaction_read_only')::boolean",
    );
    let (is_standby, is_read_only): (bool, bool) =
        query.persistent(false).fetch_one(&mut *transaction).await?;
    transaction.rollback().await?;
    if is_standby {
        // a session of it takes writes as soon as it is promoted
        return Ok(Some("database is a standby, which takes no writes"));
    }
    if is_read_only {
        // what a database or role sets holds for new sessions
        held.close().await?;
        return Ok(Some(
            "database is read-only: default_transaction_read_only is on",
        ));
    }
    Ok(None)
}
