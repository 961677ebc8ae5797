//! A publish tells those who wait on its server, without the help of what looks for commits.

use std::time::Duration;

use serde_json::{Value, json};

use super::{app, publish};
use crate::support::answer;

/// No wait of this test ends by itself within it.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_publish_wakes_who_waits_for_it_on_this_server() {
    for message in [
        json!({"payload": {}}),
        json!({"payload": {}, "priority": 1}),
        json!({"payload": {}, "idempotency_key": "a"}),
        json!({"payload": {}, "message_key": "a"}),
    ] {
        let app = app().await;
        let pool = app.pool();
        // nothing but the publish can tell
        sqlx::query("drop function pubsub.ready_subscriptions")
            .execute(&pool)
            .await
            .unwrap();
        let request = app
            .request("POST", "/subscriptions/s/pull")
            .json(&json!({"consumer_id": "c", "wait_seconds": 30}));
        let waits = tokio::spawn(async move { answer(request).await });
        // its first claim found nothing
        let claimed = "select exists (select from pg_stat_activity \
            where datname = current_database() and state = 'idle' \
                and query like '%pubsub.consume_messages_for%')";
        let waiting = async {
            while !sqlx::query_scalar::<_, bool>(claimed)
                .fetch_one(&pool)
                .await
                .unwrap()
            {}
        };
        tokio::time::timeout(SOON, waiting).await.unwrap();

        let published = publish(&app, json!([message])).await.expect(201).json();

        let pulled = tokio::time::timeout(SOON, waits).await.unwrap().unwrap();
        let pulled = pulled.expect(200).json();
        let ids: Vec<&Value> = pulled["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| &message["id"])
            .collect();
        assert_eq!(json!(ids), published["message_ids"]);
    }
}
