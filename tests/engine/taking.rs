//! Takes that meet, and claims of what is unseen that meet nacks: real connections.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{database, execute, publish_count};

async fn take(connection: &mut PgConnection, batch_size: i32) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select message_id from pubsub.take_messages('s', 'c', $1)")
        .bind(batch_size)
        .fetch_all(connection)
        .await
}

async fn left(connection: &mut PgConnection) -> Vec<Uuid> {
    let off: i64 = sqlx::query_scalar("select pubsub.recount_messages('s')")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(off, 0, "the counters were off");
    sqlx::query_scalar(
        "select message_id from pubsub_data.deliveries \
         union all select unnest(message_ids) from pubsub_data.runs order by 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Eight sessions take different numbers, some of the time in transactions that they roll back.
async fn race(run_size: i32) {
    let (database, mut publisher) = database().await;
    sqlx::query("update pubsub_data.run_sizes set run_size = $1")
        .bind(run_size)
        .execute(&mut publisher)
        .await
        .unwrap();
    let mut ids = publish_count(&mut publisher, 1500).await;

    let consumers = (0..8).map(|consumer| {
        let database = &database;
        async move {
            let mut connection = database.connect().await;
            let mut got = Vec::new();
            for turn in 0..30 {
                let batch_size = [1, 3, 20, 100][(consumer + turn) % 4];
                execute(&mut connection, "begin").await;
                let taken = take(&mut connection, batch_size).await.unwrap();
                if turn % 5 == 4 {
                    execute(&mut connection, "rollback").await;
                } else {
                    execute(&mut connection, "commit").await;
                    got.extend(taken);
                }
            }
            got
        }
    });
    let publishing = async {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.extend(publish_count(&mut publisher, 100).await);
        }
        ids
    };
    let (got, published) = tokio::join!(join_all(consumers), publishing);
    ids.extend(published);

    let mut seen: Vec<_> = got.into_iter().flatten().collect();
    assert!(seen.len() > 1000, "{}", seen.len());
    seen.extend(left(&mut publisher).await);
    assert_eq!(
        seen.len(),
        ids.len(),
        "none is there twice, none is missing"
    );
    assert_eq!(
        seen.into_iter().collect::<HashSet<_>>(),
        ids.into_iter().collect()
    );
}

#[tokio::test]
async fn of_takes_that_meet_none_gets_what_another_got_and_none_is_lost() {
    race(1).await;
}

#[tokio::test]
async fn of_takes_of_runs_that_meet_none_gets_what_another_got_and_none_is_lost() {
    race(100).await;
}

#[tokio::test]
async fn a_take_whose_session_is_killed_before_its_commit_takes_nothing() {
    let (database, mut connection) = database().await;
    let ids = publish_count(&mut connection, 5).await;
    let mut dies = database.connect().await;
    execute(&mut dies, "begin").await;
    assert_eq!(take(&mut dies, 3).await.unwrap(), ids[..3]);

    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut dies)
        .await
        .unwrap();
    sqlx::query("select pg_terminate_backend($1, 10000)")
        .bind(pid)
        .execute(&mut connection)
        .await
        .unwrap();

    assert!(take(&mut dies, 1).await.is_err());
    assert_eq!(left(&mut connection).await, ids);
}

#[tokio::test]
async fn no_consumer_gets_what_it_nacked_while_others_claim_and_nack_too() {
    let (database, mut connection) = database().await;
    let settings = "select pubsub.update_subscription('s', '{\"max_delivery_attempts\": 1000}')";
    execute(&mut connection, settings).await;
    let ids = publish_count(&mut connection, 40).await;

    let consumers = (0..6).map(|consumer| {
        let database = &database;
        async move {
            let mut connection = database.connect().await;
            let mut got = HashMap::<Uuid, usize>::new();
            let mut idle = 0;
            while idle < 2000 && got.len() < 40 {
                let claimed: Vec<(Uuid, i64)> = sqlx::query_as(
                    "select message_id, lease from pubsub.consume_messages('s', $1, 3, \
                     p_only => 'unseen')",
                )
                .bind(consumer.to_string())
                .fetch_all(&mut connection)
                .await
                .unwrap();
                idle = if claimed.is_empty() { idle + 1 } else { 0 };
                for (id, _) in &claimed {
                    *got.entry(*id).or_default() += 1;
                }
                let (ids, leases): (Vec<_>, Vec<_>) = claimed.into_iter().unzip();
                sqlx::query(
                    "select pubsub.settle_messages('s', $1, $2, array_fill('nack'::text, \
                     array[cardinality($1)]), array_fill(0, array[cardinality($1)]))",
                )
                .bind(&ids)
                .bind(leases)
                .execute(&mut connection)
                .await
                .unwrap();
            }
            got
        }
    });
    let got = join_all(consumers).await;

    for seen in got {
        assert!(seen.values().all(|times| *times == 1), "twice: {seen:?}");
        assert_eq!(seen.len(), ids.len(), "each gets all");
    }
    assert_eq!(left(&mut connection).await.len(), ids.len());
}
