//! Push: `rotate_push_secret`, `list_push_endpoints`, `note_push_result`, `try_push_probe`. That it is set,
//! [`super::subscriptions`] say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::types::Json;
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
    /// Nothing is sent before; in the year 9999 where it is stopped until push is set again.
    pub paused_until: Option<Timestamp>,
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
    finite_pause: Option<Timestamp>,
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
    // chrono knows no infinity
    let query = sqlx::query_as(
        "select l.*, case when l.paused_until = 'infinity' then '9999-12-31T00:00:00Z' \
             else l.paused_until end as finite_pause \
         from pubsub.list_push_endpoints($1) l order by l.subscription_id",
    );
    let rows: Vec<Row> = query.bind(subscription_id).fetch_all(database).await?;
    let endpoint = |row: Row| PushEndpoint {
        subscription_id: row.subscription_id,
        topic_id: row.topic_id,
        endpoint: row.endpoint,
        headers: row.headers.0,
        timeout_seconds: row.timeout_seconds,
        secrets: row.secrets,
        paused_until: row.finite_pause,
        failures: row.failures,
        is_ordered: row.is_ordered,
        max_in_flight: row.max_in_flight,
        version: row.version,
    };
    Ok(rows.into_iter().map(endpoint).collect())
}

/// Tell all servers how a push ended; until when they send nothing.
///
/// # Errors
/// When the database fails.
pub async fn note_result(
    database: &Database,
    subscription_id: &str,
    is_success: bool,
    error: Option<&str>,
    is_gone: bool,
) -> Result<Option<Timestamp>, Error> {
    let query = sqlx::query_scalar(
        "select case when n.until = 'infinity' then '9999-12-31T00:00:00Z' else n.until end \
         from pubsub.note_push_result($1, $2, $3, $4) as n (until)",
    );
    Ok(query
        .bind(subscription_id)
        .bind(is_success)
        .bind(error)
        .bind(is_gone)
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
