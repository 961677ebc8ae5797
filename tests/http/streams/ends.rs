//! How streams end, and what becomes of what their clients had, or had said, by then.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Events, Socket, app_with, connect, hear, publish, pull, until};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

/// More than are answered at a time.
const MANY: usize = 300;

/// A client that was sent many messages and has acked them all, and has heard no answer.
async fn acking(app: &TestApp) -> Socket {
    let payloads: Vec<_> = (0..MANY).map(|n| json!({"n": n})).collect();
    publish(app, json!(payloads)).await;
    let mut socket = connect(app, "?max_in_flight=1000").await;
    let mut receipts = Vec::new();
    while receipts.len() < MANY {
        receipts.push(hear(&mut socket).await["receipt"].clone());
    }
    for receipt in receipts {
        let ack = json!({"type": "ack", "receipt": receipt});
        socket.feed(Message::text(ack.to_string())).await.unwrap();
    }
    socket
}

#[tokio::test]
async fn what_a_client_said_before_it_left_is_done_though_it_takes_no_answer() {
    let app = app_with(json!({})).await;
    let mut socket = acking(&app).await;

    socket.send(Message::Close(None)).await.unwrap();
    // answers that are not read reset the connection
    drop(socket);

    until(&app, "acked", i64::try_from(MANY).unwrap()).await;
}

#[tokio::test]
async fn what_was_said_before_the_server_ends_is_done_and_answered() {
    let database = TestDatabase::create().await;
    let app = TestApp::start_on(database.share(), &[]).await;
    let other = TestApp::start_on(database.share(), &[]).await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let mut socket = acking(&app).await;

    socket.flush().await.unwrap();
    app.stop();

    let mut acked = 0;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let told: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(told["status"], "acked");
                acked += 1;
            }
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1001);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(acked, MANY);
    until(&other, "acked", i64::try_from(MANY).unwrap()).await;
}

/// Publish more than is handed over as one piece.
async fn publish_pieces(app: &TestApp) {
    let text = "x".repeat(2000);
    let payloads: Vec<_> = (0..100).map(|n| json!({"n": n, "text": text})).collect();
    publish(app, json!(payloads)).await;
}

/// Nothing is in flight any more, and what the client had is not there again.
async fn was_once(app: &TestApp) {
    until(app, "delivered", 0).await;
    let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
    if metrics["available"] != 0 {
        let first = pull(app).await;
        assert_ne!(first["payload"]["n"], 0, "{metrics}");
    }
}

#[tokio::test]
async fn with_auto_ack_what_a_client_read_before_it_left_never_comes_again() {
    let app = app_with(json!({})).await;
    publish_pieces(&app).await;
    let mut events = Events::begin(&app, "?auto_ack=true").await;
    assert_eq!(events.next().await.data["payload"]["n"], 0);

    drop(events);

    was_once(&app).await;
}

#[tokio::test]
async fn with_auto_ack_what_came_on_a_socket_never_comes_again() {
    let app = app_with(json!({})).await;
    publish_pieces(&app).await;
    let mut socket = connect(&app, "?auto_ack=true").await;
    assert_eq!(hear(&mut socket).await["payload"]["n"], 0);

    drop(socket);

    was_once(&app).await;
}
