//! Sees what others commit. One per server, while somebody waits: a connection of its own sleeps in
//! `wait_for_commit`, and after each commit one statement, `ready_subscriptions`, asks for all
//! subscriptions at once. Without that connection it asks each second.

use std::sync::Arc;
use std::time::Duration;

use crate::db::database::Database;
use crate::db::pooler::Sessions;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, Row};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::places::Watched;

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// A look that takes so long is followed by a pause of so many times that: at most a tenth of the time.
const PAUSE_FACTOR: u32 = 9;
/// How long a wait for a commit lasts: when the server ends, its call does so within this time.
const WAIT_SECONDS: f64 = 2.0;
/// The same where it keeps one of a pooler's sessions from others.
const SHARED_WAIT_SECONDS: f64 = 1.0;
/// A call that lasts longer sleeps by a clock that was set back meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// Between looks that no commit asks for, and between attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// When nothing at all is due.
const IDLE: Duration = Duration::from_secs(5);

/// What a look tells of a subscription.
#[derive(Debug, FromRow)]
pub(super) struct Look {
    pub(super) subscription_id: String,
    pub(super) topic_id: Option<String>,
    pub(super) is_ready: bool,
    pub(super) next_after: Option<Uuid>,
    pub(super) newest: Option<Uuid>,
    pub(super) rewinds: Option<i32>,
    pub(super) due_at: Option<DateTime<Utc>>,
    pub(super) due_in_seconds: Option<f64>,
    pub(super) frees: bool,
    pub(super) by_consumer: bool,
}

/// Watch until nobody waits any more, or nobody shall.
pub(super) async fn run(shared: Arc<Shared>) {
    // one commit that has not been looked at yet is as good as many
    let (committed, commits) = mpsc::channel(1);
    tokio::select! {
        () = look_after_commits(&shared, commits) => {}
        () = wait_for_commits(&shared.pool, committed) => {}
        () = shared.closing.cancelled() => {}
    }
}

async fn look_after_commits(shared: &Shared, mut commits: mpsc::Receiver<()>) {
    loop {
        let next_at = shared.places().next_at();
        let idle_until = Instant::now() + IDLE;
        let asked = tokio::select! {
            _ = commits.recv() => true,
            () = shared.arrived.notified() => true,
            () = tokio::time::sleep_until(next_at.map_or(idle_until, |at| at.min(idle_until))) => false,
        };
        let asked = asked || next_at.is_some_and(|at| at <= Instant::now());
        let Some(watched) = shared.places().watched() else {
            return;
        };
        if !asked {
            continue;
        }
        let started = Instant::now();
        match look(&shared.pool, watched).await {
            Ok(looks) => shared.places().update(looks),
            Err(error) => {
                tracing::debug!(error = %error, "looking for waiting consumers failed");
                tokio::time::sleep(RETRY).await;
                shared.arrived.notify_one();
            }
        }
        tokio::time::sleep(PAUSE.max(started.elapsed() * PAUSE_FACTOR)).await;
    }
}

async fn look(pool: &Database, watched: Watched) -> Result<Vec<Look>, sqlx::Error> {
    sqlx::query_as("select * from pubsub.ready_subscriptions($1, $2, $3)")
        .bind(watched.subscription_ids)
        .bind(watched.after)
        .bind(watched.rewinds)
        .fetch_all(pool)
        .await
}

/// Tell of commits, for ever.
async fn wait_for_commits(pool: &Database, committed: mpsc::Sender<()>) {
    let mut warned = false;
    loop {
        let Err(error) = wait_on_a_connection(pool, &committed, &mut warned).await;
        if !std::mem::replace(&mut warned, true) {
            tracing::warn!(error = %error, "cannot wait for commits; asking each second instead");
        }
        tokio::time::sleep(RETRY).await;
        let _ended = committed.send(()).await;
    }
}

async fn wait_on_a_connection(
    pool: &Database,
    committed: &mpsc::Sender<()>,
    warned: &mut bool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let options = pool.pool().connect_options();
    let mut connection = PgConnection::connect_with(&options).await?;
    let sessions = pool.sessions();
    let mut own = None;
    if sessions == Sessions::Own {
        // the call lasts longer than any statement of a request may
        sqlx::raw_sql("set search_path = ''; set jit = off; set statement_timeout = 0")
            .execute(&mut connection)
            .await?;
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        own = Some(pid);
    }
    let mut snapshot = String::new();
    loop {
        let call = wait_for_commit(&mut connection, sessions, &snapshot);
        let Ok(now) = tokio::time::timeout(LONGEST_WAIT, call).await else {
            // a pooler ends the call of a client that has left
            if let Some(pid) = own {
                cancel(pool, pid).await?;
            }
            return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        };
        let now = now?;
        if std::mem::take(warned) {
            tracing::info!("waiting for commits again");
        }
        if now != snapshot {
            snapshot = now;
            // waits while the last one has not been looked at: never faster than the looks
            let _ended = committed.send(()).await;
        }
    }
}

/// The procedure ends transactions, so it cannot be called in one.
async fn wait_for_commit(
    connection: &mut PgConnection,
    sessions: Sessions,
    snapshot: &str,
) -> Result<String, sqlx::Error> {
    match sessions {
        Sessions::Own => {
            sqlx::query_scalar("call pubsub.wait_for_commit($1, $2)")
                .bind(snapshot)
                .bind(WAIT_SECONDS)
                .fetch_one(connection)
                .await
        }
        // nothing prepared, which could be another session's; no quote is in a snapshot
        Sessions::Shared => {
            let snapshot = snapshot.replace('\'', "");
            let call = format!("call pubsub.wait_for_commit('{snapshot}', {SHARED_WAIT_SECONDS})");
            let row = connection
                .fetch_one(sqlx::raw_sql(AssertSqlSafe(call)))
                .await?;
            row.try_get(0)
        }
    }
}

/// End such a call, which would not notice that nobody waits for it.
async fn cancel(pool: &Database, pid: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select pg_cancel_backend(a.pid) from pg_stat_activity a \
         where a.pid = $1 and a.query like 'call pubsub.wait_for_commit%'",
    )
    .bind(pid)
    .execute(pool)
    .await?;
    Ok(())
}
