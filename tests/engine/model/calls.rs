//! The calls that publishers, consumers and operators of the model make.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::keys::WINDOW;
use super::modes::FAIRNESS_KEY;
use super::publishing::New;
use super::rules::{Delivery, Only, Terms};

/// The key of a whole request, and what tells it from others.
pub(super) type RequestKey = (usize, u64);

/// The ids, and whether each is that of an earlier message.
pub(super) async fn publish(
    connection: &mut PgConnection,
    messages: &[New],
    request: Option<RequestKey>,
) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    let name = |key: usize| format!("key {key}");
    let payloads: Vec<_> = messages
        .iter()
        .map(|new| Json(json!({"n": new.key})))
        .collect();
    let attributes: Vec<_> = messages
        .iter()
        .map(|new| new.key.map(|key| Json(json!({FAIRNESS_KEY: name(key)}))))
        .collect();
    // of payloads alone or with attributes runs are made
    let has_attributes = attributes.iter().any(Option::is_some) || messages.len() % 2 == 1;
    let delays: Vec<_> = messages.iter().map(|new| new.delay).collect();
    let ttls: Vec<_> = messages.iter().map(|new| new.ttl).collect();
    let keys: Vec<_> = messages.iter().map(|new| new.key.map(name)).collect();
    let priorities: Vec<_> = messages.iter().map(|new| new.priority).collect();
    let once: Vec<_> = messages.iter().map(|new| new.once.map(name)).collect();
    let once = once.iter().any(Option::is_some).then_some(once);
    let is_more = messages.iter().any(|new| !new.is_bare());
    let times = "case when $position is not null then array( \
        select clock_timestamp() + make_interval(secs => s.secs) \
        from unnest($position::float8[]) with ordinality s (secs, at) order by s.at) end";
    let sql = format!(
        "select message_id, duplicate from pubsub.publish_messages('t', $1, $2, {}, {}, $5, $6, \
         $7, $8, $9, $10)",
        times.replace("$position", "$3"),
        times.replace("$position", "$4")
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(payloads)
        .bind(has_attributes.then_some(attributes))
        .bind(is_more.then_some(delays))
        .bind(is_more.then_some(ttls))
        .bind(is_more.then_some(keys))
        .bind(is_more.then_some(priorities))
        .bind(once)
        .bind(request.map(|(key, _)| name(key)))
        .bind(request.map(|(_, fingerprint)| fingerprint.to_string()))
        .bind(WINDOW)
        .fetch_all(connection)
        .await
}

/// A claim or take for one consumer or several at once, from `head` on if a claim on another connection
/// knows it.
pub(super) async fn claim(
    connection: &mut PgConnection,
    consumers: &[usize],
    limits: &[i32],
    terms: Terms,
    head: Option<(Uuid, i32)>,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let names: Vec<_> = consumers.iter().map(|one| format!("c{one}")).collect();
    let sql = if terms.takes {
        "select consumer, message_id, attempts, 0::bigint as lease, head, rewinds \
         from pubsub.take_messages_for('s', $1, $2, $3, $4, p_only => $5)"
    } else {
        "select consumer, message_id, attempts, lease, head, rewinds \
         from pubsub.consume_messages_for('s', $1, $2, $6, 60, $3, $4, p_only => $5)"
    };
    let query = sqlx::query_as(sql)
        .bind(names)
        .bind(limits)
        .bind(head.map(|(head, _)| head))
        .bind(head.map(|(_, rewinds)| rewinds))
        .bind(terms.only.map(Only::name));
    let query = if terms.takes {
        query
    } else {
        query.bind(terms.deadline)
    };
    query.fetch_all(connection).await
}

/// A message, its lease, what to do and for how many seconds.
pub(super) type Item<'a> = (Uuid, i64, &'a str, Option<i32>);

pub(super) async fn settle(
    connection: &mut PgConnection,
    items: &[Item<'_>],
) -> Result<Vec<String>, sqlx::Error> {
    let ids: Vec<_> = items.iter().map(|item| item.0).collect();
    let leases: Vec<_> = items.iter().map(|item| item.1).collect();
    let actions: Vec<_> = items.iter().map(|item| item.2).collect();
    let seconds: Vec<_> = items.iter().map(|item| item.3).collect();
    sqlx::query_scalar(
        "select status from pubsub.settle_messages('s', $1, $2, $3, $4) order by position",
    )
    .bind(ids)
    .bind(leases)
    .bind(actions)
    .bind(seconds)
    .fetch_all(connection)
    .await
}

/// `ack_messages` and the like: how many were settled.
pub(super) async fn settle_alike(
    connection: &mut PgConnection,
    function: &str,
    held: &[(Uuid, i64)],
) -> Result<i64, sqlx::Error> {
    let (ids, leases): (Vec<Uuid>, Vec<i64>) = held.iter().copied().unzip();
    let sql = format!("select pubsub.{function}('s', $1, $2)");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(ids)
        .bind(leases)
        .fetch_one(connection)
        .await
}

/// Whether a lock was not to be had, which somebody's open transaction holds.
pub(super) fn is_locked<T>(answer: &Result<T, sqlx::Error>) -> bool {
    matches!(answer, Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03"))
}

/// What is neither settled nor dead, and whether it is parked.
pub(super) async fn live(connection: &mut PgConnection) -> Vec<(Uuid, bool)> {
    sqlx::query_as(
        "select d.message_id, d.visible_at = 'infinity' \
         from pubsub_data.deliveries d join pubsub_data.subscriptions using (subscription_key) \
         union all select i.id, false \
         from pubsub_data.runs r join pubsub_data.subscriptions using (subscription_key), \
             unnest(r.message_ids) as i (id)",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// How each of these messages ended, as it is remembered, perhaps more than once.
pub(super) async fn outcomes(connection: &mut PgConnection, ids: &[Uuid]) -> Vec<(Uuid, String)> {
    sqlx::query_as(
        "select message_id, outcome from pubsub_data.failures where message_id = any($1) \
         union all \
         select message_id, 'dead' from pubsub_data.dead_letters where message_id = any($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Go to a place or replay; what is live then.
pub(super) async fn seek(
    connection: &mut PgConnection,
    sql: &'static str,
    id: Uuid,
    key: usize,
) -> BTreeSet<Uuid> {
    let state: String = sqlx::query_scalar(sql)
        .bind(id)
        .bind(Json(json!({"n": [key]})))
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert!(["running", "done"].contains(&state.as_str()), "{state}");
    while sqlx::query_scalar("select pubsub.advance_jobs()")
        .fetch_one(&mut *connection)
        .await
        .unwrap()
    {}
    live(connection)
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect()
}

/// Let time pass for what messages say of it, from the first on that may come back.
pub(super) async fn advance_messages(connection: &mut PgConnection, from: Uuid, seconds: f64) {
    for sql in [
        "update pubsub_data.messages set expires_at = expires_at - make_interval(secs => $2), \
             deliver_at = deliver_at - make_interval(secs => $2) \
         where message_id >= $1 and (expires_at is not null or deliver_at is not null)",
        "update pubsub_data.idempotency_keys set created_at = created_at - make_interval(secs => $2) \
         where $1 is not null",
        "update pubsub_data.handed_out \
         set handed_out_at = handed_out_at - make_interval(secs => $2) where $1 is not null",
        "update pubsub_data.failures set ended_at = ended_at - make_interval(secs => $2) \
         where message_id >= $1",
    ] {
        sqlx::query(sql)
            .bind(from)
            .bind(seconds)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}
