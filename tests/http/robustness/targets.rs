//! Paths and methods that make no sense.

use super::{app, assert_refused, assert_unharmed, contents, request, send};

fn hostile_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "%00",
        "a%00b",
        "t%00",
        "%ff",
        "%2f",
        "%2F%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "..",
        ".",
        "%",
        "%z",
        "%zz",
        "%c0%80",
        "%ed%a0%80",
        "%20",
        "t%20",
        "+",
        "%0d%0aX-Injected:%20y",
        "*",
        "%F0%9F%98%80",
        "%27%3B%20drop%20table%20x%3B--",
        "'",
        "\"",
        "\\",
        "{id}",
        "$1",
        "null",
        "-1",
        "0",
        "T",
        "t;x=1",
        "t,s",
        "[]",
        "%25%30%30",
        "\u{e9}",
        "~",
        "|",
        "%7B%7D",
    ]
    .iter()
    .map(|id| (*id).to_owned())
    .collect();
    ids.push("x".repeat(300));
    ids.push("x".repeat(20_000));
    ids.push("%00".repeat(5000));
    ids
}

/// Original's defect 12.
#[tokio::test]
async fn hostile_ids_of_paths_are_not_found() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for id in hostile_ids() {
        for (method, path, body, status) in [
            ("GET", format!("/topics/{id}"), "", 404),
            ("DELETE", format!("/topics/{id}"), "", 404),
            ("POST", format!("/topics/{id}/messages"), "[{\"a\":1}]", 404),
            ("POST", format!("/topics/{id}/messages"), "[]", 404),
            ("GET", format!("/subscriptions/{id}"), "", 404),
            ("DELETE", format!("/subscriptions/{id}"), "", 404),
            (
                "GET",
                format!("/subscriptions/{id}/messages?consumer_id=c"),
                "",
                404,
            ),
            ("POST", format!("/subscriptions/{id}/acks"), "[]", 404),
            ("POST", format!("/subscriptions/{id}/nacks"), "[]", 404),
            (
                "POST",
                format!("/subscriptions/{id}/pull"),
                "{\"consumer_id\":\"c\"}",
                404,
            ),
            ("POST", format!("/subscriptions/{id}/settle"), "{}", 404),
            ("GET", format!("/subscriptions/{id}/dlq"), "", 404),
            (
                "POST",
                format!("/subscriptions/{id}/dlq/reprocess"),
                "[]",
                404,
            ),
            ("DELETE", format!("/subscriptions/{id}/dlq"), "", 404),
            ("GET", format!("/subscriptions/{id}/parked"), "", 404),
            (
                "POST",
                format!("/subscriptions/{id}/parked/resume"),
                "{\"message_ids\":[],\"action\":\"skip\"}",
                404,
            ),
            ("GET", format!("/messages/{id}"), "", 422),
            ("GET", format!("/subscriptions/{id}/metrics"), "", 404),
            ("GET", format!("/clients/{id}"), "", 422),
            ("DELETE", format!("/clients/{id}"), "", 422),
            (
                "PUT",
                format!("/clients/{id}"),
                "{\"name\":\"n\",\"scopes\":\"*\"}",
                422,
            ),
        ] {
            let answer = send(&app, request(method, &path, "", body.as_bytes())).await;
            assert_refused(&answer, status, &format!("{method} {path:.100}"));
            assert_eq!(answer.header("x-injected"), None, "{method} {path:.100}");
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn odd_methods_are_405() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for method in [
        "FOO",
        "get",
        "Post",
        "TRACE",
        "PROPFIND",
        "PATCH",
        "OPTIONS",
        "QUERY",
        "!#$%&'*+-.^_`|~",
        "_",
        &"X".repeat(1000),
    ] {
        for target in [
            "/topics",
            "/topics/t/messages",
            "/subscriptions/s/messages?consumer_id=c",
            "/subscriptions/s/acks",
            "/clients",
            "/oauth/token",
            "/liveness",
            "/metrics",
            "/docs",
        ] {
            let answer = send(&app, request(method, target, "", b"[{\"a\":1}]")).await;
            assert_refused(&answer, 405, &format!("{method:.100} {target}"));
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn odd_targets_are_not_found() {
    let app = app().await;

    for target in [
        "*",
        "/%74opics%00",
        "/topics%2ft",
        "/topics/t%2fmessages/x",
        "/..",
        "/../topics/t/x",
        "//topics",
        "/topics//messages",
        "/subscriptions//dlq",
        "/topics/t/messages/",
        "/./topics",
        "/\u{e9}",
        "/topics/t?/messages/x/",
        "/metrics/x",
        "/docs/%00",
        "/docs/%2e%2e%2fmod.rs",
        "/docs/%ff",
        "/redoc/x",
    ] {
        let answer = send(&app, request("OPTIONS", target, "", b"")).await;
        let get = send(&app, request("GET", target, "", b"")).await;
        for answer in [answer, get] {
            assert!(
                matches!(answer.status, 200 | 307 | 400 | 404 | 405 | 422),
                "{target}: {}",
                answer.status
            );
        }
    }
    for target in [
        "/",
        "/nope",
        "/topics//messages/x",
        "/%00",
        "/%ff",
        "/topics/%2f/x",
        "/docs/%ff",
        "/docs/%00",
        "/docs/%2e%2e%2fmod.rs",
    ] {
        let answer = send(&app, request("GET", target, "", b"")).await;
        assert_refused(&answer, 404, target);
    }
    let absolute = send(&app, request("GET", "http://example.com/topics/t", "", b"")).await;
    assert_eq!(absolute.expect(200).json()["id"], "t");
}
