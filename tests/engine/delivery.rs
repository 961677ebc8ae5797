//! Claims and settlements that meet: two real connections, open transactions.

use std::collections::HashSet;

use sqlx::Connection;

use super::{advance, consume, database, execute, forget_hints, publish_count, settle};

#[tokio::test]
async fn a_second_consumer_skips_messages_of_an_open_claim() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    let ids = publish_count(&mut first, 4).await;

    let mut claim = first.begin().await.unwrap();
    let held = consume(&mut claim, "s", 2).await;
    let others = consume(&mut second, "s", 4).await;

    assert_eq!(
        held.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        ids[..2]
    );
    assert_eq!(
        others.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        ids[2..]
    );
}

#[tokio::test]
async fn a_second_consumer_of_one_skips_the_message_of_an_open_claim() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    let ids = publish_count(&mut first, 4).await;
    // sessions that are up to date, and stay so for a minute
    for (connection, id) in [(&mut first, ids[0]), (&mut second, ids[1])] {
        assert_eq!(consume(connection, "s", 1).await[0].message_id, id);
        execute(
            connection,
            "select set_config(h.name, row(c.noted_at, c.rewinds, c.head, c.due_from, \
                 c.noted_at + 50000000, c.noted_at + 50000000, c.noted_at + 50000000, \
                 c.noted_at + 50000000, c.far_upto, c.far_millis, 0)::pubsub.claim_hint::text, false) \
             from pubsub_data.subscriptions s \
             cross join lateral pubsub.hint_name('claim', s.subscription_key) h (name) \
             cross join lateral (select (current_setting(h.name)::pubsub.claim_hint).*) c",
        )
        .await;
    }
    execute(&mut second, "set lock_timeout = '2s'").await;

    let mut claim = first.begin().await.unwrap();
    let held = consume(&mut claim, "s", 1).await;
    let other = consume(&mut second, "s", 1).await;

    assert_eq!(held[0].message_id, ids[2]);
    assert_eq!(other[0].message_id, ids[3]);
}

#[tokio::test]
async fn many_consumers_at_once_get_every_message_exactly_once() {
    let (database, mut publisher) = database().await;
    let ids: HashSet<_> = publish_count(&mut publisher, 1000)
        .await
        .into_iter()
        .collect();

    let consumers = (0..8).map(|_| async {
        let mut connection = database.connect().await;
        let mut got = Vec::new();
        loop {
            let deliveries = consume(&mut connection, "s", 7).await;
            if deliveries.is_empty() {
                return got;
            }
            got.extend(deliveries.into_iter().map(|delivery| delivery.message_id));
        }
    });
    let got: Vec<_> = futures(consumers).await.into_iter().flatten().collect();

    assert_eq!(got.len(), 1000);
    assert_eq!(got.into_iter().collect::<HashSet<_>>(), ids);
}

#[tokio::test]
async fn consume_work_and_ack_commit_together_or_not_at_all() {
    let (database, mut connection) = database().await;
    publish_count(&mut connection, 2).await;
    execute(&mut connection, "create table public.work (n int)").await;

    for outcome in ["rollback", "commit"] {
        let mut transaction = connection.begin().await.unwrap();
        let deliveries = consume(&mut transaction, "s", 2).await;
        let ids: Vec<_> = deliveries.iter().map(|d| d.message_id).collect();
        execute(&mut transaction, "insert into public.work values (1)").await;
        assert_eq!(
            settle(&mut transaction, "ack_messages", "s", &ids, None).await,
            2,
            "{outcome}"
        );
        if outcome == "commit" {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }

    let work: i64 = sqlx::query_scalar("select count(*) from public.work")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let mut fresh = database.connect().await;
    assert_eq!(work, 1);
    assert!(consume(&mut fresh, "s", 2).await.is_empty());
}

#[tokio::test]
async fn a_publish_that_rolls_back_leaves_nothing() {
    let (_database, mut connection) = database().await;

    let mut transaction = connection.begin().await.unwrap();
    publish_count(&mut transaction, 3).await;
    transaction.rollback().await.unwrap();

    assert!(consume(&mut connection, "s", 10).await.is_empty());
}

/// Original's defect 7.
#[tokio::test]
async fn a_stale_lease_settles_nothing_once_the_message_is_delivered_again() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 1).await;

    let stale = consume(&mut first, "s", 1).await.remove(0);
    advance(&mut first, 61.0).await;
    let fresh = consume(&mut second, "s", 1).await.remove(0);

    let id = [stale.message_id];
    for function in ["ack_messages", "nack_messages"] {
        assert_eq!(
            settle(&mut first, function, "s", &id, Some(&[stale.lease])).await,
            0
        );
    }
    let extended: i64 = sqlx::query_scalar("select pubsub.extend_messages('s', $1, $2, 60)")
        .bind(id)
        .bind([stale.lease])
        .fetch_one(&mut first)
        .await
        .unwrap();
    assert_eq!(extended, 0);
    assert_eq!(fresh.attempts, 2);
    assert_eq!(
        settle(&mut second, "ack_messages", "s", &id, Some(&[fresh.lease])).await,
        1
    );
}

#[tokio::test]
async fn a_stale_ack_that_waits_for_a_new_claim_to_commit_settles_nothing() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 1).await;
    let stale = consume(&mut first, "s", 1).await.remove(0);
    advance(&mut first, 61.0).await;

    let mut claim = second.begin().await.unwrap();
    let fresh = consume(&mut claim, "s", 1).await.remove(0);
    let id = [stale.message_id];
    let lease = [stale.lease];
    let late_ack = settle(&mut first, "ack_messages", "s", &id, Some(&lease));
    let commit = async {
        wait_for_a_blocked_session(&database).await;
        claim.commit().await.unwrap();
    };
    let (acked, ()) = tokio::join!(late_ack, commit);

    assert_eq!(acked, 0);
    assert_eq!(
        settle(&mut second, "ack_messages", "s", &id, Some(&[fresh.lease])).await,
        1
    );
}

#[tokio::test]
async fn of_two_acks_at_once_one_counts() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 3).await;
    let ids: Vec<_> = consume(&mut first, "s", 3)
        .await
        .iter()
        .map(|d| d.message_id)
        .collect();
    let reversed: Vec<_> = ids.iter().rev().copied().collect();

    let (a, b) = tokio::join!(
        settle(&mut first, "ack_messages", "s", &ids, None),
        settle(&mut second, "ack_messages", "s", &reversed, None),
    );

    assert_eq!(a + b, 3);
}

#[tokio::test]
async fn acks_and_nacks_of_the_same_messages_in_any_order_never_deadlock() {
    let (database, mut publisher) = database().await;
    publish_count(&mut publisher, 50).await;
    let ids: Vec<_> = consume(&mut publisher, "s", 50)
        .await
        .iter()
        .map(|d| d.message_id)
        .collect();

    let settlers = (0..6).map(|turn| {
        let mut ids = ids.clone();
        ids.rotate_left(turn * 8);
        if turn % 2 == 0 {
            ids.reverse();
        }
        let function = if turn % 3 == 0 {
            "nack_messages"
        } else {
            "ack_messages"
        };
        let database = &database;
        async move {
            let mut connection = database.connect().await;
            settle(&mut connection, function, "s", &ids, None).await
        }
    });
    let settled: i64 = futures(settlers).await.into_iter().sum();

    assert_eq!(settled, 50);
}

#[tokio::test]
async fn a_due_message_of_a_claim_that_rolled_back_is_delivered_by_the_next() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 1).await;
    consume(&mut first, "s", 1).await;
    advance(&mut first, 61.0).await;

    let mut claim = first.begin().await.unwrap();
    assert_eq!(consume(&mut claim, "s", 1).await.len(), 1);
    assert_eq!(consume(&mut second, "s", 1).await.len(), 0);
    claim.rollback().await.unwrap();

    let again = super::consume_within_seconds(&mut second, 1).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].attempts, 2);
}

#[tokio::test]
async fn a_lease_that_was_extended_outlives_its_first_deadline() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    publish_count(&mut first, 1).await;
    let held = consume(&mut first, "s", 1).await.remove(0);

    advance(&mut first, 50.0).await;
    sqlx::query("select pubsub.extend_messages('s', $1, $2, 60)")
        .bind([held.message_id])
        .bind([held.lease])
        .execute(&mut first)
        .await
        .unwrap();
    advance(&mut first, 20.0).await;
    let too_early = consume(&mut second, "s", 1).await;
    advance(&mut first, 41.0).await;
    forget_hints(&mut second).await;

    assert!(too_early.is_empty());
    assert_eq!(consume(&mut second, "s", 1).await.len(), 1);
}

/// Returns when some session of the database waits for a lock.
async fn wait_for_a_blocked_session(database: &crate::support::database::TestDatabase) {
    let mut watcher = database.connect().await;
    for _ in 0..2000 {
        let blocked: bool = sqlx::query_scalar(
            "select exists (select from pg_catalog.pg_stat_activity \
             where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(&mut watcher)
        .await
        .unwrap();
        if blocked {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("nothing waits for a lock");
}

async fn futures<T>(tasks: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut tasks: Vec<_> = tasks.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (task, result) in tasks.iter_mut().zip(&mut done) {
            if result.is_none()
                && let std::task::Poll::Ready(value) = task.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
