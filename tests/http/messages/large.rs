//! Answers are bounded in bytes: what does not fit is nobody's, and the next one's who asks.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::app_with;
use crate::support::{TestApp, answer, ids};

/// Messages of about a megabyte each.
async fn publish_large(app: &TestApp, messages: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for n in 0..messages {
        let payload = json!({"n": n, "text": "x".repeat(1_000_000)});
        let body = json!({"messages": [{"payload": payload}]});
        let published = app.post("/topics/t/publish", body).await.expect(201);
        ids.push(published.json()["message_ids"][0].clone());
    }
    ids
}

async fn pull(app: &TestApp, consumer: &str, max_messages: u32) -> Vec<Value> {
    let body = json!({"consumer_id": consumer, "max_messages": max_messages});
    let answer = app.post("/subscriptions/s/pull", body).await.expect(200);
    assert!(
        answer.body.len() <= 8 * 1024 * 1024,
        "{}",
        answer.body.len()
    );
    answer.json()["messages"].as_array().unwrap().clone()
}

async fn counts(app: &TestApp) -> (i64, i64) {
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    (
        metrics["available"].as_i64().unwrap(),
        metrics["delivered"].as_i64().unwrap(),
    )
}

#[tokio::test]
async fn an_answer_has_at_most_8_mib_and_what_does_not_fit_is_not_leased() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    let published = publish_large(&app, 20).await;

    let first = pull(&app, "c", 100).await;
    assert_eq!(ids(&first), published[..8]);
    assert_eq!(counts(&app).await, (12, 8));
    let second = ids(&app.consume("s").await);
    assert_eq!(second, published[8..16]);
    let third = pull(&app, "c", 100).await;
    assert_eq!(ids(&third), published[16..]);
    assert!(
        third
            .iter()
            .all(|message| message["delivery_attempts"] == 1)
    );
}

#[tokio::test]
async fn one_message_is_answered_even_when_it_is_larger_than_the_bound() {
    let flags = ["--api-max-answer-bytes", "1024"];
    let app = TestApp::start_with(&flags).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let published = publish_large(&app, 2).await;

    assert_eq!(ids(&app.consume("s").await), published[..1]);
    assert_eq!(ids(&app.consume("s").await), published[1..]);
}

#[tokio::test]
async fn pages_of_dead_letters_and_samples_of_a_preview_end_early_rather_than_exceed_the_bound() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    let published = publish_large(&app, 10).await;
    for _ in 0..2 {
        let nacks = ids(&app.consume("s").await);
        app.post("/subscriptions/s/nacks", json!(nacks))
            .await
            .expect(204);
    }

    let first = app.get("/subscriptions/s/dlq?limit=100").await.expect(200);
    assert!(first.body.len() <= 8 * 1024 * 1024, "{}", first.body.len());
    let first = ids(first.json()["data"].as_array().unwrap());
    assert_eq!(first, published[..8]);
    let after = first[7].as_str().unwrap();
    let path = format!("/subscriptions/s/dlq?limit=100&after={after}");
    let second = app.get(&path).await.expect(200).json();
    assert_eq!(ids(second["data"].as_array().unwrap()), published[8..]);

    let path = "/subscriptions/s/filter-preview";
    let preview = app
        .post(path, json!({"filter": null, "last": 100}))
        .await
        .expect(200);
    assert!(
        preview.body.len() <= 8 * 1024 * 1024,
        "{}",
        preview.body.len()
    );
    assert_eq!(preview.json()["matched"], 10);
}

/// All items of a list, and how many pages they came in.
async fn paged(app: &TestApp, path: &str) -> (Vec<Value>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    let mut after = String::new();
    loop {
        let page = app.get(&format!("{path}?limit=100{after}")).await;
        let page = ids(page.expect(200).json()["data"].as_array().unwrap());
        let Some(last) = page.last() else {
            return (all, pages);
        };
        after = format!("&after={}", last.as_str().unwrap());
        pages += 1;
        all.extend(page);
    }
}

#[tokio::test]
async fn pages_of_subscriptions_and_jobs_and_a_timeline_end_early_rather_than_exceed_the_bound() {
    let app = TestApp::start_with(&["--api-max-answer-bytes", "1800"]).await;
    app.topic_with_subscription("t", "s1", json!({})).await;
    for n in 2..=5 {
        let body =
            json!({"id": format!("s{n}"), "topic_id": "t", "filter": {"n": ["x".repeat(500)]}});
        app.post("/subscriptions", body).await.expect(201);
    }
    let published = app
        .post("/topics/t/publish", json!({"messages": [{"payload": {}}]}))
        .await;
    let message = published.expect(201).json()["message_ids"][0].clone();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = app
            .post("/subscriptions/s1/seek", json!({"to": "end"}))
            .await;
        jobs.insert(0, job.expect(200).json()["id"].clone());
    }

    let subscriptions: Vec<Value> = (1..=5).map(|n| json!(format!("s{n}"))).collect();
    assert_eq!(paged(&app, "/subscriptions").await, (subscriptions, 5));
    assert_eq!(paged(&app, "/jobs").await, (jobs, 3));
    let path = format!("/messages/{}", message.as_str().unwrap());
    let timeline = app.get(&path).await.expect(200).json();
    let told = timeline["subscriptions"].as_array().unwrap();
    assert!((1..5).contains(&told.len()), "{told:?}");
    assert_eq!(told[0]["subscription_id"], "s1");
    assert_eq!(told[0]["events"][0]["event"], "published");
}

#[tokio::test]
async fn whoever_asks_for_much_is_told_to_come_back_while_others_have_all_bytes_of_answers() {
    let flags = ["--api-max-answer-bytes-in-flight", "1048576"];
    let app = TestApp::start_with(&flags).await;
    let settings = json!({"max_delivery_attempts": 1});
    app.topic_with_subscription("t", "s", settings).await;
    let published = publish_large(&app, 8).await;
    let consumed = ids(&app.consume("s").await);
    app.post("/subscriptions/s/nacks", json!(consumed))
        .await
        .expect(204);
    // an answer that is begun, and not read
    let mut unread = app.narrow().await;
    let request = b"GET /subscriptions/s/dlq HTTP/1.1\r\nHost: x\r\n\r\n";
    unread.write_all(request).await.unwrap();
    let mut status = [0; 12];
    unread.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");

    let message = format!("/messages/{}", published[0].as_str().unwrap());
    let mut asked = tokio::task::JoinSet::new();
    for path in [
        "/subscriptions",
        "/subscriptions/s/dlq",
        "/subscriptions/s/parked",
        "/jobs",
        &message,
    ] {
        asked.spawn(answer(app.request("GET", path)));
    }
    let preview = app.request("POST", "/subscriptions/s/filter-preview");
    asked.spawn(answer(preview.json(&json!({"filter": null}))));
    for refused in asked.join_all().await {
        let refused = refused.expect(503);
        assert_eq!(refused.header("retry-after"), Some("1"));
    }

    drop(unread);
    app.get("/subscriptions/s/parked").await.expect(200);
}

#[tokio::test]
async fn consumers_whose_calls_are_merged_all_get_what_is_there_and_nothing_twice() {
    let app = app_with(json!({})).await;
    let published = publish_large(&app, 30).await;

    let mut pulls = tokio::task::JoinSet::new();
    for n in 0..10 {
        let request = app
            .request("POST", "/subscriptions/s/pull")
            .json(&json!({"consumer_id": format!("c{n}"), "max_messages": 3}));
        pulls.spawn(answer(request));
    }
    let mut got = Vec::new();
    for pulled in pulls.join_all().await {
        let messages = pulled.expect(200).json()["messages"].clone();
        let messages = ids(messages.as_array().unwrap());
        assert!((1..=3).contains(&messages.len()), "{messages:?}");
        got.extend(messages);
    }
    while got.len() < published.len() {
        let more = ids(&pull(&app, "c", 100).await);
        assert!(!more.is_empty(), "{} of 30", got.len());
        got.extend(more);
    }

    got.sort_by_key(ToString::to_string);
    assert_eq!(got, published);
}
