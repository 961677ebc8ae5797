//! From the schema of the release before to today's, under traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use fastpubsub::db::schema::{self, Fit, Migrated};
use refinery_core::Migration;
use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use crate::support::database::TestDatabase;

const TABLES: &str = include_str!("../migrations/V1__tables.sql");
const ROUTINES: &str = include_str!("fixtures/routines_before.sql");

/// What the servers of before call for a message, as they do.
const PUBLISH: &str = "select p.message_ids from pubsub.publish_messages_for($1, $2) p";
const CONSUME: &str = "select c.message_id, c.payload, c.lease \
    from pubsub.consume_messages_for($1, array['old'], array[20], 30) c";
const ACK: &str = "select pubsub.ack_messages($1, $2, $3)";

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

/// A database as the release before left it.
async fn before() -> TestDatabase {
    let database = TestDatabase::create_empty().await;
    let mut connection = database.connect().await;
    let tables = Migration::unapplied("V1__tables", TABLES).unwrap();
    run(
        &mut connection,
        &format!(
            "create schema pubsub; create schema pubsub_data; {TABLES} {ROUTINES} \
             create table pubsub_data.refinery_schema_history (version int4 primary key, \
                 name varchar(255), applied_on varchar(255), checksum varchar(255)); \
             insert into pubsub_data.refinery_schema_history \
             values (1, 'tables', '2026-01-01T00:00:00Z', '{}'); \
             comment on schema pubsub is 'fastpubsub 0.1.0 schema=1 checksum=0000000000000000'; \
             select pubsub.create_topic('t'); select pubsub.create_subscription('s', 't')",
            tables.checksum()
        ),
    )
    .await;
    database
}

/// What a plan of before may meet while its routine is replaced; a server tries it again.
fn is_of_the_moment(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return false;
    };
    let code = error
        .try_downcast_ref::<PgDatabaseError>()
        .map(PgDatabaseError::code);
    matches!(code, Some("40001" | "40P01"))
        || code == Some("XX000") && error.message().starts_with("cache lookup failed")
        || code == Some("0A000") && error.message().starts_with("cached plan")
        // a routine that still runs calls one that was replaced
        || matches!(code, Some("42804" | "42883"))
}

/// A call, and again on a fresh plan, as a server does.
macro_rules! again {
    ($connection:expr, $call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(error) if is_of_the_moment(&error) && tries < 5 => {
                    tries += 1;
                    $connection.clear_cached_statements().await.unwrap();
                }
                called => break called.unwrap(),
            }
        }
    }};
}

struct Traffic {
    database: TestDatabase,
    published: AtomicI64,
    ended: AtomicBool,
}

impl Traffic {
    async fn publish(self: Arc<Self>) {
        let mut connection = self.database.connect().await;
        while !self.ended.load(Ordering::Relaxed) {
            let number = self.published.fetch_add(1, Ordering::Relaxed);
            let payloads = [serde_json::json!({"n": number})];
            let call = || sqlx::query(PUBLISH).bind("t").bind(payloads.clone());
            again!(connection, call().execute(&mut connection));
        }
    }

    /// Until nothing is left after the end: the numbers acked.
    async fn consume(self: Arc<Self>) -> Vec<i64> {
        let mut connection = self.database.connect().await;
        let mut acked = Vec::new();
        loop {
            let ended = self.ended.load(Ordering::Relaxed);
            let claim = || sqlx::query_as(CONSUME).bind("s");
            let claimed: Vec<(Uuid, serde_json::Value, i64)> =
                again!(connection, claim().fetch_all(&mut connection));
            if claimed.is_empty() && ended {
                return acked;
            }
            let ids: Vec<Uuid> = claimed.iter().map(|(id, _, _)| *id).collect();
            let leases: Vec<i64> = claimed.iter().map(|(_, _, lease)| *lease).collect();
            let ack = || sqlx::query_scalar(ACK).bind("s").bind(&ids).bind(&leases);
            let count: i64 = again!(connection, ack().fetch_one(&mut connection));
            assert_eq!(count, i64::try_from(ids.len()).unwrap());
            acked.extend(
                claimed
                    .iter()
                    .map(|(_, payload, _)| payload["n"].as_i64().unwrap()),
            );
        }
    }
}

#[tokio::test]
async fn an_upgrade_under_traffic_loses_nothing_and_delivers_nothing_twice() {
    let database = before().await;
    let mut admin = database.connect().await;
    let role = format!("granted_{}", Uuid::now_v7().simple());
    run(
        &mut admin,
        &format!(
            "create role {role}; grant usage on schema pubsub to {role}; \
             grant execute on all functions in schema pubsub to {role}; \
             grant select on pubsub.topics to {role}"
        ),
    )
    .await;
    let traffic = Arc::new(Traffic {
        database: database.share(),
        published: AtomicI64::new(0),
        ended: AtomicBool::new(false),
    });
    let publishers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(Arc::clone(&traffic).publish()))
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(Arc::clone(&traffic).consume()))
        .collect();
    let so_many = async |more: i64| {
        let from = traffic.published.load(Ordering::Relaxed);
        while traffic.published.load(Ordering::Relaxed) < from + more {
            tokio::task::yield_now().await;
        }
    };
    so_many(50).await;

    let mut migrators = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut connection = database.connect().await;
        migrators.spawn(async move { schema::migrate(&mut connection).await.unwrap() });
    }
    let migrated = migrators.join_all().await;
    so_many(50).await;
    traffic.ended.store(true, Ordering::Relaxed);

    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut acked = Vec::new();
    for consumer in consumers {
        acked.extend(consumer.await.unwrap());
    }
    let published = traffic.published.load(Ordering::Relaxed);
    assert_eq!(i64::try_from(acked.len()).unwrap(), published, "each once");
    let acked: BTreeSet<i64> = acked.into_iter().collect();
    assert_eq!(acked, (0..published).collect());
    let applied = migrated.iter().filter(|m| **m == Migrated::Applied).count();
    assert_eq!(applied, 1, "{migrated:?}");
    assert_eq!(schema::check(&mut admin).await.unwrap(), Fit::Same);
    let closed: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p \
         where p.pronamespace = 'pubsub'::regnamespace and p.prokind = 'f' \
             and not has_function_privilege($1::name, p.oid, 'execute') \
         union all select 'topics' where not has_table_privilege($1::name, 'pubsub.topics', 'select')",
    )
    .bind(&role)
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert_eq!(closed, Vec::<String>::new());
    run(
        &mut admin,
        &format!("drop owned by {role}; drop role {role}"),
    )
    .await;
    admin.close().await.unwrap();
}

#[tokio::test]
async fn a_schema_after_an_upgrade_equals_a_fresh_one() {
    let (upgraded, fresh) = (before().await, TestDatabase::create().await);
    let (mut upgraded, mut fresh) = (upgraded.connect().await, fresh.connect().await);

    schema::migrate(&mut upgraded).await.unwrap();

    let (after, expected) = (
        crate::golden::functions(&mut upgraded).await,
        crate::golden::functions(&mut fresh).await,
    );
    assert_eq!(after, expected);
    let (after, expected) = (
        crate::golden::tables(&mut upgraded).await,
        crate::golden::tables(&mut fresh).await,
    );
    assert_eq!(after, expected);
}

/// A subscription, as servers of before read one.
#[derive(sqlx::FromRow)]
struct Before {
    id: String,
    backoff_min_seconds: i32,
    backoff_max_seconds: i32,
}

#[tokio::test]
async fn servers_of_before_go_on_with_todays_functions() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    run(&mut connection, "select pubsub.create_topic('t')").await;

    let create = "select * from pubsub.create_subscription($1, $2, $3::json, $4)";
    let settings =
        r#"{"max_delivery_attempts": 3, "backoff_min_seconds": 5, "backoff_max_seconds": 60}"#;
    let created: Before = sqlx::query_as(create)
        .bind("s")
        .bind("t")
        .bind(settings)
        .bind(None::<chrono::DateTime<chrono::Utc>>)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(
        (created.id.as_str(), created.backoff_max_seconds),
        ("s", 60)
    );
    for (changes, shortest, longest) in [
        (r#"{"max_delivery_attempts": 4}"#, 5, 60),
        (r#"{"backoff_min_seconds": 0.25}"#, 1, 60),
        (r#"{"backoff_max_seconds": 2147483647}"#, 1, i32::MAX),
    ] {
        let update = "select * from pubsub.update_subscription($1, $2::json)";
        let mut read: Vec<Before> = sqlx::query_as(update)
            .bind("s")
            .bind(changes)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        for sql in [
            "select * from pubsub.get_subscription('s')",
            "select * from pubsub.list_subscriptions()",
        ] {
            read.extend(
                sqlx::query_as(sql)
                    .fetch_all(&mut connection)
                    .await
                    .unwrap(),
            );
        }
        assert_eq!(read.len(), 3);
        for one in read {
            let shown = (one.backoff_min_seconds, one.backoff_max_seconds);
            assert_eq!(shown, (shortest, longest), "{changes}");
        }
    }

    let seconds = vec![Some(0i32), None];
    let published: Vec<Uuid> = sqlx::query_scalar(
        "select unnest(p.message_ids) \
         from pubsub.message_times($1, $2) d (times), pubsub.message_times($3, $4, d.times) e (times), \
             pubsub.publish_messages_for('t', array['{}', '{}']::jsonb[], null, d.times, e.times) p",
    )
    .bind(None::<Vec<chrono::DateTime<chrono::Utc>>>)
    .bind(&seconds)
    .bind(None::<Vec<chrono::DateTime<chrono::Utc>>>)
    .bind(vec![Some(60i32), None])
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(published.len(), 2);
    let leases: Vec<i64> =
        sqlx::query_scalar("select lease from pubsub.consume_messages('s', 'c')")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let statuses: Vec<String> = sqlx::query_scalar(
        "select s.status from pubsub.settle_messages($1, $2, $3, $4, $5, $6) s order by s.position",
    )
    .bind("s")
    .bind(&published)
    .bind(&leases)
    .bind(vec!["extend", "nack"])
    .bind(vec![Some(30i32), None])
    .bind(vec![None::<&str>, None])
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(statuses, ["extended", "nacked"]);
}
