//! Publishers under the same message keys at the same time, and beside acks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::SliceRandom;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::{Delivery, consume, database, execute, settle, until_blocked};
use crate::support::database::TestDatabase;

/// Publish a message under each key: its id, and whether it is a duplicate.
async fn publish(connection: &mut PgConnection, keys: &[&str]) -> Vec<(Uuid, bool)> {
    let rows = sqlx::query(
        "select message_id, duplicate from pubsub.publish_messages('t', \
             array_fill('{}'::jsonb, array[cardinality($1)]), \
             array(select jsonb_build_object('key', k) from unnest($1) k), \
             p_message_keys => $1)",
    )
    .bind(keys)
    .fetch_all(connection)
    .await
    .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn found(connection: &mut PgConnection, key: &str) -> Option<Uuid> {
    sqlx::query_scalar("select message_id from pubsub.find_messages('s', array[$1])")
        .bind(key)
        .fetch_optional(connection)
        .await
        .unwrap()
}

/// What two get, of whom the second comes while the first has yet to commit, or to roll back.
async fn race(commits: bool) -> ((Uuid, bool), (Uuid, bool), usize) {
    let (database, mut observer) = database().await;
    let mut first = database.connect().await;
    let mut second = database.connect().await;

    let mut open = first.begin().await.unwrap();
    let one = publish(&mut open, &["a"]).await[0];
    let waiting = tokio::spawn(async move { publish(&mut second, &["a"]).await[0] });
    until_blocked(&mut observer).await;
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
async fn a_rival_waits_for_the_first_and_gets_its_id() {
    let (first, second, delivered) = race(true).await;

    assert_eq!(second, (first.0, true));
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn a_publish_that_rolls_back_gives_its_key_to_its_rival() {
    let (first, second, delivered) = race(false).await;

    assert_ne!(second.0, first.0);
    assert!(!second.1);
    assert_eq!(delivered, 1);
}

/// A database in which message `a` is in the hands of a consumer.
async fn held() -> (TestDatabase, PgConnection, Delivery) {
    let (database, mut connection) = database().await;
    publish(&mut connection, &["a"]).await;
    let delivery = consume(&mut connection, "s", 1).await.remove(0);
    (database, connection, delivery)
}

async fn ack(connection: &mut PgConnection, delivery: &Delivery) -> i64 {
    let (ids, leases) = ([delivery.message_id], [delivery.lease]);
    settle(connection, "ack_messages", "s", &ids, Some(&leases)).await
}

#[tokio::test]
async fn an_ack_that_is_not_committed_has_not_freed_its_key() {
    let (database, mut consumer, delivery) = held().await;
    let mut publisher = database.connect().await;

    let mut open = consumer.begin().await.unwrap();
    ack(&mut open, &delivery).await;
    // it does not wait for the consumer, who may yet roll back
    let beside = publish(&mut publisher, &["a"]).await[0];
    open.commit().await.unwrap();
    let after = publish(&mut publisher, &["a"]).await[0];

    assert_eq!(beside, (delivery.message_id, true));
    assert!(!after.1);
    assert_eq!(found(&mut publisher, "a").await, Some(after.0));
}

/// With the snapshot of before its wait, it would take a message that is acked by now for a live one.
#[tokio::test]
async fn what_is_acked_while_a_publisher_waits_for_a_rival_is_not_live_for_it() {
    let (database, mut consumer, delivery) = held().await;
    let (mut rival, mut publisher) = (database.connect().await, database.connect().await);

    let mut open = rival.begin().await.unwrap();
    let first = publish(&mut open, &["a"]).await[0];
    let waiting = tokio::spawn(async move { publish(&mut publisher, &["a"]).await[0] });
    until_blocked(&mut consumer).await;
    ack(&mut consumer, &delivery).await;
    open.commit().await.unwrap();
    let second = waiting.await.unwrap();

    assert_eq!(first, (delivery.message_id, true));
    assert!(!second.1);
    assert_eq!(found(&mut consumer, "a").await, Some(second.0));
}

/// With the snapshot of before its wait, it would not see that the message of its rival is live.
#[tokio::test]
async fn a_publisher_that_waits_sees_what_its_rival_took_over() {
    let (database, mut consumer, delivery) = held().await;
    let (mut rival, mut publisher) = (database.connect().await, database.connect().await);
    ack(&mut consumer, &delivery).await;

    let mut open = rival.begin().await.unwrap();
    let first = publish(&mut open, &["a"]).await[0];
    let waiting = tokio::spawn(async move { publish(&mut publisher, &["a"]).await[0] });
    until_blocked(&mut consumer).await;
    open.commit().await.unwrap();

    assert!(!first.1);
    assert_eq!(waiting.await.unwrap(), (first.0, true));
}

#[tokio::test]
async fn a_publisher_that_waits_for_the_clean_up_of_its_key_publishes() {
    let (database, mut consumer, delivery) = held().await;
    let mut publisher = database.connect().await;
    ack(&mut consumer, &delivery).await;

    let mut open = consumer.begin().await.unwrap();
    let cleaned: i64 = sqlx::query_scalar(
        "select pubsub.cleanup_default_messages(clock_timestamp() + interval '1 hour')",
    )
    .fetch_one(&mut *open)
    .await
    .unwrap();
    let waiting = tokio::spawn(async move { publish(&mut publisher, &["a"]).await[0] });
    let mut observer = database.connect().await;
    until_blocked(&mut observer).await;
    open.commit().await.unwrap();
    let published = waiting.await.unwrap();

    assert_eq!((cleaned, published.1), (1, false));
    assert_eq!(found(&mut observer, "a").await, Some(published.0));
}

#[tokio::test]
async fn a_clean_up_leaves_keys_and_messages_that_a_publisher_holds() {
    let (database, mut consumer, delivery) = held().await;
    let mut publisher = database.connect().await;
    ack(&mut consumer, &delivery).await;
    let clean = async |connection: &mut PgConnection| -> i64 {
        sqlx::query_scalar(
            "select pubsub.cleanup_default_messages(clock_timestamp() + interval '1 hour')",
        )
        .fetch_one(connection)
        .await
        .unwrap()
    };

    let mut open = publisher.begin().await.unwrap();
    let published = publish(&mut open, &["a"]).await[0];
    assert_eq!(clean(&mut consumer).await, 0);
    open.commit().await.unwrap();

    assert_eq!(clean(&mut consumer).await, 1);
    assert_eq!(found(&mut consumer, "a").await, Some(published.0));
}

#[tokio::test]
async fn calls_with_the_same_keys_in_another_order_do_not_deadlock() {
    let (database, mut observer) = database().await;
    let publish = async |connection: &mut PgConnection, backwards: bool| {
        for round in 0..50 {
            sqlx::query(
                "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[20]), \
                     p_message_keys => array(select format('%s-%s', $1, n) \
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

/// What a worker has seen.
#[derive(Default)]
struct Seen {
    published: Vec<Uuid>,
    /// With when the publish began.
    duplicates: Vec<(Uuid, Instant)>,
    /// With when the ack had ended.
    acked: Vec<(Uuid, Instant)>,
}

impl Seen {
    async fn ack(&mut self, connection: &mut PgConnection, most: i32) -> usize {
        let deliveries = consume(connection, "s", most).await;
        for delivery in &deliveries {
            assert_eq!(ack(connection, delivery).await, 1);
            self.acked.push((delivery.message_id, Instant::now()));
        }
        deliveries.len()
    }
}

/// Publish under 8 keys, in any order, and ack what comes, as often as possible.
async fn work(mut connection: PgConnection, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        let (keys, acks) = {
            let mut random = rand::rng();
            let mut keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
            keys.shuffle(&mut random);
            let count = random.random_range(1..=8);
            (keys[..count].to_vec(), random.random_range(1..=3))
        };
        let began = Instant::now();
        for (id, duplicate) in publish(&mut connection, &keys).await {
            if duplicate {
                seen.duplicates.push((id, began));
            } else {
                seen.published.push(id);
            }
        }
        seen.ack(&mut connection, acks).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_each_key_one_message_is_live_whoever_publishes_and_acks_beside() {
    let (database, mut observer) = database().await;
    let until = Instant::now() + Duration::from_secs(3);
    let mut workers = Vec::new();
    for _ in 0..6 {
        let mut worker = database.connect().await;
        execute(&mut worker, "set deadlock_timeout = '50ms'").await;
        workers.push(tokio::spawn(work(worker, until)));
    }
    let mut looks = 0;
    while Instant::now() < until {
        // of what is stored, without asking the engine
        let twice: i64 = sqlx::query_scalar(
            "select count(*) from (select from pubsub_data.deliveries d \
             join pubsub_data.messages m using (topic_key, message_id) \
             group by m.attributes having count(*) > 1) x",
        )
        .fetch_one(&mut observer)
        .await
        .unwrap();
        assert_eq!(twice, 0);
        looks += 1;
    }
    let mut all = Seen::default();
    for worker in workers {
        let seen = worker.await.unwrap();
        all.published.extend(seen.published);
        all.duplicates.extend(seen.duplicates);
        all.acked.extend(seen.acked);
    }
    // one whose commit came late may lie below what this session has read
    let patience = Instant::now() + Duration::from_secs(10);
    while all.acked.len() < all.published.len() && Instant::now() < patience {
        all.ack(&mut observer, 100).await;
    }

    assert!(looks > 10 && all.published.len() > 100 && all.duplicates.len() > 100);
    let acked: BTreeMap<Uuid, Instant> = all.acked.iter().copied().collect();
    all.published.sort();
    assert!(acked.keys().eq(&all.published), "lost, or delivered twice");
    for (id, began) in all.duplicates {
        assert!(acked[&id] > began, "{id} was acked before");
    }
    assert!(
        publish(&mut observer, &["a", "b"])
            .await
            .iter()
            .all(|(_, duplicate)| !duplicate)
    );
}
