//! Which routes and methods there are.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{TestApp, answer};

#[tokio::test]
async fn a_slash_too_many_is_redirected_with_the_query() {
    let app = TestApp::start().await;

    for (method, path, location) in [
        ("GET", "/topics/", "/topics"),
        (
            "GET",
            "/topics/?limit=1&offset=2",
            "/topics?limit=1&offset=2",
        ),
        ("POST", "/topics/", "/topics"),
        ("GET", "/topics/a/", "/topics/a"),
        (
            "GET",
            "/subscriptions/s/messages/?consumer_id=%26",
            "/subscriptions/s/messages?consumer_id=%26",
        ),
        ("GET", "/liveness/", "/liveness"),
        ("GET", "/docs/", "/docs"),
    ] {
        let answer = answer(app.request(method, path)).await;
        assert_eq!(answer.status, 307, "{method} {path}");
        assert_eq!(answer.header("location"), Some(location), "{method} {path}");
    }
}

#[tokio::test]
async fn an_unknown_route_is_404() {
    let app = TestApp::start().await;

    for path in [
        "/",
        "/nope",
        "/nope/",
        "/Topics",
        "/topics/a/b",
        "/topics/a/messages/b",
        "/subscriptions/s/dlq/x",
        "//",
        // not a redirect to another host
        "//example.com/",
        "//topics/",
        "/docs/nope.js",
        "/docs/..%2f..%2fCargo.toml",
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json(), json!({"detail": "Not Found"}), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_with_the_methods_there_are() {
    let app = TestApp::start().await;
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO",
    ];
    let document = app.get("/openapi.json").await.expect(200).json();

    for (path, operations) in document["paths"].as_object().unwrap() {
        let mut known: BTreeSet<String> = operations
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .filter(|method| methods.contains(&method.as_str()))
            .collect();
        // whatever a GET only reads can be asked for without its body
        let claims =
            ["messages", "stream", "ws"].map(|last| format!("/subscriptions/{{id}}/{last}"));
        if known.contains("GET") && !claims.iter().any(|claims| claims == path) {
            known.insert("HEAD".to_owned());
        }
        for method in methods.iter().filter(|method| !known.contains(**method)) {
            let answer = answer(app.request(method, &path.replace("{id}", "x"))).await;

            assert_eq!(answer.status, 405, "{method} {path}");
            if *method != "HEAD" {
                assert_eq!(answer.json(), json!({"detail": "Method Not Allowed"}));
            }
            let allow = answer.header("allow").unwrap();
            let allowed: BTreeSet<String> = allow
                .split(',')
                .map(|method| method.trim().to_owned())
                .collect();
            assert_eq!(allowed, known, "{method} {path}");
        }
    }
}
