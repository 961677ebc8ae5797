//! `/metrics`.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Connection;

use crate::support::{TestApp, answer};

async fn scrape(app: &TestApp) -> String {
    app.get("/metrics").await.expect(200).body
}

/// The value of a series, given as its name and labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

/// Contract point 10.
#[tokio::test]
async fn requests_are_counted_by_method_route_and_exact_status() {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let series = [
        (r#"{method="GET",path="/topics/{id}",status="200"}"#, 2.0),
        (r#"{method="GET",path="/topics/{id}",status="404"}"#, 3.0),
        (r#"{method="DELETE",path="/topics/{id}",status="404"}"#, 1.0),
        (r#"{method="POST",path="/topics",status="409"}"#, 1.0),
        (r#"{method="POST",path="/topics",status="422"}"#, 1.0),
        (r#"{method="PUT",path="/topics",status="405"}"#, 1.0),
        (r#"{method="OTHER",path="/topics",status="405"}"#, 2.0),
        (r#"{method="GET",path="unmatched",status="404"}"#, 2.0),
    ]
    .map(|(labels, count)| (format!("http_requests_total{labels}"), count));
    let before = scrape(&app).await;

    for path in [
        "/topics/t",
        "/topics/t?",
        "/topics/a",
        "/topics/b",
        "/topics/%00",
    ] {
        app.get(path).await;
    }
    app.delete("/topics/a").await;
    app.post("/topics", json!({"id": "t"})).await;
    app.post("/topics", json!({})).await;
    for method in ["PUT", "FOO", "BAR"] {
        answer(app.request(method, "/topics")).await;
    }
    for path in ["/wordpress/login.php", "/topics/a/b"] {
        app.get(path).await;
    }

    let after = scrape(&app).await;
    for (series, count) in series {
        let grown = value(&after, &series).unwrap_or(0.0) - value(&before, &series).unwrap_or(0.0);
        assert!(
            (grown - count).abs() < 0.1,
            "{series}: {grown} instead of {count}"
        );
    }
}

#[tokio::test]
async fn what_clients_invent_makes_no_labels() {
    let app = TestApp::start().await;

    for path in [
        "/invented-path",
        "/topics/invented-id",
        "/topics?invented-query",
        "/docs/invented.js",
    ] {
        app.get(path).await;
        answer(app.request("INVENTED", path)).await;
    }

    let text = scrape(&app).await;
    for line in text.lines().filter(|line| line.starts_with("http_")) {
        assert!(!line.to_lowercase().contains("invented"), "{line}");
    }
}

/// Contract point 10.
#[tokio::test]
async fn durations_are_a_histogram() {
    let app = TestApp::start().await;
    app.get("/topics/x").await;

    let answer = app.get("/metrics").await.expect(200);

    let content_type = answer.header("content-type").unwrap();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    let text = answer.body;
    assert!(
        text.contains("# TYPE http_request_duration_seconds histogram"),
        "{text}"
    );
    let count = |suffix: &str, le: &str| {
        let labels = format!(r#"{{method="GET",path="/topics/{{id}}"{le}}}"#);
        value(
            &text,
            &format!("http_request_duration_seconds_{suffix}{labels}"),
        )
        .unwrap()
    };
    let all = count("count", "");
    assert!(all >= 1.0, "{text}");
    assert!(count("sum", "") > 0.0, "{text}");
    assert!(
        count("bucket", r#",le="0.001""#) <= count("bucket", r#",le="10""#),
        "{text}"
    );
    assert!(
        (count("bucket", r#",le="+Inf""#) - all).abs() < 0.1,
        "{text}"
    );
}

/// Contract point 10.
#[tokio::test]
async fn requests_in_progress_the_pool_and_the_process_are_shown() {
    let app = TestApp::start().await;
    app.get("/topics").await.expect(200);

    let text = scrape(&app).await;

    assert!(
        text.contains("# TYPE http_requests_in_progress gauge"),
        "{text}"
    );
    // this one
    assert!(
        value(&text, "http_requests_in_progress").unwrap() >= 1.0,
        "{text}"
    );
    let connections = ["idle", "used"].map(|state| {
        let series = format!(r#"database_pool_connections{{state="{state}"}}"#);
        value(&text, &series).unwrap_or_else(|| panic!("{series}: {text}"))
    });
    assert!(connections.iter().sum::<f64>() >= 1.0, "{text}");
    for series in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(value(&text, series).is_some(), "{series}: {text}");
    }
}

/// Contract point 10.
/// The counts are kept for some seconds, so they are set up before the first
/// scrape of this process.
#[tokio::test]
async fn messages_of_each_subscription_are_gauges() {
    let app = TestApp::start().await;
    let policy = json!({"max_delivery_attempts": 2});
    app.topic_with_subscription("t", "gauged-subscription", policy)
        .await;
    app.post(
        "/topics/t/messages",
        json!([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]),
    )
    .await
    .expect(204);
    let path = "/subscriptions/gauged-subscription/messages?consumer_id=c&batch_size=3";
    let leased = app.get(path).await.expect(200).json()["data"].clone();
    for (verb, message) in [("acks", &leased[0]), ("nacks", &leased[1])] {
        let path = format!("/subscriptions/gauged-subscription/{verb}");
        app.post(&path, json!([message["id"]])).await.expect(204);
    }

    let gauges = wait_for(&app, |text| text.contains("gauged-subscription")).await;

    for (state, count) in [
        ("available", 1.0),
        ("delivered", 1.0),
        ("scheduled", 1.0),
        ("acked", 1.0),
        ("dlq", 0.0),
        ("expired", 0.0),
    ] {
        let labels = format!(r#"{{subscription="gauged-subscription",state="{state}"}}"#);
        let series = format!("pubsub_subscription_messages{labels}");
        assert_eq!(value(&gauges, &series), Some(count), "{series}: {gauges}");
    }
    for (total, count) in [
        ("published", 4.0),
        ("delivered", 3.0),
        ("acked", 1.0),
        ("nacked", 1.0),
        ("rejected", 0.0),
        ("expired", 0.0),
        ("dead_lettered", 0.0),
        ("redelivered", 0.0),
        ("extended", 0.0),
    ] {
        let metric = format!("fastpubsub_messages_{total}_total");
        let series = format!(r#"{metric}{{subscription="gauged-subscription"}}"#);
        assert_eq!(value(&gauges, &series), Some(count), "{series}: {gauges}");
        assert!(
            gauges.contains(&format!("# TYPE {metric} counter")),
            "{gauges}"
        );
    }
}

/// What is read from the database is kept for some seconds.
#[tokio::test]
async fn the_health_of_the_database_is_gauges_that_move() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "unacked-subscription", json!({}))
        .await;
    app.post("/topics/t/messages", json!([{"a": 1}]))
        .await
        .expect(204);
    let mut holder = app.database.connect().await;
    let mut transaction = holder.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select 1")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let age = |text: &str| value(text, "pubsub_oldest_snapshot_age_seconds");
    let unacked = r#"pubsub_oldest_unacked_age_seconds{subscription="unacked-subscription"}"#;

    let held = wait_for(&app, |text| value(text, unacked).is_some()).await;
    transaction.rollback().await.unwrap();
    let ended = wait_for(&app, |text| age(text) == Some(0.0)).await;

    assert!(age(&held).unwrap() > 0.0, "{held}");
    assert!(value(&held, unacked).unwrap() > 0.0, "{held}");
    assert!(value(&ended, unacked) > value(&held, unacked), "{ended}");
    for gauge in [
        "pubsub_table_bytes",
        "pubsub_index_bytes",
        "pubsub_table_live_rows",
        "pubsub_table_dead_rows",
    ] {
        for table in ["messages", "deliveries", "wakeups", "acked", "dead_letters"] {
            let series = format!(r#"{gauge}{{table="{table}"}}"#);
            assert!(value(&held, &series).is_some(), "{series}: {held}");
        }
    }
    for table in ["messages", "deliveries"] {
        let bytes = format!(r#"pubsub_table_bytes{{table="{table}"}}"#);
        assert!(value(&held, &bytes).unwrap() >= 8192.0, "{bytes}: {held}");
    }
    assert!(value(&held, "pubsub_wraparound_age_transactions").unwrap() > 0.0);
    assert!(value(&held, "pubsub_horizon_age_transactions").is_some());
}

/// Contract point 10.
/// Bounded in number.
#[tokio::test]
async fn no_more_than_a_thousand_subscriptions_are_gauges() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "a", json!({})).await;
    sqlx::raw_sql(
        "insert into pubsub_data.subscriptions (topic_key, subscription_id, max_delivery_attempts, \
         backoff_min_seconds, backoff_max_seconds) \
         select t.topic_key, 'many-' || i, 5, 5, 5 \
         from pubsub_data.topics t, generate_series(1, 1100) as i",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let text = wait_for(&app, |text| text.contains("many-")).await;

    let gauges = text
        .lines()
        .filter(|line| line.starts_with("pubsub_subscription_messages{"))
        .count();
    assert!(gauges <= 7000, "{gauges}");
}

#[tokio::test]
#[ignore = "takes minutes: the gauges of a subscription outlive it by two"]
async fn a_deleted_subscription_leaves_the_metrics() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "deleted-subscription", json!({}))
        .await;
    wait_for(&app, |text| text.contains("deleted-subscription")).await;

    app.delete("/subscriptions/deleted-subscription")
        .await
        .expect(204);

    wait_for(&app, |text| !text.contains("deleted-subscription")).await;
}

/// Scrape until the text is as wanted: the counts are kept for some seconds.
async fn wait_for(app: &TestApp, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let text = scrape(app).await;
        if wanted(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "not as wanted: {text}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
