//! Clients that ask and do not read, or do not even ask; and how many there may be.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::database::TestDatabase;
use crate::support::{TestApp, answer};

/// Far more than sockets can hold.
const LARGE: &str = "GET /redoc/redoc.standalone.js HTTP/1.1\r\nHost: x\r\n\r\n";

async fn app(connections: usize, idle_ms: u64, stalled_ms: u64) -> TestApp {
    let database = TestDatabase::create().await;
    TestApp::start_limited(database, &[], |limits| {
        limits.connections = connections;
        limits.idle = Duration::from_millis(idle_ms);
        limits.stalled = Duration::from_millis(stalled_ms);
        limits.idle_in_crowd = Duration::from_millis(500);
    })
    .await
}

/// What a new connection of its own is answered.
async fn status_of(app: &TestApp, path: &str) -> (u16, String) {
    let mut stream = app.narrow().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    (status, text)
}

/// Wait until there is room for one more.
async fn room(app: &TestApp) {
    let asking = async {
        while status_of(app, "/topics").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, asking)
        .await
        .expect("the connections are given up");
}

#[tokio::test]
async fn clients_that_ask_and_never_read_are_given_up() {
    let app = app(10, 60_000, 500).await;
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut stream = app.narrow().await;
        stream.write_all(LARGE.repeat(20).as_bytes()).await.unwrap();
        deaf.push(stream);
    }

    room(&app).await;

    drop(deaf);
}

#[tokio::test]
async fn clients_that_ask_nothing_are_given_up() {
    for beginning in [
        "",
        "GET /top",
        "GET /topics HTTP/1.1\r\nHost: x\r\nA: ",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
        "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let app = app(3, 500, 60_000).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            let mut stream = app.narrow().await;
            stream.write_all(beginning.as_bytes()).await.unwrap();
            silent.push(stream);
        }

        room(&app).await;

        drop(silent);
    }
}

#[tokio::test]
async fn who_waits_for_messages_or_sends_them_slowly_is_not_given_up() {
    let app = app(100, 300, 300).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let pull = json!({"consumer_id": "c", "wait_seconds": 2});
    let mut slow = app.narrow().await;
    let head = "POST /topics/t/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();

    let pulled = app.post("/subscriptions/s/pull", pull).await.expect(200);

    assert_eq!(pulled.json()["messages"], json!([]));
    slow.write_all(b"[{\"a\":1}]").await.unwrap();
    let mut begun = [0; 12];
    slow.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 204");
}

#[tokio::test]
async fn beyond_the_limit_only_the_probes_are_answered_and_others_come_back_later() {
    let app = app(4, 60_000, 60_000).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(app.narrow().await);
    }
    // more than are told so at a time
    for _ in 0..100 {
        idle.push(app.narrow().await);
    }

    for path in ["/liveness", "/readiness", "/metrics"] {
        assert_eq!(status_of(&app, path).await.0, 200, "{path}");
    }
    let (status, text) = status_of(&app, "/topics").await;
    assert_eq!(status, 503, "{text}");
    let text = text.to_ascii_lowercase();
    assert!(text.contains("\r\nretry-after: 1\r\n"), "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert!(text.contains("\r\nx-request-id: "), "{text}");
    assert!(text.contains("fastpubsub_api_max_connections"), "{text}");
    idle.clear();
    room(&app).await;
}

fn http2() -> reqwest::Client {
    reqwest::Client::builder()
        .http2_prior_knowledge()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_beside_http_1() {
    let app = app(100, 60_000, 60_000).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let client = http2();
    let url = |path: &str| format!("{}{path}", app.url);
    let messages = json!([{"payload": {"text": "x".repeat(500_000)}}]);
    let body = json!({"messages": messages});

    let publish = client.post(url("/topics/t/publish")).json(&body);
    let published = publish.send().await.unwrap();
    assert_eq!(published.version(), reqwest::Version::HTTP_2);
    assert_eq!(published.status(), 201);
    let pull = json!({"consumer_id": "c", "wait_seconds": 1});
    let pull = client.post(url("/subscriptions/s/pull")).json(&pull);
    let pulled = answer(pull).await.expect(200).json();
    assert_eq!(pulled["messages"][0]["payload"], messages[0]["payload"]);
    for path in ["/topics/t", "/liveness", "/openapi.json"] {
        let head = client.head(url(path)).send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
    }
    let long = "x".repeat(70_000);
    let topic = client.post(url("/topics")).json(&json!({"id": long}));
    answer(topic).await.expect(413);
    // more at once than one connection may have open
    let many = (0..200).map(|_| answer(client.get(url("/topics/t"))));
    for one in many.map(tokio::spawn).collect::<Vec<_>>() {
        one.await.unwrap().expect(200);
    }
}

/// The frames of HTTP/2 by hand: settings, and a request for something large on each of many streams.
#[tokio::test]
async fn http_2_clients_that_never_read_are_given_up() {
    let app = app(5, 60_000, 500).await;
    let mut deaf = Vec::new();
    for _ in 0..5 {
        let mut stream = app.narrow().await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let path = b"/redoc/redoc.standalone.js";
        // GET, http and a path, of which the first two are in the static table
        let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path);
        block.extend(b"\x41\x01x");
        for number in (1u32..=39).step_by(2) {
            bytes.extend(&u32::try_from(block.len()).unwrap().to_be_bytes()[1..]);
            bytes.extend([0x01, 0x05]);
            bytes.extend(number.to_be_bytes());
            bytes.extend(&block);
        }
        stream.write_all(&bytes).await.unwrap();
        deaf.push(stream);
    }

    room(&app).await;

    drop(deaf);
}
