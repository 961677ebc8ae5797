//! Purges, deletions and changes of messages beside those who publish, claim and settle.

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{consume, database, execute, publish_count, settle, until_blocked};

const RUNS_OF_A_HUNDRED: &str = "update pubsub_data.run_sizes set run_size = 100";
const PURGE: &str = "select pubsub.purge_subscription('s')";

/// Messages of `s`: available, delivered, scheduled, acked, dead, expired, parked; and how far they are off.
async fn counts(connection: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar(
        "select array[m.available, m.delivered, m.scheduled, m.acked, m.dlq, m.expired, m.parked, \
         pubsub.recount_messages('s')] from pubsub.subscription_metrics('s') m",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_publish_that_was_open_at_a_purge_counts_as_before_it_and_a_later_one_arrives() {
    for in_runs in [false, true] {
        let (database, mut publisher) = database().await;
        let mut purger = database.connect().await;
        if in_runs {
            execute(&mut publisher, RUNS_OF_A_HUNDRED).await;
        }
        let mut open = publisher.begin().await.unwrap();
        publish_count(&mut open, 250).await;
        // waits for nobody
        execute(&mut purger, PURGE).await;
        open.commit().await.unwrap();

        assert_eq!(counts(&mut purger).await, [0; 8], "{in_runs}");
        assert!(consume(&mut purger, "s", 1000).await.is_empty());
        let later = publish_count(&mut publisher, 250).await;
        let got = consume(&mut purger, "s", 1000).await;
        assert_eq!(
            got.iter()
                .map(|delivery| delivery.message_id)
                .collect::<Vec<_>>(),
            later
        );
    }
}

#[tokio::test]
async fn a_claim_and_an_ack_that_were_open_at_a_purge_count_as_before_it() {
    for in_runs in [false, true] {
        let (database, mut consumer) = database().await;
        let mut acker = database.connect().await;
        let mut purger = database.connect().await;
        if in_runs {
            execute(&mut consumer, RUNS_OF_A_HUNDRED).await;
        }
        let ids = publish_count(&mut consumer, 300).await;
        let held = consume(&mut acker, "s", 100).await;
        let held: Vec<Uuid> = held.iter().map(|delivery| delivery.message_id).collect();
        let mut claiming = consumer.begin().await.unwrap();
        let claimed = consume(&mut claiming, "s", 100).await;
        assert_eq!(claimed.len(), 100);
        let mut acking = acker.begin().await.unwrap();
        assert_eq!(
            settle(&mut acking, "ack_messages", "s", &held, None).await,
            100
        );
        execute(&mut purger, PURGE).await;
        claiming.commit().await.unwrap();
        acking.commit().await.unwrap();

        let leases: Vec<i64> = claimed.iter().map(|delivery| delivery.lease).collect();
        let claimed: Vec<Uuid> = claimed.iter().map(|delivery| delivery.message_id).collect();
        let acked = settle(&mut purger, "ack_messages", "s", &claimed, Some(&leases)).await;
        assert_eq!(acked, 0);
        assert_eq!(
            settle(&mut purger, "ack_messages", "s", &ids, None).await,
            0
        );
        assert_eq!(counts(&mut purger).await, [0; 8], "{in_runs}");
        for connection in [&mut consumer, &mut acker, &mut purger] {
            assert!(consume(connection, "s", 1000).await.is_empty());
        }
    }
}

/// Sessions know how far they have read, which must not keep them from what comes after a purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_published_after_the_last_purge_is_lost_or_twice_there() {
    let (database, mut connection) = database().await;
    execute(&mut connection, RUNS_OF_A_HUNDRED).await;
    let mut workers = Vec::new();
    for worker in 0..6_usize {
        let mut connection = database.connect().await;
        workers.push(tokio::spawn(async move {
            for round in 0..60 {
                if worker < 2 {
                    publish_count(&mut connection, [1, 7, 100, 250][round % 4]).await;
                } else if worker < 5 {
                    let got = consume(&mut connection, "s", [1, 40, 100][round % 3]).await;
                    let ids: Vec<Uuid> = got.iter().map(|delivery| delivery.message_id).collect();
                    let leases: Vec<i64> = got.iter().map(|delivery| delivery.lease).collect();
                    let half = ids.len() / 2;
                    settle(
                        &mut connection,
                        "ack_messages",
                        "s",
                        &ids[half..],
                        Some(&leases[half..]),
                    )
                    .await;
                } else {
                    execute(&mut connection, PURGE).await;
                }
            }
            connection
        }));
    }
    let mut connections = Vec::new();
    for worker in workers {
        connections.push(worker.await.unwrap());
    }
    execute(&mut connection, PURGE).await;
    assert_eq!(counts(&mut connection).await, [0; 8]);

    let mut published = publish_count(&mut connections[0], 100).await;
    published.extend(publish_count(&mut connections[1], 3).await);
    let mut got = Vec::new();
    for connection in &mut connections {
        got.extend(consume(connection, "s", 30).await);
    }
    let mut got: Vec<Uuid> = got.iter().map(|delivery| delivery.message_id).collect();
    got.sort_unstable();
    assert_eq!(got, published);
    assert_eq!(counts(&mut connection).await, [0, 103, 0, 0, 0, 0, 0, 0]);
}

/// How a call ends that waits for the subscription while it is purged: "done", or the code of the refusal.
async fn end_beside_a_purge(call: &'static str) -> String {
    let (database, mut purger) = database().await;
    let mut other = database.connect().await;
    let mut watcher = database.connect().await;
    let mut open = purger.begin().await.unwrap();
    execute(&mut open, PURGE).await;
    let waiting = tokio::spawn(async move {
        match sqlx::raw_sql(call).execute(&mut other).await {
            Ok(_) => "done".to_owned(),
            Err(error) => {
                let error = error.into_database_error().unwrap();
                error.code().unwrap().into_owned()
            }
        }
    });
    until_blocked(&mut watcher).await;
    open.commit().await.unwrap();
    waiting.await.unwrap()
}

#[tokio::test]
async fn whoever_waits_for_a_subscription_that_is_purged_may_call_again() {
    for call in [
        PURGE,
        "select pubsub.seek_subscription_to_end('s')",
        "select pubsub.create_snapshot('n', 's')",
        "select pubsub.update_subscription('s', '{\"max_in_flight\": 5}')",
        "select pubsub.reprocess_dlq_messages('s', '{}')",
    ] {
        assert_eq!(end_beside_a_purge(call).await, "40001", "{call}");
    }
    let delete = "select pubsub.delete_subscription('s')";
    assert_eq!(end_beside_a_purge(delete).await, "done");
    let delete = "select pubsub.delete_topic('t')";
    assert_eq!(end_beside_a_purge(delete).await, "done");
}

#[tokio::test]
async fn a_message_is_deleted_that_a_claim_leaves_in_another_run_meanwhile() {
    let (database, mut claimer) = database().await;
    let mut deleter = database.connect().await;
    let mut watcher = database.connect().await;
    execute(&mut claimer, RUNS_OF_A_HUNDRED).await;
    let ids = publish_count(&mut claimer, 100).await;
    let mut open = claimer.begin().await.unwrap();
    assert_eq!(consume(&mut open, "s", 40).await.len(), 40);

    let left = [ids[70]];
    let deleting = tokio::spawn(async move {
        let deleted: Vec<Uuid> = sqlx::query_scalar("select pubsub.delete_messages('s', $1)")
            .bind(&left[..])
            .fetch_one(&mut deleter)
            .await
            .unwrap();
        deleted
    });
    until_blocked(&mut watcher).await;
    open.commit().await.unwrap();

    assert_eq!(deleting.await.unwrap(), left);
    assert_eq!(counts(&mut watcher).await, [59, 40, 0, 0, 0, 0, 0, 0]);
    assert_eq!(consume(&mut watcher, "s", 1000).await.len(), 59);
}

#[tokio::test]
async fn a_message_that_gets_large_counts_as_that_also_where_a_claim_leaves_it_in_another_run() {
    let (database, mut claimer) = database().await;
    let mut updater = database.connect().await;
    let mut watcher = database.connect().await;
    execute(&mut claimer, RUNS_OF_A_HUNDRED).await;
    let ids = publish_count(&mut claimer, 100).await;
    let mut open = claimer.begin().await.unwrap();
    assert_eq!(consume(&mut open, "s", 40).await.len(), 40);

    let last = ids[99];
    let updating = tokio::spawn(async move {
        let sql = "select pubsub.update_message('t', $1, to_jsonb(repeat('x', 100000)))";
        let updated: bool = sqlx::query_scalar(sql)
            .bind(last)
            .fetch_one(&mut updater)
            .await
            .unwrap();
        updated
    });
    until_blocked(&mut watcher).await;
    open.commit().await.unwrap();

    assert!(updating.await.unwrap());
    let claimed: Vec<Uuid> = sqlx::query_scalar(
        "select message_id from pubsub.consume_messages('s', 'c', 100, p_max_bytes => 90000)",
    )
    .fetch_all(&mut watcher)
    .await
    .unwrap();
    assert!(!claimed.is_empty() && !claimed.contains(&last));
    assert_eq!(counts(&mut watcher).await[7], 0);
}
