//! Requests at once, which go into one call. A call is held at its commit while others queue up.

mod books;
mod commits;
mod gone;
mod refused;
mod settle_and_pull;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::task::JoinHandle;

use crate::support::{Answer, TestApp, answer};

/// Holds what changes the counts of a subscription at its commit: publishes to its topic, claims that
/// find something, acks.
struct Hold {
    connection: PgConnection,
}

impl Hold {
    /// For a subscription; nothing is held yet.
    async fn of(app: &TestApp, subscription: &str) -> Self {
        // a plain role may create nothing in public
        let mut connection = app.database.superuser().connect().await.unwrap();
        sqlx::raw_sql("set statement_timeout = 0; set search_path = ''")
            .execute(&mut connection)
            .await
            .unwrap();
        let key: i64 = sqlx::query_scalar(
            "select subscription_key from pubsub_data.subscriptions where subscription_id = $1",
        )
        .bind(subscription)
        .fetch_one(&mut connection)
        .await
        .unwrap();
        let trigger = format!(
            "create function public.hold() returns trigger language plpgsql \
             set search_path = pg_catalog as \
             $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$; \
             create constraint trigger hold after insert on pubsub_data.counters \
             deferrable initially deferred for each row \
             when (new.subscription_key = {key}) execute function public.hold()"
        );
        sqlx::raw_sql(AssertSqlSafe(trigger))
            .execute(&mut connection)
            .await
            .unwrap();
        Self { connection }
    }

    async fn take(&mut self) {
        let lock = sqlx::query("select pg_advisory_lock(7)");
        lock.execute(&mut self.connection).await.unwrap();
    }

    async fn release(&mut self) {
        let unlock = sqlx::query("select pg_advisory_unlock(7)");
        unlock.execute(&mut self.connection).await.unwrap();
    }

    /// Until one call is held.
    async fn holds_one(&mut self) {
        let held = async {
            loop {
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
                     where l.locktype = 'advisory' and not l.granted \
                     and d.datname = current_database()",
                )
                .fetch_one(&mut self.connection)
                .await
                .unwrap();
                if waiting == 1 {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held)
            .await
            .expect("nothing is held");
    }

    /// Send the first request, and the others while its call is held.
    async fn send(
        &mut self,
        app: &TestApp,
        requests: Vec<RequestBuilder>,
    ) -> Vec<JoinHandle<Answer>> {
        self.take().await;
        let mut sent = Vec::new();
        for (position, request) in requests.into_iter().enumerate() {
            sent.push(tokio::spawn(answer(request)));
            if position == 0 {
                self.holds_one().await;
            }
        }
        received(app).await;
        sent
    }
}

/// Until the service has received what was sent: later requests, each by a connection of its own, are
/// answered.
async fn received(app: &TestApp) {
    for _ in 0..10 {
        let request = app.request("GET", "/topics/t");
        let closing = request.header("connection", "close");
        answer(closing).await.expect(200);
    }
}

async fn answers(sent: Vec<JoinHandle<Answer>>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(answer.await.unwrap());
    }
    answers
}

fn publishing(app: &TestApp, topic: &str, payloads: &Value) -> RequestBuilder {
    app.request("POST", &format!("/topics/{topic}/messages"))
        .json(payloads)
}

fn consuming(app: &TestApp, subscription: &str, consumer: &str, batch: usize) -> RequestBuilder {
    let path =
        format!("/subscriptions/{subscription}/messages?consumer_id={consumer}&batch_size={batch}");
    app.request("GET", &path)
}

fn acking(app: &TestApp, subscription: &str, handles: &[Value]) -> RequestBuilder {
    app.request("POST", &format!("/subscriptions/{subscription}/acks"))
        .json(handles)
}

/// The messages of an answer to a consumer.
#[track_caller]
fn messages(answer: Answer) -> Vec<Value> {
    let list = answer.expect(200).json();
    list["data"].as_array().unwrap().clone()
}

fn receipts(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["receipt"].clone())
        .collect()
}
