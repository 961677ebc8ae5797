//! API keys and what they may do.

use serde_json::{Value, json};

use super::{KEY, door};

/// Every route that asks for a permission on its queue, and which.
const ROUTES: [(&str, &str, &str); 11] = [
    ("POST", "messages", "write"),
    ("GET", "messages", "read"),
    ("POST", "messages/receive", "read"),
    ("DELETE", "messages/handle", "delete"),
    ("DELETE", "messages/by-id/m", "delete"),
    ("PUT", "messages/by-id/m", "write"),
    ("DELETE", "messages", "manage"),
    ("GET", "message/m", "read"),
    ("POST", "messages/check-existence", "read"),
    ("GET", "info", "read"),
    ("GET", "health", "read"),
];

#[tokio::test]
async fn a_key_is_needed_and_an_unknown_one_is_told_so() {
    let door = door().await;
    for place in door.places() {
        let others = [
            "/api/v1/queues",
            "/api/v1/auth/me",
            "/api/v1/auth/permissions/q",
        ];
        let routes = ROUTES
            .iter()
            .map(|(method, rest, _)| (*method, place.path(rest)));
        for (method, path) in routes.chain(others.map(|path| ("GET", path.to_owned()))) {
            let missing = place
                .tell(place.request(method, &path))
                .await
                .expect(422)
                .json();
            assert_eq!(
                missing,
                json!({"detail": [{
                    "type": "missing", "loc": ["header", "x-api-key"], "msg": "Field required",
                    "input": null,
                }]}),
                "{method} {path}"
            );
            for wrong in ["", "wrong", "KEY-OF-THE-OPERATOR"] {
                let refused = place.send(wrong, method, &path, None).await.expect(401);
                assert_eq!(refused.json(), json!({"detail": "Invalid API key"}));
                assert_eq!(refused.header("www-authenticate"), Some("ApiKey"));
            }
            let two = place.request(method, &path).header("X-API-Key", KEY);
            place
                .tell(two.header("X-API-Key", "wrong"))
                .await
                .expect(401);
        }
    }
}

#[tokio::test]
async fn a_permission_is_checked_before_the_body_and_before_what_exists() {
    let door = door().await;
    for place in door.places() {
        for key in ["key-of-a-reader", "key-of-a-writer", "key-of-two-minds"] {
            for (queue, permissions) in [
                (
                    "orders",
                    match key {
                        "key-of-a-writer" => "write",
                        _ => "read",
                    },
                ),
                (
                    "mails",
                    if key == "key-of-two-minds" {
                        "read"
                    } else {
                        ""
                    },
                ),
                (
                    "absent",
                    if key == "key-of-two-minds" {
                        "read"
                    } else {
                        ""
                    },
                ),
            ] {
                for (method, rest, needed) in ROUTES {
                    let path = format!("/api/v1/queues/{queue}/{rest}");
                    let body = Some(json!(5));
                    let answered = place.send(key, method, &path, body).await;
                    if needed == permissions {
                        assert_ne!(answered.status, 403, "{key} {method} {path}");
                        continue;
                    }
                    assert_eq!(
                        answered.expect(403).json()["detail"],
                        format!("Access denied: {needed} permission required for queue '{queue}'")
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_key_is_told_what_it_may_do() {
    let door = door().await;
    for place in door.places() {
        let get = async |key: &str, path: &str| {
            let answer = place
                .send(key, "GET", &format!("/api/v1{path}"), None)
                .await;
            answer.expect(200).json()
        };
        let me = get("key-of-a-reader", "/auth/me").await;
        assert_eq!(
            me,
            json!({
                "description": "reader", "accessible_queues": ["mails", "orders"],
                "total_accessible_queues": 2,
                "queue_permissions": {
                    "mails": {"permissions": [], "can_read": false, "can_write": false,
                        "can_delete": false, "can_manage": false},
                    "orders": {"permissions": ["read"], "can_read": true, "can_write": false,
                        "can_delete": false, "can_manage": false},
                },
            })
        );
        let all = get("key-of-two-minds", "/auth/me").await;
        assert_eq!(all["accessible_queues"], json!(["*"]));
        assert_eq!(
            all["queue_permissions"]["*"]["permissions"],
            json!(["read"])
        );

        for (key, queue, rights) in [
            (KEY, "any", [true; 5]),
            (
                "key-of-a-writer",
                "orders",
                [true, false, true, false, false],
            ),
            ("key-of-a-writer", "other", [false; 5]),
            (
                "key-of-two-minds",
                "orders",
                [true, true, false, false, false],
            ),
        ] {
            let told = get(key, &format!("/auth/permissions/{queue}")).await;
            let names = [
                "has_access",
                "can_read",
                "can_write",
                "can_delete",
                "can_manage",
            ];
            let mut expected: Value = names.into_iter().zip(rights).collect();
            expected["queue_name"] = json!(queue);
            assert_eq!(told, expected, "{key}");
        }
    }
}

/// Also where the native API asks for no token.
#[tokio::test]
async fn the_key_of_a_client_has_the_scopes_of_the_client() {
    let door = door().await;
    let client = async |scopes: &str| {
        let body = json!({"name": "shop", "scopes": scopes, "api_key": true});
        door.app.post("/clients", body).await.expect(201).json()
    };
    for place in door.places() {
        let made = client("pyqueue:read pyqueue:write:ord* topics:read").await;
        let key = made["api_key"].as_str().unwrap();
        let status = async |key: &str, method: &str, path: &str| {
            let body = Some(json!({"message_body": {}}));
            place.send(key, method, path, body).await.status
        };
        assert_eq!(
            status(key, "POST", "/api/v1/queues/orders/messages").await,
            200
        );
        assert_eq!(
            status(key, "POST", "/api/v1/queues/mails/messages").await,
            403
        );
        assert_eq!(
            status(key, "GET", "/api/v1/queues/mails/messages").await,
            200
        );
        assert_eq!(
            status(key, "DELETE", "/api/v1/queues/orders/messages").await,
            403
        );
        let me = place
            .send(key, "GET", "/api/v1/auth/me", None)
            .await
            .expect(200)
            .json();
        assert_eq!(me["description"], "shop");
        assert_eq!(me["accessible_queues"], json!(["*", "ord*"]));
        assert_eq!(
            me["queue_permissions"]["ord*"]["permissions"],
            json!(["read", "write"])
        );
        let queues = place.send(key, "GET", "/api/v1/queues", None).await.json();
        assert_eq!(queues["queues"][0]["queue_name"], "orders");
        assert_eq!(queues["queues"][0]["permissions"], json!(["read", "write"]));

        let all = client("*").await;
        let key = all["api_key"].as_str().unwrap();
        assert_eq!(
            status(key, "DELETE", "/api/v1/queues/orders/messages").await,
            200
        );
        let path = format!("/clients/{}", all["id"].as_str().unwrap());
        door.app.delete(&path).await.expect(204);
        assert_eq!(
            status(key, "DELETE", "/api/v1/queues/orders/messages").await,
            401
        );
        let other = client("topics:read").await;
        let key = other["api_key"].as_str().unwrap();
        assert_eq!(
            status(key, "GET", "/api/v1/queues/orders/messages").await,
            403
        );
    }
}

#[tokio::test]
async fn a_queue_s_name_has_no_space_and_an_end() {
    let door = door().await;
    for place in door.places() {
        for (name, kind) in [
            ("a%20b", "value_error"),
            ("a%2Fb", "value_error"),
            ("a%00", "value_error"),
            ("%C2%A0", "value_error"),
            (&"x".repeat(256), "string_too_long"),
        ] {
            let path = format!("/api/v1/queues/{name}/info");
            let refused = place.send(KEY, "GET", &path, None).await.expect(422).json();
            assert_eq!(
                refused["detail"][0]["loc"],
                json!(["path", "queue_name"]),
                "{name}"
            );
            assert_eq!(refused["detail"][0]["type"], kind, "{name}");
        }
        for name in ["%C3%A4.-_~%F0%9F%98%80", &"x".repeat(255), "a%3Fb%23%25"] {
            let path = format!("/api/v1/queues/{name}/messages");
            let body = json!({"message_body": {}});
            place.send(KEY, "POST", &path, Some(body)).await.expect(200);
            let page = place.send(KEY, "GET", &path, None).await.expect(200).json();
            assert!(page["total"].as_i64().unwrap() >= 1);
        }
    }
}
