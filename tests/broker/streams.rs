//! Streams: Server-Sent Events and WebSockets.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Door, KEY, Place, door, nothing};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

/// The events of an answer, as far as they came.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn begin(place: &Place<'_>, path: &str) -> Self {
        let request = place
            .request("GET", &format!("/api/v1{path}"))
            .bearer_auth(KEY)
            .header("accept", "text/event-stream");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// The next event: its id and its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.map(str::to_owned)
                };
                if field("event: ").as_deref() == Some("message") {
                    let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                    return (field("id: ").unwrap(), data);
                }
                continue;
            }
            let chunk = self.answer.chunk().await.unwrap().expect("it goes on");
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(place: &Place<'_>, path: &str) -> Socket {
    let url = format!("{}/api/v1{path}", place.url.replace("http://", "ws://"));
    let mut request = url.into_client_request().unwrap();
    let key = format!("Bearer {KEY}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    connect_async(request).await.unwrap().0
}

/// The next text on a socket.
async fn hear(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn say(socket: &mut Socket, frame: Value) -> Value {
    socket.send(Message::text(frame.to_string())).await.unwrap();
    hear(socket).await
}

/// Wait until a count of the queue is this.
async fn until(place: &Place<'_>, name: &str, count: i64) -> Value {
    let begun = Instant::now();
    loop {
        let stats = place.get(&place.queue("/stats")).await.expect(200).json();
        if stats[name] == count {
            return stats;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{name} {count}: {stats}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn events_come_as_they_are_published_and_are_done_then() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!("before")]).await;
        let mut events = Events::begin(&place, &place.queue("/stream")).await;
        let (id, first) = events.next().await;
        assert_eq!(
            (&first["message"], &first["retry"]),
            (&json!("before"), &json!(0))
        );
        assert_eq!(first["message_id"], id);
        place.publish(&[json!({"a": "line\nanother"})]).await;
        let (_, second) = events.next().await;
        assert_eq!(second["message"], json!({"a": "line\nanother"}));
        let stats = until(&place, "acked", 2).await;
        assert_eq!(
            (&stats["in_flight"], &stats["ready"]),
            (&json!(0), &json!(0))
        );

        drop(events);
        place.publish(&[json!("after")]).await;
        // whoever is gone takes nothing
        let begun = Instant::now();
        loop {
            let pulled = place.pull(&place.queue("")).await;
            if pulled["message"] == "after" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}

#[tokio::test]
async fn a_client_that_acks_itself_holds_no_more_than_it_may() {
    let door = door().await;
    for place in door.places() {
        place
            .publish(&[json!(1), json!(2), json!(3), json!(4)])
            .await;
        let path = place.queue("/stream?auto_ack=false&max_in_flight=2");
        let mut events = Events::begin(&place, &path).await;
        let (_, first) = events.next().await;
        let (_, second) = events.next().await;
        let more = tokio::time::timeout(Duration::from_millis(700), events.next()).await;
        assert!(more.is_err(), "{more:?}");
        assert_eq!(until(&place, "in_flight", 2).await["ready"], 2);

        assert_eq!(place.settle("/ack", &first, json!({})).await, "acked");
        let (_, third) = events.next().await;
        assert_eq!(third["message"], 3);

        drop(events);
        // at once, and as if it had not been delivered
        until(&place, "ready", 3).await;
        let pulled = place.pull(&place.queue("")).await;
        assert_eq!(
            (&pulled["message"], &pulled["retry"]),
            (&json!(2), &json!(0))
        );
        let old = json!({"delivery_tag": second["delivery_tag"]});
        place.post(&place.queue("/ack"), old).await.expect(404);
    }
}

#[tokio::test]
async fn a_socket_settles_what_comes_on_it() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1), json!(2), json!(3)]).await;
        let mut socket = connect(&place, &place.queue("/stream?max_in_flight=2")).await;
        let (first, second) = (hear(&mut socket).await, hear(&mut socket).await);
        assert_eq!(
            (&first["message"], &second["message"]),
            (&json!(1), &json!(2))
        );

        let tag = &first["delivery_tag"];
        let acked = json!({"type": "result", "delivery_tag": tag, "status": "acked"});
        assert_eq!(
            say(&mut socket, json!({"type": "ack", "delivery_tag": tag})).await,
            acked
        );
        let third = hear(&mut socket).await;
        assert_eq!(third["message"], 3);
        let unknown = say(&mut socket, json!({"type": "ack", "delivery_tag": tag})).await;
        assert_eq!(unknown["status"], "unknown");
        for frame in [
            json!({"type": "ack"}),
            json!({"type": "take", "delivery_tag": tag}),
            json!(5),
        ] {
            let refused = say(&mut socket, frame).await;
            assert_eq!(refused["type"], "error", "{refused}");
            assert!(refused["error"].is_string());
        }
        let nack = json!({"type": "nack", "delivery_tag": second["delivery_tag"]});
        assert_eq!(say(&mut socket, nack).await["status"], "requeued");
        let again = hear(&mut socket).await;
        assert_eq!((&again["message"], &again["retry"]), (&json!(2), &json!(1)));
        let nack = json!({
            "type": "nack", "delivery_tag": again["delivery_tag"], "requeue": false, "reason": "no",
        });
        assert_eq!(say(&mut socket, nack).await["status"], "retry");

        drop(socket);
        until(&place, "in_flight", 0).await;
        let pulled = place.pull(&place.queue("")).await;
        assert_eq!(
            (&pulled["message"], &pulled["retry"]),
            (&json!(3), &json!(0))
        );
    }
}

#[tokio::test]
async fn a_socket_may_have_all_acked_for_it() {
    let door = door().await;
    for place in door.places() {
        let all: Vec<_> = (0..20).map(|number| json!(number)).collect();
        place.publish(&all).await;
        let mut socket = connect(
            &place,
            &place.queue("/stream?auto_ack=true&max_in_flight=3"),
        )
        .await;
        for expected in &all {
            assert_eq!(&hear(&mut socket).await["message"], expected);
        }
        until(&place, "acked", 20).await;
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_topic_streams_one_subscription_or_all() {
    let door = door().await;
    for place in door.places() {
        let orders = place.subscribe("order.*").await;
        place.subscribe("payment.#").await;
        let one = place.topic(&format!("/stream?subscription_id={orders}"));
        let mut one = Events::begin(&place, &one).await;
        place.tell("payment.ok", json!("payment")).await;
        place.tell("order.created", json!("order")).await;
        let (_, event) = one.next().await;
        assert_eq!(event["message"], "order");
        assert_eq!(event["routing_key"], "order.created");
        assert_eq!(event["subscription_id"], orders);
        drop(one);

        let mut all = connect(&place, &place.topic("/stream")).await;
        let event = hear(&mut all).await;
        assert_eq!(event["message"], "payment");
        let ack = json!({"type": "ack", "delivery_tag": event["delivery_tag"]});
        assert_eq!(say(&mut all, ack).await["status"], "acked");
        place.tell("payment.late", json!("late")).await;
        assert_eq!(hear(&mut all).await["message"], "late");
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_client_may_consume_no_more() {
    let door = door().await;
    for place in door.places() {
        let settings = |scopes: &str| json!({"name": "n", "scopes": scopes, "api_key": true});
        let made = door.app.post("/clients", settings("broker:consume")).await;
        let made = made.expect(201).json();
        place.put(&place.queue("")).await.expect(201);
        let path = format!("/api/v1{}", place.queue("/stream"));
        let request = place
            .request("GET", &path)
            .bearer_auth(made["api_key"].as_str().unwrap());
        let stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200);

        let path = format!("/clients/{}", made["id"].as_str().unwrap());
        let less = json!({"name": "n", "scopes": "broker:publish"});
        door.app.put(&path, less).await.expect(200);

        let rest = stream.text().await.unwrap();
        assert!(rest.contains("event: error"), "{rest}");
        assert!(rest.contains("broker:consume is needed"), "{rest}");
        place.publish(&[json!(1)]).await;
        assert_eq!(place.pull(&place.queue("")).await["message"], 1);
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_told_before_it_begins() {
    let door = door().await;
    for place in door.places() {
        place.get(&place.queue("/stream")).await.expect(404);
        place.get(&place.topic("/stream")).await.expect(404);
        place.put(&place.topic("")).await;
        place
            .get(&place.topic("/stream?subscription_id=sub-1"))
            .await
            .expect(404);
        for query in ["max_in_flight=0", "max_in_flight=1001", "auto_ack=perhaps"] {
            place
                .get(&place.queue(&format!("/stream?{query}")))
                .await
                .expect(422);
        }
        place
            .send("wrong", "GET", &place.queue("/stream"), None)
            .await
            .expect(401);
        let url = format!(
            "{}/api/v1{}",
            place.url.replace("http://", "ws://"),
            place.queue("/stream")
        );
        let Err(tungstenite::Error::Http(refused)) = connect_async(url).await else {
            panic!("it is open")
        };
        assert_eq!(refused.status(), 401);
    }
}

#[tokio::test]
async fn streams_end_with_the_server_and_leave_nothing_in_flight() {
    let database = TestDatabase::create().await;
    let start = async || {
        let flags = ["--broker-api-key", KEY, "--broker-listen", "127.0.0.1:0"];
        Door {
            app: TestApp::start_on(database.share(), &flags).await,
        }
    };
    let door = start().await;
    let [place, _] = door.places();
    place.publish(&[json!(1), json!(2)]).await;
    let path = place.queue("/stream?auto_ack=false&max_in_flight=1");
    let mut events = Events::begin(&place, &path).await;
    events.next().await;
    let mut socket = connect(&place, &place.queue("/stream")).await;
    hear(&mut socket).await;

    drop(door);

    let rest = events.answer.text().await.unwrap();
    assert!(rest.ends_with("retry: 1000\n\n"), "{rest}");
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
        panic!("no close")
    };
    assert_eq!(u16::from(close.code), 1001);
    let door = start().await;
    let [place, _] = door.places();
    until(&place, "ready", 2).await;
    let mut pulled = [
        place.pull(&place.queue("")).await,
        place.pull(&place.queue("")).await,
    ];
    pulled.sort_by_key(|pulled| pulled["message"].as_i64());
    for (pulled, message) in pulled.iter().zip([1, 2]) {
        assert_eq!(
            (&pulled["message"], &pulled["retry"]),
            (&json!(message), &json!(0))
        );
    }
    assert_eq!(place.pull(&place.queue("")).await, nothing());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_sent_no_more() {
    let door = door().await;
    let [place, _] = door.places();
    let large = json!("x".repeat(500_000));
    place.publish(&vec![large; 60]).await;
    let mut socket = door.app.narrow().await;
    let head = format!(
        "GET /broker/api/v1{} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n",
        place.queue("/stream?max_in_flight=1000")
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 1000];
    socket.read_exact(&mut begin).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;

    let stats = place.get(&place.queue("/stats")).await.expect(200).json();

    // no more than one beside what the system holds for a connection
    assert!(stats["in_flight"].as_i64().unwrap() <= 1, "{stats}");
    let ready = stats["ready"].as_i64().unwrap();
    assert!(ready >= 43, "{stats}");
    drop(socket);
    let stats = until(&place, "in_flight", 0).await;
    let count = |name: &str| stats[name].as_i64().unwrap();
    assert_eq!(count("ready") + count("acked"), 60, "{stats}");
}
