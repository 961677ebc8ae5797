//! `cleanup_acked_messages` and `cleanup_stuck_messages`: their counts are true.

use sqlx::Connection;

use super::Sandbox;
use crate::support::database::TestDatabase;

/// A topic with a subscription that three messages were published to and consumed from, two minutes
/// ago, with two of them acked.
async fn consumed_two_minutes_ago(database: &TestDatabase) {
    let mut connection = database.connect().await;
    sqlx::raw_sql(
        r#"
        select pubsub.create_topic('t');
        select pubsub.create_subscription('s', 't');
        select pubsub.publish_messages('t', array['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[]);
        select pubsub.ack_messages('s', array_agg(m.message_id))
        from (
            select c.message_id from pubsub.consume_messages('s', 'c', 10, null, 60) c
            order by c.message_id
            limit 2
        ) m;
        update pubsub_data.deliveries
        set leased_at = leased_at - interval '2 minutes',
            visible_at = visible_at - interval '2 minutes';
        update pubsub_data.wakeups set due_at = due_at - interval '2 minutes';
        update pubsub_data.acked set acked_at = acked_at - interval '2 minutes';
        "#,
    )
    .execute(&mut connection)
    .await
    .unwrap();
}

/// Original's defects 8 and 25.
#[tokio::test]
async fn cleanup_stuck_messages_prints_how_many_it_released() {
    let database = TestDatabase::create().await;
    consumed_two_minutes_ago(&database).await;
    let sandbox = Sandbox::over(&database.url());

    let first = sandbox.run(&["cleanup_stuck_messages"]).await.quietly();
    let second = sandbox.run(&["cleanup_stuck_messages"]).await.quietly();

    assert_eq!(
        (first.as_str(), second.as_str()),
        ("released=1\n", "released=0\n")
    );
}

#[tokio::test]
async fn cleanup_stuck_messages_follows_its_threshold() {
    let database = TestDatabase::create().await;
    consumed_two_minutes_ago(&database).await;
    // the lease itself has not ended
    sqlx::raw_sql(
        "update pubsub_data.deliveries set visible_at = visible_at + interval '1 hour';
        update pubsub_data.wakeups set due_at = due_at + interval '1 hour'",
    )
    .execute(&mut database.connect().await)
    .await
    .unwrap();
    let sandbox = Sandbox::over(&database.url());
    let threshold = "--cleanup-stuck-messages-lock-timeout-seconds";

    let longer = sandbox
        .run(&["cleanup_stuck_messages", threshold, "600"])
        .await
        .quietly();
    let shorter = sandbox
        .run(&["cleanup_stuck_messages", threshold, "100"])
        .await
        .quietly();

    assert_eq!(
        (longer.as_str(), shorter.as_str()),
        ("released=0\n", "released=1\n")
    );
}

/// Original's defects 8 and 25.
#[tokio::test]
async fn cleanup_acked_messages_prints_how_many_it_removed() {
    let database = TestDatabase::create().await;
    consumed_two_minutes_ago(&database).await;
    let sandbox = Sandbox::over(&database.url());
    let threshold = "--cleanup-acked-messages-older-than-seconds";

    let longer = sandbox.run(&["cleanup_acked_messages"]).await.quietly();
    let shorter = sandbox
        .run(&["cleanup_acked_messages", threshold, "100"])
        .await
        .quietly();
    let again = sandbox
        .run(&["cleanup_acked_messages", threshold, "100"])
        .await
        .quietly();

    assert_eq!(
        [longer, shorter, again],
        ["removed=0\n", "removed=2\n", "removed=0\n"]
    );
}

#[tokio::test]
async fn cleanup_acked_messages_succeeds_beside_a_slow_publisher() {
    let database = TestDatabase::create().await;
    consumed_two_minutes_ago(&database).await;
    let mut publisher = database.connect().await;
    let mut publishing = publisher.begin().await.unwrap();
    sqlx::query("select pubsub.publish_messages('t', array['{\"n\": 4}']::jsonb[])")
        .execute(&mut *publishing)
        .await
        .unwrap();
    let sandbox = Sandbox::over(&database.url());

    let flags = ["--cleanup-acked-messages-older-than-seconds", "100"];
    let ran = sandbox
        .run(&[&["cleanup_acked_messages"], &flags[..]].concat())
        .await;

    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "removed=2\n"),
        "{ran:?}"
    );
}
