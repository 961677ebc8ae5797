//! The SQL engine, over one or more connections.

mod dead_letters;
mod deletes;
mod delivery;
mod fairness;
mod filters;
mod flatness;
mod flow;
mod idempotency;
mod lanes;
mod lock_order;
mod message_keys;
mod model;
mod ordering;
mod plans;
mod publish_lanes;
mod purges;
mod queues;
mod replay;
mod run_locks;
mod runs;
mod stragglers;
mod taking;
mod transactions;

use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::support::database::TestDatabase;

/// A delivery as `consume_messages` hands it out.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Delivery {
    message_id: Uuid,
    attempts: i32,
    lease: i64,
}

/// A database with topic `t` and subscription `s`, which backs off 10 s to 40 s and takes three
/// attempts, and a connection to it.
async fn database() -> (TestDatabase, PgConnection) {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    sqlx::raw_sql(
        "select pubsub.create_topic('t'); \
         select pubsub.create_subscription('s', 't', '{\"max_delivery_attempts\": 3, \"backoff_min_seconds\": 10, \"backoff_max_seconds\": 40}')",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    (database, connection)
}

async fn publish(connection: &mut PgConnection, payloads: &[Value]) -> Vec<Uuid> {
    let payloads: Vec<Json<&Value>> = payloads.iter().map(Json).collect();
    sqlx::query_scalar("select message_id from pubsub.publish_messages('t', $1)")
        .bind(payloads)
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn publish_count(connection: &mut PgConnection, count: usize) -> Vec<Uuid> {
    publish(connection, &vec![serde_json::json!({"n": 1}); count]).await
}

async fn consume(connection: &mut PgConnection, subscription: &str, limit: i32) -> Vec<Delivery> {
    sqlx::query_as("select message_id, attempts, lease from pubsub.consume_messages($1, 'c', $2)")
        .bind(subscription)
        .bind(limit)
        .fetch_all(connection)
        .await
        .unwrap()
}

/// Consume until something comes, which takes a look-back of the engine a moment.
async fn consume_within_seconds(connection: &mut PgConnection, limit: i32) -> Vec<Delivery> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let deliveries = consume(connection, "s", limit).await;
        if !deliveries.is_empty() || std::time::Instant::now() > deadline {
            return deliveries;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn settle(
    connection: &mut PgConnection,
    function: &str,
    subscription: &str,
    message_ids: &[Uuid],
    leases: Option<&[i64]>,
) -> i64 {
    let sql = format!("select pubsub.{function}($1, $2, $3)");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(subscription)
        .bind(message_ids)
        .bind(leases)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn execute(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// Until a session waits for a lock of another.
async fn until_blocked(connection: &mut PgConnection) {
    loop {
        let blocked: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity \
             where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if blocked {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Let time pass for everything that is stored.
async fn advance(connection: &mut PgConnection, seconds: f64) {
    for sql in [
        "update pubsub_data.deliveries \
         set visible_at = visible_at - make_interval(secs => $1), \
             leased_at = leased_at - make_interval(secs => $1), \
             extended_at = extended_at - make_interval(secs => $1), \
             expires_at = expires_at - make_interval(secs => $1)",
        "update pubsub_data.runs \
         set ack_deadline = ack_deadline - make_interval(secs => $1), \
             leased_at = leased_at - make_interval(secs => $1)",
        "update pubsub_data.run_sizes set noted_at = noted_at - make_interval(secs => $1)",
        "update pubsub_data.wakeups set due_at = due_at - make_interval(secs => $1)",
        "update pubsub_data.counters set due_at = due_at - make_interval(secs => $1)",
    ] {
        sqlx::query(sql)
            .bind(seconds)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}

/// Let the same time pass for the hints of a connection.
async fn advance_hints(connection: &mut PgConnection, seconds: f64) {
    let claim = "with hints as (
            select h.name, (nullif(current_setting(h.name, true), '')::pubsub.claim_hint).*
            from pubsub_data.subscriptions s
            cross join lateral pubsub.hint_name('claim', s.subscription_key) h (name)
        ), earlier as (select ($1 * 1000000)::bigint as by)
        select set_config(h.name, row(h.noted_at - by, h.rewinds, h.head,
            greatest(0, h.due_from - by), h.due_recent_at - by, h.due_all_at - by,
            greatest(0, h.near_at - by), greatest(0, h.far_at - by), h.far_upto, h.far_millis,
            h.since_aged)::pubsub.claim_hint::text, false)
        from hints h, earlier
        where h.noted_at is not null";
    let fair = "with hints as (
            select h.name, (nullif(current_setting(h.name, true), '')::pubsub.fair_hint).*
            from pubsub_data.subscriptions s
            cross join lateral pubsub.hint_name('fair', s.subscription_key) h (name)
        ), earlier as (select ($1 * 1000000)::bigint as by)
        select set_config(h.name, row(h.noted_at - by, h.rewinds, h.last, h.heads, h.turn)
            ::pubsub.fair_hint::text, false)
        from hints h, earlier
        where h.noted_at is not null";
    let ordered = "with hints as (
            select h.name, (nullif(current_setting(h.name, true), '')::pubsub.ordered_hint).*
            from pubsub_data.subscriptions s
            cross join lateral pubsub.hint_name('ordered', s.subscription_key) h (name)
        ), earlier as (select ($1 * 1000000)::bigint as by)
        select set_config(h.name, row(h.noted_at - by, h.rewinds, h.tail, h.mark, h.mark_xid,
            greatest(0, h.mark_at - by), greatest(0, h.near_at - by), greatest(0, h.sweep_at - by),
            h.sweep, h.sweep_millis)::pubsub.ordered_hint::text, false)
        from hints h, earlier
        where h.noted_at is not null";
    for sql in [claim, fair, ordered] {
        sqlx::query(sql)
            .bind(seconds)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}

/// Make a connection as good as new.
async fn forget_hints(connection: &mut PgConnection) {
    let sql = "select set_config(pubsub.hint_name(hints.name, s.subscription_key), '', false) \
        from pubsub_data.subscriptions s \
        cross join unnest(array['claim', 'urgent', 'ordered', 'fair']) as hints (name)";
    execute(connection, sql).await;
}
