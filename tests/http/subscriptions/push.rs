//! The setting push: what is taken, refused and shown, and who may change it.

use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{Answer, TestApp, answer};

async fn patch(app: &TestApp, body: Value) -> Answer {
    answer(app.request("PATCH", "/subscriptions/s").json(&body)).await
}

async fn pushing() -> (TestApp, Value) {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let push =
        json!({"endpoint": "https://example.com/hook", "headers": {"authorization": "Bearer x"}});
    let body = json!({"id": "s", "topic_id": "t", "push": push});
    let created = app.post("/subscriptions", body).await.expect(201).json();
    (app, created)
}

#[tokio::test]
async fn the_secret_is_shown_by_the_answer_that_makes_it_and_by_no_other() {
    let (app, created) = pushing().await;
    let secret = created["push"]["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{secret}");
    assert_eq!(created["max_in_flight"], 10);

    let shown = app.get("/subscriptions/s").await.expect(200).json();
    let expected = json!({"endpoint": "https://example.com/hook", "timeout_seconds": 15,
        "header_names": ["authorization"], "failures": 0});
    assert_eq!(shown["push"], expected);
    let listed = app.get("/subscriptions").await.expect(200).json();
    assert_eq!(listed["data"][0]["push"], expected);

    let changes = json!({"push": {"timeout_seconds": 30}});
    let changed = patch(&app, changes).await.expect(200).json();
    assert_eq!(changed["push"]["timeout_seconds"], 30);
    assert_eq!(changed["push"]["header_names"], json!(["authorization"]));
    assert_eq!(changed["push"].get("secret"), None);

    app.delete("/subscriptions/s/messages").await.expect(204);
    let purged = app.get("/subscriptions/s").await.expect(200).json();
    assert_eq!(purged["push"], changed["push"]);

    let unset = patch(&app, json!({"push": null})).await.expect(200).json();
    assert_eq!(unset.get("push"), None);
    let set = patch(&app, json!({"push": {"endpoint": "http://a"}})).await;
    let again = set.expect(200).json();
    assert_ne!(again["push"]["secret"].as_str().unwrap(), secret);
}

#[tokio::test]
async fn a_rotation_answers_the_new_secret_and_until_when_the_old_one_signs() {
    let (app, created) = pushing().await;
    let path = "/subscriptions/s/push/secret";

    let rotated = app.post(path, json!({})).await.expect(200).json();
    assert_ne!(rotated["secret"], created["push"]["secret"]);
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    assert_eq!(
        shown["push"]["previous_secret_until"],
        rotated["previous_valid_until"]
    );
    let at_once = app.post(path, json!({"overlap_seconds": 0})).await;
    assert_eq!(
        at_once.expect(200).json()["previous_valid_until"],
        Value::Null
    );

    app.post(path, json!({"overlap_seconds": 604_801}))
        .await
        .expect(422);
    patch(&app, json!({"push": null})).await.expect(200);
    app.post(path, json!({})).await.expect(404);
}

#[tokio::test]
async fn what_push_cannot_be_is_refused_with_its_place() {
    let (app, created) = pushing().await;
    for (push, place) in [
        (json!(7), json!(["body", "push"])),
        (
            json!({"endpoint": "ftp://a"}),
            json!(["body", "push", "endpoint"]),
        ),
        (
            json!({"endpoint": "http://1.2.3.400"}),
            json!(["body", "push", "endpoint"]),
        ),
        (
            json!({"endpoint": "http://u:p@a"}),
            json!(["body", "push", "endpoint"]),
        ),
        (
            json!({"timeout_seconds": 61}),
            json!(["body", "push", "timeout_seconds"]),
        ),
        (
            json!({"headers": {"Host": "a"}}),
            json!(["body", "push", "headers", "Host"]),
        ),
        (
            json!({"headers": {"a\0": "b"}}),
            json!(["body", "push", "headers", "a\0"]),
        ),
        (
            json!({"headers": {"a": "b\0"}}),
            json!(["body", "push", "headers", "a"]),
        ),
        (json!({"url": 1}), json!(["body", "push", "url"])),
    ] {
        let refused = patch(&app, json!({"push": push, "max_rate": 5})).await;
        assert_eq!(refused.status, 422, "{push}: {}", refused.body);
        assert_eq!(refused.json()["detail"][0]["loc"], place, "{push}");
    }
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    assert_eq!(shown["push"]["endpoint"], created["push"]["endpoint"]);
    assert_eq!(shown.get("max_rate"), None);
}

#[tokio::test]
async fn one_server_probes_and_no_failure_of_two_is_lost() {
    let (app, _) = pushing().await;
    let (mut first, mut second) = (app.database.connect().await, app.database.connect().await);
    let note = "select pubsub.note_push_result('s', false, 'no')::text";
    for _ in 0..2 {
        let (one, other) = tokio::join!(
            sqlx::query_scalar::<_, Option<String>>(note).fetch_one(&mut first),
            sqlx::query_scalar::<_, Option<String>>(note).fetch_one(&mut second),
        );
        assert_eq!((one.unwrap(), other.unwrap()), (None, None));
    }
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    assert_eq!(shown["push"]["failures"], 4);
    sqlx::raw_sql("update pubsub_data.push_endpoints set failures = 5, paused_until = now()")
        .execute(&mut first)
        .await
        .unwrap();

    // the second waits for the first, and then looks again
    let mut transaction = first.begin().await.unwrap();
    let probe = "select pubsub.try_push_probe('s')";
    let one: bool = sqlx::query_scalar(probe)
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let (other, committed) = tokio::join!(
        sqlx::query_scalar::<_, bool>(probe).fetch_one(&mut second),
        transaction.commit(),
    );
    committed.unwrap();
    assert_eq!((one, other.unwrap()), (true, false));
}

#[tokio::test]
async fn who_may_not_update_a_subscription_does_not_rotate_its_secret() {
    let app = TestApp::start_with_auth("*").await;
    let token = app
        .token_for("subscriptions:read subscriptions:consume")
        .await;
    let reader = app.with_token(Some(&token));
    let refused = reader.post("/subscriptions/s/push/secret", json!({})).await;
    refused.expect(403);
}
