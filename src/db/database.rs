//! The database as the service uses it: each statement is one call in a transaction of its own, on a
//! session with known settings, and is made again when Postgres broke it off for others' sake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::{Connection, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};

use super::pooler::Sessions;
use super::refusal::Refusal;
use super::room::{Held, Room};
use crate::config::Settings;

/// Begins the transaction of a call where sessions belong to a pooler: what is set ends with it.
pub(super) const BEGIN: &str = "begin isolation level read committed; set local search_path = ''; \
    set local jit = off; set local timezone = 'UTC'; set local lock_timeout = 0; \
    set local statement_timeout = '30s'; set local idle_in_transaction_session_timeout = '60s'";

/// How often a call is made again, each time after a longer pause.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The database: connections, and how to call it on them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    room: Arc<Room>,
    /// Whether sessions are a pooler's.
    shared: Arc<AtomicBool>,
}

impl Database {
    /// Over connections of these options, whose sessions are like this. Nothing is connected yet.
    #[must_use]
    pub fn new(settings: &Settings, options: PgConnectOptions, sessions: Sessions) -> Self {
        let most = settings.database_pool_size + settings.database_max_overflow;
        Self::with(settings, options, sessions, most)
    }

    /// For a subcommand: a single connection, which leaves nothing behind on any session.
    #[must_use]
    pub fn single(settings: &Settings, options: PgConnectOptions) -> Self {
        Self::with(settings, options, Sessions::Shared, 1)
    }

    fn with(
        settings: &Settings,
        options: PgConnectOptions,
        sessions: Sessions,
        most_connections: u32,
    ) -> Self {
        let pool = super::pool(settings, options, sessions, most_connections);
        Self {
            room: Arc::new(Room::new(pool)),
            shared: Arc::new(AtomicBool::new(sessions == Sessions::Shared)),
        }
    }

    /// The connections, to look at.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.room.pool()
    }

    /// Whether its sessions are those of a pooler.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        if self.shared.load(Ordering::Relaxed) {
            Sessions::Shared
        } else {
            Sessions::Own
        }
    }

    /// A session is a pooler's, which was not so, or not to be seen, at the start.
    fn share_sessions(&self) {
        if !self.shared.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a pooler that shares sessions is in front of the database, unlike at the start: from \
                 now on each call is made in an explicit transaction, without prepared statements"
            );
        }
    }

    /// A connection, which goes back when it is dropped.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn acquire(&self) -> Result<Held, sqlx::Error> {
        self.room.acquire().await
    }

    /// Close all connections, when they are free.
    pub async fn close(&self) {
        self.room.pool().close().await;
    }

    async fn run(&self, call: Call) -> Result<Vec<Row>, sqlx::Error> {
        let Call { sql, arguments } = call;
        let mut arguments = arguments.map_err(sqlx::Error::Encode)?;
        let mut pause = FIRST_PAUSE;
        let mut tries = RETRIES;
        loop {
            let kept = (tries > 0).then(|| arguments.clone());
            let error = match self.attempt(sql.clone(), arguments).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let (Some(refusal), Some(again)) = (Refusal::of(&error), kept) else {
                return Err(error);
            };
            if refusal == Refusal::ForeignSession {
                self.share_sessions();
            }
            tracing::info!(
                cause = refusal.name(),
                error = %error,
                "a call that Postgres broke off is made again"
            );
            // some randomness, so that those who collided do not collide again
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
            pause *= 4;
            tries -= 1;
            arguments = again;
        }
    }

    async fn attempt(
        &self,
        sql: SqlStr,
        arguments: Option<PgArguments>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut held = self.acquire().await?;
        let connection = held.connection()?;
        let rows = match self.sessions() {
            Sessions::Own => collect(connection, sql, arguments, true).await,
            Sessions::Shared => {
                // prepared before it was known: they would be used again
                if connection.cached_statements_size() > 0 {
                    connection.clear_cached_statements().await?;
                }
                let mut transaction = connection.begin_with(BEGIN).await?;
                match collect(&mut transaction, sql, arguments, false).await {
                    Ok(rows) => {
                        transaction.commit().await?;
                        Ok(rows)
                    }
                    Err(error) => {
                        // what is wrong with the call says more than what is wrong with its end
                        let _rolled_back = transaction.rollback().await;
                        Err(error)
                    }
                }
            }
        };
        if rows.is_ok() {
            self.room.answered();
        }
        rows
    }
}

type Row = Either<PgQueryResult, PgRow>;

async fn collect(
    connection: &mut PgConnection,
    sql: SqlStr,
    arguments: Option<PgArguments>,
    is_named: bool,
) -> Result<Vec<Row>, sqlx::Error> {
    match arguments {
        Some(arguments) => {
            let query = sqlx::query_with(sql, arguments).persistent(is_named);
            connection.fetch_many(query).try_collect().await
        }
        None => {
            connection
                .fetch_many(sqlx::raw_sql(sql))
                .try_collect()
                .await
        }
    }
}

/// A statement with its arguments.
struct Call {
    sql: SqlStr,
    arguments: Result<Option<PgArguments>, sqlx::error::BoxDynError>,
}

impl Call {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Self {
        let arguments = query.take_arguments();
        Self {
            sql: query.sql(),
            arguments,
        }
    }
}

impl<'c> Executor<'c> for &'c Database {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Row, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let call = Call::of(query);
        stream::once(self.run(call))
            .map_ok(|rows| stream::iter(rows.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let call = Call::of(query);
        async move {
            let rows = self.run(call).await?;
            Ok(rows.into_iter().find_map(Either::right))
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.room.pool().prepare_with(sql, parameters)
    }
}
