//! The Pulsar Proxy door: what programs written for it see, at the mount and at a listener of the door's own.

mod auth;
mod ends;
mod frames;
mod ingest;
mod order;
mod polling;
mod random;
mod rates;
mod replay;
mod service;
mod two_servers;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Answer, TestApp, answer_at};

/// The door of a service.
struct Door {
    app: TestApp,
}

/// The door at one of its two places, with topics that nobody else uses.
struct Place<'a> {
    door: &'a Door,
    url: String,
    /// Where its document is.
    mount: &'static str,
    /// A topic.
    topic: String,
}

async fn door() -> Door {
    door_with(&[]).await
}

async fn door_with(more: &[&str]) -> Door {
    let mut flags = vec!["--pulsar-listen", "127.0.0.1:0"];
    flags.extend(more);
    Door {
        app: TestApp::start_with(&flags).await,
    }
}

impl Door {
    /// At the mount, and alone.
    fn places(&self) -> [Place<'_>; 2] {
        let alone = self.app.alone.clone().unwrap();
        [
            (format!("{}/pulsar", self.app.url), "", "mounted"),
            (alone, "/pulsar", "alone"),
        ]
        .map(|(url, mount, topic)| Place {
            door: self,
            url,
            mount,
            topic: topic.to_owned(),
        })
    }
}

impl Place<'_> {
    /// A request to a path behind the door's place, to be shaped.
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        reqwest::Client::new().request(method, format!("{}{path}", self.url))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        answer_at(self.mount, request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.answer(self.request("GET", path)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.answer(self.request("POST", path).json(body)).await
    }

    /// Send a message; what was answered.
    async fn send(&self, topic: &str, payload: Value) -> Value {
        let body = json!({"topic": topic, "payload": payload});
        self.post("/api/v1/messages", &body)
            .await
            .expect(201)
            .json()
    }

    /// Send one message after the other to the topic; their ids.
    async fn send_numbers(&self, numbers: std::ops::Range<i64>) -> Vec<Value> {
        let mut ids = Vec::new();
        for number in numbers {
            let sent = self.send(&self.topic, json!({"n": number})).await;
            ids.push(sent["message_id"].clone());
        }
        ids
    }

    async fn connect(&self, query: &str) -> Socket {
        let url = format!("{}/ws{query}", self.url.replace("http://", "ws://"));
        Socket(connect_async(url).await.unwrap().0)
    }

    /// A socket that is subscribed.
    async fn subscribe(&self, topics: &[&str], offset: &str) -> Socket {
        let mut socket = self.connect("").await;
        let answer = socket.ask(&subscribe(topics, offset)).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        socket
    }
}

fn subscribe(topics: &[&str], offset: &str) -> Value {
    json!({"type": "subscribe", "topics": topics, "client_id": "c", "offset": offset})
}

/// A WebSocket of a client.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// The next text, or how it was closed.
    async fn next(&mut self) -> Result<Value, u16> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(Some(close)))) => return Err(close.code.into()),
                    _ => return Err(0),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), next)
            .await
            .expect("a frame within 30 s")
    }

    /// The next text.
    async fn hear(&mut self) -> Value {
        self.next().await.unwrap()
    }

    async fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn ask(&mut self, frame: &Value) -> Value {
        self.say(frame).await;
        self.hear().await
    }

    /// The numbers of the next messages.
    async fn numbers(&mut self, count: usize) -> Vec<i64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let frame = self.hear().await;
            assert_eq!(frame["type"], "message", "{frame}");
            numbers.push(frame["payload"]["n"].as_i64().unwrap());
        }
        numbers
    }

    /// Nothing but the answer to a ping comes.
    async fn hears_nothing(&mut self) {
        let pong = self.ask(&json!({"type": "ping"})).await;
        assert_eq!(pong["type"], "pong", "{pong}");
    }
}

/// Wait until something holds.
async fn until<F: Future<Output = bool>>(what: impl Fn() -> F) {
    let begun = Instant::now();
    while !what().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never does");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The subscriptions that the door has in the engine.
async fn subscriptions(app: &TestApp) -> Vec<String> {
    let query = "select subscription_id from pubsub_data.subscriptions \
                 where subscription_id like 'pulsar/%'";
    sqlx::query_scalar(query)
        .fetch_all(&app.pool())
        .await
        .unwrap()
}

/// Where a refused request is wrong, and of which type.
fn faults(refused: &Answer) -> Vec<(String, String)> {
    let body = refused.json();
    let faults = body["detail"].as_array().unwrap();
    let loc = |fault: &Value| {
        let steps = fault["loc"].as_array().unwrap().iter();
        let steps = steps.map(|step| step.as_str().map_or(step.to_string(), str::to_owned));
        steps.collect::<Vec<_>>().join(".")
    };
    let kind = |fault: &Value| fault["type"].as_str().unwrap().to_owned();
    faults
        .iter()
        .map(|fault| (loc(fault), kind(fault)))
        .collect()
}
