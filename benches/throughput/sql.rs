//! What one client of a crowd does over SQL, over and over: each call is a prepared statement and a
//! transaction of its own, over a plain connection with the settings of the database.

use serde_json::value::RawValue;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::types::{Json, Uuid};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::cluster::Database;
use crate::crowd::Progress;
use crate::message::payload;

/// Whose functions are called.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Queue {
    Fastpubsub,
    Pgmq,
}

impl Queue {
    /// The statement that publishes to `$1` the payload `$2`, or an array of them, and returns their ids.
    pub(crate) fn publish(self, batch: usize) -> &'static str {
        match (self, batch) {
            (Self::Fastpubsub, 1) => {
                "select message_id from pubsub.publish_messages($1, array[$2])"
            }
            (Self::Fastpubsub, _) => "select message_id from pubsub.publish_messages($1, $2)",
            (Self::Pgmq, 1) => "select * from pgmq.send($1, $2)",
            (Self::Pgmq, _) => "select * from pgmq.send_batch($1, $2)",
        }
    }

    /// The same of an array, to ten: subscriptions of a topic, or queues, which need not all tell their ids.
    pub(crate) fn fan_out(self) -> &'static str {
        match self {
            Self::Fastpubsub => "select message_id from pubsub.publish_messages($1, $2)",
            Self::Pgmq => {
                "select count(*) from generate_series(0, 9) as n \
                 cross join lateral pgmq.send_batch($1 || '-' || n, $2)"
            }
        }
    }

    /// Leases messages for a minute.
    pub(crate) async fn consume(
        self,
        connection: &mut PgConnection,
        name: &str,
        batch: usize,
    ) -> Vec<PgRow> {
        let statement = match self {
            Self::Fastpubsub => "select * from pubsub.consume_messages($1, 'c', $2)",
            Self::Pgmq => "select * from pgmq.read($1, 60, $2)",
        };
        sqlx::query(statement)
            .bind(name)
            .bind(i32::try_from(batch).unwrap())
            .fetch_all(connection)
            .await
            .unwrap()
    }

    /// Settles them for good.
    pub(crate) async fn ack(self, connection: &mut PgConnection, name: &str, messages: &[PgRow]) {
        let call = match (self, messages) {
            (_, []) => return,
            (Self::Fastpubsub, _) => sqlx::query("select pubsub.ack_messages($1, $2, $3)")
                .bind(name)
                .bind(column::<Uuid>(messages, "message_id"))
                .bind(column::<i64>(messages, "lease")),
            (Self::Pgmq, [message]) => sqlx::query("select pgmq.delete($1, $2)")
                .bind(name)
                .bind(message.get::<i64, _>("msg_id")),
            (Self::Pgmq, _) => sqlx::query("select pgmq.delete($1, $2::bigint[])")
                .bind(name)
                .bind(column::<i64>(messages, "msg_id")),
        };
        call.execute(connection).await.unwrap();
    }
}

fn column<'a, T>(rows: &'a [PgRow], name: &str) -> Vec<T>
where
    T: sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    rows.iter().map(|row| row.get(name)).collect()
}

/// What one call publishes.
pub(crate) struct Payloads(Vec<Json<Box<RawValue>>>);

impl Payloads {
    pub(crate) fn new(batch: usize) -> Self {
        Self(vec![Json(RawValue::from_string(payload()).unwrap()); batch])
    }

    /// Publishes them with a statement of a queue.
    pub(crate) async fn publish(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        name: &str,
    ) {
        let call = sqlx::query(statement).bind(name);
        let call = match self.0.as_slice() {
            [one] => call.bind(one),
            all => call.bind(all),
        };
        call.execute(connection).await.unwrap();
    }
}

/// The reference: what a message costs that is only stored.
pub(crate) async fn insert(database: Database, batch: usize, progress: Progress) {
    let mut connection = database.connect().await;
    let payloads = Payloads::new(batch).0;
    let values: Vec<String> = (1..=batch).map(|at| format!("(${at})")).collect();
    let statement = format!(
        "insert into public.raw (payload) values {}",
        values.join(", ")
    );
    while !progress.stopped() {
        let mut query = sqlx::query(AssertSqlSafe(statement.clone()));
        for payload in &payloads {
            query = query.bind(payload);
        }
        query.execute(&mut connection).await.unwrap();
        progress.add(batch);
    }
    connection.close().await.unwrap();
}

/// Publishes with a statement of a queue. A message counts once, whoever gets it.
pub(crate) async fn publish(
    database: Database,
    statement: &'static str,
    name: &str,
    batch: usize,
    progress: Progress,
) {
    let mut connection = database.connect().await;
    let payloads = Payloads::new(batch);
    while !progress.stopped() {
        payloads.publish(&mut connection, statement, name).await;
        progress.add(batch);
    }
    connection.close().await.unwrap();
}

/// Consumes and acks.
pub(crate) async fn consume(
    database: Database,
    queue: Queue,
    name: &str,
    batch: usize,
    progress: Progress,
) {
    let mut connection = database.connect().await;
    while !progress.stopped() {
        let messages = queue.consume(&mut connection, name, batch).await;
        queue.ack(&mut connection, name, &messages).await;
        progress.add_or_pause(messages.len()).await;
    }
    connection.close().await.unwrap();
}
