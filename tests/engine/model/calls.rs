//! The calls that publishers and consumers of the model make.

use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::New;
use super::oracle::Delivery;

pub(super) async fn publish(connection: &mut PgConnection, messages: &[New]) -> Vec<Uuid> {
    let payloads: Vec<_> = messages
        .iter()
        .map(|new| Json(json!({"n": new.key})))
        .collect();
    let delays: Vec<_> = messages.iter().map(|new| new.delay).collect();
    let ttls: Vec<_> = messages.iter().map(|new| new.ttl).collect();
    let keys: Vec<_> = messages
        .iter()
        .map(|new| new.key.map(|key| format!("key {key}")))
        .collect();
    let priorities: Vec<_> = messages.iter().map(|new| new.priority).collect();
    let times = "array(select clock_timestamp() + make_interval(secs => s.secs) \
        from unnest($position::float8[]) with ordinality s (secs, at) order by s.at)";
    let sql = format!(
        "select message_id from pubsub.publish_messages('t', $1, null, {}, {}, $4, $5)",
        times.replace("$position", "$2"),
        times.replace("$position", "$3")
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(payloads)
        .bind(delays)
        .bind(ttls)
        .bind(keys)
        .bind(priorities)
        .fetch_all(connection)
        .await
        .unwrap()
}

pub(super) async fn consume(
    connection: &mut PgConnection,
    subscription: &str,
    limit: i32,
    deadline: Option<i32>,
) -> Vec<Delivery> {
    sqlx::query_as(
        "select message_id, attempts, lease from pubsub.consume_messages($1, 'c', $2, $3)",
    )
    .bind(subscription)
    .bind(limit)
    .bind(deadline)
    .fetch_all(connection)
    .await
    .unwrap()
}

pub(super) async fn settle(
    connection: &mut PgConnection,
    subscription: &str,
    items: &[(Uuid, i64, &str, Option<i32>)],
) -> Vec<String> {
    let ids: Vec<_> = items.iter().map(|item| item.0).collect();
    let leases: Vec<_> = items.iter().map(|item| item.1).collect();
    let actions: Vec<_> = items.iter().map(|item| item.2).collect();
    let seconds: Vec<_> = items.iter().map(|item| item.3).collect();
    sqlx::query_scalar(
        "select status from pubsub.settle_messages($1, $2, $3, $4, $5, null) order by position",
    )
    .bind(subscription)
    .bind(ids)
    .bind(leases)
    .bind(actions)
    .bind(seconds)
    .fetch_all(connection)
    .await
    .unwrap()
}
