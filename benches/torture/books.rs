//! The books of the database: the view `pubsub.subscription_messages`, and what was forgotten on
//! purpose while the run went on.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::cluster::Cluster;
use super::history::{Entry, State};
use super::world::subscription;

type Row = (String, Uuid, String, i32, Option<i64>);

/// Every message of every subscription; or only the acked ones.
pub async fn read(
    connection: &mut PgConnection,
    only_acked: bool,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "select subscription_id, message_id, state, attempts, (payload ->> 'n')::bigint \
         from pubsub.subscription_messages where state = 'acked' or not $1",
    )
    .bind(only_acked)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(entry).collect())
}

/// Every message of one subscription.
pub async fn read_one(
    connection: &mut PgConnection,
    subscription: &str,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "select subscription_id, message_id, state, attempts, (payload ->> 'n')::bigint \
         from pubsub.subscription_messages where subscription_id = $1",
    )
    .bind(subscription)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(entry).collect())
}

fn entry((name, id, state, attempts, number): Row) -> Entry {
    Entry {
        subscription: subscription(&name).id,
        id,
        number: number.map(|number| u64::try_from(number).unwrap()),
        state: match state.as_str() {
            "acked" => State::Acked,
            "dlq" => State::Dead,
            _ => State::Unsettled,
        },
        attempts: u32::try_from(attempts).unwrap(),
    }
}

/// The entries that `cleanup_acked_messages` removed.
#[derive(Default)]
pub struct Archive(Mutex<Vec<Entry>>);

impl Archive {
    /// Keep what is gone after a clean-up of what was there before it. None where the books could not
    /// be read before.
    pub async fn keep<T>(&self, cluster: &Cluster, clean: impl Future<Output = T>) -> Option<T> {
        let mut connection = cluster.connect().await.ok()?;
        limit(&mut connection).await.ok()?;
        let before = read(&mut connection, true).await.ok()?;
        let cleaned = clean.await;
        let after = loop {
            let mut connection = cluster.connect_patiently().await;
            // what the clean-up began may still be under way, after a crash of its connection
            if limit(&mut connection).await.is_ok()
                && let Ok(after) = read(&mut connection, true).await
            {
                break after;
            }
        };
        let mut kept: HashMap<(&str, Uuid), usize> = HashMap::new();
        for entry in after {
            *kept.entry((entry.subscription, entry.id)).or_default() += 1;
        }
        let mut archive = self.0.lock().await;
        for entry in before {
            let kept = kept.entry((entry.subscription, entry.id)).or_default();
            match kept.checked_sub(1) {
                Some(rest) => *kept = rest,
                None => archive.push(entry),
            }
        }
        Some(cleaned)
    }

    pub async fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.0.lock().await)
    }
}

/// A plan made right after a crash, without statistics of new partitions, may take forever. Then the
/// next one is better.
async fn limit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("set statement_timeout = '30s'")
        .execute(connection)
        .await?;
    Ok(())
}

/// The subscriptions whose counters do not agree with their messages.
pub async fn miscounts(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let miscounts: Vec<(String, i64)> = sqlx::query_as(
        "select s.subscription_id, c.difference \
         from pubsub.subscriptions s, pubsub.recount_messages(s.subscription_id) as c (difference) \
         where c.difference <> 0",
    )
    .fetch_all(connection)
    .await?;
    let text = |(name, difference)| format!("the counters of {name} were off by {difference}");
    Ok(miscounts.into_iter().map(text).collect())
}
