//! Frames of WebSockets.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{door, subscribe};

#[tokio::test]
async fn a_message_is_as_it_was_accepted() {
    let door = door().await;
    for place in door.places() {
        let mut socket = place.connect("").await;
        let frame = json!({"type": "subscribe", "topics": [place.topic, "x"], "client_id": "c"});
        let subscribed = socket.ask(&frame).await;
        assert_eq!(subscribed["topics"], json!([place.topic, "x"]));
        let session = subscribed["session_id"].as_str().unwrap();
        assert!(
            session.starts_with("sess_") && session.len() == 17,
            "{session}"
        );
        assert!(subscribed["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(subscribed.as_object().unwrap().len(), 4);

        let payload = json!({"n": 1.5, "text": "\u{e9}\n\"", "list": [null, true]});
        let body = json!({"topic": place.topic, "payload": payload, "metadata": {"k": "v"}});
        let sent = place
            .post("/api/v1/messages", &body)
            .await
            .expect(201)
            .json();

        let expected = json!({
            "type": "message", "message_id": sent["message_id"], "topic": place.topic,
            "payload": payload, "timestamp": sent["timestamp"], "metadata": {"k": "v"},
        });
        assert_eq!(socket.hear().await, expected);
        place.send(&place.topic, json!({})).await;
        let frame = socket.hear().await;
        assert_eq!(
            (&frame["payload"], &frame["metadata"]),
            (&json!({}), &Value::Null)
        );
        // an ack is answered by nothing, and changes nothing
        let ack = json!({"type": "ack", "message_id": sent["message_id"]});
        socket.say(&ack).await;
        socket.say(&ack).await;
        socket.hears_nothing().await;
    }
}

#[tokio::test]
async fn everybody_gets_what_he_is_subscribed_to_and_nothing_else() {
    let door = door().await;
    for place in door.places() {
        let mut one = place.subscribe(&[&place.topic], "last").await;
        let mut both = place.subscribe(&[&place.topic, "second"], "last").await;
        let mut second = place.subscribe(&["second", "second"], "last").await;
        for n in 0..10 {
            let topic = [place.topic.as_str(), "second", "nobody"][n % 3];
            place.send(topic, json!({"n": n})).await;
        }
        assert_eq!(one.numbers(4).await, [0, 3, 6, 9]);
        assert_eq!(both.numbers(7).await, [0, 1, 3, 4, 6, 7, 9]);
        assert_eq!(second.numbers(3).await, [1, 4, 7]);
        for socket in [&mut one, &mut both, &mut second] {
            socket.hears_nothing().await;
        }
        // who vanishes breaks nothing
        drop(one);
        place.send(&place.topic, json!({"n": 10})).await;
        assert_eq!(both.numbers(1).await, [10]);
    }
}

#[tokio::test]
async fn topics_come_and_go_while_the_connection_stays() {
    let door = door().await;
    for place in door.places() {
        let mut socket = place.subscribe(&[&place.topic], "last").await;
        let added = socket
            .ask(&subscribe(&["more", &place.topic], "last"))
            .await;
        assert_eq!(added["type"], "subscribed", "{added}");
        assert_eq!(added["topics"], json!(["more", place.topic]));
        place.send("more", json!({"n": 1})).await;
        place.send(&place.topic, json!({"n": 2})).await;
        assert_eq!(socket.numbers(2).await, [1, 2]);

        let gone = json!({"type": "unsubscribe", "topics": [place.topic, "never"]});
        let expected = json!({"type": "unsubscribed", "topics": [place.topic, "never"]});
        assert_eq!(socket.ask(&gone).await, expected);
        place.send(&place.topic, json!({"n": 3})).await;
        place.send("more", json!({"n": 4})).await;
        assert_eq!(socket.numbers(1).await, [4]);
        let gone = json!({"type": "unsubscribe", "topics": ["more"]});
        socket.ask(&gone).await;
        socket.hears_nothing().await;
    }
}

#[tokio::test]
async fn bad_frames_are_told_and_the_connection_stays() {
    let door = door().await;
    for place in door.places() {
        let mut socket = place.subscribe(&[&place.topic], "last").await;
        let expected = json!({
            "type": "error", "code": "UNKNOWN_MESSAGE_TYPE",
            "message": "Unknown message type: dance", "details": null,
        });
        assert_eq!(socket.ask(&json!({"type": "dance"})).await, expected);
        for frame in [
            Message::text("{"),
            Message::text("[]"),
            Message::text("{}"),
            Message::text(r#"{"type": 5}"#),
            Message::text(r#"{"type": "ack"}"#),
            Message::text(r#"{"type": "unsubscribe", "topics": []}"#),
            Message::text(r#"{"type": "unsubscribe"}"#),
            Message::text(subscribe(&[], "last").to_string()),
            Message::text(subscribe(&["a b"], "last").to_string()),
            Message::text(subscribe(&["a"; 51], "last").to_string()),
            Message::text(subscribe(&["a"], "then").to_string()),
            Message::text(r#"{"type": "subscribe", "topics": ["a"], "client_id": ""}"#),
            Message::text("[".repeat(100_000)),
            Message::binary(vec![1, 2, 3]),
        ] {
            socket.0.send(frame.clone()).await.unwrap();
            let told = socket.hear().await;
            assert_eq!(told["code"], "PROCESSING_ERROR", "{frame:.100} {told}");
            assert_eq!(
                (&told["type"], &told["details"]),
                (&json!("error"), &Value::Null)
            );
            assert!(told["message"].as_str().unwrap().len() > 3, "{told}");
        }
        place.send(&place.topic, json!({"n": 1})).await;
        assert_eq!(socket.numbers(1).await, [1]);
    }
}

#[tokio::test]
async fn the_first_frame_must_be_a_subscribe() {
    let door = door().await;
    for place in door.places() {
        for frame in [
            Message::text(r#"{"type": "ping"}"#),
            Message::text(r#"{"type": "dance"}"#),
            Message::text("{"),
            Message::binary(vec![1]),
            Message::text(subscribe(&["a b"], "last").to_string()),
            Message::text(r#"{"type": "subscribe", "topics": ["a"]}"#),
        ] {
            let mut socket = place.connect("").await;
            socket.0.send(frame).await.unwrap();
            let told = socket.hear().await;
            assert_eq!(
                (&told["type"], &told["details"]),
                (&json!("error"), &Value::Null)
            );
            assert_eq!(told["code"], "SUBSCRIPTION_ERROR");
            let text = told["message"].as_str().unwrap();
            assert!(text.starts_with("Failed to subscribe: "), "{text}");
            assert_eq!(socket.next().await, Err(1008));
        }
        // what is no WebSocket
        let refused = place.get("/ws").await.expect(400).json();
        assert!(refused["detail"].is_string(), "{refused}");
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_connection_with_a_code() {
    let door = door().await;
    for place in door.places() {
        let fits = json!({"type": "ping", "x": "x".repeat(200_000)});
        let large = Message::text("x".repeat(262_145));
        let mut subscribed = place.subscribe(&[&place.topic], "last").await;
        assert_eq!(subscribed.ask(&fits).await["type"], "pong");
        for mut socket in [subscribed, place.connect("").await] {
            socket.0.send(large.clone()).await.unwrap();
            assert_eq!(socket.next().await, Err(1002));
        }
    }
}
