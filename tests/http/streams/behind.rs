//! Clients that do not read.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::{app_with, connect, hear, publish, until};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

/// Open a stream on a connection on which little fits, and read no more than its begin.
async fn neglected(app: &TestApp, subscription: &str) -> TcpStream {
    let mut socket = app.narrow().await;
    let head = format!(
        "GET /subscriptions/{subscription}/stream?max_in_flight=1000 HTTP/1.1\r\nHost: h\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 1000];
    socket.read_exact(&mut begin).await.unwrap();
    socket
}

/// Wait until nothing more of a subscription is handed out.
async fn settled_down(app: &TestApp, subscription: &str) -> i64 {
    let mut before = -1;
    loop {
        let path = format!("/subscriptions/{subscription}/metrics");
        let metrics = app.get(&path).await.expect(200).json();
        let delivered = metrics["delivered"].as_i64().unwrap();
        if delivered == before && delivered > 0 {
            return delivered;
        }
        before = delivered;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_pull_of_others() {
    let app = app_with(json!({})).await;
    let large = json!({"text": "x".repeat(500_000)});
    for _ in 0..6 {
        publish(&app, json!(vec![&large; 16])).await;
    }
    // more than have all bytes of answers, if each has as many as an answer
    let mut neglecting = Vec::new();
    for _ in 0..8 {
        neglecting.push(neglected(&app, "s").await);
    }
    let held = settled_down(&app, "s").await;
    assert!(held < 96, "what the system holds for a connection, and one");

    app.topic_with_subscription("other", "p", json!({})).await;
    for _ in 0..2 {
        let bodies = json!(vec![&large; 16]);
        app.post("/topics/other/messages", bodies).await.expect(204);
    }
    for _ in 0..2 {
        let pull = json!({"consumer_id": "c", "max_messages": 16});
        let pulled = app.post("/subscriptions/p/pull", pull).await.expect(200);
        assert_eq!(pulled.json()["messages"].as_array().unwrap().len(), 16);
    }

    drop(neglecting);
    until(&app, "available", 96).await;
}

async fn impatient(behind: Duration) -> TestApp {
    let database = TestDatabase::create().await;
    let app = TestApp::start_limited(database, &[], |limits| limits.behind = behind).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let large = json!({"text": "x".repeat(30_000)});
    for _ in 0..5 {
        publish(&app, json!(vec![&large; 200])).await;
    }
    app
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_broken_off_and_what_it_held_is_there_again() {
    let app = impatient(Duration::from_millis(300)).await;
    let mut socket = neglected(&app, "s").await;

    until(&app, "available", 1000).await;

    // what was under way, and then nothing
    let mut rest = Vec::new();
    let _reset = socket.read_to_end(&mut rest).await;
    assert!(rest.len() < 29_000_000, "{}", rest.len());
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "it looks whole");
}

#[tokio::test]
async fn a_socket_that_is_not_read_is_closed_with_try_again_later() {
    let app = impatient(Duration::from_secs(2)).await;
    let mut socket = connect(&app, "?max_in_flight=1000").await;

    hear(&mut socket).await;

    // it is not read any more
    until(&app, "available", 1000).await;

    let mut messages = 1;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(_) => messages += 1,
            Message::Ping(_) => {}
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1013);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(messages < 1000, "{messages}");
}

#[tokio::test]
async fn a_stream_that_is_read_slowly_goes_on() {
    let app = impatient(Duration::from_millis(700)).await;
    let mut socket = TcpStream::connect(app.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = "GET /subscriptions/s/stream?max_in_flight=1000 HTTP/1.1\r\nHost: h\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut piece = vec![0; 500_000];

    // so long that who reads nothing was broken off
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        socket.read_exact(&mut piece).await.unwrap();
    }
}
