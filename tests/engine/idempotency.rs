//! Two publishers with the same idempotency key, at the same time.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::{consume, database};

/// Publish one message under key `a`: its id, and whether it is a duplicate.
async fn publish(connection: &mut PgConnection) -> (Uuid, bool) {
    let row = sqlx::query(
        "select message_id, duplicate \
         from pubsub.publish_messages('t', array['{}']::jsonb[], p_idempotency_keys => '{a}')",
    )
    .fetch_one(connection)
    .await
    .unwrap();
    (row.get(0), row.get(1))
}

/// Wait until a connection waits for a lock.
async fn blocked(connection: &mut PgConnection, pid: i32) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let waits: bool = sqlx::query_scalar("select cardinality(pg_blocking_pids($1)) > 0")
            .bind(pid)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if waits {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{pid} does not wait");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What two get, of whom the second comes while the first has yet to commit, or to roll back.
async fn race(commits: bool) -> ((Uuid, bool), (Uuid, bool), usize) {
    let (database, mut observer) = database().await;
    let mut first = database.connect().await;
    let mut second = database.connect().await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut second)
        .await
        .unwrap();

    let mut open = first.begin().await.unwrap();
    let one = publish(&mut open).await;
    let waiting = tokio::spawn(async move { publish(&mut second).await });
    blocked(&mut observer, pid).await;
    if commits {
        open.commit().await.unwrap();
    } else {
        open.rollback().await.unwrap();
    }
    let two = waiting.await.unwrap();

    let delivered = consume(&mut observer, "s", 10).await;
    assert!(delivered.iter().any(|d| d.message_id == two.0));
    (one, two, delivered.len())
}

#[tokio::test]
async fn a_retry_waits_for_the_first_and_gets_its_id() {
    let (first, second, delivered) = race(true).await;

    assert_eq!(second, (first.0, true));
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn a_retry_of_one_that_rolled_back_publishes() {
    let (first, second, delivered) = race(false).await;

    assert_ne!(second.0, first.0);
    assert!(!second.1);
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn calls_with_the_same_keys_in_another_order_do_not_deadlock() {
    let (database, mut observer) = database().await;
    let publish = async |connection: &mut PgConnection, backwards: bool| {
        for round in 0..50 {
            sqlx::query(
                "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[20]), \
                     p_idempotency_keys => array(select format('%s-%s', $1, n) \
                         from generate_series(1, 20) n order by case when $2 then -n else n end))",
            )
            .bind(round)
            .bind(backwards)
            .execute(&mut *connection)
            .await
            .unwrap();
        }
    };

    let (mut one, mut other) = (database.connect().await, database.connect().await);
    tokio::join!(publish(&mut one, false), publish(&mut other, true));

    let stored: i64 = sqlx::query_scalar("select count(*) from pubsub_data.messages")
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(stored, 50 * 20);
}
