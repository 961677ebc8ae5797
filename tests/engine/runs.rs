//! Runs that two treat at once: real connections, open transactions.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{
    Delivery, consume, consume_within_seconds, database, execute, publish_count, settle,
    until_blocked,
};
use crate::support::database::TestDatabase;

/// A database as of `database`, and `messages` in runs of a hundred.
async fn stocked(messages: usize) -> (TestDatabase, PgConnection, Vec<Uuid>) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "update pubsub_data.run_sizes set run_size = 100",
    )
    .await;
    let ids = publish_count(&mut connection, messages).await;
    (database, connection, ids)
}

fn ids(deliveries: &[Delivery]) -> Vec<Uuid> {
    deliveries.iter().map(|one| one.message_id).collect()
}

fn leases(deliveries: &[Delivery]) -> Vec<i64> {
    deliveries.iter().map(|one| one.lease).collect()
}

/// What is neither settled nor dead, in single deliveries and in runs; none may be in both.
async fn live(connection: &mut PgConnection) -> Vec<Uuid> {
    let off: i64 = sqlx::query_scalar("select pubsub.recount_messages('s')")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(off, 0, "the counters were off");
    let live: Vec<Uuid> = sqlx::query_scalar(
        "select message_id from pubsub_data.deliveries \
         union all select unnest(message_ids) from pubsub_data.runs order by 1",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let different: HashSet<_> = live.iter().collect();
    assert_eq!(different.len(), live.len(), "a message is there twice");
    live
}

#[tokio::test]
async fn a_claim_that_is_open_keeps_the_rest_of_its_run_and_no_other_from_others() {
    let (database, mut first, ids_) = stocked(300).await;
    let mut second = database.connect().await;
    execute(&mut second, "set lock_timeout = '10ms'").await;

    let mut claim = first.begin().await.unwrap();
    assert_eq!(ids(&consume(&mut claim, "s", 10).await), ids_[..10]);
    assert_eq!(ids(&consume(&mut second, "s", 150).await), ids_[100..250]);
    claim.commit().await.unwrap();

    let rest = consume_within_seconds(&mut second, 10).await;
    assert!(!rest.is_empty());
    let mut got: HashSet<_> = ids(&rest).into_iter().collect();
    while got.len() < 140 {
        got.extend(ids(&consume_within_seconds(&mut second, 10).await));
    }
    let wanted: HashSet<_> = ids_[10..100].iter().chain(&ids_[250..]).copied().collect();
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn a_claim_of_a_part_that_rolls_back_leaves_the_run_as_it_was() {
    let (database, mut first, ids_) = stocked(100).await;
    let mut second = database.connect().await;

    let mut claim = first.begin().await.unwrap();
    consume(&mut claim, "s", 30).await;
    claim.rollback().await.unwrap();

    assert_eq!(live(&mut second).await, ids_);
    assert_eq!(ids(&consume(&mut second, "s", 100).await), ids_);
}

#[tokio::test]
async fn acks_of_two_parts_of_a_run_both_count_whatever_becomes_of_the_first() {
    for commits in [true, false] {
        let (database, mut first, _) = stocked(100).await;
        let mut second = database.connect().await;
        let mut watcher = database.connect().await;
        let held = consume(&mut first, "s", 100).await;
        let (ids_, leases_) = (ids(&held), leases(&held));

        let mut open = first.begin().await.unwrap();
        let acked = settle(
            &mut open,
            "ack_messages",
            "s",
            &ids_[..10],
            Some(&leases_[..10]),
        )
        .await;
        assert_eq!(acked, 10);
        let (other_ids, other_leases) = (ids_[10..30].to_vec(), leases_[10..30].to_vec());
        let other = tokio::spawn(async move {
            settle(
                &mut second,
                "ack_messages",
                "s",
                &other_ids,
                Some(&other_leases),
            )
            .await
        });
        until_blocked(&mut watcher).await;
        if commits {
            open.commit().await.unwrap();
        } else {
            open.rollback().await.unwrap();
        }
        assert_eq!(other.await.unwrap(), 20);

        let mut left = ids_[30..].to_vec();
        if !commits {
            left = [&ids_[..10], &left].concat();
        }
        assert_eq!(live(&mut watcher).await, left);
    }
}

const ALL_STEPS: &str = "do $$ begin while pubsub.advance_jobs() loop commit; end loop; end $$";

#[tokio::test]
async fn a_seek_to_the_end_settles_the_rest_of_a_run_that_was_cut_meanwhile() {
    let (database, mut first, _) = stocked(100).await;
    let mut server = database.connect().await;
    let mut watcher = database.connect().await;

    let mut claim = first.begin().await.unwrap();
    consume(&mut claim, "s", 30).await;
    let seek = tokio::spawn(async move {
        // its first step is made at once
        execute(&mut server, "select pubsub.seek_subscription_to_end('s')").await;
        execute(&mut server, ALL_STEPS).await;
    });
    until_blocked(&mut watcher).await;
    claim.commit().await.unwrap();
    seek.await.unwrap();

    assert!(live(&mut watcher).await.is_empty());
}

#[tokio::test]
async fn a_replay_waits_for_nobody_and_leaves_runs_as_they_are() {
    let (database, mut first, ids_) = stocked(200).await;
    let mut server = database.connect().await;
    let acked = consume(&mut first, "s", 100).await;
    settle(&mut first, "ack_messages", "s", &ids(&acked), None).await;

    let mut claim = first.begin().await.unwrap();
    let held = ids(&consume(&mut claim, "s", 30).await);
    execute(&mut server, "select pubsub.replay_messages('s', null)").await;
    execute(&mut server, ALL_STEPS).await;
    claim.commit().await.unwrap();

    assert_eq!(live(&mut server).await, ids_);
    let rest: HashSet<_> = ids(&consume(&mut server, "s", 1000).await)
        .into_iter()
        .collect();
    let wanted: HashSet<_> = ids_
        .iter()
        .filter(|id| !held.contains(id))
        .copied()
        .collect();
    assert_eq!(rest, wanted);
}

#[tokio::test]
async fn a_replay_beside_publishers_brings_no_message_twice() {
    let (database, mut publisher, _) = stocked(1).await;
    let mut server = database.connect().await;
    let publishing = tokio::spawn(async move {
        for _ in 0..150 {
            publish_count(&mut publisher, 300).await;
        }
        publisher
    });
    while !publishing.is_finished() {
        let recent =
            "select pubsub.replay_messages('s', null, clock_timestamp() - interval '30 ms')";
        execute(&mut server, recent).await;
        execute(&mut server, ALL_STEPS).await;
    }
    let mut publisher = publishing.await.unwrap();

    assert_eq!(live(&mut publisher).await.len(), 45_001);
}

#[tokio::test]
async fn consumers_of_any_number_at_once_get_every_message_of_runs_exactly_once() {
    let (database, mut publisher, mut wanted) = stocked(1000).await;
    let consumers: Vec<_> = (0..6)
        .map(|_| {
            let connecting = database.share();
            tokio::spawn(async move {
                let mut connection = connecting.connect().await;
                let mut got = Vec::new();
                let mut idle = 0;
                while idle < 200 {
                    let size = rand::rng().random_range(1..130);
                    let held = consume(&mut connection, "s", size).await;
                    if held.is_empty() {
                        idle += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    idle = 0;
                    // in parts, some of them of one
                    let mut rest = &held[..];
                    while !rest.is_empty() {
                        let part = rand::rng().random_range(1..=rest.len());
                        let (now, later) = rest.split_at(part);
                        let acked = settle(
                            &mut connection,
                            "ack_messages",
                            "s",
                            &ids(now),
                            Some(&leases(now)),
                        )
                        .await;
                        assert_eq!(acked, i64::try_from(part).unwrap());
                        rest = later;
                    }
                    got.extend(ids(&held));
                }
                got
            })
        })
        .collect();
    for _ in 0..20 {
        let size = rand::rng().random_range(1..300);
        wanted.extend(publish_count(&mut publisher, size).await);
    }

    let mut got = Vec::new();
    for consumer in consumers {
        got.extend(consumer.await.unwrap());
    }
    got.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
    assert!(live(&mut publisher).await.is_empty());
}
