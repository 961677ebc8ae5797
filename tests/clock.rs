//! The database's clock is set back, or a standby whose clock is behind takes over: what is published
//! since then, with ids of an earlier time, is delivered all the same.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::clock::ClockedPostgres;
use crate::support::database::TestDatabase;
use crate::support::{TestApp, ids};

/// Far below every step.
const SOON: Duration = Duration::from_secs(10);

/// The subscriptions: each has a topic of its name.
fn modes() -> [(&'static str, Value); 6] {
    [
        ("plain", json!({})),
        ("ordered", json!({"enable_ordering": true})),
        ("priorities", json!({})),
        ("fair", json!({"fairness_key": "tenant"})),
        ("rated", json!({"max_rate": 100})),
        (
            "limited",
            json!({"max_in_flight": 100, "max_in_flight_per_consumer": 50}),
        ),
    ]
}

async fn publish(app: &TestApp, mode: &str, messages: usize) -> Vec<Value> {
    let message = json!({
        "payload": {}, "ordering_key": "k", "attributes": {"tenant": "t"},
        "priority": if mode == "priorities" { 5 } else { 0 },
    });
    let body = json!({"messages": vec![message; messages]});
    let path = format!("/topics/{mode}/publish");
    let published = app.post(&path, body).await.expect(201).json();
    published["message_ids"].as_array().unwrap().clone()
}

async fn consume_and_ack(app: &TestApp, mode: &str) -> Vec<Value> {
    let got = ids(&app.consume(mode).await);
    app.post(&format!("/subscriptions/{mode}/acks"), json!(got))
        .await
        .expect(204);
    got
}

/// Poll and ack until so many have come, which must be soon.
async fn consume_soon(app: &TestApp, mode: &str, messages: usize, when: &str) -> Vec<Value> {
    let started = Instant::now();
    let mut got = Vec::new();
    while got.len() < messages {
        let after = started.elapsed();
        assert!(after < SOON, "{mode} {when}: {} of {messages}", got.len());
        got.extend(consume_and_ack(app, mode).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    got.sort_by_key(ToString::to_string);
    got
}

#[tokio::test]
async fn what_is_published_once_the_clock_was_set_back_is_delivered_within_seconds_in_every_mode() {
    let postgres = ClockedPostgres::start().await;
    let database = TestDatabase::create_on(&postgres.options()).await;
    let few = ["--database-pool-size", "1", "--database-max-overflow", "0"];
    let one = TestApp::start_on(database.share(), &few).await;
    let many = TestApp::start_on(database.share(), &[]).await;
    for (mode, settings) in modes() {
        one.topic_with_subscription(mode, mode, settings).await;
    }

    let mut behind = 0;
    for step in [3, 60, 3600] {
        let when = format!("after a step of {step} s");
        for app in [&one, &many] {
            for (mode, _) in modes() {
                publish(app, mode, 1).await;
                consume_soon(app, mode, 1, "before").await;
            }
        }
        // nobody has claimed them yet when the clock is set back
        let mut waiting = Vec::new();
        for (mode, _) in modes() {
            waiting.push(publish(&one, mode, 2).await);
        }
        behind += step;
        postgres.set_back(behind);

        for ((mode, _), mut expected) in modes().into_iter().zip(waiting) {
            for app in [&one, &many] {
                expected.extend(publish(app, mode, 3).await);
                expected.sort_by_key(ToString::to_string);
                let got = consume_soon(app, mode, expected.len(), &when).await;
                assert_eq!(got, expected, "{mode} {when}");
                expected.clear();
            }
        }
    }
}

#[tokio::test]
async fn consumers_that_wait_hear_of_what_others_publish_once_the_clock_was_set_back() {
    let postgres = ClockedPostgres::start().await;
    let database = TestDatabase::create_on(&postgres.options()).await;
    let app = TestApp::start_on(database.share(), &[]).await;
    app.topic_with_subscription("plain", "plain", json!({}))
        .await;
    let mut publisher = database.connect().await;
    publish(&app, "plain", 1).await;
    consume_soon(&app, "plain", 1, "before").await;

    for behind in [60, 3660] {
        let request = app
            .request("POST", "/subscriptions/plain/pull")
            .json(&json!({"consumer_id": "c", "wait_seconds": 30}));
        let waiting = tokio::spawn(crate::support::answer(request));
        // so that it has seen what is there: nothing
        tokio::time::sleep(Duration::from_millis(500)).await;
        postgres.set_back(behind);
        let started = Instant::now();
        sqlx::raw_sql("select count(*) from pubsub.publish_messages('plain', array['{}'::jsonb])")
            .execute(&mut publisher)
            .await
            .unwrap();

        let pulled = waiting.await.unwrap().expect(200).json();

        assert_eq!(pulled["messages"].as_array().unwrap().len(), 1);
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        let id = &pulled["messages"][0]["id"];
        app.post("/subscriptions/plain/acks", json!([id]))
            .await
            .expect(204);
    }
}

#[tokio::test]
async fn another_server_leads_at_once_when_the_clock_was_set_back_and_sessions_read_again() {
    let postgres = ClockedPostgres::start().await;
    let database = TestDatabase::create_on(&postgres.options()).await;
    let mut connection = database.connect().await;
    let lead = async |connection: &mut sqlx::PgConnection, holder: &str| {
        fastpubsub::db::maintenance::try_lead(connection, holder, 20)
            .await
            .unwrap()
    };
    assert!(lead(&mut connection, "one").await);
    assert!(!lead(&mut connection, "two").await);
    let noticed = fastpubsub::db::maintenance::notice_clock(&mut connection)
        .await
        .unwrap();
    assert_eq!(noticed, None);

    postgres.set_back(3600);

    assert!(lead(&mut connection, "two").await);
    assert!(!lead(&mut connection, "one").await);
    let noticed = fastpubsub::db::maintenance::notice_clock(&mut connection)
        .await
        .unwrap();
    assert!(
        noticed.is_some_and(|seconds| seconds > 3500.0),
        "{noticed:?}"
    );
    let noticed = fastpubsub::db::maintenance::notice_clock(&mut connection)
        .await
        .unwrap();
    assert_eq!(noticed, None);
}

/// Make a seek or replay, and wait for its job; how many messages it changed.
async fn seek(app: &TestApp, subscription: &str, body: Value) -> i64 {
    let path = format!("/subscriptions/{subscription}/seek");
    let mut job = app.post(&path, body).await.json();
    while job["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let path = format!("/jobs/{}", job["id"].as_str().unwrap());
        job = app.get(&path).await.expect(200).json();
    }
    assert_eq!(job["state"], "done", "{job}");
    job["changed"].as_i64().unwrap()
}

#[tokio::test]
async fn what_was_published_before_the_clock_was_set_back_is_sought_to_and_replayed() {
    let postgres = ClockedPostgres::start().await;
    let database = TestDatabase::create_on(&postgres.options()).await;
    let app = TestApp::start_on(database.share(), &[]).await;

    let mut behind = 0;
    for step in [30, 3600] {
        let name = format!("s{step}");
        app.topic_with_subscription(&name, &name, json!({})).await;
        let old = publish(&app, &name, 3).await;
        behind += step;
        postgres.set_back(behind);
        let when = format!("after a step of {step} s");
        let long_ago = json!({"time": "2020-01-01T00:00:00Z"});

        let snapshot = json!({"id": name, "subscription_id": name});
        app.post("/snapshots", snapshot).await.expect(201);
        let ended = seek(&app, &name, json!({"to": "end"})).await;
        assert_eq!(ended, 3, "{when}");
        assert_eq!(ids(&app.consume(&name).await).len(), 0, "{when}");
        let ways = [
            json!({"snapshot_id": name}),
            long_ago,
            json!({"filter": {}}),
        ];
        for way in ways {
            let changed = seek(&app, &name, way.clone()).await;
            assert_eq!(changed, 3, "{way} {when}");
            let got = consume_soon(&app, &name, 3, &when).await;
            assert_eq!(got, old, "{way} {when}");
        }

        let late = format!("late-{step}");
        let settings = json!({
            "id": late, "topic_id": name, "start_from": "2020-01-01T00:00:00Z",
        });
        app.post("/subscriptions", settings).await.expect(201);
        assert_eq!(consume_soon(&app, &late, 3, &when).await, old, "{when}");
    }
}
