//! Streams over real sockets: Server-Sent Events and WebSockets.

mod behind;
mod ends;
mod events;
mod expiry;
mod sockets;
mod tokens;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::TestApp;

/// No test needs that long.
const SOON: Duration = Duration::from_secs(15);

/// Topic `t` with subscription `s`.
async fn app_with(fields: Value) -> TestApp {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", fields).await;
    app
}

async fn publish(app: &TestApp, payloads: Value) {
    app.post("/topics/t/messages", payloads).await.expect(204);
}

async fn settle(app: &TestApp, body: Value) -> Value {
    let settled = app.post("/subscriptions/s/settle", body).await;
    settled.expect(200).json()["results"].clone()
}

/// One message, pulled at once.
async fn pull(app: &TestApp) -> Value {
    // a claim of a client that has gone may be on its way to give back
    let body = json!({"consumer_id": "c", "max_messages": 1, "wait_seconds": 10});
    let pulled = app.post("/subscriptions/s/pull", body).await;
    pulled.expect(200).json()["messages"][0].clone()
}

/// Wait until so many messages of `s` are in a state.
async fn until(app: &TestApp, state: &str, count: i64) {
    let begun = Instant::now();
    loop {
        let metrics = app.get("/subscriptions/s/metrics").await.expect(200).json();
        if metrics[state] == count {
            return;
        }
        assert!(begun.elapsed() < SOON, "{state} {count}: {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An event, as far as it has fields.
#[derive(Debug)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

/// The events of an answer, as far as they came.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn begin(app: &TestApp, query: &str) -> Self {
        let path = format!("/subscriptions/s/stream{query}");
        Self::of(app.request("GET", &path)).await
    }

    async fn of(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Self {
            answer,
            text: String::new(),
        }
    }

    /// The next event; none at the end.
    async fn next_or_end(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(str::to_owned)
                };
                if let Some(data) = field("data: ") {
                    return Some(Event {
                        kind: field("event: ").unwrap(),
                        id: field("id: ").unwrap_or_default(),
                        data: serde_json::from_str(&data).unwrap(),
                    });
                }
            }
            let chunk = tokio::time::timeout(2 * SOON, self.answer.chunk());
            let chunk = chunk.await.expect("nothing comes").ok().flatten()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// The next message.
    async fn next(&mut self) -> Event {
        let event = self.next_or_end().await.expect("it goes on");
        assert_eq!(event.kind, "message", "{event:?}");
        event
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn socket_request(app: &TestApp, query: &str) -> tungstenite::handshake::client::Request {
    let url = app.url.replace("http://", "ws://");
    let url = format!("{url}/subscriptions/s/ws{query}");
    url.into_client_request().unwrap()
}

async fn connect(app: &TestApp, query: &str) -> Socket {
    connect_async(socket_request(app, query)).await.unwrap().0
}

/// The status that an opening is refused with.
async fn refused(request: tungstenite::handshake::client::Request) -> (u16, String) {
    let Err(tungstenite::Error::Http(refused)) = connect_async(request).await else {
        panic!("it is open")
    };
    let body = refused.body().clone().unwrap_or_default();
    (
        refused.status().as_u16(),
        String::from_utf8_lossy(&body).into_owned(),
    )
}

/// The next text on a socket, or the code and reason of its close.
async fn hear_or_close(socket: &mut Socket) -> Result<Value, (u16, String)> {
    loop {
        let next = tokio::time::timeout(2 * SOON, socket.next()).await;
        match next.expect("nothing comes").unwrap().unwrap() {
            Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(Some(close)) => {
                return Err((close.code.into(), close.reason.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn hear(socket: &mut Socket) -> Value {
    hear_or_close(socket).await.unwrap()
}

async fn send(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

async fn say(socket: &mut Socket, frame: Value) -> Value {
    send(socket, frame).await;
    hear(socket).await
}
