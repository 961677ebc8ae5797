//! What a request may cost: how long its body may be, and how much of it an answer repeats.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bodies::{limit, routes};
use super::{app, assert_refused, assert_unharmed, contents, request, send};
use crate::support::{TestApp, answer};

/// A body that is as expensive as can be: a tree of it is two hundred times as large.
fn bomb(bytes: usize) -> Vec<u8> {
    format!("[{}0]", "{\"\":0},".repeat(bytes / 7 - 1)).into_bytes()
}

async fn connect(app: &TestApp) -> TcpStream {
    let address = app.url.trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_sent() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for (method, path) in routes() {
        let length = limit(&path) + 1;
        let mut stream = connect(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 413 "), "{method} {path}: {text}");
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn a_refusal_shows_no_more_than_the_beginning_of_what_was_given() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for (method, path) in routes() {
        let bodies = [
            bomb(limit(&path)),
            format!(
                "{{\"x\": {}}}",
                String::from_utf8(bomb(limit(&path) - 10)).unwrap()
            )
            .into(),
            format!("\"{}\"", "x".repeat(limit(&path) - 10)).into_bytes(),
            format!("{{\"{}\": 0}}", "x".repeat(limit(&path) - 10)).into_bytes(),
        ];
        for body in bodies {
            // settings of clients take any field
            let answer = send(&app, request(method, &path, "", &body)).await;
            assert_refused(&answer, 422, &format!("{method} {path}"));
            let most = 300_000;
            assert!(answer.body.len() < most, "{path}: {}", answer.body.len());
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn a_compressed_body_is_415() {
    let app = app().await;

    for (method, path) in routes() {
        for encoding in ["gzip", "br", "identity, gzip"] {
            let headers = format!("Content-Encoding: {encoding}\r\n");
            let answer = send(&app, request(method, &path, &headers, b"x")).await;
            assert_refused(&answer, 415, &format!("{method} {path}"));
        }
    }
    let plain = "Content-Encoding: identity\r\n";
    let topic = request("POST", "/topics", plain, b"{\"id\": \"u\"}");
    assert_eq!(send(&app, topic).await.status, 201);
}

#[tokio::test]
async fn nobody_without_a_token_is_listened_to() {
    let app = TestApp::start_with_auth("topics:read").await;

    for (method, path) in routes() {
        if path == "/oauth/token" {
            continue;
        }
        let mut stream = connect(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Length: 100\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 401 "), "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn bodies_in_flight_have_a_limit_that_small_ones_do_not_meet() {
    let flags = ["--api-max-body-bytes", "1048576"];
    let more = ["--api-max-body-bytes-in-flight", "1048576"];
    let app = TestApp::start_with(&[flags, more].concat()).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let mut slow = connect(&app).await;
    let body = format!("[{{\"a\": \"{}\"}}]", "x".repeat(900_000));
    let head = format!(
        "POST /topics/t/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&body.as_bytes()[..1000]).await.unwrap();
    let publish = || {
        let request = app.request("POST", "/topics/t/messages");
        answer(request.body(body.clone()))
    };

    // a request that comes later can be taken first
    let refused = loop {
        let answer = publish().await;
        if answer.status != 204 {
            break answer;
        }
    };

    let refused = refused.expect(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let small = json!([{"a": 1}]);
    app.post("/topics/t/messages", small).await.expect(204);
    slow.write_all(&body.as_bytes()[1000..]).await.unwrap();
    let mut begun = [0; 12];
    slow.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 204");
    publish().await.expect(204);
}

#[tokio::test]
async fn what_only_reads_can_be_asked_for_without_its_body() {
    let app = app().await;

    for path in [
        "/topics",
        "/topics/t",
        "/subscriptions/s",
        "/subscriptions/s/metrics",
        "/subscriptions/s/dlq",
        "/liveness",
        "/readiness",
        "/metrics",
        "/docs",
        "/docs/swagger-ui.css",
        "/openapi.json",
    ] {
        let get = app.get(path).await.expect(200);
        let head = answer(app.request("HEAD", path)).await.expect(200);
        assert_eq!(head.body, "", "{path}");
        let kind =
            |answer: &crate::support::Answer| answer.header("content-type").map(str::to_owned);
        assert_eq!(kind(&head), kind(&get), "{path}");
    }
    let missing = answer(app.request("HEAD", "/topics/missing")).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn pages_of_the_origins_that_are_set_may_call_the_api() {
    let flags = [
        "--api-cors-origins",
        "https://app.example.com, http://localhost:3000",
    ];
    let app = TestApp::start_with(&flags).await;
    let from = |method: &str, path: &str, origin: &str| {
        let request = app.request(method, path).header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        answer(request.header(
            "Access-Control-Request-Headers",
            "authorization,content-type,idempotency-key",
        ))
    };

    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let preflight = from("OPTIONS", "/topics/t/publish", origin)
            .await
            .expect(200);
        let allowed = |name: &str| {
            preflight
                .header(name)
                .unwrap_or_default()
                .to_ascii_lowercase()
        };
        assert_eq!(allowed("access-control-allow-origin"), origin);
        assert!(allowed("access-control-allow-methods").contains("post"));
        assert!(allowed("access-control-allow-headers").contains("idempotency-key"));
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
        let get = from("GET", "/topics", origin).await.expect(200);
        assert_eq!(get.header("access-control-allow-origin"), Some(origin));
        let exposed = get.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"));
    }
    let other = from("GET", "/topics", "https://evil.example.com")
        .await
        .expect(200);
    assert_eq!(other.header("access-control-allow-origin"), None);
    let any = TestApp::start_with(&["--api-cors-origins", "*"]).await;
    let get = any
        .request("GET", "/nope")
        .header("Origin", "https://x.example");
    let get = answer(get).await.expect(404);
    assert_eq!(get.header("access-control-allow-origin"), Some("*"));
    let none = TestApp::start().await;
    let options = none
        .request("OPTIONS", "/topics")
        .header("Origin", "https://x.example");
    answer(options).await.expect(405);
}

/// A slow client must not end with less than the whole answer.
#[tokio::test]
async fn requests_on_one_connection_are_answered_one_after_the_other() {
    let app = app().await;
    let mut stream = connect(&app).await;
    let one = "GET /topics/t HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /topics/t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    let requests = format!("{}{last}", one.repeat(49));
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 50);
    let bodies: Vec<Value> = text
        .split("\r\n\r\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("HTTP/").next().unwrap()).unwrap())
        .collect();
    assert!(bodies.iter().all(|topic| topic["id"] == "t"));
}

/// Refused before its body is read: no such token.
#[tokio::test]
async fn whoever_is_refused_before_the_body_is_read_can_go_on_with_the_connection() {
    let app = TestApp::start_with_auth("*").await;
    for length in [100, 100_000, 5_000_000] {
        let mut stream = connect(&app).await;
        let head = format!(
            "POST /topics/t/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        stream.write_all(&vec![b' '; length]).await.unwrap();
        let next = "GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(next.as_bytes()).await.unwrap();

        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();

        assert!(text.starts_with("HTTP/1.1 401 "), "{length}: {text}");
        assert!(text.contains("HTTP/1.1 200 OK"), "{length}: {text}");
    }
}

#[tokio::test]
async fn whoever_asks_first_and_is_refused_is_told_that_the_connection_ends() {
    let app = TestApp::start_with_auth("*").await;
    let mut stream = connect(&app).await;
    let head = "POST /topics/t/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\n\
        Expect: 100-continue\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();

    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();

    assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
    assert!(text.contains("connection: close"), "{text}");
}
