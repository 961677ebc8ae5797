//! Whether a pooler stands in front of Postgres that gives each transaction another session. What a
//! connection prepared or set is then another client's, or gone, so the service leaves both alone.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

/// To whom the sessions of the service's connections belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// To the connection, as long as it lasts: no pooler, or one in session mode.
    Own,
    /// To a pooler: any transaction may be on another one, beside those of other applications.
    Shared,
}

/// Statements of one connection that are all on the same session only if it is its own, or by a
/// chance of one in a million.
const LOOKS: usize = 10;
/// A pooler that lets the second of two connections wait longer has no session left for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Several poolers may be behind one address: of so many connections some two meet at one of them.
const CROWD: usize = 8;

/// Find out: while one connection holds a session by a transaction, a pooler gives another one the
/// session that the first connection was just on, or the first connection another one; and of several
/// connections some are on one session, or on others than before.
///
/// # Errors
/// When the database fails, or a pooler in statement mode refuses a transaction.
pub async fn probe(options: &PgConnectOptions) -> Result<Sessions, sqlx::Error> {
    let mut first = options.connect().await?;
    let session = backend(&mut first).await?;
    let mut holders = Vec::new();
    let found = loop {
        // whoever makes us wait for a session, gives them out
        let Ok(holder) = tokio::time::timeout(PATIENCE, hold(options)).await else {
            break Sessions::Shared;
        };
        let (holder, held) = match holder {
            // cannot be told, and what is right for a pooler is right without one
            Err(error) if is_too_many(&error) => break Sessions::Shared,
            holder => holder?,
        };
        holders.push(holder);
        if held == session {
            break Sessions::Shared;
        }
        match tokio::time::timeout(PATIENCE, same_session(&mut first, session)).await {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => return Err(error),
            Ok(Ok(false)) | Err(_) => break Sessions::Shared,
        }
        // the second one gets the session that is left when the first took one of two
        if holders.len() == 2 {
            break look_at_crowd(options).await?;
        }
    };
    // a goodbye that fails changes nothing; the transactions hold nothing but their sessions
    for holder in holders {
        let _closed = holder.close().await;
    }
    let _closed = first.close().await;
    Ok(found)
}

/// Whether none of several connections is on another's session, nor on another one than before.
async fn look_at_crowd(options: &PgConnectOptions) -> Result<Sessions, sqlx::Error> {
    let mut crowd = Vec::new();
    let mut seen = Vec::new();
    while crowd.len() < CROWD {
        let arrives = async {
            let mut connection = options.connect().await?;
            let session = backend(&mut connection).await?;
            Ok((connection, session))
        };
        match tokio::time::timeout(PATIENCE, arrives).await {
            Ok(Ok((connection, session))) => {
                crowd.push(connection);
                seen.push(session);
            }
            Ok(Err(error)) if !is_too_many(&error) => return Err(error),
            // those who are there have to do
            _ => break,
        }
    }
    let mut found = Sessions::Own;
    for (connection, session) in crowd.iter_mut().zip(&seen) {
        let again = tokio::time::timeout(PATIENCE, backend(connection)).await;
        if !matches!(again, Ok(Ok(again)) if again == *session) {
            found = Sessions::Shared;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    if seen.len() < crowd.len() {
        found = Sessions::Shared;
    }
    for connection in crowd {
        let _closed = connection.close().await;
    }
    Ok(found)
}

/// A connection in a transaction, and its session.
async fn hold(options: &PgConnectOptions) -> Result<(PgConnection, i32), sqlx::Error> {
    let mut holder = options.connect().await?;
    sqlx::raw_sql("begin").execute(&mut holder).await?;
    let session = backend(&mut holder).await?;
    Ok((holder, session))
}

async fn same_session(connection: &mut PgConnection, session: i32) -> Result<bool, sqlx::Error> {
    for _ in 0..LOOKS {
        if backend(connection).await? != session {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The process that serves a connection now; asked without a statement that would be prepared.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use sqlx::{Executor, Row};
    connection
        .fetch_one(sqlx::raw_sql("select pg_catalog.pg_backend_pid()"))
        .await?
        .try_get(0)
}

fn is_too_many(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("53300")
}
