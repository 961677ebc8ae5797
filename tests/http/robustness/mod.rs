//! Hostile requests: whatever arrives, no answer is a 5xx, a refusal changes nothing, and the next
//! request is served. The bytes of the requests are written by hand, as no HTTP client would.

mod bodies;
mod connections;
mod fuzz;
mod limits;
mod moved;
mod protocol;
mod queries;
mod sizes;
mod targets;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use fastpubsub::db::database::Database;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

/// A client id that no client has.
const UNKNOWN_CLIENT: &str = "01890000-0000-7000-8000-000000000000";

/// Topic `t`, subscription `s` with a leased and an available message, and a signing key.
async fn app() -> TestApp {
    let flags = ["--auth-secret-key", crate::support::SECRET_KEY];
    let app = TestApp::start_with(&flags).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages", json!([{"a": 1}, {"a": 2}]))
        .await
        .expect(204);
    app.get("/subscriptions/s/messages?consumer_id=c&batch_size=1")
        .await
        .expect(200);
    app
}

/// The bytes of a request, on a connection that ends with it.
fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

/// What a server answers to bytes until it closes the connection; with `end`, the client closes its
/// half after the last byte.
async fn exchange(app: &TestApp, bytes: Vec<u8>, end: bool) -> Vec<u8> {
    let address = app.url.trim_start_matches("http://").to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // a server may answer and close before it has read everything
        let sent = stream.write_all(&bytes);
        if end && sent.is_ok() {
            let _closed_already = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _reset_after_the_answer = stream.read_to_end(&mut answer);
        answer
    })
    .await
    .unwrap()
}

/// Send a request and read its answer.
async fn send(app: &TestApp, bytes: Vec<u8>) -> Answer {
    let shown = show(&bytes);
    let answer = exchange(app, bytes, false).await;
    parse(&answer).unwrap_or_else(|| panic!("no answer to {shown}: {}", show(&answer)))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value).ok()?,
        );
    }
    let body = String::from_utf8(bytes[end + 4..].to_vec()).ok()?;
    Some(Answer {
        status,
        headers,
        body,
    })
}

/// The start of a request or answer, for the message of a failure.
fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

/// Fail unless this is a refusal of ours with this status.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(
        answer.status,
        status,
        "{what}: {}",
        show(answer.body.as_bytes())
    );
    assert!(
        answer.header("x-request-id").is_some(),
        "{what}: no X-Request-ID"
    );
    let detail: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    let detail = &detail["detail"];
    assert!(
        detail.is_string() || detail.is_array(),
        "{what}: {}",
        answer.body
    );
}

/// How many rows each table has, and how many deliveries are leased.
async fn contents(pool: &Database) -> Vec<i64> {
    sqlx::query_scalar(
        "select array[(select count(*) from pubsub_data.topics), \
         (select count(*) from pubsub_data.subscriptions), \
         (select count(*) from pubsub_data.messages), \
         (select count(*) from pubsub_data.deliveries), \
         (select count(*) from pubsub_data.deliveries where lease is not null), \
         (select count(*) from pubsub_data.acked), \
         (select count(*) from pubsub_data.dead_letters), \
         (select count(*) from pubsub_data.clients)]",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// The service still serves, and nothing has changed since `before`.
async fn assert_unharmed(app: &TestApp, before: &[i64]) {
    app.get("/topics/t").await.expect(200);
    assert_eq!(contents(&app.pool()).await, before);
}
