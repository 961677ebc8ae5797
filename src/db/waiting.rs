//! What others commit, for those who wait: `ready_subscriptions`, `wait_for_commit`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, Row};
use uuid::Uuid;

use super::database::Database;
use super::pooler::Sessions;

/// How long a wait for a commit lasts: when the server ends, its call does so within this time.
const WAIT_SECONDS: f64 = 2.0;
/// The same where it keeps one of a pooler's sessions from others.
const SHARED_WAIT_SECONDS: f64 = 1.0;
/// A call that lasts longer sleeps by a clock that was set back meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// What a look goes by: an element of each list per subscription.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) subscription_ids: Vec<String>,
    pub(crate) after: Vec<Option<Uuid>>,
    pub(crate) rewinds: Vec<Option<i32>>,
}

/// What a look tells of a subscription.
#[derive(Debug, FromRow)]
pub(crate) struct Look {
    pub(crate) subscription_id: String,
    pub(crate) topic_id: Option<String>,
    pub(crate) is_ready: bool,
    pub(crate) next_after: Option<Uuid>,
    pub(crate) newest: Option<Uuid>,
    pub(crate) rewinds: Option<i32>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) due_in_seconds: Option<f64>,
    pub(crate) frees: bool,
    pub(crate) by_consumer: bool,
    pub(crate) expires_after_seconds: Option<i32>,
}

/// Which subscriptions have something to claim.
///
/// # Errors
/// When the database fails.
pub(crate) async fn look(database: &Database, watched: Watched) -> Result<Vec<Look>, sqlx::Error> {
    sqlx::query_as("select * from pubsub.ready_subscriptions($1, $2, $3)")
        .bind(watched.subscription_ids)
        .bind(watched.after)
        .bind(watched.rewinds)
        .fetch_all(database)
        .await
}

/// A connection of its own that sleeps until others commit.
pub(crate) struct Commits<'d> {
    database: &'d Database,
    connection: PgConnection,
    /// The process of its session, unless that is a pooler's, which ends the call of a client that left.
    pid: Option<i32>,
    snapshot: String,
}

impl<'d> Commits<'d> {
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn connect(database: &'d Database) -> Result<Self, sqlx::Error> {
        let options = database.pool().connect_options();
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut pid = None;
        if database.sessions() == Sessions::Own {
            // the call lasts longer than any statement of a request may
            sqlx::raw_sql("set search_path = ''; set jit = off; set statement_timeout = 0")
                .execute(&mut connection)
                .await?;
            let own: i32 = sqlx::query_scalar("select pg_backend_pid()")
                .fetch_one(&mut connection)
                .await?;
            pid = Some(own);
        }
        Ok(Self {
            database,
            connection,
            pid,
            snapshot: String::new(),
        })
    }

    /// Wait for commits, for a while; whether there were any.
    ///
    /// # Errors
    /// When the database fails; the connection is of no use any more.
    pub(crate) async fn next(&mut self) -> Result<bool, sqlx::Error> {
        let Ok(now) = tokio::time::timeout(LONGEST_WAIT, self.wait()).await else {
            if let Some(pid) = self.pid {
                cancel(self.database, pid).await?;
            }
            return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        };
        let now = now?;
        let is_new = now != self.snapshot;
        self.snapshot = now;
        Ok(is_new)
    }

    /// The procedure ends transactions, so it cannot be called in one.
    async fn wait(&mut self) -> Result<String, sqlx::Error> {
        match self.database.sessions() {
            Sessions::Own => {
                sqlx::query_scalar("call pubsub.wait_for_commit($1, $2)")
                    .bind(&self.snapshot)
                    .bind(WAIT_SECONDS)
                    .fetch_one(&mut self.connection)
                    .await
            }
            // nothing prepared, which could be another session's; no quote is in a snapshot
            Sessions::Shared => {
                let snapshot = self.snapshot.replace('\'', "");
                let call =
                    format!("call pubsub.wait_for_commit('{snapshot}', {SHARED_WAIT_SECONDS})");
                let row = self
                    .connection
                    .fetch_one(sqlx::raw_sql(AssertSqlSafe(call)))
                    .await?;
                row.try_get(0)
            }
        }
    }
}

/// End such a call, which would not notice that nobody waits for it.
async fn cancel(database: &Database, pid: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select pg_cancel_backend(a.pid) from pg_stat_activity a \
         where a.pid = $1 and a.query like 'call pubsub.wait_for_commit%'",
    )
    .bind(pid)
    .execute(database)
    .await?;
    Ok(())
}
