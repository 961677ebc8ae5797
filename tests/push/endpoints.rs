use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

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
    // a claim under way gives back what it brings
    super::eventually("the message", async || {
        (app.consume("s").await.len() == 1).then_some(())
    })
    .await;
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

/// An endpoint that nobody tells the server of.
async fn subscribe_in_silence(app: &TestApp, topic: &str, subscription: &str, receiver: &Receiver) {
    app.topic_with_subscription(topic, subscription, json!({"enable_ordering": true}))
        .await;
    sqlx::query("select pubsub.set_push($1, $2)")
        .bind(subscription)
        .bind(&receiver.url)
        .execute(&app.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_deletes_tells_those_who_push() {
    for path in ["/subscriptions/s", "/topics/t"] {
        let (app, receiver) = (TestApp::start().await, Receiver::start().await);
        subscribe_in_silence(&app, "t", "s", &receiver).await;
        subscribe_in_silence(&app, "u", "other", &receiver).await;
        let body = json!({"messages": [{"payload": {}}]});
        app.post("/topics/u/publish", body).await.expect(201);

        let deleted_at = Instant::now();
        app.delete(path).await.expect(204);
        receiver.arrived(1).await;

        // a server that knows of no endpoints looks for some every 15 seconds
        assert!(deleted_at.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn nothing_more_is_sent_once_the_subscription_is_deleted() {
    let app = TestApp::start().await;
    let (receiver, other) = (Receiver::held().await, Receiver::start().await);
    subscribe(&app, &receiver, json!({}), json!({"enable_ordering": true})).await;
    let message = json!({"payload": {}, "ordering_key": "k"});
    let body = json!({"messages": [message, message, message]});
    app.post("/topics/t/publish", body).await.expect(201);
    receiver.arrived(1).await;
    subscribe_in_silence(&app, "u", "other", &other).await;
    let body = json!({"messages": [{"payload": {}}]});
    app.post("/topics/u/publish", body.clone())
        .await
        .expect(201);

    app.delete("/subscriptions/s").await.expect(204);
    // the server has looked which endpoints there are
    other.arrived(1).await;
    receiver.answer(3);

    for more in 2..5 {
        app.post("/topics/u/publish", body.clone())
            .await
            .expect(201);
        other.arrived(more).await;
    }
    assert_eq!(receiver.pushes().len(), 1);
}

/// Send the messages of `s` to another receiver from now on.
async fn change_to(app: &TestApp, receiver: &Receiver) {
    let change = json!({"push": {"endpoint": receiver.url}});
    let changed = app.with_token(None).patch("/subscriptions/s", change).await;
    changed.expect(200);
}

#[tokio::test]
async fn what_an_endpoint_of_before_answers_says_nothing_of_the_one_of_now() {
    let app = TestApp::start().await;
    let (first, second) = (Receiver::held().await, Receiver::start().await);
    first.otherwise(|_| status(410));
    subscribe(&app, &first, json!({}), json!({})).await;
    publish(&app, [1]).await;
    first.arrived(1).await;

    change_to(&app, &second).await;
    publish(&app, [2]).await;
    second.arrived(1).await;
    first.answer(1);
    // which goes back
    counted(&app, "acked", 2).await;

    assert_eq!(second.pushes().len(), 2);
    let shown = endpoint(&app).await;
    assert_eq!(
        (&shown["failures"], &shown["stopped"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn what_waits_behind_a_key_goes_to_the_endpoint_of_now() {
    let app = TestApp::start().await;
    let (first, second) = (Receiver::held().await, Receiver::start().await);
    subscribe(&app, &first, json!({}), json!({"enable_ordering": true})).await;
    let message = |key: &str| json!({"payload": {}, "ordering_key": key});
    let body = json!({"messages": [message("k"), message("k"), message("k")]});
    app.post("/topics/t/publish", body).await.expect(201);
    first.arrived(1).await;

    change_to(&app, &second).await;
    let body = json!({"messages": [message("other")]});
    app.post("/topics/t/publish", body).await.expect(201);
    second.arrived(1).await;
    first.answer(3);
    counted(&app, "acked", 4).await;

    assert_eq!((first.pushes().len(), second.pushes().len()), (1, 3));
}

#[tokio::test]
async fn a_test_of_an_endpoint_that_is_taken_away_meanwhile_says_how_it_went() {
    let (app, receiver) = (TestApp::start().await, Receiver::held().await);
    subscribe(&app, &receiver, json!({}), json!({})).await;
    sqlx::query("select pubsub.note_push_result('s', false)")
        .execute(&app.pool())
        .await
        .unwrap();

    let (tested, ()) = tokio::join!(app.post("/subscriptions/s/push/test", Value::Null), async {
        receiver.arrived(1).await;
        let changed = app
            .with_token(None)
            .patch("/subscriptions/s", json!({"push": null}))
            .await;
        changed.expect(200);
        receiver.answer(1);
    });

    assert_eq!(tested.expect(200).json()["status"], 204);
}
