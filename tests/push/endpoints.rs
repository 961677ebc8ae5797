use serde_json::{Value, json};

use super::{Receiver, count, counted, endpoint, publish, status, subscribe};
use crate::support::TestApp;

#[tokio::test]
async fn an_endpoint_that_is_changed_or_taken_away_is_so_at_once() {
    let app = TestApp::start().await;
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    subscribe(&app, &first, json!({}), json!({})).await;
    publish(&app, [1]).await;
    counted(&app, "acked", 1).await;

    let change = json!({"push": {"endpoint": second.url}});
    app.with_token(None)
        .patch("/subscriptions/s", change)
        .await
        .expect(200);
    publish(&app, [2]).await;
    counted(&app, "acked", 2).await;
    assert_eq!((first.pushes().len(), second.pushes().len()), (1, 1));

    let change = json!({"push": null});
    app.with_token(None)
        .patch("/subscriptions/s", change)
        .await
        .expect(200);
    publish(&app, [3]).await;
    assert_eq!(app.consume("s").await.len(), 1);
    assert_eq!(second.pushes().len(), 1);
}

#[tokio::test]
async fn while_secrets_change_both_sign() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    subscribe(&app, &receiver, json!({}), json!({})).await;
    publish(&app, [1]).await;
    counted(&app, "acked", 1).await;
    sqlx::query("select pubsub.rotate_push_secret('s')")
        .execute(&app.pool())
        .await
        .unwrap();
    app.push.changed();
    super::eventually("two signatures", async || {
        publish(&app, [2]).await;
        let pushes = receiver.pushes();
        let signatures = pushes
            .last()
            .unwrap()
            .header("webhook-signature")
            .to_owned();
        (signatures.split(' ').count() == 2).then_some(())
    })
    .await;

    let first = receiver.pushes().remove(0);
    assert_eq!(first.header("webhook-signature").split(' ').count(), 1);
}

#[tokio::test]
async fn a_test_touches_no_message_and_says_how_it_went() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    subscribe(&app, &receiver, json!({}), json!({"paused": true})).await;
    publish(&app, [1]).await;
    receiver.reply([status(204), status(500)]);

    let good = app
        .post("/subscriptions/s/push/test", Value::Null)
        .await
        .expect(200)
        .json();
    let bad = app
        .post("/subscriptions/s/push/test", Value::Null)
        .await
        .expect(200)
        .json();
    receiver.die();
    let dead = app
        .post("/subscriptions/s/push/test", Value::Null)
        .await
        .expect(200)
        .json();

    assert_eq!(good["status"], 204);
    assert!(
        good["duration_ms"].is_u64() && good["error"].is_null(),
        "{good}"
    );
    assert_eq!(
        (&bad["status"], &bad["error"]),
        (&json!(500), &json!("HTTP 500"))
    );
    assert_eq!(dead["status"], Value::Null);
    assert_eq!(dead["error"], "connection refused");
    let push = &receiver.pushes()[0];
    assert_eq!(push.body["message"], json!({"test": true}));
    assert_eq!(push.header("webhook-id"), push.body["message_id"]);
    assert!(push.header("webhook-signature").starts_with("v1,"));
    assert_eq!(count(&app, "available").await, 1);
    assert_eq!(endpoint(&app).await["failures"], 0);
}

#[tokio::test]
async fn what_has_no_endpoint_cannot_be_tested() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;

    for id in ["s", "unknown"] {
        let path = format!("/subscriptions/{id}/push/test");
        app.post(&path, Value::Null).await.expect(404);
    }
}
