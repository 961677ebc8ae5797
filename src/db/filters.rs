//! Filters: `preview_filter`.

use std::pin::pin;
use std::sync::Arc;

use serde_json::value::RawValue;
use sqlx::{Connection, FromRow};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Timestamp;
use super::database::{BEGIN, Database};
use super::json::JsonText;
use crate::error::Error;

/// Of a sample beside its payload and attributes, as it is answered.
const OTHER_BYTES: usize = 1000;

/// What a filter would let pass of the newest messages of a topic.
#[derive(Debug)]
pub struct Preview {
    /// How many messages were looked at.
    pub scanned: i64,
    /// How many of them match.
    pub matched: i64,
    /// The newest that match.
    pub samples: Vec<Sample>,
}

/// A message that matches.
#[derive(Debug)]
pub struct Sample {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: JsonText,
    /// Its attributes, if it has any.
    pub attributes: Option<JsonText>,
    /// When it was published.
    pub published_at: Timestamp,
}

impl Sample {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, JsonText::size);
        self.payload.size() + attributes + OTHER_BYTES
    }
}

/// The counts, beside a sample where there is one.
#[derive(FromRow)]
struct Row {
    scanned: i64,
    matched: i64,
    message_id: Option<Uuid>,
    payload: Option<JsonText>,
    attributes: Option<JsonText>,
    published_at: Option<Timestamp>,
}

impl Row {
    fn sample(self) -> Option<Sample> {
        Some(Sample {
            message_id: self.message_id?,
            payload: self.payload?,
            attributes: self.attributes,
            published_at: self.published_at?,
        })
    }
}

/// How many previews run at a time: each may read many messages.
static PREVIEWS: Semaphore = Semaphore::const_new(2);

/// Try a filter on the newest `last` messages of a subscription's topic, for some seconds at most;
/// fewer samples where they would have more bytes. `past_filter`: also on those that its own filter does
/// not let pass. The query ends when nobody waits for it any more.
///
/// # Errors
/// 404 for an unknown subscription, 422 for a bad filter, 503 while others run, 504 when it takes too
/// long.
pub async fn preview(
    database: &Database,
    subscription_id: &str,
    filter: Option<&RawValue>,
    last: i32,
    max_bytes: usize,
    past_filter: bool,
) -> Result<Preview, Error> {
    let turn = PREVIEWS
        .try_acquire()
        .map_err(|_| Error::Busy("two filter previews are running already"))?;
    let trial = Trial {
        database: database.clone(),
        subscription_id: subscription_id.to_owned(),
        filter: filter.map(|filter| filter.get().to_owned()),
        last,
        past_filter,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
    };
    let wanted = CancellationToken::new();
    let unwanted = wanted.clone();
    let _until_dropped = wanted.drop_guard();
    // a task of its own, since dropping a query does not end it
    let running = tokio::spawn(async move {
        let _turn = turn;
        trial.run(&unwanted).await
    });
    let rows = running
        .await
        .map_err(|panicked| Error::Internal(Arc::new(panicked)))??;
    let (scanned, matched) = rows
        .first()
        .map_or((0, 0), |row| (row.scanned, row.matched));
    Ok(Preview {
        scanned,
        matched,
        samples: rows.into_iter().filter_map(Row::sample).collect(),
    })
}

/// A preview to be made.
struct Trial {
    database: Database,
    subscription_id: String,
    filter: Option<String>,
    last: i32,
    past_filter: bool,
    max_bytes: i64,
}

impl Trial {
    async fn run(&self, unwanted: &CancellationToken) -> Result<Vec<Row>, Error> {
        let mut held = self.database.acquire().await?;
        let mut transaction = held.connection()?.begin_with(BEGIN).await?;
        let (backend, _): (i32, String) =
            sqlx::query_as("select pg_backend_pid(), set_config('statement_timeout', '5s', true)")
                .persistent(false)
                .fetch_one(&mut *transaction)
                .await?;
        let query = sqlx::query_as(up_to_bytes!(
            "pubsub.preview_filter($1, $2::json, $3, $5)",
            "1000 + octet_length(l.payload::text) + coalesce(octet_length(l.attributes::text), 0)",
            "$4"
        ));
        let query = query
            .bind(&self.subscription_id)
            .bind(&self.filter)
            .bind(self.last)
            .bind(self.max_bytes)
            .bind(self.past_filter)
            .persistent(false);
        let mut rows = pin!(query.fetch_all(&mut *transaction));
        let rows = tokio::select! {
            rows = &mut rows => rows,
            () = unwanted.cancelled() => {
                // the transaction is ours until it has ended, so this meets no other query
                let cancelled = sqlx::query("select pg_cancel_backend($1)")
                    .bind(backend)
                    .execute(&self.database)
                    .await;
                if let Err(error) = cancelled {
                    // it has its time limit
                    tracing::warn!(error = %error, "cancelling a filter preview failed");
                }
                rows.await
            }
        };
        Ok(rows?)
    }
}
