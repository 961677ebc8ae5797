//! Topics, subscriptions and large states, made in SQL: setting up is not what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinSet;

use crate::cluster::Database;
use crate::message::payload;

const BATCH: i64 = 10_000;
/// Most that one consume may take.
const CLAIM: i64 = 1000;
const CONNECTIONS: usize = 4;

/// A topic and a subscription of the same name, without a filter.
pub(crate) async fn create(database: &Database, name: &str) {
    create_topic(database, name).await;
    create_subscription(database, name, name, None).await;
}

pub(crate) async fn create_topic(database: &Database, topic: &str) {
    database
        .execute(&format!("select pubsub.create_topic('{topic}')"))
        .await;
}

pub(crate) async fn create_subscription(
    database: &Database,
    name: &str,
    topic: &str,
    filter: Option<&str>,
) {
    let settings = filter.map_or_else(String::new, |filter| format!("\"filter\": {filter}"));
    create_subscription_with(database, name, topic, &settings).await;
}

/// Create a subscription with settings, the fields of a JSON object: in two steps, as releases before
/// settings were one argument can do it, too.
pub(crate) async fn create_subscription_with(
    database: &Database,
    name: &str,
    topic: &str,
    settings: &str,
) {
    database
        .execute(&format!(
            "select pubsub.create_subscription('{name}', '{topic}'); \
             select pubsub.update_subscription('{name}', '{{{settings}}}')"
        ))
        .await;
}

/// A consumer takes the first message of each of these subscriptions, as one that takes so many: publishing
/// goes by what consumers take (docs/engine.md).
pub(crate) async fn consume_first(
    database: &Database,
    topic: &str,
    subscriptions: &[&str],
    batch: usize,
) {
    // which every filter of ours lets pass
    database
        .execute(&format!(
            "select pubsub.publish_messages('{topic}', array['{{\"country\": \"JP\"}}'::jsonb])"
        ))
        .await;
    for subscription in subscriptions {
        database
            .execute(&format!(
                "select pubsub.ack_messages('{subscription}', array_agg(message_id), array_agg(lease)) \
                 from pubsub.consume_messages('{subscription}', 'c', {batch})"
            ))
            .await;
    }
}

/// A queue of pgmq.
pub(crate) async fn create_queue(database: &Database, name: &str) {
    database
        .execute(&format!("select pgmq.create('{name}')"))
        .await;
}

/// Send so many messages to a queue of pgmq.
pub(crate) async fn send(database: &Database, queue: &str, messages: u64) {
    let sql = "select count(*) from pgmq.send_batch($1, array_fill($2::jsonb, array[$3]))";
    in_batches(database, queue, messages, BATCH, sql).await;
}

/// Publish so many messages.
pub(crate) async fn publish(database: &Database, topic: &str, messages: u64) {
    let sql = "select count(*) from pubsub.publish_messages($1, array_fill($2::jsonb, array[$3]))";
    in_batches(database, topic, messages, BATCH, sql).await;
}

/// Publish so many messages with further arguments of `publish_messages`, over `$3` messages.
pub(crate) async fn publish_with(database: &Database, topic: &str, messages: u64, more: &str) {
    let sql = format!(
        "select count(*) from pubsub.publish_messages($1, array_fill($2::jsonb, array[$3]), {more})"
    );
    in_batches(database, topic, messages, BATCH, &sql).await;
}

/// Publish so many messages that wait for an hour.
pub(crate) async fn publish_later(database: &Database, topic: &str, messages: u64) {
    let delay = "p_deliver_at => array_fill(now() + interval '1 hour', array[$3])";
    publish_with(database, topic, messages, delay).await;
}

/// Lease so many messages for twelve hours to somebody who never acks.
pub(crate) async fn lease(database: &Database, subscription: &str, messages: u64) {
    let sql =
        "select count(*) from pubsub.consume_messages($1, $2::jsonb ->> 'country', $3, 43200)";
    in_batches(database, subscription, messages, CLAIM, sql).await;
}

/// A statement of a name, a payload and a number of messages, until all are done.
async fn in_batches(database: &Database, name: &str, messages: u64, batch: i64, sql: &str) {
    let left = Arc::new(AtomicI64::new(i64::try_from(messages).unwrap()));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (left, database) = (Arc::clone(&left), database.clone());
        let (name, sql) = (name.to_owned(), sql.to_owned());
        connections.spawn(async move {
            let mut connection = database.connect().await;
            // only here: nothing that is measured may be without fsync
            sqlx::raw_sql("set synchronous_commit = off")
                .execute(&mut connection)
                .await
                .unwrap();
            loop {
                let count = left.fetch_sub(batch, Ordering::Relaxed).min(batch);
                if count <= 0 {
                    break;
                }
                let done: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
                    .bind(&name)
                    .bind(payload())
                    .bind(i32::try_from(count).unwrap())
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(done, count, "{sql}");
            }
            connection.close().await.unwrap();
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("filling failed");
    }
}

/// What was filled is on disk and has statistics, as after a while in production.
pub(crate) async fn settle(database: &Database) {
    database.execute("vacuum (analyze)").await;
    database.execute("checkpoint").await;
}

/// Messages of a subscription that are neither acked nor dead.
pub(crate) async fn backlog(connection: &mut PgConnection, subscription: &str) -> i64 {
    sqlx::query_scalar(
        "select available + delivered + scheduled from pubsub.subscription_metrics($1)",
    )
    .bind(subscription)
    .fetch_one(connection)
    .await
    .unwrap()
}
