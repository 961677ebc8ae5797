//! Which scope each route needs.

use std::collections::BTreeSet;

use jsonwebtoken::Algorithm::HS256;
use serde_json::{Value, json};

use super::{AUTH, claims, narrowed, sign};
use crate::support::{Answer, SECRET_KEY, TestApp, answer};

const CLIENT: &str = "01890000-0000-7000-8000-000000000001";
const OTHER_CLIENT: &str = "01890000-0000-7000-8000-000000000002";

/// Every route that needs a scope. `{id}` stands for an object.
const ROUTES: &[(&str, &str, &str)] = &[
    ("POST", "/topics", "topics:create"),
    ("GET", "/topics", "topics:read"),
    ("GET", "/topics/{id}", "topics:read"),
    ("PATCH", "/topics/{id}", "topics:update"),
    ("DELETE", "/topics/{id}", "topics:delete"),
    ("POST", "/topics/{id}/messages", "topics:publish"),
    ("POST", "/topics/{id}/publish", "topics:publish"),
    ("POST", "/subscriptions", "subscriptions:create"),
    ("GET", "/subscriptions", "subscriptions:read"),
    ("GET", "/subscriptions/{id}", "subscriptions:read"),
    ("PATCH", "/subscriptions/{id}", "subscriptions:update"),
    ("POST", "/subscriptions/{id}/seek", "subscriptions:update"),
    ("GET", "/jobs", "subscriptions:read"),
    ("GET", "/jobs/{id}", "subscriptions:read"),
    ("DELETE", "/jobs/{id}", "subscriptions:update"),
    ("POST", "/snapshots", "subscriptions:update"),
    ("GET", "/snapshots", "subscriptions:read"),
    ("DELETE", "/snapshots/{id}", "subscriptions:update"),
    ("DELETE", "/subscriptions/{id}", "subscriptions:delete"),
    ("GET", "/subscriptions/{id}/metrics", "subscriptions:read"),
    (
        "POST",
        "/subscriptions/{id}/filter-preview",
        "subscriptions:read",
    ),
    (
        "GET",
        "/subscriptions/{id}/messages",
        "subscriptions:consume",
    ),
    ("POST", "/subscriptions/{id}/acks", "subscriptions:consume"),
    ("POST", "/subscriptions/{id}/nacks", "subscriptions:consume"),
    ("POST", "/subscriptions/{id}/pull", "subscriptions:consume"),
    (
        "POST",
        "/subscriptions/{id}/settle",
        "subscriptions:consume",
    ),
    ("GET", "/subscriptions/{id}/dlq", "subscriptions:consume"),
    ("DELETE", "/subscriptions/{id}/dlq", "subscriptions:consume"),
    (
        "POST",
        "/subscriptions/{id}/dlq/reprocess",
        "subscriptions:consume",
    ),
    ("GET", "/subscriptions/{id}/parked", "subscriptions:consume"),
    (
        "POST",
        "/subscriptions/{id}/parked/resume",
        "subscriptions:consume",
    ),
    ("GET", "/messages/{id}", "subscriptions:read"),
    ("POST", "/clients", "clients:create"),
    ("GET", "/clients", "clients:read"),
    ("GET", "/clients/{id}", "clients:read"),
    ("PUT", "/clients/{id}", "clients:update"),
    ("DELETE", "/clients/{id}", "clients:delete"),
];

fn scopes() -> BTreeSet<&'static str> {
    ROUTES.iter().map(|(_, _, scope)| *scope).collect()
}

/// A request that gets past the scope check only to fail: nothing is there, and the body is wrong.
async fn call(app: &TestApp, token: &str, method: &str, path: &str) -> Answer {
    let mut request = app.request(method, path).bearer_auth(token);
    if matches!(method, "POST" | "PUT" | "PATCH") {
        request = request.json(&json!({}));
    }
    answer(request).await
}

fn is_allowed(answer: &Answer) -> bool {
    !matches!(answer.status, 401 | 403)
}

#[test]
fn the_table_has_every_route_that_the_document_protects() {
    let document = serde_json::to_value(fastpubsub::http::document()).unwrap();

    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let scope = operation["security"]
                .as_array()
                .and_then(|ways| ways.iter().find_map(|way| way["oauth2"][0].as_str()));
            // its body names the objects, of two kinds (tests/http/messages/transactions.rs)
            if path == "/transactions" {
                continue;
            }
            if let Some(scope) = scope {
                documented.insert(format!("{} {path} {scope}", method.to_uppercase()));
            } else {
                let open = ["/oauth/token", "/liveness", "/readiness", "/metrics"];
                assert!(open.contains(&path.as_str()), "{method} {path}");
            }
        }
    }

    let table: BTreeSet<String> = ROUTES
        .iter()
        .map(|(method, path, scope)| format!("{method} {path} {scope}"))
        .collect();
    assert_eq!(table, documented);
    assert_eq!(scopes().len(), 14);
}

#[tokio::test]
async fn each_route_takes_its_scope_and_no_other() {
    let app = TestApp::start_with(&AUTH).await;
    let client = app.client_with("*").await;

    for granted in scopes() {
        let token = narrowed(&app, &client, granted).await;
        for (method, path, needed) in ROUTES {
            let path = path.replace("{id}", CLIENT);
            let answer = call(&app, &token, method, &path).await;

            let case = format!("{granted}: {method} {path} answers {}", answer.status);
            if granted == *needed {
                assert!(is_allowed(&answer), "{case}");
            } else {
                assert_eq!(answer.status, 403, "{case}");
                assert_eq!(
                    answer.json(),
                    json!({"detail": "Insufficient scope"}),
                    "{case}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_star_allows_every_route() {
    let app = TestApp::start_with(&AUTH).await;
    let token = app.token_for("*").await;

    for (method, path, _) in ROUTES {
        let path = path.replace("{id}", CLIENT);
        let answer = call(&app, &token, method, &path).await;

        assert!(
            is_allowed(&answer),
            "{method} {path} answers {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn every_scope_but_the_needed_one_together_do_not_suffice() {
    let app = TestApp::start_with(&AUTH).await;
    let client = app.client_with("*").await;

    for needed in scopes() {
        let others: Vec<&str> = scopes()
            .into_iter()
            .filter(|scope| *scope != needed)
            .collect();
        let token = narrowed(&app, &client, &others.join(" ")).await;
        for (method, path, scope) in ROUTES {
            let path = path.replace("{id}", CLIENT);
            let answer = call(&app, &token, method, &path).await;

            let case = format!(
                "all but {needed}: {method} {path} answers {}",
                answer.status
            );
            assert_eq!(is_allowed(&answer), *scope != needed, "{case}");
        }
    }
}

#[tokio::test]
async fn an_object_scope_works_on_its_object_only() {
    let app = TestApp::start_with(&AUTH).await;
    let client = app.client_with("*").await;

    for granted in scopes() {
        if granted.ends_with(":create") {
            continue;
        }
        let token = narrowed(&app, &client, &format!("{granted}:{CLIENT}")).await;
        for (method, path, needed) in ROUTES {
            let its = call(&app, &token, method, &path.replace("{id}", CLIENT)).await;
            let case = format!("{granted}:{CLIENT}: {method} {path} answers {}", its.status);
            // lists and creations name no object
            let expected = granted == *needed && path.contains("{id}");
            assert_eq!(is_allowed(&its), expected, "{case}");

            let another = call(&app, &token, method, &path.replace("{id}", OTHER_CLIENT)).await;
            assert_eq!(another.status, 403, "another's: {case}");
        }
    }
}

#[tokio::test]
async fn the_object_of_a_scope_is_compared_with_the_decoded_path() {
    let app = TestApp::start_with(&AUTH).await;
    let token = app.token_for("topics:read:mine topics:read:ours").await;

    for (path, status) in [
        ("/topics/mine", 404),
        ("/topics/ours", 404),
        ("/topics/%6dine", 404),
        ("/topics/mine%00", 403),
        ("/topics/mine%20", 403),
        ("/topics/mine%2Fx", 403),
        ("/topics/MINE", 403),
        ("/topics/min", 403),
        ("/topics/mine?id=mine", 404),
        ("/topics/other?id=mine", 403),
    ] {
        let answer = app.with_token(Some(&token)).get(path).await;

        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_dead_letter_topic_needs_the_scope_to_publish_there() {
    let app = TestApp::start_with(&AUTH).await;
    let all = app.token_for("*").await;
    for id in ["source", "target"] {
        app.with_token(Some(&all))
            .post("/topics", json!({ "id": id }))
            .await;
    }
    let new = json!({"id": "s", "topic_id": "source", "dead_letter_topic_id": "target"});
    let change = json!({"dead_letter_topic_id": "target"});

    for (scopes, status) in [
        ("subscriptions:create subscriptions:update", 403),
        (
            "subscriptions:create subscriptions:update topics:publish:source",
            403,
        ),
        (
            "subscriptions:create subscriptions:update topics:publish:target",
            201,
        ),
    ] {
        let token = app.token_for(scopes).await;
        let answer = app
            .with_token(Some(&token))
            .post("/subscriptions", new.clone())
            .await;
        assert_eq!(answer.status, status, "create with {scopes}");
    }
    for (scopes, status) in [
        ("subscriptions:update", 403),
        ("subscriptions:update topics:publish:target", 200),
    ] {
        let token = app.token_for(scopes).await;
        let answer = app
            .with_token(Some(&token))
            .patch("/subscriptions/s", change.clone())
            .await;
        assert_eq!(answer.status, status, "change with {scopes}");
    }
}

/// Original's defect 16: such scopes are refused nowadays, but older tokens may hold them.
#[tokio::test]
async fn scopes_that_can_never_match_allow_nothing() {
    let app = TestApp::start_with(&AUTH).await;
    let (id, _) = app.client_with("*").await;

    for scope in [
        "topics:create:x",
        "topics:read:",
        "topics:read:x:y",
        "topics",
        "topics:",
        "**",
        "*:*",
        "",
        " ",
    ] {
        let mut claims: Value = claims(&id);
        claims["scope"] = json!(scope);
        let token = sign(HS256, SECRET_KEY, &claims);
        for (method, path) in [
            ("POST", "/topics"),
            ("GET", "/topics"),
            ("GET", "/topics/x"),
        ] {
            let answer = call(&app, &token, method, path).await;

            assert_eq!(answer.status, 403, "{scope:?}: {method} {path}");
        }
    }
}
