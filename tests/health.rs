//! What one session does to the health of the database that another one sees, and what is logged of it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastpubsub::db::health::{Fact, list};
use fastpubsub::telemetry::health::Warnings;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

use crate::support::database::TestDatabase;

async fn execute(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

/// The first fact of a name.
async fn fact(connection: &mut PgConnection, name: &str) -> Fact {
    let facts = list(connection).await.unwrap();
    let found = facts.into_iter().find(|fact| fact.name == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// Have a transaction that still wants to see what is deleted from now on.
async fn hold_snapshot(connection: &mut PgConnection) {
    execute(
        connection,
        "begin isolation level repeatable read; select 1".to_owned(),
    )
    .await;
}

#[tokio::test]
async fn a_transaction_that_holds_a_snapshot_is_seen_and_named() {
    let database = TestDatabase::create().await;
    let mut holder = database.connect().await;
    let mut reader = database.connect().await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut holder)
        .await
        .unwrap();
    hold_snapshot(&mut holder).await;
    for _ in 0..5 {
        execute(&mut reader, "select pg_current_xact_id()".to_owned()).await;
    }

    execute(
        &mut reader,
        "set pubsub.warn_oldest_snapshot_age_seconds = '0'".to_owned(),
    )
    .await;
    let age = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    let transactions = fact(&mut reader, "horizon_age_transactions").await;

    assert!(age.value.unwrap() > 0.0, "{age:?}");
    assert!(transactions.value.unwrap() >= 5.0, "{transactions:?}");
    assert_eq!(transactions.warning, None);
    let warning = age.warning.unwrap();
    for part in [
        format!("session {pid} (postgres, "),
        "idle in transaction".to_owned(),
        format!("pg_terminate_backend({pid})"),
    ] {
        assert!(warning.contains(&part), "{warning}");
    }

    execute(&mut holder, "commit".to_owned()).await;
    let age = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    assert_eq!((age.value, age.warning), (Some(0.0), None));
}

#[tokio::test]
async fn a_transaction_of_another_database_is_none_of_ours() {
    let database = TestDatabase::create().await;
    let other = TestDatabase::create_empty().await;
    let mut holder = other.plain().await;
    hold_snapshot(&mut holder).await;

    let mut reader = database.connect().await;
    // a vacuum of this database may have a snapshot for a moment, the holder has its own to the end
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut age = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    while age.value != Some(0.0) && std::time::Instant::now() < deadline {
        age = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    }

    assert_eq!(age.value, Some(0.0));
}

#[tokio::test]
async fn what_a_role_may_not_see_is_null_and_no_error() {
    let database = TestDatabase::create().await;
    let mut holder = database.connect().await;
    let mut reader = database.connect().await;
    let role = format!("reader_{}", Uuid::now_v7().simple());
    execute(
        &mut reader,
        format!(
            "create role {role}; grant usage on schema pubsub, pubsub_data to {role}; \
             grant execute on function pubsub.list_health, pubsub.id_time to {role}; \
             grant select on pubsub.health to {role}"
        ),
    )
    .await;
    hold_snapshot(&mut holder).await;
    execute(&mut reader, "select pg_current_xact_id()".to_owned()).await;

    execute(&mut reader, format!("set role {role}")).await;
    let unseen = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    let transactions = fact(&mut reader, "horizon_age_transactions").await;
    execute(
        &mut reader,
        format!("reset role; grant pg_read_all_stats to {role}; set role {role}"),
    )
    .await;
    let seen = fact(&mut reader, "oldest_snapshot_age_seconds").await;
    execute(
        &mut reader,
        format!("reset role; drop owned by {role}; drop role {role}"),
    )
    .await;

    assert_eq!(unseen.value, None);
    assert!(transactions.value.unwrap() >= 1.0, "{transactions:?}");
    assert!(seen.value.unwrap() > 0.0, "{seen:?}");
}

#[tokio::test]
async fn dead_rows_that_outnumber_the_live_ones_are_warned_of() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "alter table pubsub_data.wakeups set (autovacuum_enabled = off); \
         set pubsub.warn_table_dead_rows = '1000'; \
         insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids) \
         select 1, 1, now(), '{}' from generate_series(1, 3000)"
            .to_owned(),
    )
    .await;
    let wakeups = |facts: Vec<Fact>, name: &str| {
        let mut facts = facts.into_iter();
        let subject = Some("wakeups".to_owned());
        let found = facts.find(|fact| fact.name == name && fact.subject == subject);
        found.unwrap()
    };

    // the counts come with a delay of a second or so, at the end of a transaction
    for (deleted, warned) in [(1200, false), (800, true)] {
        execute(
            &mut connection,
            format!(
                "delete from pubsub_data.wakeups where wakeup_number in \
                 (select wakeup_number from pubsub_data.wakeups limit {deleted})"
            ),
        )
        .await;
        let all = if warned { 2000.0 } else { 1200.0 };
        let deadline = Instant::now() + Duration::from_secs(20);
        let dead = loop {
            let dead = wakeups(list(&mut connection).await.unwrap(), "table_dead_rows");
            if dead.value.unwrap() >= all || Instant::now() > deadline {
                break dead;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(
            (dead.value, dead.warning.is_some()),
            (Some(all), warned),
            "{dead:?}"
        );
    }
}

/// Where the log of a test goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What was logged since the last look.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_warning_is_logged_when_it_begins_and_when_it_ends() {
    let database = TestDatabase::create().await;
    let mut holder = database.connect().await;
    let mut reader = database.connect().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut warnings = Warnings::default();
    execute(
        &mut reader,
        "set pubsub.warn_oldest_snapshot_age_seconds = '0'".to_owned(),
    )
    .await;

    warnings.update(&list(&mut reader).await.unwrap());
    let quiet = log.take();
    hold_snapshot(&mut holder).await;
    warnings.update(&list(&mut reader).await.unwrap());
    let begun = log.take();
    warnings.update(&list(&mut reader).await.unwrap());
    let repeated = log.take();
    execute(&mut holder, "commit".to_owned()).await;
    warnings.update(&list(&mut reader).await.unwrap());
    let ended = log.take();
    warnings.update(&list(&mut reader).await.unwrap());
    let over = log.take();

    assert_eq!(quiet, "");
    assert_eq!(begun.lines().count(), 1, "{begun}");
    assert!(begun.contains("WARN"), "{begun}");
    assert!(begun.contains("pg_terminate_backend"), "{begun}");
    assert_eq!(repeated, "");
    assert_eq!(ended.lines().count(), 1, "{ended}");
    assert!(
        ended.contains("oldest_snapshot_age_seconds: within its bound again"),
        "{ended}"
    );
    assert_eq!(over, "");
    holder.close().await.unwrap();
}
