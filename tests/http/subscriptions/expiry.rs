//! Subscriptions that expire. Time passes by moving what was noted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::http::messages::waiting::watched_by;
use crate::support::{Answer, TestApp, answer};

/// Nothing here takes that long.
const SOON: Duration = Duration::from_secs(15);

/// Topic `t` with subscription `s`, which expires after 10 seconds.
async fn app_with_expiring() -> TestApp {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({"expires_after_seconds": 10}))
        .await;
    app
}

/// Nobody was there for any subscription for so long.
pub async fn gone_for(app: &TestApp, seconds: f64) {
    sqlx::query(
        "update pubsub_data.kept_subscriptions \
         set kept_at = least(kept_at, clock_timestamp() - make_interval(secs => $1))",
    )
    .bind(seconds)
    .execute(&app.pool())
    .await
    .unwrap();
}

/// Which subscriptions expire now.
pub async fn expire(app: &TestApp) -> Vec<String> {
    sqlx::query_scalar("select pubsub.expire_subscriptions()")
        .fetch_all(&app.pool())
        .await
        .unwrap()
}

/// The server keeps `s` of itself, however often nobody was there for long.
pub async fn is_kept(app: &TestApp) {
    for _ in 0..2 {
        gone_for(app, 11.0).await;
        until(
            app,
            "exists (select from pubsub_data.kept_subscriptions k \
             where k.kept_at > clock_timestamp() - interval '2 s')",
        )
        .await;
        assert_eq!(expire(app).await, Vec::<String>::new());
    }
}

/// Nobody keeps `s` any more.
pub async fn expires(app: &TestApp) {
    let begun = Instant::now();
    loop {
        // one that was there may have been about to keep it
        gone_for(app, 11.0).await;
        if expire(app).await == ["s"] {
            break;
        }
        assert!(begun.elapsed() < SOON);
    }
    let gone = app.get("/subscriptions/s").await.expect(404).json();
    assert_eq!(gone, json!({"detail": "Subscription not found"}));
}

async fn until(app: &TestApp, condition: &str) {
    let begun = Instant::now();
    let query = || sqlx::AssertSqlSafe(format!("select {condition}"));
    while !sqlx::query_scalar::<_, bool>(query())
        .fetch_one(&app.pool())
        .await
        .unwrap()
    {
        assert!(begun.elapsed() < SOON, "{condition}");
    }
}

/// Until somebody waits for who lets `s` expire.
async fn somebody_waits(app: &TestApp) {
    until(
        app,
        "exists (select from pg_locks l where l.locktype = 'advisory' and not l.granted \
         and l.classid = 1718645605 \
         and l.database = (select oid from pg_database where datname = current_database()))",
    )
    .await;
}

fn pull(app: &TestApp, wait_seconds: u32) -> JoinHandle<Answer> {
    let body = json!({"consumer_id": "c", "wait_seconds": wait_seconds});
    let request = app.request("POST", "/subscriptions/s/pull").json(&body);
    tokio::spawn(answer(request))
}

#[tokio::test]
async fn the_time_is_10_seconds_to_a_year_and_what_is_not_is_refused_with_the_limit() {
    let app = app_with_expiring().await;
    let before = app.get("/subscriptions/s").await.expect(200).json();
    assert_eq!(before["expires_after_seconds"], 10);

    for (value, limit) in [
        (json!(9), "10"),
        (json!(0), "10"),
        (json!(-1), "10"),
        (json!(31_536_001), "31536000"),
        (json!("soon"), "integer"),
        (json!(10.5), "integer"),
        (json!([10]), "integer"),
    ] {
        let body = json!({"id": "x", "topic_id": "t", "expires_after_seconds": value});
        let created = app.post("/subscriptions", body).await.expect(422).json();
        let request = app.request("PATCH", "/subscriptions/s");
        let changes = json!({"paused": true, "expires_after_seconds": value});
        let changed = answer(request.json(&changes)).await.expect(422).json();
        for (refused, limit) in [(created, limit), (changed, "10 to 31536000")] {
            let fault = &refused["detail"][0];
            assert_eq!(fault["loc"], json!(["body", "expires_after_seconds"]));
            assert_eq!(fault["input"], value);
            let text = fault["msg"].as_str().unwrap();
            assert!(text.contains(limit), "{value}: {text}");
        }
    }

    app.get("/subscriptions/x").await.expect(404);
    assert_eq!(app.get("/subscriptions/s").await.expect(200).json(), before);
}

#[tokio::test]
async fn one_that_nobody_pulls_from_expires_and_one_that_somebody_does_stays() {
    let app = app_with_expiring().await;
    for id in ["pulled", "consumed", "changed", "everlasting"] {
        let mut body = json!({"id": id, "topic_id": "t"});
        if id != "everlasting" {
            body["expires_after_seconds"] = json!(10);
        }
        app.post("/subscriptions", body).await.expect(201);
    }
    app.post("/topics/t/messages", json!([{}]))
        .await
        .expect(204);
    gone_for(&app, 9.0).await;
    assert_eq!(expire(&app).await, Vec::<String>::new());

    gone_for(&app, 11.0).await;
    let pulled = json!({"consumer_id": "c"});
    app.post("/subscriptions/pulled/pull", pulled)
        .await
        .expect(200);
    app.consume("consumed").await;
    let request = app.request("PATCH", "/subscriptions/changed");
    answer(request.json(&json!({}))).await.expect(200);

    assert_eq!(expire(&app).await, ["s"]);
    assert_eq!(expire(&app).await, Vec::<String>::new());
    let listed = app.get("/subscriptions").await.expect(200).json();
    let ids: Vec<&Value> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subscription| &subscription["id"])
        .collect();
    assert_eq!(ids, ["changed", "consumed", "everlasting", "pulled"]);
    // its id is free
    let again = json!({"id": "s", "topic_id": "t"});
    app.post("/subscriptions", again).await.expect(201);
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_pull_beside_its_expiry_finds_it_gone_or_keeps_it() {
    for (end, status) in [("commit", 404), ("rollback", 200)] {
        let app = app_with_expiring().await;
        gone_for(&app, 11.0).await;
        let mut other = app.database.connect().await;
        sqlx::raw_sql("begin; select pubsub.expire_subscriptions()")
            .execute(&mut other)
            .await
            .unwrap();

        let pulled = pull(&app, 0);
        somebody_waits(&app).await;
        sqlx::raw_sql(end).execute(&mut other).await.unwrap();

        assert_eq!(pulled.await.unwrap().status, status, "{end}");
        assert_eq!(expire(&app).await, Vec::<String>::new(), "{end}");
        let left = app.get("/subscriptions/s").await;
        assert_eq!(left.status, status, "{end}");
    }
}

#[tokio::test]
async fn who_keeps_a_subscription_beside_its_expiry_is_told_whether_it_is_there() {
    for (end, kept) in [("commit", vec![]), ("rollback", vec!["s".to_owned()])] {
        let app = app_with_expiring().await;
        gone_for(&app, 11.0).await;
        let mut other = app.database.connect().await;
        sqlx::raw_sql("begin; select pubsub.expire_subscriptions()")
            .execute(&mut other)
            .await
            .unwrap();

        let pool = app.pool();
        let keeps = tokio::spawn(async move {
            sqlx::query_scalar::<_, String>("select pubsub.keep_subscriptions('{s,none}')")
                .fetch_all(&pool)
                .await
                .unwrap()
        });
        somebody_waits(&app).await;
        sqlx::raw_sql(end).execute(&mut other).await.unwrap();

        assert_eq!(keeps.await.unwrap(), kept, "{end}");
        assert_eq!(expire(&app).await, Vec::<String>::new(), "{end}");
    }
}

#[tokio::test]
async fn a_subscription_does_not_expire_under_a_claim_that_has_not_committed() {
    for (end, expired) in [("commit", vec![]), ("rollback", vec!["s".to_owned()])] {
        let app = app_with_expiring().await;
        app.post("/topics/t/messages", json!([{}]))
            .await
            .expect(204);
        gone_for(&app, 11.0).await;
        let mut other = app.database.connect().await;
        sqlx::raw_sql("begin; select pubsub.consume_messages('s', 'me')")
            .execute(&mut other)
            .await
            .unwrap();

        // neither waits for the claim nor takes what it holds
        assert_eq!(expire(&app).await, Vec::<String>::new());
        sqlx::raw_sql(end).execute(&mut other).await.unwrap();

        assert_eq!(expire(&app).await, expired, "{end}");
    }
}

#[tokio::test]
async fn a_pull_that_waits_keeps_its_subscription() {
    let app = app_with_expiring().await;
    let pulled = pull(&app, 30);
    watched_by(&app, 1).await;

    is_kept(&app).await;

    app.post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);
    let pulled = pulled.await.unwrap().expect(200).json();
    assert_eq!(pulled["messages"][0]["payload"], json!({"n": 1}));
    expires(&app).await;
}
