//! Random requests and frames, composed of parts that are each plausible or hostile.

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio_tungstenite::tungstenite::Message;

use super::door;
use crate::support::random::filled;

const PATHS: &[(&str, &str)] = &[
    ("POST", "/api/v1/messages"),
    ("POST", "/api/v1/messages"),
    ("POST", "/api/v1/messages/bulk"),
    ("POST", "/api/v1/messages/bulk"),
    ("GET", "/api/v1/messages/poll"),
    ("GET", "/api/v1/messages/poll"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/ws"),
    ("GET", "/%00"),
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH"];
const QUERIES: &[&str] = &[
    "",
    "?topics=X&timeout=0",
    "?topics=a&timeout=0&after=X",
    "?topics=a,X&timeout=0&limit=X",
    "?topics=a&timeout=0&after=msg_01932c070a00700080000123456789ab",
    "?topics=a&timeout=X",
    "?%00=%zz&&=",
];
const BODIES: &[&str] = &[
    "",
    r#"{"topic": X, "payload": X}"#,
    r#"{"topic": "a", "payload": {"a": X}}"#,
    r#"{"topic": "a", "payload": {}, "ttl": X}"#,
    r#"{"topic": "a", "payload": {}, "metadata": X}"#,
    r#"{"topic": "a", "payload": {}, "metadata": {"a": X, "pulsar/x": "y"}}"#,
    r#"{"topic": "a", "topic": X, "payload": {}, "payload": X}"#,
    r#"{"messages": [X, {"topic": "a", "payload": {}}]}"#,
    r#"{"messages": [{"topic": "a", "payload": {}}, {"topic": X, "payload": {}, "ttl": X}]}"#,
    r#"{"messages": [{"topic": "a", "payload": {"n": 1}}]}"#,
    r#"{"messages": X}"#,
    "[X",
    "X",
];
const FRAMES: &[&str] = &[
    r#"{"type": "ping"}"#,
    r#"{"type": X}"#,
    r#"{"type": "ack", "message_id": X}"#,
    r#"{"type": "subscribe", "topics": [X, "a"], "client_id": X}"#,
    r#"{"type": "subscribe", "topics": ["a"], "client_id": "c", "offset": X}"#,
    r#"{"type": "subscribe", "topics": ["b"], "client_id": "c", "offset": "earliest", "token": X}"#,
    r#"{"type": "unsubscribe", "topics": [X]}"#,
    r#"{"type": "unsubscribe", "topics": X}"#,
    "X",
    "[X",
];

#[tokio::test]
async fn no_request_is_a_defect() {
    let door = door().await;
    let mut random = StdRng::seed_from_u64(13);
    let client = reqwest::Client::new();
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..2000 {
        let place = &door.places()[n % 2];
        let (fitting, path) = PATHS.choose(&mut random).unwrap();
        let query = QUERIES.choose(&mut random).unwrap();
        let query = filled(&mut random, query).replace(' ', "+");
        // a wait would be one
        let query = query
            .replace("timeout=true", "timeout=0")
            .replace("timeout=m", "timeout=0");
        let method = match random.random_bool(0.9) {
            true => fitting,
            false => METHODS.choose(&mut random).unwrap(),
        };
        let query = match *path {
            "/api/v1/messages/poll" if query.is_empty() => "?timeout=0".to_owned(),
            _ => query,
        };
        let body = BODIES.choose(&mut random).unwrap();
        let body = filled(&mut random, body);
        let url = format!("{}{path}{query}", place.url);
        let Ok(url) = url.parse::<reqwest::Url>() else {
            continue;
        };
        let mut request = client
            .request(method.parse().unwrap(), url)
            .body(body.clone());
        if random.random_bool(0.9) {
            request = request.header("Content-Type", "application/json");
        }

        let answer = place.answer(request).await;

        assert!(
            answer.status < 500,
            "{method} {path}{query} {body}: {}",
            answer.body
        );
        *seen.entry(answer.status).or_insert(0) += 1;
    }
    for status in [200, 201, 207, 405, 422] {
        assert!(
            seen.get(&status).is_some_and(|count| *count > 20),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn no_frame_breaks_a_connection_that_is_subscribed() {
    let door = door().await;
    let [place, _] = door.places();
    let mut random = StdRng::seed_from_u64(14);
    let mut socket = place.subscribe(&["a"], "last").await;
    for _ in 0..1000 {
        let frame = FRAMES.choose(&mut random).unwrap();
        let frame = filled(&mut random, frame);
        socket.0.send(Message::text(frame)).await.unwrap();
    }
    socket
        .say(&serde_json::json!({"type": "unsubscribe", "topics": ["last one"]}))
        .await;
    let mut answers = 0;
    loop {
        let answer = socket.hear().await;
        answers += 1;
        if answer["topics"] == serde_json::json!(["last one"]) {
            break;
        }
    }
    assert!(answers > 700, "{answers}");
}
