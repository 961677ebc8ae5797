//! Jobs: `get_job`, `list_jobs`, `cancel_job`, `advance_jobs`,
//! `list_ended_jobs`.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::database::Database;
use super::{Page, Timestamp};
use crate::error::Error;

/// Of a job beside what was asked for, as it is answered.
const OTHER_BYTES: usize = 1000;

/// Work that goes over many messages in steps.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Whose messages it goes over.
    pub subscription_id: String,
    /// `seek` or `replay`.
    #[schema(example = "seek")]
    pub kind: String,
    /// `running`, `done`, `cancelled` or `failed`.
    #[schema(example = "running")]
    pub state: String,
    /// What was asked for.
    #[schema(value_type = Object, example = json!({"time": "2026-01-02T03:04:05Z"}))]
    pub request: Json<Value>,
    /// How far it has come, as a publish time.
    #[schema(required = true)]
    pub reached: Option<Timestamp>,
    /// How far it goes.
    #[schema(required = true)]
    pub until: Option<Timestamp>,
    /// Messages it has looked at.
    pub scanned: i64,
    /// Messages it has made available or settled.
    pub changed: i64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last made a step.
    pub updated_at: Timestamp,
}

impl Job {
    /// Whether steps are to come.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        self.request.to_string().len() + OTHER_BYTES
    }
}

/// One job of a subscription that may be seen; none for any.
///
/// # Errors
/// 404 when there is none.
pub async fn get(database: &Database, id: Uuid, allowed: Option<&[String]>) -> Result<Job, Error> {
    let query = sqlx::query_as("select * from pubsub.get_job($1, $2)");
    Ok(query.bind(id).bind(allowed).fetch_one(database).await?)
}

/// A page of jobs of the subscriptions that may be seen; none for all. The newest come first. It ends
/// early where it would have more bytes.
///
/// # Errors
/// 422 when there is no job that it is to come after.
pub async fn list(
    database: &Database,
    subscription_id: Option<&str>,
    page: Page<Uuid>,
    allowed: Option<&[String]>,
    max_bytes: usize,
) -> Result<Vec<Job>, Error> {
    let query = sqlx::query_as(up_to_bytes!(
        "pubsub.list_jobs($1, $2, $3, null, $4, $5)",
        "1000 + octet_length(l.request::text)",
        "$6"
    ));
    Ok(query
        .bind(subscription_id)
        .bind(page.offset)
        .bind(page.limit)
        .bind(page.after)
        .bind(allowed)
        .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?)
}

/// Stop a job of a subscription that may be changed, none for any, after its current step.
///
/// # Errors
/// 404 when there is none.
pub async fn cancel(
    database: &Database,
    id: Uuid,
    allowed: Option<&[String]>,
) -> Result<Job, Error> {
    let query = sqlx::query_as("select * from pubsub.cancel_job($1, $2)");
    Ok(query.bind(id).bind(allowed).fetch_one(database).await?)
}

/// Make the next step of one of the running jobs, over at most `batch` messages; whether there was one to
/// make.
///
/// # Errors
/// When the database fails.
pub async fn advance(executor: impl PgExecutor<'_>, batch: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pubsub.advance_jobs($1)")
        .bind(batch)
        .fetch_one(executor)
        .await
}

/// The jobs that ended in the last `seconds`, in the order in which they did.
///
/// # Errors
/// When the database fails.
pub async fn ended(executor: impl PgExecutor<'_>, seconds: i32) -> Result<Vec<Job>, sqlx::Error> {
    sqlx::query_as("select * from pubsub.list_ended_jobs(make_interval(secs => $1))")
        .bind(seconds)
        .fetch_all(executor)
        .await
}
