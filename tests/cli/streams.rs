//! A server is killed while a thousand clients stream: nothing is lost.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{PATIENCE, Sandbox};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

const STREAMS: usize = 1000;
const MESSAGES: usize = 2500;

/// Read events until one is there, then go on until the connection ends; what came.
async fn stream(address: String) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let path = "/subscriptions/s/stream?max_in_flight=3&ack_deadline_seconds=60";
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let _reset = socket.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn what_a_thousand_streams_held_when_their_server_was_killed_is_delivered_again() {
    let database = TestDatabase::create().await;
    let other = TestApp::start_on(database.share(), &[]).await;
    other.topic_with_subscription("t", "s", json!({})).await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox.serve(&[]).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(stream(address.clone()));
    }
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(500) {
        let payloads: Value = chunk.iter().map(|n| json!({"n": n})).collect();
        server
            .post("/topics/t/messages", payloads)
            .await
            .expect(204);
    }
    let held = async || {
        let metrics = other
            .get("/subscriptions/s/metrics")
            .await
            .expect(200)
            .json();
        usize::try_from(metrics["delivered"].as_u64().unwrap()).unwrap()
    };
    let all_held = async {
        while held().await < MESSAGES {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_held).await.unwrap();

    server.signal(Signal::SIGKILL);
    server.exits_within(PATIENCE).await;

    let mut seen = HashMap::<u64, u64>::new();
    while let Some(text) = streams.join_next().await {
        for data in text
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
        {
            // the last line may be cut off
            if let Ok(message) = serde_json::from_str::<Value>(data) {
                *seen
                    .entry(message["payload"]["n"].as_u64().unwrap())
                    .or_default() += 1;
            }
        }
    }
    assert!(seen.len() > MESSAGES / 2, "{}", seen.len());
    assert!(
        seen.values().all(|times| *times == 1),
        "each had one holder"
    );
    // nobody gives back what a dead server held: the leases end by themselves
    assert_eq!(held().await, MESSAGES);
    other.pass_seconds(61.0).await;
    let mut again = HashMap::<u64, u64>::new();
    while again.len() < MESSAGES {
        let body = json!({"consumer_id": "c", "max_messages": 1000, "wait_seconds": 10});
        let pulled = other
            .post("/subscriptions/s/pull", body)
            .await
            .expect(200)
            .json();
        let messages = pulled["messages"].as_array().unwrap();
        assert!(
            !messages.is_empty(),
            "{} of {MESSAGES} came again",
            again.len()
        );
        let receipts: Vec<&Value> = messages.iter().map(|message| &message["receipt"]).collect();
        for message in messages {
            assert_eq!(message["delivery_attempts"], 2);
            *again
                .entry(message["payload"]["n"].as_u64().unwrap())
                .or_default() += 1;
        }
        let acks = json!({"acks": receipts});
        other
            .post("/subscriptions/s/settle", acks)
            .await
            .expect(200);
    }
    assert!(again.values().all(|times| *times == 1));
}
