//! Runs are locked before single messages, and both in the order of ids: real connections that would
//! deadlock else.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{consume, database, execute, publish_count, settle};

async fn pid(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Until so many sessions wait for the one with this pid.
async fn until_they_wait_for(connection: &mut PgConnection, pid: i32, sessions: i64) {
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity \
             where datname = current_database() and $1 = any(pg_blocking_pids(pid))",
        )
        .bind(pid)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if waiting >= sessions {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const RUNS_OF_A_HUNDRED: &str = "update pubsub_data.run_sizes set run_size = 100";

#[tokio::test]
async fn a_seek_and_an_ack_of_a_single_message_and_a_part_of_a_run_both_end() {
    let (database, mut first) = database().await;
    let mut seeker = database.connect().await;
    let mut acker = database.connect().await;
    let mut watcher = database.connect().await;
    let single = publish_count(&mut first, 2).await;
    consume(&mut first, "s", 2).await;
    // of a later millisecond
    tokio::time::sleep(Duration::from_millis(5)).await;
    execute(&mut first, RUNS_OF_A_HUNDRED).await;
    let run = publish_count(&mut first, 10).await;
    assert_eq!(consume(&mut first, "s", 10).await.len(), 10);

    let seek_to = run[0];
    let (first_pid, seeker_pid) = (pid(&mut first).await, pid(&mut seeker).await);
    let mut open = first.begin().await.unwrap();
    settle(&mut open, "ack_messages", "s", &single[1..], None).await;
    let seek = tokio::spawn(async move {
        sqlx::query("select pubsub.seek_subscription('s', pubsub.id_time($1))")
            .bind(seek_to)
            .execute(&mut seeker)
            .await
    });
    until_they_wait_for(&mut watcher, first_pid, 1).await;
    let both = [single[0], run[0]];
    let ack = tokio::spawn(async move { try_to_ack(&mut acker, &both).await });
    until_they_wait_for(&mut watcher, seeker_pid, 1).await;
    open.commit().await.unwrap();

    seek.await.unwrap().unwrap();
    // the other one was settled
    assert_eq!(ack.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_run_that_is_cut_holds_none_that_comes_after_it() {
    let (database, mut claimer) = database().await;
    let mut holder = database.connect().await;
    let mut seeker = database.connect().await;
    let mut other = database.connect().await;
    let mut watcher = database.connect().await;
    execute(&mut claimer, RUNS_OF_A_HUNDRED).await;
    let first_run = publish_count(&mut claimer, 20).await;
    let later_run = publish_count(&mut claimer, 20).await;
    let (claimer_pid, holder_pid) = (pid(&mut claimer).await, pid(&mut holder).await);
    let seeker_pid = pid(&mut seeker).await;

    let mut claim = claimer.begin().await.unwrap();
    assert_eq!(consume(&mut claim, "s", 10).await.len(), 10);
    let held = consume(&mut other, "s", 20).await;
    assert_eq!(held[0].message_id, later_run[0]);
    let seek = tokio::spawn(async move {
        sqlx::query("select pubsub.seek_subscription_to_end('s')")
            .execute(&mut seeker)
            .await
    });
    until_they_wait_for(&mut watcher, claimer_pid, 1).await;
    let mut extends = holder.begin().await.unwrap();
    sqlx::query("select pubsub.extend_messages('s', $1, $2, 600)")
        .bind(&later_run[3..4])
        .bind([held[0].lease].as_slice())
        .execute(&mut *extends)
        .await
        .unwrap();
    claim.commit().await.unwrap();
    until_they_wait_for(&mut watcher, holder_pid, 1).await;
    // the seek has the rest of the first run by now, so that nobody gets it before the later one
    assert!(consume(&mut claimer, "s", 10).await.is_empty());
    let all = [&first_run[10..], &later_run].concat();
    let ack = tokio::spawn(async move { try_to_ack(&mut other, &all).await });
    // else it might overtake the seek, which has to wake up first
    until_they_wait_for(&mut watcher, seeker_pid, 1).await;
    extends.rollback().await.unwrap();

    seek.await.unwrap().unwrap();
    // what the seek has settled is not acked
    assert_eq!(ack.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn an_ack_of_what_is_leased_meanwhile_and_a_nack_both_end() {
    let (database, mut first) = database().await;
    let mut holder = database.connect().await;
    let mut acker = database.connect().await;
    let mut watcher = database.connect().await;
    let mut nacker = database.connect().await;
    execute(&mut first, RUNS_OF_A_HUNDRED).await;
    // so that this one has read no further
    publish_count(&mut first, 10).await;
    assert_eq!(consume(&mut nacker, "s", 10).await.len(), 10);
    let ready = publish_count(&mut first, 10).await;
    let mut claim = holder.begin().await.unwrap();
    assert_eq!(consume(&mut claim, "s", 10).await.len(), 10);
    let second = publish_count(&mut first, 10).await;
    let third = publish_count(&mut first, 10).await;
    assert_eq!(consume(&mut first, "s", 20).await.len(), 20);
    claim.rollback().await.unwrap();

    let (holder_pid, acker_pid) = (pid(&mut holder).await, pid(&mut acker).await);
    let mut open = holder.begin().await.unwrap();
    let one = [third[0]];
    sqlx::query("select from pubsub_data.runs where run_id = $1 for update")
        .bind(one[0])
        .execute(&mut *open)
        .await
        .unwrap();
    let all = [ready.as_slice(), &second, &third].concat();
    let ack = tokio::spawn(async move { try_to_ack(&mut acker, &all).await });
    until_they_wait_for(&mut watcher, holder_pid, 1).await;
    let claimed = consume(&mut nacker, "s", 10).await;
    assert_eq!(claimed[0].message_id, ready[0]);
    let both = [ready.as_slice(), &second].concat();
    let nack = tokio::spawn(async move {
        sqlx::query_scalar::<_, i64>("select pubsub.nack_messages('s', $1)")
            .bind(both)
            .fetch_one(&mut nacker)
            .await
    });
    until_they_wait_for(&mut watcher, acker_pid, 1).await;
    open.rollback().await.unwrap();

    let answers = (ack.await.unwrap().unwrap(), nack.await.unwrap().unwrap());
    assert_eq!(answers, (20, 10));
}

async fn try_to_ack(connection: &mut PgConnection, ids: &[Uuid]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select pubsub.ack_messages('s', $1)")
        .bind(ids)
        .fetch_one(connection)
        .await
}
