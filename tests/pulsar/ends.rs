//! How connections end, and what is left then.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Door, door, door_with, subscribe, subscriptions, until};
use crate::support::TestApp;
use crate::support::database::TestDatabase;

#[tokio::test]
async fn the_server_says_that_it_ends() {
    let database = TestDatabase::create().await;
    let flags = ["--pulsar-listen", "127.0.0.1:0"];
    let door = Door {
        app: TestApp::start_on(database.share(), &flags).await,
    };
    let mut sockets = Vec::new();
    for place in door.places() {
        sockets.push(place.subscribe(&["a"], "last").await);
        sockets.push(place.connect("").await);
    }

    drop(door);

    for mut socket in sockets {
        let told = socket.hear().await;
        assert_eq!(
            (&told["type"], &told["code"]),
            (&json!("error"), &json!("CONNECTION_CLOSED"))
        );
        assert_eq!(socket.next().await, Err(1001));
    }
    let other = TestApp::start_on(database.share(), &[]).await;
    until(async || subscriptions(&other).await.is_empty()).await;
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_closed_and_others_do_not_wait() {
    let door = door().await;
    let [place, _] = door.places();
    let mut slow = place.door.app.narrow().await;
    let head = "GET /pulsar/ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let text = subscribe(&[&place.topic], "last").to_string();
    // a frame whose mask is nothing
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    slow.write_all(&frame).await.unwrap();
    let mut quick = place.subscribe(&[&place.topic], "last").await;
    let mut begin = [0; 300];
    slow.read_exact(&mut begin).await.unwrap();
    let large = "x".repeat(40_000);
    let body = |from: i64| {
        let message = |n| json!({"topic": place.topic, "payload": {"n": n, "large": large}});
        json!({"messages": (from..from + 100).map(message).collect::<Vec<_>>()})
    };

    for n in 0..12 {
        place
            .post("/api/v1/messages/bulk", &body(n * 100))
            .await
            .expect(207);
        let numbers = quick.numbers(100).await;
        assert!(numbers.iter().copied().eq((n * 100)..(n + 1) * 100));
    }

    // it is told at the end of what was on its way
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    let last = &rest[rest.len() - 4..];
    assert_eq!(last, [0x88, 2, 0x03, 0xf5], "1013");
    assert!(rest.len() < 20_000_000, "{}", rest.len());
    quick.hears_nothing().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_answered() {
    let door = door().await;
    for place in door.places() {
        let mut subscribed = place.subscribe(&["a"], "last").await;
        let mut silent = place.connect("").await;
        for socket in [&mut subscribed, &mut silent] {
            let frame = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            socket.0.close(Some(frame)).await.unwrap();
            assert_eq!(socket.next().await, Err(1000));
        }
    }
}

#[tokio::test]
async fn there_are_as_many_connections_as_may_be() {
    let door = door_with(&["--pulsar-max-connections-per-instance", "2"]).await;
    let [mounted, alone] = door.places();
    let first = mounted.subscribe(&["a"], "last").await;
    let _second = alone.subscribe(&["a"], "last").await;

    let mut third = mounted.connect("").await;
    assert_eq!(third.hear().await["code"], "CONNECTION_CLOSED");
    assert_eq!(third.next().await, Err(1013));

    drop(first);
    until(async || {
        let mut socket = alone.connect("").await;
        socket.0.close(None).await.unwrap();
        socket.next().await != Err(1013)
    })
    .await;
}

#[tokio::test]
async fn one_subscription_of_the_engine_serves_all_and_goes_with_the_last() {
    let door = door().await;
    let [mounted, alone] = door.places();
    let one = mounted.subscribe(&["a"], "last").await;
    let two = alone.subscribe(&["b"], "last").await;
    let ids = subscriptions(&door.app).await;
    assert_eq!(ids.len(), 1, "{ids:?}");
    drop(one);
    // for who comes again it is the same
    let three = mounted.subscribe(&["a"], "last").await;
    assert_eq!(subscriptions(&door.app).await, ids);
    drop((two, three));
    until(async || subscriptions(&door.app).await.is_empty()).await;
    let mut again = mounted.subscribe(&["a"], "last").await;
    mounted.send("a", json!({"n": 1})).await;
    assert_eq!(again.numbers(1).await, [1]);
}

#[tokio::test]
async fn who_may_have_missed_messages_is_told_so() {
    let door = door().await;
    let [place, _] = door.places();
    let mut socket = place.subscribe(&[&place.topic], "last").await;
    let id = subscriptions(&door.app).await.remove(0);
    let path = format!("/subscriptions/{}", id.replace('/', "%2F"));
    door.app.delete(&path).await.expect(204);
    place.send(&place.topic, json!({"n": 1})).await;

    let told = socket.hear().await;
    assert_eq!(told["code"], "CONNECTION_CLOSED");
    assert_eq!(socket.next().await, Err(1011));

    let mut again = place.subscribe(&[&place.topic], "earliest").await;
    assert_eq!(again.numbers(1).await, [1]);
}

#[tokio::test]
async fn a_database_that_is_away_is_told() {
    let database = TestDatabase::create().await;
    let flags = ["--pulsar-listen", "127.0.0.1:0"];
    let door = Door {
        app: TestApp::start_on(database.share(), &flags).await,
    };
    let [place, _] = door.places();
    let mut socket = place.subscribe(&["a"], "last").await;

    drop(database);

    let body = json!({"topic": "a", "payload": {}});
    let refused = place.post("/api/v1/messages", &body).await.expect(503);
    assert!(refused.header("retry-after").is_some());
    let expected = json!({"ready": false, "checks": {"storage": "unavailable"}});
    assert_eq!(place.get("/ready").await.expect(503).json(), expected);
    place.get("/health").await.expect(200);
    place
        .get("/api/v1/messages/poll?topics=b")
        .await
        .expect(503);
    assert_eq!(socket.hear().await["code"], "CONNECTION_CLOSED");
    assert_eq!(socket.next().await, Err(1011));
    let mut socket = place.connect("").await;
    let refused = socket.ask(&subscribe(&["a"], "last")).await;
    assert_eq!(refused["code"], "SUBSCRIPTION_ERROR", "{refused}");
}
