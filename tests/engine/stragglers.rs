//! Messages below the place that claims have read up to: publishers that commit late, claims that
//! roll back, hints that are wrong.

use sqlx::Connection;

use super::{consume, consume_within_seconds, database, execute, forget_hints, publish_count};

#[tokio::test]
async fn a_publisher_that_commits_late_delays_only_its_own_messages() {
    let (database, mut consumer) = database().await;
    let (mut slow, mut fast) = (database.connect().await, database.connect().await);

    let mut open = slow.begin().await.unwrap();
    let late = publish_count(&mut open, 2).await;
    let early = publish_count(&mut fast, 2).await;
    let first = consume(&mut consumer, "s", 10).await;
    open.commit().await.unwrap();
    let second = consume_within_seconds(&mut consumer, 10).await;

    assert_eq!(
        first.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        early
    );
    assert_eq!(
        second.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        late
    );
}

#[tokio::test]
async fn a_message_that_is_an_hour_older_than_what_was_read_is_still_delivered() {
    let (_database, mut consumer) = database().await;
    publish_count(&mut consumer, 1).await;
    consume(&mut consumer, "s", 10).await;

    execute(
        &mut consumer,
        "insert into pubsub_data.messages (topic_key, message_id, payload, published_at) \
         select topic_key, pubsub.id_at(now() - interval '1 hour'), '{}', now() \
         from pubsub_data.topics; \
         insert into pubsub_data.deliveries (topic_key, subscription_key, message_id) \
         select topic_key, subscription_key, pubsub.id_at(now() - interval '1 hour') \
         from pubsub_data.subscriptions",
    )
    .await;

    assert_eq!(consume_within_seconds(&mut consumer, 10).await.len(), 1);
}

#[tokio::test]
async fn messages_of_a_claim_that_rolled_back_are_delivered_to_others() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    let ids = publish_count(&mut first, 3).await;

    let mut claim = first.begin().await.unwrap();
    consume(&mut claim, "s", 2).await;
    assert_eq!(consume(&mut second, "s", 10).await.len(), 1);
    claim.rollback().await.unwrap();
    let back = consume_within_seconds(&mut second, 10).await;

    assert_eq!(
        back.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        ids[..2]
    );
}

#[tokio::test]
async fn a_claim_that_rolls_back_takes_its_hints_back() {
    let (_database, mut connection) = database().await;
    let ids = publish_count(&mut connection, 2).await;

    let mut claim = connection.begin().await.unwrap();
    consume(&mut claim, "s", 2).await;
    claim.rollback().await.unwrap();
    let again = consume(&mut connection, "s", 2).await;

    assert_eq!(again.iter().map(|d| d.message_id).collect::<Vec<_>>(), ids);
    assert_eq!(again[0].attempts, 1);
}

#[tokio::test]
async fn wrong_hints_cost_time_but_no_message() {
    for wrong in [
        // read up to the end of time, all look-backs long done
        "(9,0,ffffffff-ffff-ffff-ffff-ffffffffffff,9,9,9,9,9,ffffffff-ffff-ffff-ffff-ffffffffffff,1,0)",
        // nothing read yet, wake-ups of the future processed
        "(9,0,00000000-0000-0000-0000-000000000000,9223372036854775807,9,9,9,9,00000000-0000-0000-0000-000000000000,2147483647,0)",
    ] {
        let (database, mut connection) = database().await;
        let fresh = publish_count(&mut connection, 3).await;
        consume(&mut connection, "s", 1).await;
        super::advance(&mut connection, 61.0).await;

        let mut misled = database.connect().await;
        sqlx::query(
            "select set_config(pubsub.hint_name('claim', subscription_key), $1, false) \
             from pubsub_data.subscriptions",
        )
        .bind(wrong)
        .execute(&mut misled)
        .await
        .unwrap();
        let mut got = Vec::new();
        while got.len() < 3 {
            let deliveries = consume_within_seconds(&mut misled, 10).await;
            assert!(!deliveries.is_empty(), "{wrong}: {} of 3", got.len());
            got.extend(deliveries.into_iter().map(|delivery| delivery.message_id));
        }

        got.sort_unstable();
        assert_eq!(got, fresh, "{wrong}");
    }
}

#[tokio::test]
async fn a_new_connection_starts_where_others_have_read_to() {
    let (database, mut first) = database().await;
    let ids = publish_count(&mut first, 5).await;
    consume(&mut first, "s", 3).await;

    let mut second = database.connect().await;
    let rest = consume(&mut second, "s", 10).await;
    forget_hints(&mut first).await;
    let nothing = consume(&mut first, "s", 10).await;

    assert_eq!(
        rest.iter().map(|d| d.message_id).collect::<Vec<_>>(),
        ids[3..]
    );
    assert!(nothing.is_empty());
}
