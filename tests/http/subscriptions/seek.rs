//! Seek, jobs and snapshots.

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::support::{TestApp, ids};

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn publish(app: &TestApp, messages: Value) {
    app.post("/topics/t/messages", messages).await.expect(204);
    // places are milliseconds
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
}

async fn available(app: &TestApp) -> Value {
    app.get("/subscriptions/s/metrics").await.expect(200).json()["available"].clone()
}

async fn ack_all(app: &TestApp) -> Vec<Value> {
    let messages = ids(&app.consume("s").await);
    app.post("/subscriptions/s/acks", json!(messages))
        .await
        .expect(204);
    messages
}

#[tokio::test]
async fn a_seek_to_a_time_and_one_to_the_end_are_done_at_once_when_short() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}, {"n": 2}])).await;
    let middle = now();
    publish(&app, json!([{"n": 3}])).await;
    ack_all(&app).await;

    let job = app
        .post("/subscriptions/s/seek", json!({"time": middle}))
        .await
        .expect(200)
        .json();
    assert_eq!(job["state"], "done");
    assert_eq!((&job["kind"], &job["changed"]), (&json!("seek"), &json!(1)));
    assert_eq!(job["subscription_id"], "s");
    assert_eq!(available(&app).await, 1);

    let job = app
        .post(
            "/subscriptions/s/seek",
            json!({"time": "2020-01-01T00:00:00+02:00"}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(job["changed"], 2);
    assert_eq!(available(&app).await, 3);

    let job = app
        .post("/subscriptions/s/seek", json!({"to": "end"}))
        .await
        .expect(200)
        .json();
    assert_eq!(job["changed"], 3);
    assert_eq!(job["request"], json!({"to": "end"}));
    assert_eq!(available(&app).await, 0);
}

#[tokio::test]
async fn a_filter_is_replayed_over_a_stretch_of_time() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let middle = now();
    publish(&app, json!([{"n": 1}, {"n": 2}])).await;
    ack_all(&app).await;

    for (more, changed) in [
        (json!({"since": middle}), 1),
        (json!({"until": middle}), 1),
        (json!({"since": middle, "until": middle}), 0),
    ] {
        let mut body = json!({"filter": {"n": [1]}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let job = app
            .post("/subscriptions/s/seek", body)
            .await
            .expect(200)
            .json();
        assert_eq!(job["kind"], "replay");
        assert_eq!(job["changed"], changed, "{more}");
    }
    assert_eq!(available(&app).await, 2);
    let job = app
        .post("/subscriptions/s/seek", json!({"filter": {}}))
        .await
        .expect(200)
        .json();
    assert_eq!(job["changed"], 1);
}

#[tokio::test]
async fn a_snapshot_is_made_listed_sought_to_and_deleted() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    ack_all(&app).await;
    publish(&app, json!([{"n": 2}])).await;

    let body = json!({"id": "snap", "subscription_id": "s"});
    let snapshot = app
        .post("/snapshots", body.clone())
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&snapshot["id"], &snapshot["subscription_id"]),
        (&json!("snap"), &json!("s"))
    );
    app.post("/snapshots", body).await.expect(409);
    assert_eq!(
        app.get("/snapshots").await.expect(200).json(),
        json!({"data": [snapshot]})
    );
    publish(&app, json!([{"n": 3}])).await;
    ack_all(&app).await;

    let job = app
        .post("/subscriptions/s/seek", json!({"snapshot_id": "snap"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&job["state"], &job["changed"]),
        (&json!("done"), &json!(2))
    );
    assert_eq!(available(&app).await, 2);
    app.delete("/snapshots/snap").await.expect(204);
    app.delete("/snapshots/snap").await.expect(404);
    let gone = app
        .post("/subscriptions/s/seek", json!({"snapshot_id": "snap"}))
        .await;
    assert_eq!(
        gone.expect(404).json(),
        json!({"detail": "Snapshot not found"})
    );
    for body in [
        json!({"id": "x", "subscription_id": "s", "topic_id": "t"}),
        json!({"id": "a b", "subscription_id": "s"}),
        json!({"id": "x"}),
    ] {
        app.post("/snapshots", body).await.expect(422);
    }
    let body = json!({"id": "x", "subscription_id": "none"});
    app.post("/snapshots", body).await.expect(404);
}

#[tokio::test]
async fn a_long_seek_is_202_and_its_job_is_watched_and_cancelled() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, Value::Array(vec![json!({"n": 1}); 10_001])).await;

    let begun = app
        .post("/subscriptions/s/seek", json!({"to": "end"}))
        .await
        .expect(202)
        .json();
    assert_eq!(
        (&begun["state"], &begun["changed"]),
        (&json!("running"), &json!(10_000))
    );
    let path = format!("/jobs/{}", begun["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200).json(), begun);
    assert_eq!(
        app.get("/jobs").await.expect(200).json(),
        json!({"data": [begun]})
    );
    let busy = app
        .post("/subscriptions/s/seek", json!({"to": "end"}))
        .await
        .expect(409);
    assert_eq!(
        busy.json(),
        json!({"detail": "Another job of this subscription is running"})
    );

    let cancelled = app.delete(&path).await.expect(200).json();
    assert_eq!(
        (&cancelled["state"], &cancelled["changed"]),
        (&json!("cancelled"), &json!(10_000))
    );
    assert_eq!(app.delete(&path).await.expect(200).json(), cancelled);
    assert_eq!(available(&app).await, 1);
    let rest = app
        .post("/subscriptions/s/seek", json!({"to": "end"}))
        .await
        .expect(200)
        .json();
    assert_eq!(rest["changed"], 1);

    let unknown = format!("/jobs/{}", uuid::Uuid::now_v7());
    assert_eq!(
        app.get(&unknown).await.expect(404).json(),
        json!({"detail": "Job not found"})
    );
    app.delete(&unknown).await.expect(404);
    app.get("/jobs/7").await.expect(422);
}

#[tokio::test]
async fn a_new_subscription_starts_from_a_time() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "other", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let middle = now();
    publish(&app, json!([{"n": 2}])).await;

    let body = json!({"id": "s", "topic_id": "t", "start_from": middle});
    app.post("/subscriptions", body).await.expect(201);

    let messages = app.consume("s").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["payload"], json!({"n": 2}));
    let jobs = app.get("/jobs").await.expect(200).json();
    assert!(
        jobs["data"][0]["request"]["start_from"].is_string(),
        "{jobs}"
    );
}

#[tokio::test]
async fn what_is_no_place_is_refused() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;

    for (body, loc) in [
        (json!({}), json!(["body"])),
        (json!({"time": now(), "to": "end"}), json!(["body"])),
        (json!({"time": "noon"}), json!(["body", "time"])),
        (json!({"time": 1_700_000_000}), json!(["body", "time"])),
        (json!({"to": "start"}), json!(["body", "to"])),
        (json!({"to": ["end"]}), json!(["body", "to"])),
        (
            json!({"to": "end", "since": now()}),
            json!(["body", "since"]),
        ),
        (json!({"time": now(), "when": 1}), json!(["body", "when"])),
        (
            json!({"snapshot_id": "a b"}),
            json!(["body", "snapshot_id"]),
        ),
        (json!({"filter": []}), json!(["body", "filter"])),
        (
            json!({"filter": {"a": [{"sufix": "x"}]}}),
            json!(["body", "filter", "a", 0, "sufix"]),
        ),
        (
            json!({"filter": {}, "since": "x"}),
            json!(["body", "since"]),
        ),
        (
            json!({"filter": {}, "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
            json!(["body", "until"]),
        ),
    ] {
        let refused = app
            .post("/subscriptions/s/seek", body.clone())
            .await
            .expect(422)
            .json();
        assert_eq!(refused["detail"][0]["loc"], loc, "{body}: {refused}");
    }
    app.post("/subscriptions/none/seek", json!({"to": "end"}))
        .await
        .expect(404);
    assert_eq!(available(&app).await, 1);
    assert_eq!(
        app.get("/jobs").await.expect(200).json(),
        json!({"data": []})
    );
}
