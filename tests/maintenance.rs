//! The background work of the server.

use std::time::{Duration, Instant};

use fastpubsub::engine::upkeep;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{TestApp, settings};

async fn within_seconds(sql: &'static str, app: &TestApp) -> bool {
    let deadline = Instant::now() + Duration::from_secs(15);
    while Instant::now() < deadline {
        if sqlx::query_scalar(sql)
            .fetch_one(&app.pool())
            .await
            .unwrap()
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Original's defect 2 and 28.
#[tokio::test]
async fn a_message_that_crashes_its_consumers_is_dead_lettered_without_cron_or_a_claim() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({"max_delivery_attempts": 1}))
        .await;
    app.post("/topics/t/messages", json!([{"n": 1}]))
        .await
        .expect(204);
    app.consume("s").await;
    sqlx::raw_sql(
        "update pubsub_data.deliveries set visible_at = now() - interval '1 s'; \
         update pubsub_data.wakeups set due_at = now() - interval '1 s'",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let stop = CancellationToken::new();
    let work = tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone()));
    let dead = within_seconds("select exists (select from pubsub_data.dead_letters)", &app).await;
    stop.cancel();
    work.await.unwrap();

    assert!(dead);
    let dlq = app.get("/subscriptions/s/dlq").await.expect(200).json();
    assert_eq!(dlq["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn idempotency_keys_are_forgotten_after_their_window() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let message = |key| json!({"payload": {}, "idempotency_key": key});
    let body = json!({"messages": [message("a"), message("b")]});
    app.post("/topics/t/publish", body).await.expect(201);
    sqlx::query(
        "update pubsub_data.idempotency_keys set created_at = created_at - interval '61 s' \
         where idempotency_key = 'a'",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let stop = CancellationToken::new();
    let settings = settings(&["--idempotency-window-seconds", "60"]);
    let work = tokio::spawn(upkeep::run(app.pool(), settings, stop.clone()));
    let kept = "select array_agg(idempotency_key) = '{b}' from pubsub_data.idempotency_keys";
    let forgotten = within_seconds(kept, &app).await;
    stop.cancel();
    work.await.unwrap();

    assert!(forgotten);
}

/// More than a batch of them, in a partition that is over.
#[tokio::test]
async fn message_keys_leave_with_the_partition_of_their_messages() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    sqlx::raw_sql(
        "create table pubsub_data.messages_old partition of pubsub_data.messages \
             for values from (pubsub.id_at('2020-01-01')) to (pubsub.id_at('2020-01-02')); \
         insert into pubsub_data.partitions (parent, name, from_at, until_at) \
             values ('messages', 'messages_old', '2020-01-01', '2020-01-02'); \
         insert into pubsub_data.message_keys (topic_key, message_key, message_id) \
             select topic_key, n, pubsub.id_at('2020-01-01T12:00Z'::timestamptz + n * interval '1 s') \
             from pubsub_data.topics, generate_series(1, 25000) n",
    )
    .execute(&app.pool())
    .await
    .unwrap();
    let job = json!({"payload": {}, "message_key": "young"});
    app.post("/topics/t/publish", json!({"messages": [job]}))
        .await
        .expect(201);

    let stop = CancellationToken::new();
    let work = tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone()));
    let gone = within_seconds(
        "select to_regclass('pubsub_data.messages_old') is null",
        &app,
    )
    .await;
    stop.cancel();
    work.await.unwrap();

    assert!(gone);
    let left = "select array_agg(message_key) = '{young}' from pubsub_data.message_keys";
    assert!(within_seconds(left, &app).await);
}

#[tokio::test]
async fn of_two_servers_one_does_the_work_and_partitions_are_made() {
    let app = TestApp::start().await;

    let stop = CancellationToken::new();
    let workers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone())))
        .collect();
    let made = within_seconds(
        "select count(*) = 4 from pubsub_data.partitions \
         where from_at > now() and from_at < now() + interval '30 minutes'",
        &app,
    )
    .await;
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    let leaders: i64 = sqlx::query_scalar("select count(*) from pubsub_data.leaders")
        .fetch_one(&app.pool())
        .await
        .unwrap();

    assert!(made);
    assert_eq!(leaders, 1);
}

#[tokio::test]
async fn what_flow_control_needs_no_more_is_forgotten() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    sqlx::raw_sql(
        "insert into pubsub_data.handed_out \
             (topic_key, subscription_key, handed_out_at, messages) \
         select topic_key, subscription_key, now() - make_interval(secs => n), 1 \
         from pubsub_data.subscriptions, generate_series(6, 12000) n; \
         insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane, created_at) \
         select topic_key, subscription_key, n::text, now() - interval '2 hours' \
         from pubsub_data.subscriptions, generate_series(1, 1200) n; \
         insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane) \
         select topic_key, subscription_key, 'young' from pubsub_data.subscriptions",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let stop = CancellationToken::new();
    let work = tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone()));
    let forgotten = within_seconds(
        "select not exists (select from pubsub_data.handed_out) \
         and (select array_agg(lane) = '{young}' from pubsub_data.fair_lanes)",
        &app,
    )
    .await;
    stop.cancel();
    work.await.unwrap();

    assert!(forgotten);
}

#[tokio::test]
async fn the_leader_brings_jobs_to_their_end() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages", json!(vec![json!({"n": 1}); 30_000]))
        .await
        .expect(204);
    let begun = app
        .post("/subscriptions/s/seek", json!({"to": "end"}))
        .await;
    assert_eq!(begun.expect(202).json()["changed"], 10_000);

    let stop = CancellationToken::new();
    let work = tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone()));
    let done = within_seconds(
        "select state = 'done' and changed = 30000 from pubsub_data.jobs",
        &app,
    )
    .await;
    stop.cancel();
    work.await.unwrap();

    assert!(done);
}

#[tokio::test]
async fn subscriptions_that_nobody_keeps_expire_once_a_server_has_led_for_long_enough() {
    let app = TestApp::start().await;
    for id in ["left", "kept"] {
        app.topic_with_subscription(id, id, json!({"expires_after_seconds": 3600}))
            .await;
    }
    sqlx::raw_sql(
        "update pubsub_data.kept_subscriptions set kept_at = kept_at - interval '2 hours'; \
         select pubsub.keep_subscriptions('{kept}')",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    // those who were there before a deploy or an outage come back first
    let stop = CancellationToken::new();
    let patient = tokio::spawn(upkeep::run(app.pool(), settings(&[]), stop.clone()));
    assert!(within_seconds("select exists (select from pubsub_data.leaders)", &app).await);
    let again = "select held_until > clock_timestamp() + interval '19 s' \
        and (select count(*) = 2 from pubsub_data.subscriptions) from pubsub_data.leaders";
    // a second time, and to its end: the third begins
    let mut has_led_on = true;
    for _ in 0..2 {
        sqlx::raw_sql("update pubsub_data.leaders set held_until = held_until - interval '2 s'")
            .execute(&app.pool())
            .await
            .unwrap();
        has_led_on &= within_seconds(again, &app).await;
    }
    stop.cancel();
    patient.await.unwrap();
    assert!(has_led_on);

    sqlx::raw_sql("delete from pubsub_data.leaders")
        .execute(&app.pool())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let work = upkeep::run_expiring(app.pool(), settings(&[]), stop.clone(), Duration::ZERO);
    let work = tokio::spawn(work);
    let left = "select array_agg(subscription_id) = '{kept}' from pubsub_data.subscriptions";
    let expired = within_seconds(left, &app).await;
    stop.cancel();
    work.await.unwrap();

    assert!(expired);
    app.get("/subscriptions/left").await.expect(404);
}
