//! How many connections the database lets this server have. Where it refuses one (a role's or a
//! database's limit, a pooler's pool), calls share those that there are, and after a while one more
//! is tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::ACQUIRE_TIMEOUT;

/// A connection that takes longer to come is perhaps refused again and again.
const SLOW: Duration = Duration::from_millis(300);
/// For one that is opened to find that out.
const PROBE: Duration = Duration::from_secs(1);
/// Before a connection is tried that was refused.
const RETRY: Duration = Duration::from_secs(10);

/// The connections, and how many may be used at a time.
#[derive(Debug)]
pub(super) struct Room {
    pool: PgPool,
    permits: Arc<Semaphore>,
    refused: Mutex<Refused>,
    is_limited: AtomicBool,
    last_answer: Mutex<Instant>,
}

/// What the database did not let this server have.
#[derive(Debug)]
struct Refused {
    connections: u32,
    /// The fewest that were told of.
    told: u32,
    again_at: Instant,
}

impl Room {
    pub(super) fn new(pool: PgPool) -> Self {
        let most = pool.options().get_max_connections();
        let now = Instant::now();
        Self {
            pool,
            permits: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1))),
            refused: Mutex::new(Refused {
                connections: 0,
                told: u32::MAX,
                again_at: now,
            }),
            is_limited: AtomicBool::new(false),
            last_answer: Mutex::new(now),
        }
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The database answered just now.
    pub(super) fn answered(&self) {
        *self
            .last_answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) async fn acquire(&self) -> Result<Held, sqlx::Error> {
        let until = Instant::now() + ACQUIRE_TIMEOUT;
        loop {
            if self.is_limited.load(Ordering::Relaxed) {
                self.try_one_more();
            }
            let permit = timeout_at(until, Arc::clone(&self.permits).acquire_owned())
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map_err(|_| sqlx::Error::PoolClosed)?;
            let mut connecting = std::pin::pin!(self.pool.acquire());
            let acquired = match timeout(SLOW, &mut connecting).await {
                Ok(acquired) => acquired?,
                Err(_) => match self.refusal().await {
                    Some(reason) if self.give_up_one(&reason) => {
                        permit.forget();
                        continue;
                    }
                    _ => timeout_at(until, connecting)
                        .await
                        .map_err(|_| sqlx::Error::PoolTimedOut)??,
                },
            };
            return Ok(Held {
                connection: Some(acquired),
                permit: Some(permit),
            });
        }
    }

    /// Why the database does not let this server have another connection, if it answers at all.
    async fn refusal(&self) -> Option<String> {
        let options = self.pool.connect_options();
        let asked_at = Instant::now();
        let answer = timeout(PROBE, async {
            let mut connection = options.connect().await?;
            sqlx::raw_sql("select 1").execute(&mut connection).await?;
            connection.close().await
        });
        match answer.await {
            // too many connections; a pooler has no code of its own for it
            Ok(Err(sqlx::Error::Database(error)))
                if matches!(error.code().as_deref(), Some("53300" | "08P01")) =>
            {
                Some(error.message().to_owned())
            }
            Ok(_) => None,
            // a pooler lets a connection wait for ever; while others get answers it is full
            Err(_) => {
                let last_answer = *self
                    .last_answer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                (last_answer > asked_at).then(|| "no answer on another connection".to_owned())
            }
        }
    }

    /// Use one connection less; not fewer than one.
    fn give_up_one(&self, reason: &str) -> bool {
        let most = self.pool.options().get_max_connections();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.connections + 1 >= most {
            return false;
        }
        refused.connections += 1;
        refused.again_at = Instant::now() + RETRY;
        self.is_limited.store(true, Ordering::Relaxed);
        let left = most - refused.connections;
        if left < refused.told {
            refused.told = left;
            tracing::warn!(
                connections = left,
                wanted = most,
                reason,
                "the database lets this server have fewer connections than \
                 FASTPUBSUB_DATABASE_POOL_SIZE and FASTPUBSUB_DATABASE_MAX_OVERFLOW allow"
            );
        }
        true
    }

    fn try_one_more(&self) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.connections > 0 && Instant::now() >= refused.again_at {
            refused.connections -= 1;
            refused.again_at = Instant::now() + RETRY;
            self.is_limited
                .store(refused.connections > 0, Ordering::Relaxed);
            self.permits.add_permits(1);
        }
    }
}

/// A connection in use.
#[derive(Debug)]
pub struct Held {
    /// None only once it has been given back.
    connection: Option<PoolConnection<Postgres>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// End the session.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn close(mut self) -> Result<(), sqlx::Error> {
        match self.connection.take() {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }

    /// The connection itself.
    ///
    /// # Errors
    /// Never while it is held.
    pub fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection
            .as_deref_mut()
            .ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let permit = self.permit.take();
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // its room is free when the connection is, or the next one would open another
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let returned = connection.return_to_pool();
            runtime.spawn(async move {
                returned.await;
                drop(permit);
            });
        }
    }
}
