//! Server-Sent Events.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Events, SOON, app_with, publish, pull, settle, until};
use crate::http::messages::waiting::watched_by;
use crate::support::TestApp;
use crate::support::database::TestDatabase;

#[tokio::test]
async fn events_are_what_pulls_answer_with_the_receipt_as_their_id() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let mut events = Events::begin(&app, "").await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, private"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(events.answer.headers()[name], value);
    }

    let first = events.next().await;
    publish(&app, json!([{"text": "line\nanother \u{2028} one"}])).await;
    let second = events.next().await;

    assert_eq!(first.data["payload"], json!({"n": 1}));
    assert_eq!(first.data["receipt"], first.id);
    assert_eq!(
        second.data["payload"],
        json!({"text": "line\nanother \u{2028} one"})
    );
    let mut fields: Vec<_> = first.data.as_object().unwrap().keys().collect();
    fields.sort();
    drop(events);
    until(&app, "available", 2).await;
    let pulled = pull(&app).await;
    let mut of_pull: Vec<_> = pulled.as_object().unwrap().keys().collect();
    of_pull.sort();
    assert_eq!(fields, of_pull);
}

#[tokio::test]
async fn any_connection_settles_what_a_stream_was_sent() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}, {"n": 2}, {"n": 3}])).await;
    let mut events = Events::begin(&app, "?max_in_flight=2").await;
    let (first, second) = (events.next().await, events.next().await);
    let more = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
    assert!(more.is_err(), "it holds two: {more:?}");

    let settled = settle(
        &app,
        json!({"acks": [first.id], "nacks": [{"receipt": second.id, "delay_seconds": 0}]}),
    )
    .await;

    assert_eq!(
        (&settled[0]["status"], &settled[1]["status"]),
        (&json!("acked"), &json!("nacked"))
    );
    let mut rest = [events.next().await.data, events.next().await.data];
    rest.sort_by_key(|data| data["payload"]["n"].as_i64());
    let shown = rest.map(|data| {
        (
            data["payload"]["n"].clone(),
            data["delivery_attempts"].clone(),
        )
    });
    assert_eq!(shown, [(json!(2), json!(2)), (json!(3), json!(1))]);
}

#[tokio::test]
async fn what_is_not_settled_when_the_client_goes_is_there_at_once_and_was_not_delivered() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, json!([{"n": 1}, {"n": 2}, {"n": 3}])).await;
    let mut events = Events::begin(&app, "?ack_deadline_seconds=43200").await;
    let first = events.next().await;
    events.next().await;
    events.next().await;
    settle(&app, json!({"acks": [first.id]})).await;

    drop(events);

    until(&app, "available", 2).await;
    until(&app, "delivered", 0).await;
    let pulled = pull(&app).await;
    assert_eq!(
        (&pulled["payload"], &pulled["delivery_attempts"]),
        (&json!({"n": 2}), &json!(1))
    );
}

#[tokio::test]
async fn with_auto_ack_what_was_handed_over_is_acked() {
    let app = app_with(json!({})).await;
    publish(&app, (0..20).map(|n| json!({"n": n})).collect()).await;
    let mut events = Events::begin(&app, "?auto_ack=true&max_in_flight=3").await;

    for n in 0..20 {
        assert_eq!(events.next().await.data["payload"], json!({"n": n}));
    }

    until(&app, "acked", 20).await;
}

#[tokio::test]
async fn the_consumer_and_the_deadline_are_those_that_were_asked_for() {
    let app = app_with(json!({"ack_deadline_seconds": 10})).await;
    publish(&app, json!([{}, {}])).await;
    let query = "?consumer_id=worker-7&ack_deadline_seconds=3600&max_in_flight=1";
    let mut events = Events::begin(&app, query).await;
    let mut others = Events::begin(&app, "?max_in_flight=1").await;
    let (mine, other) = (events.next().await.data, others.next().await.data);

    let browsed = app.get("/subscriptions/s/browse?state=delivered").await;
    let browsed = browsed.expect(200).json();

    let holders: Vec<&Value> = browsed["data"].as_array().unwrap().iter().collect();
    let holder = |id: &Value| {
        let held = holders.iter().find(|held| held["id"] == *id).unwrap();
        held["consumer_id"].clone()
    };
    assert_eq!(holder(&mine["id"]), "worker-7");
    assert_eq!(holder(&other["id"]), "stream");
    assert!(mine["ack_deadline"].as_str() > other["ack_deadline"].as_str());
}

#[tokio::test]
async fn the_id_of_the_last_event_changes_nothing() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}, {"n": 2}])).await;
    let mut events = Events::begin(&app, "").await;
    let first = events.next().await;
    settle(&app, json!({"acks": [first.id]})).await;
    drop(events);
    until(&app, "available", 1).await;

    for last in [first.id.as_str(), "rubbish", ""] {
        let request = app.request("GET", "/subscriptions/s/stream");
        let mut events = Events::of(request.header("last-event-id", last)).await;
        assert_eq!(events.next().await.data["payload"], json!({"n": 2}));
        drop(events);
        until(&app, "available", 1).await;
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_told_before_it_begins() {
    let app = app_with(json!({})).await;
    app.get("/subscriptions/x/stream").await.expect(404);
    for (query, place) in [
        ("max_in_flight=0", "max_in_flight"),
        ("max_in_flight=1001", "max_in_flight"),
        ("auto_ack=perhaps", "auto_ack"),
        ("ack_deadline_seconds=0", "ack_deadline_seconds"),
        ("ack_deadline_seconds=43201", "ack_deadline_seconds"),
        ("consumer_id=", "consumer_id"),
        ("wait=1", "wait"),
        ("credit=1", "credit"),
    ] {
        let path = format!("/subscriptions/s/stream?{query}");
        let refused = app.get(&path).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"], json!(["query", place]));
    }
    let head = app.request("HEAD", "/subscriptions/s/stream");
    let head = crate::support::answer(head).await.expect(405);
    assert_eq!(head.header("allow"), Some("GET"));
}

#[tokio::test]
async fn a_stream_whose_subscription_is_deleted_says_so_and_ends() {
    let app = app_with(json!({})).await;
    let mut events = Events::begin(&app, "").await;
    watched_by(&app, 1).await;

    app.delete("/subscriptions/s").await.expect(204);

    let last = events.next_or_end().await.unwrap();
    assert_eq!(last.kind, "error");
    assert_eq!(last.data, json!({"detail": "Subscription not found"}));
    assert!(events.next_or_end().await.is_none());
    assert_eq!(events.text, "");
}

#[tokio::test]
async fn a_server_that_ends_says_when_to_come_back_and_leaves_nothing_in_flight() {
    let database = TestDatabase::create().await;
    let app = TestApp::start_on(database.share(), &[]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let other = TestApp::start_on(database.share(), &[]).await;
    let mut events = Events::begin(&app, "").await;
    events.next().await;
    let begun = std::time::Instant::now();

    drop(app);

    let rest = events.answer.text().await.unwrap();
    assert_eq!(rest, "retry: 1000\n\n");
    assert!(begun.elapsed() < SOON);
    until(&other, "delivered", 0).await;
    let mut events = Events::begin(&other, "").await;
    assert_eq!(events.next().await.data["delivery_attempts"], 1);
}

#[tokio::test]
async fn a_stream_is_counted_while_it_is_open_and_logged_as_a_request_when_it_ends() {
    let app = app_with(json!({})).await;
    let path = "path=\"/subscriptions/{id}/stream\",status=\"200\"";
    let counted = async || {
        let metrics = app.get("/metrics").await.expect(200).body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("http_requests_total") && line.contains(path));
        line.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .unwrap_or_default()
    };
    let events = Events::begin(&app, "").await;
    let metrics = app.get("/metrics").await.expect(200).body;
    // other tests of this process have streams, too
    let open = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pubsub_open_streams{kind=\"sse\"} "))
        .unwrap();
    assert!(open.parse::<f64>().unwrap() >= 1.0, "{open}");
    let before = counted().await;

    drop(events);

    let begun = std::time::Instant::now();
    while counted().await <= before {
        assert!(begun.elapsed() < SOON);
    }
}
