//! Limits of what is in flight and handed out, over several connections.

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::{advance, consume, database, execute, publish_count, settle};
use crate::support::database::TestDatabase;

const CONSUMERS: usize = 6;

/// A claim of each of several connections, all at once, over and over until nobody gets anything; how
/// many messages that were.
async fn claim_all_at_once(database: &TestDatabase) -> usize {
    let mut claims = JoinSet::new();
    for _ in 0..CONSUMERS {
        let mut connection = database.connect().await;
        claims.spawn(async move {
            let mut taken = 0;
            loop {
                let deliveries = consume(&mut connection, "s", 3).await;
                if deliveries.is_empty() {
                    return taken;
                }
                taken += deliveries.len();
            }
        });
    }
    claims.join_all().await.into_iter().sum()
}

async fn count(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn consumers_at_once_never_exceed_what_may_be_in_flight() {
    for limit in ["max_in_flight", "max_in_flight_per_consumer"] {
        let (database, mut connection) = database().await;
        publish_count(&mut connection, 200).await;
        let sql = format!("update pubsub_data.subscriptions set {limit} = 40");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();

        assert_eq!(claim_all_at_once(&database).await, 40, "{limit}");
        // their leases end
        advance(&mut connection, 3600.0).await;
        assert_eq!(claim_all_at_once(&database).await, 40, "{limit}");
        assert_eq!(
            count(&mut connection, "select pubsub.recount_messages('s')").await,
            0,
            "{limit}"
        );
    }
}

#[tokio::test]
async fn consumers_at_once_never_exceed_the_rate() {
    let (database, mut connection) = database().await;
    publish_count(&mut connection, 300).await;
    execute(
        &mut connection,
        "update pubsub_data.subscriptions set max_rate = 20",
    )
    .await;

    for _ in 0..3 {
        assert!(claim_all_at_once(&database).await >= 20);
        // a second passes
        execute(
            &mut connection,
            "update pubsub_data.handed_out \
                 set handed_out_at = handed_out_at - interval '1 second'; \
             update pubsub_data.deliveries set leased_at = leased_at - interval '1 second'",
        )
        .await;
    }

    let most = "select max(within.messages) from pubsub_data.deliveries d \
         cross join lateral ( \
             select count(*) as messages from pubsub_data.deliveries x \
             where x.leased_at >= d.leased_at \
                 and x.leased_at < d.leased_at + interval '1 second' \
         ) within where d.lease is not null";
    assert_eq!(count(&mut connection, most).await, 20);
}

#[tokio::test]
async fn a_claim_waits_for_one_before_it_and_one_that_is_undone_counts_nothing() {
    for limits in [
        "max_in_flight = 5",
        "max_in_flight_per_consumer = 5",
        "max_rate = 5",
    ] {
        for undone in [true, false] {
            let (database, mut first) = database().await;
            publish_count(&mut first, 9).await;
            let sql = format!("update pubsub_data.subscriptions set {limits}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut first)
                .await
                .unwrap();
            let mut second = database.connect().await;
            let mut watcher = database.connect().await;

            let mut open = first.begin().await.unwrap();
            assert_eq!(consume(&mut open, "s", 9).await.len(), 5);
            let waiting = tokio::spawn(async move { consume(&mut second, "s", 9).await.len() });
            let waits = "select count(*) from pg_locks l \
                 where l.locktype = 'advisory' and not l.granted \
                     and l.database = (select oid from pg_database \
                         where datname = current_database())";
            while count(&mut watcher, waits).await == 0 {
                assert!(!waiting.is_finished(), "{limits}");
                tokio::task::yield_now().await;
            }
            if undone {
                open.rollback().await.unwrap();
            } else {
                // on a slow machine the second could be over
                execute(
                    &mut open,
                    "update pubsub_data.handed_out \
                     set handed_out_at = clock_timestamp() + interval '900 ms'",
                )
                .await;
                open.commit().await.unwrap();
            }

            let taken = waiting.await.unwrap();
            assert_eq!(taken, if undone { 5 } else { 0 }, "{limits}");
        }
    }
}

#[tokio::test]
async fn what_is_settled_makes_room_for_other_connections() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 20).await;
    execute(
        &mut first,
        "update pubsub_data.subscriptions set max_in_flight = 4",
    )
    .await;
    let ids: Vec<_> = consume(&mut first, "s", 9)
        .await
        .iter()
        .map(|delivery| delivery.message_id)
        .collect();
    assert!(consume(&mut second, "s", 9).await.is_empty());

    settle(&mut first, "ack_messages", "s", &ids[..1], None).await;
    assert_eq!(consume(&mut second, "s", 9).await.len(), 1);
    settle(&mut first, "nack_messages", "s", &ids[1..3], None).await;
    assert_eq!(consume(&mut second, "s", 9).await.len(), 2);
    assert!(consume(&mut second, "s", 9).await.is_empty());
    advance(&mut first, 3600.0).await;
    assert_eq!(consume(&mut second, "s", 9).await.len(), 4);
}

#[tokio::test]
async fn claims_without_a_limit_wait_for_nobody() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 4).await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(consume(&mut open, "s", 2).await.len(), 2);
    let locks = "select count(*) from pg_locks where locktype = 'advisory' \
         and pid = pg_backend_pid()";
    assert_eq!(count(&mut open, locks).await, 0);
    assert_eq!(consume(&mut second, "s", 2).await.len(), 2);
}
