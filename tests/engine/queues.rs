//! Queues that many create at once: one of them does, nobody fails, and nobody waits in a circle.

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{database, until_blocked};

async fn create(connection: &mut PgConnection, queue: &str, dead_letters: &str) -> bool {
    sqlx::query_scalar("select pubsub.create_queue($1, '{}', $2)")
        .bind(queue)
        .bind(dead_letters)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn of_two_who_create_a_queue_one_does_and_the_other_waits_for_it() {
    for (commits, second_creates) in [(true, false), (false, true)] {
        let (database, mut first) = database().await;
        let mut second = database.connect().await;
        let mut watcher = database.connect().await;
        let mut open = first.begin().await.unwrap();
        assert!(create(&mut open, "q", "dead").await);

        let waiting = tokio::spawn(async move { create(&mut second, "q", "dead").await });
        until_blocked(&mut watcher).await;
        if commits {
            open.commit().await.unwrap();
        } else {
            open.rollback().await.unwrap();
        }

        assert_eq!(waiting.await.unwrap(), second_creates);
        let made: i64 = sqlx::query_scalar(
            "select count(*) from pubsub.list_subscriptions() where id in ('q', 'dead')",
        )
        .fetch_one(&mut watcher)
        .await
        .unwrap();
        assert_eq!(made, 2);
    }
}

/// Each is the other's dead-letter queue, so that both take the same locks the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_are_each_others_dead_letter_queues_are_created_once_by_many() {
    const ROUNDS: usize = 30;
    let (database, mut connection) = database().await;
    let mut workers = Vec::new();
    for worker in 0..4 {
        let mut connection = database.connect().await;
        workers.push(tokio::spawn(async move {
            let mut created = 0;
            for round in 0..ROUNDS {
                let mut names = [format!("a{round}"), format!("b{round}")];
                if worker % 2 == 0 {
                    names.reverse();
                }
                created += usize::from(create(&mut connection, &names[0], &names[1]).await);
                created += usize::from(create(&mut connection, &names[1], &names[0]).await);
            }
            created
        }));
    }
    let mut created = 0;
    for worker in workers {
        created += worker.await.unwrap();
    }

    // what one creates as a dead-letter queue, another finds
    assert!((ROUNDS..=2 * ROUNDS).contains(&created), "{created}");
    let attached: i64 = sqlx::query_scalar(
        "select count(*) from pubsub.list_subscriptions(0, 1000) \
         where id ~ '^[ab][0-9]' and dead_letter_topic_id is not null",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(attached, 2 * i64::try_from(ROUNDS).unwrap());
}
