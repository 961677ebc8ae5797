//! Transactions that meet: they wait for each other, never for ever, and one receipt is good once.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Delivery, consume, database, execute, publish_count};
use crate::support::database::TestDatabase;

/// Deliveries of `s` and of `s2`, a second subscription of the topic.
async fn delivered(
    connection: &mut PgConnection,
    count: usize,
) -> (Vec<&'static str>, Vec<Delivery>) {
    publish_count(connection, count).await;
    let limit = i32::try_from(count).unwrap();
    let mut subscriptions = Vec::new();
    let mut deliveries = Vec::new();
    for subscription in ["s", "s2"] {
        let of_one = consume(connection, subscription, limit).await;
        assert_eq!(of_one.len(), count);
        subscriptions.extend(of_one.iter().map(|_| subscription));
        deliveries.extend(of_one);
    }
    (subscriptions, deliveries)
}

async fn two_subscriptions() -> (TestDatabase, PgConnection) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "select pubsub.create_subscription('s2', 't')",
    )
    .await;
    execute(&mut connection, "select pubsub.create_topic('out')").await;
    (database, connection)
}

/// Ack these and publish one message to `out`.
async fn apply(
    connection: &mut PgConnection,
    subscriptions: &[&str],
    deliveries: &[Delivery],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> = deliveries
        .iter()
        .map(|delivery| delivery.message_id)
        .collect();
    let leases: Vec<i64> = deliveries.iter().map(|delivery| delivery.lease).collect();
    sqlx::query_scalar(
        "select t.message_id from pubsub.apply_transaction($1, $2, $3, array['out'], \
         array['{}'::jsonb]) t",
    )
    .bind(subscriptions)
    .bind(ids)
    .bind(leases)
    .fetch_all(connection)
    .await
}

fn code(result: Result<Vec<Uuid>, sqlx::Error>) -> String {
    match result {
        Ok(ids) => {
            assert_eq!(ids.len(), 1);
            "done".to_owned()
        }
        Err(error) => {
            let database = error.as_database_error().unwrap();
            database.code().unwrap().into_owned()
        }
    }
}

async fn count(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .unwrap()
}

const PUBLISHED: &str = "select count(*) from pubsub_data.messages m \
    join pubsub_data.topics t on t.topic_key = m.topic_key where t.topic_id = 'out'";
const LEFT: &str = "select count(*) from pubsub_data.deliveries";

#[tokio::test]
async fn crossing_transactions_do_not_deadlock_and_one_of_them_wins() {
    let (database, mut connection) = two_subscriptions().await;
    let (mut one, mut other) = (database.connect().await, database.connect().await);
    // a deadlock is found after this long
    for connection in [&mut one, &mut other] {
        execute(connection, "set deadlock_timeout = '50ms'").await;
    }

    for round in 1..=20 {
        let (subscriptions, deliveries) = delivered(&mut connection, 200).await;
        let reversed: Vec<&str> = subscriptions.iter().rev().copied().collect();
        let backwards: Vec<Delivery> = deliveries.iter().rev().cloned().collect();

        let (first, second) = tokio::join!(
            apply(&mut one, &subscriptions, &deliveries),
            apply(&mut other, &reversed, &backwards)
        );

        let mut ends = [code(first), code(second)];
        ends.sort();
        assert_eq!(ends, ["PS409", "done"], "round {round}");
        assert_eq!(count(&mut connection, LEFT).await, 0);
        assert_eq!(count(&mut connection, PUBLISHED).await, round);
    }
}

/// The end of a transaction that met an open one with a receipt of its own, which then ended so.
async fn met(commits: bool) -> (String, i64, i64) {
    let (database, mut connection) = two_subscriptions().await;
    let (subscriptions, deliveries) = delivered(&mut connection, 2).await;
    let (mut one, mut other) = (database.connect().await, database.connect().await);

    let mut open = one.begin().await.unwrap();
    apply(&mut open, &subscriptions[1..2], &deliveries[1..2])
        .await
        .unwrap();
    let waiting =
        tokio::spawn(async move { code(apply(&mut other, &subscriptions, &deliveries).await) });
    let is_waiting = "select count(*) from pg_catalog.pg_locks l \
        join pg_catalog.pg_stat_activity a on a.pid = l.pid \
        where not l.granted and a.datname = pg_catalog.current_database()";
    let waits = async {
        while count(&mut connection, is_waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waits)
        .await
        .expect("one waits for the other");
    if commits {
        open.commit().await.unwrap();
    } else {
        open.rollback().await.unwrap();
    }

    let end = waiting.await.unwrap();
    let left = count(&mut connection, LEFT).await;
    (end, left, count(&mut connection, PUBLISHED).await)
}

#[tokio::test]
async fn a_receipt_that_another_transaction_used_meanwhile_is_stale() {
    assert_eq!(met(true).await, ("PS409".to_owned(), 3, 1));
}

#[tokio::test]
async fn a_receipt_that_another_transaction_gave_back_is_good() {
    assert_eq!(met(false).await, ("done".to_owned(), 0, 1));
}
