//! Keys, tokens and what they allow.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Door, KEY, Place, door, door_showing};
use crate::support::{Answer, SECRET_KEY};

/// Every route that asks for a scope on its name, and which; in the order in which they can be called.
const ROUTES: [(&str, &str, &str); 18] = [
    ("PUT", "/queues/NAME", "manage"),
    ("POST", "/queues/NAME/publish", "publish"),
    ("POST", "/queues/NAME/pull", "consume"),
    ("POST", "/queues/NAME/ack", "consume"),
    ("POST", "/queues/NAME/nack", "consume"),
    ("GET", "/queues/NAME/peek", "consume"),
    ("GET", "/queues/NAME/stats", "consume"),
    ("DELETE", "/queues/NAME/messages", "manage"),
    ("DELETE", "/queues/NAME", "manage"),
    ("PUT", "/topics/NAME", "manage"),
    ("POST", "/topics/NAME/subscriptions", "manage"),
    ("GET", "/topics/NAME/subscriptions", "consume"),
    ("DELETE", "/topics/NAME/subscriptions/sub-1", "manage"),
    ("POST", "/topics/NAME/publish", "publish"),
    ("POST", "/topics/NAME/pull", "consume"),
    ("POST", "/topics/NAME/ack", "consume"),
    ("POST", "/topics/NAME/nack", "consume"),
    ("GET", "/topics/NAME/stats", "consume"),
];

const JWT_SECRET: &str = "shared with whoever issues tokens";

fn jwt(claims: Value) -> String {
    let now = chrono::Utc::now().timestamp();
    let mut all = json!({"exp": now + 600, "sub": "somebody"});
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), &all, &key).unwrap()
}

fn refused(answer: Answer) {
    let answer = answer.expect(401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert!(answer.json()["error"].is_string(), "{}", answer.body);
}

/// All routes with what a caller may not do are 403, and no other.
async fn may(place: &Place<'_>, key: &str, name: &str, actions: &[&str]) {
    for (method, path, needed) in ROUTES {
        let path = path.replace("NAME", name);
        let answered = place.send(key, method, &path, Some(json!(5))).await;
        if actions.contains(&needed) {
            assert!(
                ![401, 403].contains(&answered.status),
                "{method} {path}: {answered:?}"
            );
        } else {
            let refused = answered.expect(403);
            let challenge = refused.header("www-authenticate").unwrap();
            assert!(
                challenge.contains(&format!("broker:{needed}")),
                "{challenge}"
            );
            assert!(refused.json()["error"].as_str().unwrap().contains(needed));
        }
    }
}

#[tokio::test]
async fn without_the_key_every_route_is_401_and_some_pages_are_open() {
    let door = door().await;
    for place in door.places() {
        for (method, path, _) in ROUTES {
            let path = path.replace("NAME", "q");
            let bare = place.request(method, &format!("/api/v1{path}"));
            refused(place.answer(bare).await);
            for wrong in ["", "wrong", "Key-Of-The-Operator", "key-of-the-operator2"] {
                refused(place.send(wrong, method, &path, None).await);
            }
        }
        for header in ["Basic a2V5OmtleQ==", KEY, "Bearer", "bearer  x y"] {
            let request = place.request("PUT", "/api/v1/queues/q");
            refused(place.answer(request.header("authorization", header)).await);
        }
        let two = place.request("PUT", "/api/v1/queues/q").bearer_auth(KEY);
        refused(place.answer(two.header("x-api-key", "other")).await);
        let header = place
            .request("PUT", "/api/v1/queues/by-header")
            .header("X-API-Key", KEY);
        place
            .answer(header)
            .await
            .expect(if place.mount.is_empty() { 201 } else { 200 });
        let lower = place.request("PUT", "/api/v1/queues/by-header");
        let lower = lower.header("authorization", format!("bearer {KEY}"));
        place.answer(lower).await.expect(200);
        for path in [
            "/health",
            "/metrics",
            "/stats",
            "/api/v1/health",
            "/api/v1/metrics",
            "/api/v1/stats",
            "/docs",
            "/openapi.json",
        ] {
            place.answer(place.request("GET", path)).await.expect(200);
            let any = place
                .request("GET", path)
                .header("authorization", "Basic x");
            place.answer(any).await.expect(200);
        }
        may(&place, KEY, "all", &["publish", "consume", "manage"]).await;
    }
}

#[tokio::test]
async fn tokens_of_the_shared_secret_allow_what_they_say() {
    let door = door_showing(&["--broker-jwt-secret", JWT_SECRET], &[]).await;
    for place in door.places() {
        let all = ["publish", "consume", "manage"];
        may(&place, &jwt(json!({})), "q", &all).await;
        may(&place, &jwt(json!({"scope": "*"})), "q", &all).await;
        may(
            &place,
            &jwt(json!({"scope": "broker:publish"})),
            "q",
            &["publish"],
        )
        .await;
        let scope = "broker:consume:pay* broker:publish:orders";
        may(
            &place,
            &jwt(json!({ "scope": scope })),
            "payments",
            &["consume"],
        )
        .await;
        may(
            &place,
            &jwt(json!({ "scope": scope })),
            "orders",
            &["publish"],
        )
        .await;
        may(&place, &jwt(json!({ "scope": scope })), "pa", &[]).await;
        may(&place, &jwt(json!({"scope": ""})), "q", &[]).await;
        let now = chrono::Utc::now().timestamp();
        for claims in [
            json!({"exp": now - 1}),
            json!({"exp": null}),
            json!({"nbf": now + 60}),
        ] {
            refused(place.send(&jwt(claims), "PUT", "/queues/q", None).await);
        }
        let token = jwt(json!({}));
        refused(
            place
                .send(&token[..token.len() - 2], "PUT", "/queues/q", None)
                .await,
        );
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJleHAiOjk5OTk5OTk5OTl9.";
        refused(place.send(none, "PUT", "/queues/q", None).await);
    }
}

/// A door whose native API asks for tokens, and a token with scopes.
async fn closed(flags: &[&str], scopes: &str) -> (Door, String) {
    let mut auth = vec!["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY];
    auth.extend(flags);
    let door = door_showing(&auth, &[]).await;
    let token = door.app.token_for(scopes).await;
    (door, token)
}

#[tokio::test]
async fn native_tokens_count_where_the_door_has_nothing_of_its_own() {
    let scopes = "broker:consume broker:publish:orders";
    for flags in [&[][..], &["--broker-auth-mode", "bearer"]] {
        let (door, token) = closed(flags, scopes).await;
        for place in door.places() {
            may(&place, &token, "q", &["consume"]).await;
            may(&place, &token, "orders", &["consume", "publish"]).await;
            refused(place.answer(place.request("PUT", "/api/v1/queues/q")).await);
            refused(place.send("wrong", "PUT", "/queues/q", None).await);
        }
        let native = door
            .app
            .token_for("topics:publish subscriptions:consume")
            .await;
        for place in door.places() {
            may(&place, &native, "q", &[]).await;
        }
    }
}

#[tokio::test]
async fn a_door_is_no_hole_in_native_authentication() {
    let (door, _) = closed(&[], "*").await;
    for place in door.places() {
        place
            .answer(place.request("GET", "/health"))
            .await
            .expect(200);
        for (method, path, _) in ROUTES {
            let path = path.replace("NAME", "q");
            refused(
                place
                    .answer(place.request(method, &format!("/api/v1{path}")))
                    .await,
            );
        }
    }
}

#[tokio::test]
async fn where_nothing_is_asked_any_header_is_taken() {
    for flags in [&[][..], &["--broker-auth-mode", "none"]] {
        let door = door_showing(flags, &[]).await;
        for place in door.places() {
            place.answer(place.request("PUT", "/api/v1/queues/q")).await;
            for header in ["Basic x", "Bearer rubbish", "\u{e9}"] {
                let request = place.request("PUT", "/api/v1/queues/q");
                let request = request.header("authorization", header);
                place.answer(request).await.expect(200);
            }
        }
    }
}

#[tokio::test]
async fn api_keys_of_clients_allow_what_their_scopes_say() {
    for flags in [
        &["--broker-api-key", KEY][..],
        &["--broker-auth-mode", "apikey"],
        &["--auth-enabled", "true", "--auth-secret-key", SECRET_KEY],
    ] {
        let door = door_showing(flags, &[]).await;
        let key = door
            .app
            .api_key_for("broker:consume broker:manage:mine*")
            .await;
        for place in door.places() {
            may(&place, &key, "q", &["consume"]).await;
            may(&place, &key, "mine.too", &["consume", "manage"]).await;
            let header = place
                .request("GET", "/api/v1/queues/q/stats")
                .header("x-api-key", &key);
            assert!([200, 404].contains(&place.answer(header).await.status));
            let last = if key.ends_with('A') { 'E' } else { 'A' };
            let wrong = format!("{}{last}", &key[..key.len() - 1]);
            refused(place.send(&wrong, "PUT", "/queues/q", None).await);
        }
    }
}
