//! Replay with real connections: publishers, consumers and other servers go on meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{
    consume, consume_within_seconds, database, execute, publish_count, settle, until_blocked,
};
use crate::support::database::TestDatabase;

/// A job as `list_jobs` shows it.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
struct Job {
    id: Uuid,
    state: String,
    changed: i64,
}

async fn job(connection: &mut PgConnection) -> Job {
    sqlx::query_as("select id, state, changed from pubsub.list_jobs('s', 0, 1)")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn advance(connection: &mut PgConnection, id: Uuid) -> bool {
    sqlx::query_scalar("select pubsub.advance_job($1)")
        .bind(id)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// What is available and leased; the counters must agree with the messages.
async fn counts(connection: &mut PgConnection) -> (i64, i64) {
    let off: i64 = sqlx::query_scalar("select pubsub.recount_messages('s')")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(off, 0, "the counters were off");
    sqlx::query_as("select available, delivered from pubsub.subscription_metrics('s')")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn publish_thousands(connection: &mut PgConnection, thousands: usize) -> HashSet<Uuid> {
    let mut ids = HashSet::new();
    for _ in 0..thousands {
        ids.extend(publish_count(connection, 1000).await);
    }
    ids
}

async fn is_empty(connection: &mut PgConnection) -> bool {
    sqlx::query_scalar("select not exists (select from pubsub_data.deliveries)")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Consume and ack until, after `over`, nothing is left.
async fn drain(mut connection: PgConnection, over: Arc<AtomicBool>) -> Vec<Uuid> {
    let mut got = Vec::new();
    loop {
        let last = over.load(Ordering::Relaxed);
        let deliveries = consume(&mut connection, "s", 500).await;
        if deliveries.is_empty() && last && is_empty(&mut connection).await {
            return got;
        }
        let ids: Vec<Uuid> = deliveries.iter().map(|d| d.message_id).collect();
        let leases: Vec<i64> = deliveries.iter().map(|d| d.lease).collect();
        settle(&mut connection, "ack_messages", "s", &ids, Some(&leases)).await;
        got.extend(ids);
    }
}

#[tokio::test]
async fn publishers_and_consumers_go_on_while_thousands_of_messages_are_replayed() {
    go_on_while_replayed(30).await;
}

#[tokio::test]
#[ignore = "make test-full"]
async fn publishers_and_consumers_go_on_while_a_hundred_thousand_messages_are_replayed() {
    go_on_while_replayed(100).await;
}

async fn go_on_while_replayed(thousands: usize) {
    let (database, mut server) = database().await;
    let mut wanted = publish_thousands(&mut server, thousands).await;
    execute(&mut server, "select pubsub.seek_subscription_to_end('s')").await;
    execute(
        &mut server,
        "do $$ begin while pubsub.advance_jobs() loop commit; end loop; end $$",
    )
    .await;
    assert_eq!(counts(&mut server).await, (0, 0));

    let over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let mut publisher = database.connect().await;
    // a step that it waits for waits for it, below
    execute(&mut publisher, "set lock_timeout = '5s'").await;
    let published = tokio::spawn({
        let (over, count) = (over.clone(), count.clone());
        async move {
            let mut ids = Vec::new();
            while !over.load(Ordering::Relaxed) {
                ids.extend(publish_count(&mut publisher, 1).await);
                count.store(ids.len(), Ordering::Relaxed);
            }
            ids
        }
    });
    execute(
        &mut server,
        "select pubsub.seek_subscription('s', '-infinity')",
    )
    .await;
    let consumers = [
        tokio::spawn(drain(database.connect().await, over.clone())),
        tokio::spawn(drain(database.connect().await, over.clone())),
    ];
    let id = job(&mut server).await.id;
    let mut steps = 1;
    loop {
        let mut step = server.begin().await.unwrap();
        let more = advance(&mut step, id).await;
        if steps <= 5 {
            // with a step uncommitted: one that may have begun before it, and one more
            let wanted = count.load(Ordering::Relaxed) + 2;
            while count.load(Ordering::Relaxed) < wanted && !published.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        step.commit().await.unwrap();
        if !more {
            break;
        }
        steps += 1;
    }
    over.store(true, Ordering::Relaxed);
    let published = published.await.unwrap();
    assert!(!published.is_empty());
    wanted.extend(published);
    let mut got = Vec::new();
    for consumer in consumers {
        got.extend(consumer.await.unwrap());
    }

    let job = job(&mut server).await;
    let replayed = i64::try_from(thousands * 1000).unwrap();
    assert_eq!((job.state.as_str(), job.changed), ("done", replayed));
    assert!(steps >= thousands / 10, "{steps} steps");
    assert_eq!(got.len(), wanted.len(), "none twice, none lost");
    assert_eq!(got.into_iter().collect::<HashSet<_>>(), wanted);
    assert_eq!(counts(&mut server).await, (0, 0));
}

async fn redeliver(connection: &mut PgConnection, ids: &[Uuid]) -> i64 {
    sqlx::query_scalar(
        "select pubsub.redeliver_messages(topic_key, subscription_key, $1) \
         from pubsub_data.subscriptions",
    )
    .bind(ids)
    .fetch_one(connection)
    .await
    .unwrap()
}

/// Without looking back, which takes its time.
async fn consume_ids(connection: &mut PgConnection, limit: i32) -> Vec<Uuid> {
    let deliveries = consume(connection, "s", limit).await;
    deliveries.iter().map(|d| d.message_id).collect()
}

#[tokio::test]
async fn connections_that_have_read_to_the_end_find_what_comes_back_at_once_and_in_order() {
    let (database, mut server) = database().await;
    let (mut busy, mut idle) = (database.connect().await, database.connect().await);
    let ids = publish_count(&mut server, 4).await;
    assert_eq!(consume_ids(&mut busy, 10).await, ids);
    settle(&mut busy, "ack_messages", "s", &ids, None).await;
    assert!(consume_ids(&mut busy, 10).await.is_empty());
    assert!(consume_ids(&mut idle, 10).await.is_empty());

    // the idle one misses the first
    assert_eq!(redeliver(&mut server, &ids[..2]).await, 2);
    assert_eq!(consume_ids(&mut busy, 1).await, ids[..1]);
    assert_eq!(redeliver(&mut server, &ids[3..]).await, 1);

    assert_eq!(consume_ids(&mut idle, 10).await, [ids[1], ids[3]]);
    assert!(consume_ids(&mut busy, 10).await.is_empty());
}

#[tokio::test]
async fn of_two_servers_one_makes_a_step_and_none_is_made_twice() {
    let (database, mut one) = database().await;
    let mut other = database.connect().await;
    publish_thousands(&mut one, 25).await;
    execute(&mut one, "select pubsub.seek_subscription_to_end('s')").await;
    let begun = job(&mut one).await;
    assert_eq!((begun.state.as_str(), begun.changed), ("running", 10_000));

    let mut step = one.begin().await.unwrap();
    assert!(advance(&mut step, begun.id).await);
    assert!(!advance(&mut other, begun.id).await);
    step.commit().await.unwrap();
    assert_eq!(job(&mut other).await.changed, 20_000);

    assert!(advance(&mut other, begun.id).await);
    assert!(!advance(&mut one, begun.id).await);
    let done = job(&mut one).await;
    assert_eq!((done.state.as_str(), done.changed), ("done", 25_000));
    assert_eq!(counts(&mut one).await, (0, 0));
}

#[tokio::test]
async fn a_job_that_is_cancelled_in_the_middle_keeps_what_it_did() {
    let (database, mut server) = database().await;
    let mut operator = database.connect().await;
    publish_thousands(&mut server, 30).await;
    execute(&mut server, "select pubsub.seek_subscription_to_end('s')").await;
    let id = job(&mut server).await.id;

    let mut step = server.begin().await.unwrap();
    assert!(advance(&mut step, id).await);
    let cancelled = tokio::spawn(async move {
        let state: String = sqlx::query_scalar("select state from pubsub.cancel_job($1)")
            .bind(id)
            .fetch_one(&mut operator)
            .await
            .unwrap();
        state
    });
    let mut watcher = database.connect().await;
    until_blocked(&mut watcher).await;
    step.commit().await.unwrap();

    assert_eq!(cancelled.await.unwrap(), "cancelled");
    assert!(!advance(&mut server, id).await);
    assert_eq!(job(&mut server).await.changed, 20_000);
    assert_eq!(counts(&mut server).await, (10_000, 0));
}

#[tokio::test]
async fn a_step_that_meets_a_long_transaction_is_made_later() {
    let (database, mut server) = database().await;
    let mut consumer = database.connect().await;
    let ids = publish_count(&mut server, 3).await;
    consume(&mut consumer, "s", 1).await;

    let mut long = consumer.begin().await.unwrap();
    assert_eq!(
        settle(&mut long, "ack_messages", "s", &ids[..1], None).await,
        1
    );
    execute(&mut server, "select pubsub.seek_subscription_to_end('s')").await;
    let held = job(&mut server).await;
    long.rollback().await.unwrap();
    assert!(advance(&mut server, held.id).await);

    assert_eq!((held.state.as_str(), held.changed), ("running", 0));
    let done = job(&mut server).await;
    assert_eq!((done.state.as_str(), done.changed), ("done", 3));
    assert_eq!(counts(&mut server).await, (0, 0));
}

#[tokio::test]
async fn a_message_that_becomes_a_dead_letter_meanwhile_stays_one() {
    let (database, mut server) = database().await;
    let mut consumer = database.connect().await;
    execute(
        &mut server,
        "select pubsub.update_subscription('s', '{\"max_delivery_attempts\": 1}')",
    )
    .await;
    let ids = publish_count(&mut server, 1).await;
    consume(&mut consumer, "s", 1).await;

    let mut nack = consumer.begin().await.unwrap();
    settle(&mut nack, "nack_messages", "s", &ids, None).await;
    let seek = tokio::spawn(async move {
        execute(
            &mut server,
            "select pubsub.seek_subscription('s', '2020-01-01')",
        )
        .await;
        server
    });
    let mut watcher = database.connect().await;
    until_blocked(&mut watcher).await;
    nack.commit().await.unwrap();
    let mut server = seek.await.unwrap();

    let dead: i64 = sqlx::query_scalar("select count(*) from pubsub.list_dlq_messages('s')")
        .fetch_one(&mut server)
        .await
        .unwrap();
    assert_eq!(dead, 1);
    let done = job(&mut server).await;
    assert_eq!((done.state.as_str(), done.changed), ("done", 0));
    assert_eq!(counts(&mut server).await, (0, 0));
}

/// Let the seconds pass that a new subscription waits before it looks again.
async fn wait_is_over(connection: &mut PgConnection) {
    let sql = "update pubsub_data.jobs set arguments = \
        jsonb_set(arguments, '{catch_up,not_before}', to_jsonb(now() - interval '1 s'))";
    execute(connection, sql).await;
}

#[tokio::test]
async fn a_new_subscription_gets_what_publishers_that_do_not_know_it_commit_late() {
    let (database, mut server) = database().await;
    let (mut late, mut later) = (database.connect().await, database.connect().await);
    let early = publish_count(&mut server, 2).await;

    let mut open = late.begin().await.unwrap();
    let unseen = publish_count(&mut open, 1).await;
    execute(
        &mut server,
        "select pubsub.delete_subscription('s'); \
         select pubsub.create_subscription('s', 't', p_start_from => '-infinity')",
    )
    .await;
    // its publisher knows it: it comes by itself, and is not to come again
    let known = publish_count(&mut later, 1).await;
    let first = consume(&mut server, "s", 10).await;
    let got: Vec<Uuid> = first.iter().map(|d| d.message_id).collect();
    assert_eq!(got, [early.clone(), known].concat());
    settle(&mut server, "ack_messages", "s", &got, None).await;

    let id = job(&mut server).await.id;
    assert!(advance(&mut server, id).await);
    wait_is_over(&mut server).await;
    assert!(advance(&mut server, id).await);
    assert_eq!(job(&mut server).await.state, "running", "one is open");
    open.commit().await.unwrap();
    while advance(&mut server, id).await {}

    assert_eq!(job(&mut server).await.state, "done");
    assert_eq!(counts(&mut server).await, (1, 0));
    let second = consume_within_seconds(&mut later, 10).await;
    assert_eq!(second[0].message_id, unseen[0]);
}

#[tokio::test]
async fn a_publisher_that_commits_after_a_snapshot_counts_as_after_it() {
    let (database, mut server) = database().await;
    let mut late = database.connect().await;
    let before = publish_count(&mut server, 2).await;
    consume(&mut server, "s", 10).await;
    settle(&mut server, "ack_messages", "s", &before, None).await;

    let mut open = late.begin().await.unwrap();
    let unseen = publish_count(&mut open, 1).await;
    execute(&mut server, "select pubsub.create_snapshot('snap', 's')").await;
    open.commit().await.unwrap();
    execute(
        &mut server,
        "select pubsub.seek_subscription_to_end('s'); \
         select pubsub.seek_subscription_to_snapshot('s', 'snap')",
    )
    .await;

    assert_eq!(counts(&mut server).await, (1, 0));
    let live: Vec<Uuid> = sqlx::query_scalar("select message_id from pubsub_data.deliveries")
        .fetch_all(&mut server)
        .await
        .unwrap();
    assert_eq!(live, unseen);
}

/// While one transaction is open with `first`, another session calls `second`; both end well.
async fn one_waits_for_the_other(
    database: &TestDatabase,
    first: &'static str,
    second: &'static str,
) {
    let (mut one, mut other) = (database.connect().await, database.connect().await);
    let mut open = one.begin().await.unwrap();
    execute(&mut open, first).await;
    let waiting = tokio::spawn(async move { execute(&mut other, second).await });
    until_blocked(&mut database.connect().await).await;
    open.commit().await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn of_two_changes_at_once_none_is_lost() {
    let (database, mut connection) = database().await;

    one_waits_for_the_other(
        &database,
        "select pubsub.update_subscription('s', '{\"max_rate\": 7, \"max_in_flight\": 1}')",
        "select pubsub.update_subscription('s', '{\"max_in_flight\": 2}')",
    )
    .await;

    let changed: (i32, i32) =
        sqlx::query_as("select max_rate, max_in_flight from pubsub.get_subscription('s')")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(changed, (7, 2));
}

#[tokio::test]
async fn a_subscription_can_be_deleted_while_a_step_is_made() {
    let (database, mut connection) = database().await;
    publish_thousands(&mut connection, 11).await;
    execute(
        &mut connection,
        "select pubsub.seek_subscription_to_end('s')",
    )
    .await;

    one_waits_for_the_other(
        &database,
        "select pubsub.advance_jobs()",
        "select pubsub.delete_subscription('s')",
    )
    .await;

    let left: bool = sqlx::query_scalar("select exists (select from pubsub_data.jobs)")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!left);
}
