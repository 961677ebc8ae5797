//! Push: `rotate_push_secret`, `list_push_endpoints`, `note_push_result`, `try_push_probe`. That it is set,
//! [`super::subscriptions`] say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::types::Json;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Timestamp;
use super::database::Database;
use crate::error::Error;

/// The setting of a subscription, as it is answered.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Push {
    /// Where messages are sent to.
    #[schema(example = "https://example.com/hook")]
    pub endpoint: String,
    /// How long an answer may take.
    pub timeout_seconds: i32,
    /// The headers that go with each push; their values are not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_names: Vec<String>,
    /// What signs, only where it was made now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<String>,
    /// Until when the secret of before signs, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub previous_secret_until: Option<Timestamp>,
    /// Pushes that failed in a row.
    pub failures: i32,
    /// Nothing is sent before, since too many failed; absent when it is not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub paused_until: Option<Timestamp>,
    /// The endpoint answered 410: nothing is sent until push is set again; absent when it is not so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What went wrong last, if anything ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_error: Option<String>,
    /// When it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_failed_at: Option<Timestamp>,
}

impl Push {
    /// Of an answer beside its texts.
    const OTHER_BYTES: usize = 400;

    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let names: usize = self.header_names.iter().map(|name| name.len() + 3).sum();
        let error = self.last_error.as_ref().map_or(0, String::len);
        self.endpoint.len() + names + error + Self::OTHER_BYTES
    }
}

/// How many seconds a pause has left by the clock of Postgres, as [`Pause::of`] reads it.
macro_rules! seconds_left {
    ($until:literal) => {
        concat!(
            "case when isfinite(",
            $until,
            ") then extract(epoch from ",
            $until,
            " - clock_timestamp())::float8 when ",
            $until,
            " is not null then 'infinity' end"
        )
    };
}

/// How long an endpoint is left alone. Postgres says for how long: its clock need not be that of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Until then.
    Until(Instant),
    /// Until push is set again.
    Stopped,
}

impl Pause {
    /// One that has so many seconds left now, or for ever.
    fn of(seconds: Option<f64>) -> Option<Self> {
        let left = Duration::try_from_secs_f64(seconds?.max(0.0));
        Some(match left {
            Ok(left) => Instant::now()
                .checked_add(left)
                .map_or(Self::Stopped, Self::Until),
            Err(_) => Self::Stopped,
        })
    }
}

/// How a push ended, as all servers are to know.
#[derive(Clone, Copy, Debug)]
pub struct PushResult<'a> {
    /// Of the endpoint that was pushed to.
    pub version: i64,
    /// Whether the receiver has the message.
    pub is_success: bool,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// The endpoint wants no more messages.
    pub is_gone: bool,
    /// For how long it wants to be left alone, at most an hour.
    pub wait: Option<Duration>,
}

/// Where the messages of a subscription are sent to, as those who send need it.
#[derive(Clone, Debug)]
pub struct PushEndpoint {
    /// The subscription.
    pub subscription_id: String,
    /// Its topic.
    pub topic_id: String,
    /// An http or https URL.
    pub endpoint: String,
    /// Go with each push, values by name.
    pub headers: BTreeMap<String, String>,
    /// How long an answer may take.
    pub timeout_seconds: i32,
    /// All that sign now, the newest first.
    pub secrets: Vec<String>,
    /// Nothing is sent as long as it lasts.
    pub pause: Option<Pause>,
    /// In a row.
    pub failures: i32,
    /// Whether messages of one ordering key go one after the other.
    pub is_ordered: bool,
    /// Most messages that are leased at a time.
    pub max_in_flight: Option<i32>,
    /// Another one when anything has changed but failures and pauses.
    pub version: i64,
}

#[derive(FromRow)]
struct Row {
    subscription_id: String,
    topic_id: String,
    endpoint: String,
    headers: Json<BTreeMap<String, String>>,
    timeout_seconds: i32,
    secrets: Vec<String>,
    pause_seconds: Option<f64>,
    failures: i32,
    is_ordered: bool,
    max_in_flight: Option<i32>,
    version: i64,
}

/// A secret that takes the place of another.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub struct RotatedSecret {
    /// What signs from now on.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: String,
    /// Until when the one of before signs, too; null: it ended now.
    #[schema(required = true)]
    pub previous_valid_until: Option<Timestamp>,
}

/// Sign with another secret; the one of now signs beside it for the overlap.
///
/// # Errors
/// 404 for an unknown subscription, or one without an endpoint.
pub async fn rotate(
    database: &Database,
    subscription_id: &str,
    overlap_seconds: i32,
) -> Result<RotatedSecret, Error> {
    let query = sqlx::query_as("select * from pubsub.rotate_push_secret($1, $2)");
    Ok(query
        .bind(subscription_id)
        .bind(overlap_seconds)
        .fetch_one(database)
        .await?)
}

/// Every endpoint whose subscription is not paused, or only that of one subscription, paused or not.
///
/// # Errors
/// When the database fails.
pub async fn list(
    database: &Database,
    subscription_id: Option<&str>,
) -> Result<Vec<PushEndpoint>, Error> {
    let query = sqlx::query_as(concat!(
        "select l.*, ",
        seconds_left!("l.paused_until"),
        " as pause_seconds from pubsub.list_push_endpoints($1) l order by l.subscription_id",
    ));
    let rows: Vec<Row> = query.bind(subscription_id).fetch_all(database).await?;
    let endpoint = |row: Row| PushEndpoint {
        subscription_id: row.subscription_id,
        topic_id: row.topic_id,
        endpoint: row.endpoint,
        headers: row.headers.0,
        timeout_seconds: row.timeout_seconds,
        secrets: row.secrets,
        pause: Pause::of(row.pause_seconds),
        failures: row.failures,
        is_ordered: row.is_ordered,
        max_in_flight: row.max_in_flight,
        version: row.version,
    };
    Ok(rows.into_iter().map(endpoint).collect())
}

/// Tell all servers how a push ended; how long they send nothing.
///
/// # Errors
/// When the database fails.
pub async fn note_result(
    database: &Database,
    subscription_id: &str,
    result: PushResult<'_>,
) -> Result<Option<Pause>, Error> {
    let query = sqlx::query_scalar(concat!(
        "select ",
        seconds_left!("n.until"),
        " from pubsub.note_push_result($1, $2, $3, $4, $5, $6) as n (until)",
    ));
    let seconds = query
        .bind(subscription_id)
        .bind(result.is_success)
        .bind(result.error)
        .bind(result.is_gone)
        .bind(result.version)
        .bind(result.wait.map(|wait| wait.as_secs_f64()))
        .fetch_one(database)
        .await?;
    Ok(Pause::of(seconds))
}

/// How many seconds a message waits after so many attempts because its receiver wants to be left alone for some
/// time; none: its backoff is no shorter.
///
/// # Errors
/// 404 for an unknown subscription.
pub async fn wait_after(
    database: &Database,
    subscription_id: &str,
    attempts: i32,
    wait: Duration,
) -> Result<Option<f64>, Error> {
    let query = sqlx::query_scalar(
        "select case when $3 > pubsub.backoff_seconds($2, g.exact_backoff_min_seconds, \
         g.exact_backoff_max_seconds, g.backoff_strategy) then $3 end from pubsub.get_subscription($1) g",
    );
    Ok(query
        .bind(subscription_id)
        .bind(attempts)
        .bind(wait.as_secs_f64())
        .fetch_one(database)
        .await?)
}

/// Ask to be the one who tries an endpoint whose pause is over.
///
/// # Errors
/// When the database fails.
pub async fn try_probe(database: &Database, subscription_id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("select pubsub.try_push_probe($1)")
        .bind(subscription_id)
        .fetch_one(database)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_long_as_postgres_says_whatever_the_time_is_here() {
        let before = Instant::now();
        let Some(Pause::Until(until)) = Pause::of(Some(2.5)) else {
            panic!("a pause");
        };
        assert!(until >= before + Duration::from_millis(2500));
        assert!(matches!(Pause::of(Some(-1e9)), Some(Pause::Until(_))));
        assert_eq!(Pause::of(Some(f64::INFINITY)), Some(Pause::Stopped));
        assert_eq!(Pause::of(None), None);
    }
}
