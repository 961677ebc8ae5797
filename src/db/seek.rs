//! Seeking: `seek_subscription`, `seek_subscription_to_end`, `seek_subscription_to_snapshot`,
//! `replay_messages`.

use super::database::Database;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::jobs::Job;
use crate::error::Error;

/// Where to go.
#[derive(Debug)]
pub enum Seek {
    /// To a time.
    Time(DateTime<Utc>),
    /// To the end: settle everything.
    End,
    /// To a snapshot.
    Snapshot {
        /// Its id.
        id: String,
        /// The subscriptions whose snapshots may be used; none for all.
        allowed: Option<Vec<String>>,
    },
    /// Nowhere: make available again what matches a filter.
    Replay {
        /// Which messages.
        filter: Box<RawValue>,
        /// Published at or after it.
        since: Option<DateTime<Utc>>,
        /// Published before it.
        until: Option<DateTime<Utc>>,
    },
}

/// Begin a seek; the job, which may be done at once.
///
/// # Errors
/// 404 for an unknown subscription or snapshot, 409 while another job of the subscription runs, 422
/// for a bad filter.
pub async fn begin(database: &Database, subscription_id: &str, seek: &Seek) -> Result<Job, Error> {
    let query = match seek {
        Seek::Time(time) => sqlx::query_as("select * from pubsub.seek_subscription($1, $2)")
            .bind(subscription_id)
            .bind(time),
        Seek::End => sqlx::query_as("select * from pubsub.seek_subscription_to_end($1)")
            .bind(subscription_id),
        Seek::Snapshot { id, allowed } => {
            sqlx::query_as("select * from pubsub.seek_subscription_to_snapshot($1, $2, $3)")
                .bind(subscription_id)
                .bind(id)
                .bind(allowed)
        }
        Seek::Replay {
            filter,
            since,
            until,
        } => sqlx::query_as("select * from pubsub.replay_messages($1, $2::json, $3, $4)")
            .bind(subscription_id)
            .bind(filter.get())
            .bind(since)
            .bind(until),
    };
    Ok(query.fetch_one(database).await?)
}
