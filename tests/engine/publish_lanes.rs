//! What the first publishes to a subscription note in it, from several connections.

use sqlx::Connection;

use super::{database, execute};

#[tokio::test]
async fn first_priorities_and_fairness_values_at_once_are_noted_once() {
    let (database, mut observer) = database().await;
    execute(
        &mut observer,
        "select pubsub.create_subscription('fair', 't', '{\"fairness_key\": \"tenant\"}'); \
         select pubsub.create_subscription('ranked', 't')",
    )
    .await;
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    const PUBLISH: &str = "select pubsub.publish_messages('t', array['{}']::jsonb[], \
        array['{\"tenant\": \"a\"}']::jsonb[], p_priorities => '{5}')";

    let mut open = first.begin().await.unwrap();
    sqlx::query(PUBLISH).execute(&mut *open).await.unwrap();
    let waiting = tokio::spawn(async move { sqlx::query(PUBLISH).execute(&mut second).await });
    open.commit().await.unwrap();
    waiting.await.unwrap().unwrap();

    let noted: Vec<String> = sqlx::query_scalar(
        "select s.subscription_id || coalesce(' ' || l.lane, '') from pubsub_data.subscriptions s \
         left join pubsub_data.fair_lanes l using (topic_key, subscription_key) \
         where s.has_priorities or l.lane is not null order by 1",
    )
    .fetch_all(&mut observer)
    .await
    .unwrap();
    assert_eq!(noted, ["fair a", "ranked", "s"]);
}
