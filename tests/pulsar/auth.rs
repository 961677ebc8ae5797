//! Who may call.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Door, Place, Socket, door, door_with, subscribe};
use crate::support::{Answer, SECRET_KEY};

const SECRET: &str = "a secret of others";
const FLAGS: [&str; 4] = [
    "--pulsar-jwt-enabled",
    "true",
    "--pulsar-jwt-secret-key",
    SECRET,
];

fn token(secret: &str, more: Value) -> String {
    let mut claims = json!({"sub": "me", "exp": chrono::Utc::now().timestamp() + 60});
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), &claims, &key).unwrap()
}

async fn send(place: &Place<'_>, token: &str, topic: &str) -> Answer {
    let request = place.request("POST", "/api/v1/messages");
    let body = json!({"topic": topic, "payload": {"n": 1}});
    place.answer(request.bearer_auth(token).json(&body)).await
}

/// Subscribe on a new socket, showing a token in one of three ways.
async fn ask(place: &Place<'_>, token: &str, way: usize, topic: &str) -> (Socket, Value) {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let mut frame = subscribe(&[topic], "last");
    let mut socket = match way {
        0 => {
            frame["token"] = json!(token);
            place.connect("").await
        }
        1 => place.connect(&format!("?token={token}")).await,
        _ => {
            let url = format!("{}/ws", place.url.replace("http://", "ws://"));
            let mut request = url.into_client_request().unwrap();
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
            let connected = tokio_tungstenite::connect_async(request).await;
            Socket(connected.unwrap().0)
        }
    };
    let answer = socket.ask(&frame).await;
    (socket, answer)
}

#[tokio::test]
async fn no_token_is_looked_at_by_default() {
    let door = door().await;
    for place in door.places() {
        send(&place, "anything", &place.topic).await.expect(201);
        let (_, answer) = ask(&place, "anything", 0, "a").await;
        assert_eq!(answer["type"], "subscribed");
    }
}

#[tokio::test]
async fn a_token_of_the_secret_opens_what_it_says() {
    let door = door_with(&FLAGS).await;
    for place in door.places() {
        let all = token(SECRET, json!({}));
        let scoped = token(
            SECRET,
            json!({"scope": "pulsar:publish pulsar:subscribe:a"}),
        );
        let of_topics = token(SECRET, json!({"topics": ["a"]}));
        let none = token(SECRET, json!({"scope": ""}));
        let over = token(SECRET, json!({"exp": chrono::Utc::now().timestamp() - 1}));
        let other = token("another secret", json!({}));
        for (token, topic, publishes, subscribes) in [
            (&all, "b", true, true),
            (&scoped, "a", true, true),
            (&scoped, "b", true, false),
            (&of_topics, "a", true, true),
            (&of_topics, "b", false, false),
            (&none, "a", false, false),
        ] {
            let status = if publishes { 201 } else { 403 };
            let sent = send(&place, token, topic).await.expect(status);
            if !publishes {
                assert!(sent.header("www-authenticate").is_some());
            }
            for way in 0..3 {
                let (mut socket, answer) = ask(&place, token, way, topic).await;
                if subscribes {
                    assert_eq!(answer["type"], "subscribed", "{answer}");
                } else {
                    assert_eq!(answer["code"], "UNAUTHORIZED", "{answer}");
                    assert_eq!(socket.next().await, Err(1008));
                }
            }
            let path = format!("/api/v1/messages/poll?topics={topic}&timeout=0");
            let request = place.request("GET", &path).bearer_auth(token);
            let status = if subscribes { 200 } else { 403 };
            place.answer(request).await.expect(status);
        }
        for token in [&over, &other, "", "x.y.z"] {
            let refused = send(&place, token, "a").await.expect(401);
            assert!(
                refused
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
            assert!(refused.json()["detail"].is_string());
            for way in 0..3 {
                let (mut socket, answer) = ask(&place, token, way, "a").await;
                assert_eq!(answer["code"], "UNAUTHORIZED", "{token} {answer}");
                assert_eq!(socket.next().await, Err(1008));
            }
        }
        for path in ["/metrics", "/api/v1/messages/poll?topics=a"] {
            place.get(path).await.expect(401);
        }
        place.get("/health").await.expect(200);
        place.get("/ready").await.expect(200);
        place.get("/openapi.json").await.expect(200);
    }
}

#[tokio::test]
async fn a_socket_that_may_not_have_a_topic_is_closed_when_it_asks_for_it() {
    let door = door_with(&FLAGS).await;
    let [place, _] = door.places();
    let of_topics = token(SECRET, json!({"topics": ["a"]}));
    let (mut socket, _) = ask(&place, &of_topics, 0, "a").await;

    let refused = socket.ask(&subscribe(&["b"], "last")).await;

    assert_eq!(refused["code"], "UNAUTHORIZED");
    assert_eq!(socket.next().await, Err(1008));
}

async fn native() -> Door {
    door_with(&["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY]).await
}

#[tokio::test]
async fn where_the_native_api_is_closed_the_door_is_too() {
    let door = native().await;
    for place in door.places() {
        send(&place, "", "a").await.expect(401);
        let key = door
            .app
            .api_key_for("pulsar:publish:a pulsar:subscribe")
            .await;
        let token = door
            .app
            .token_for("pulsar:publish:a pulsar:subscribe")
            .await;
        for shown in [&key, &token] {
            send(&place, shown, "a").await.expect(201);
            send(&place, shown, "b").await.expect(403);
            let (_, answer) = ask(&place, shown, 0, "b").await;
            assert_eq!(answer["type"], "subscribed");
        }
        let other = door.app.token_for("topics:publish").await;
        send(&place, &other, "a").await.expect(403);
    }
}

#[tokio::test]
async fn a_socket_ends_when_its_token_is_revoked_or_over() {
    let door = native().await;
    let admin = door.app.token_for("*").await;
    let admin = door.app.with_token(Some(&admin));
    let body = json!({"name": "n", "scopes": "pulsar:subscribe", "api_key": true});
    let made = admin.post("/clients", body).await.expect(201).json();
    let [place, _] = door.places();
    let (mut socket, answer) = ask(&place, made["api_key"].as_str().unwrap(), 1, "a").await;
    assert_eq!(answer["type"], "subscribed");

    let path = format!("/clients/{}", made["id"].as_str().unwrap());
    let less = json!({"name": "n", "scopes": "pulsar:publish"});
    admin.put(&path, less).await.expect(200);

    assert_eq!(socket.hear().await["code"], "UNAUTHORIZED");
    assert_eq!(socket.next().await, Err(1008));

    let door = door_with(&FLAGS).await;
    let [place, _] = door.places();
    let short = json!({"exp": chrono::Utc::now().timestamp() + 3});
    let (mut socket, answer) = ask(&place, &token(SECRET, short), 0, "a").await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(socket.hear().await["code"], "UNAUTHORIZED");
    assert_eq!(socket.next().await, Err(1008));
}
