//! A database that was moved without its sequences.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn what_would_use_a_number_again_is_told_what_to_do_until_the_sequences_are_set() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let pool = app.pool();
    sqlx::raw_sql(
        "select setval('pubsub_data.topics_topic_key_seq', 1, false); \
         select setval('pubsub_data.subscriptions_subscription_key_seq', 1, false)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let advice = json!({"detail": "The sequences of this database are behind its tables, as after \
        a move by logical replication: call \"select pubsub.reset_sequences()\" in it"});

    let topic = app.post("/topics", json!({"id": "new"})).await;
    let body = json!({"id": "new", "topic_id": "t"});
    let subscription = app.post("/subscriptions", body.clone()).await;

    assert_eq!(topic.expect(503).json(), advice);
    assert_eq!(subscription.expect(503).json(), advice);
    app.get("/topics/new").await.expect(404);
    // the one number after which all ids of one millisecond are taken
    sqlx::raw_sql(
        "create function pubsub_data.taken() returns trigger language plpgsql as $$ begin \
             insert into pubsub_data.messages_default values (new.*); return new; end $$; \
         create trigger taken before insert on pubsub_data.messages_default for each row \
             when (pg_trigger_depth() = 0) execute function pubsub_data.taken()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let published = app.post("/topics/t/messages", json!([{"n": 1}])).await;
    assert_eq!(published.expect(503).json(), advice);
    sqlx::raw_sql("drop trigger taken on pubsub_data.messages_default")
        .execute(&pool)
        .await
        .unwrap();

    sqlx::raw_sql("select pubsub.reset_sequences()")
        .execute(&pool)
        .await
        .unwrap();
    app.post("/topics", json!({"id": "new"})).await.expect(201);
    app.post("/subscriptions", body).await.expect(201);
    app.post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);
    assert_eq!(app.consume("new").await.len(), 1);
}
