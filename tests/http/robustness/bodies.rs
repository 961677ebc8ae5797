//! Bodies that no route takes.

use super::{UNKNOWN_CLIENT, app, assert_refused, assert_unharmed, contents, request, send, show};

/// The routes that read a body.
pub(super) fn routes() -> [(&'static str, String); 13] {
    [
        ("POST", "/topics".to_owned()),
        ("POST", "/topics/t/messages".to_owned()),
        ("POST", "/topics/t/publish".to_owned()),
        ("POST", "/subscriptions".to_owned()),
        ("POST", "/subscriptions/s/filter-preview".to_owned()),
        ("POST", "/subscriptions/s/acks".to_owned()),
        ("POST", "/subscriptions/s/nacks".to_owned()),
        ("POST", "/subscriptions/s/pull".to_owned()),
        ("POST", "/subscriptions/s/settle".to_owned()),
        ("POST", "/subscriptions/s/dlq/reprocess".to_owned()),
        ("POST", "/clients".to_owned()),
        ("PUT", format!("/clients/{UNKNOWN_CLIENT}")),
        ("POST", "/oauth/token".to_owned()),
    ]
}

/// The longest body that a route takes.
pub(super) fn limit(path: &str) -> usize {
    match path.rsplit('/').next().unwrap() {
        "token" => 16 * 1024,
        "messages" | "publish" | "transactions" => 10 * 1024 * 1024,
        "acks" | "nacks" | "settle" | "pull" | "reprocess" => 5 * 1024 * 1024,
        "subscriptions" | "filter-preview" => 256 * 1024,
        _ => 64 * 1024,
    }
}

/// The same value in every field that some route knows.
fn every_field(value: &str) -> String {
    let fields = [
        "id",
        "topic_id",
        "filter",
        "max_delivery_attempts",
        "backoff_min_seconds",
        "backoff_max_seconds",
        "ack_deadline_seconds",
        "last",
        "consumer_id",
        "max_messages",
        "acks",
        "nacks",
        "rejects",
        "extends",
        "name",
        "scopes",
        "is_active",
        "messages",
        "client_id",
        "client_secret",
    ];
    let fields = fields.map(|field| format!(r#""{field}":{value}"#));
    format!("{{{}}}", fields.join(","))
}

fn hostile_bodies() -> Vec<Vec<u8>> {
    let deep = 100_000;
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "\n",
        "{",
        "[",
        "[{",
        "}",
        "]",
        "{\"id\"",
        "{\"id\":",
        "{\"id\":\"a\"",
        "[{\"a\":1},",
        "[{\"a\":1}",
        "[{\"a\":1}]]",
        "[{\"a\":1}] []",
        "nul",
        "null",
        "true",
        "0",
        "-",
        "\"x\"",
        "\"",
        "{}",
        "{\"a\":1,}",
        "[,]",
        "[1,]",
        "'a'",
        "[null]",
        "[true]",
        "[5]",
        "[\"x\"]",
        "[[]]",
        "[{\"a\":1},[]]",
        "\u{feff}[]",
        "\u{feff}{}",
        "//",
        "[{\"a\":1}/**/]",
        "%00",
        "a=b&c=d",
        "<xml/>",
        "1e309",
        "1e400",
        "-1e400",
        "[1e400]",
        "NaN",
        "Infinity",
        "-Infinity",
        "[NaN]",
        r#"[{"a":NaN}]"#,
        r#"[{"a":Infinity}]"#,
        r#"[{"a":-Infinity}]"#,
        r#"[{"a":1e309}]"#,
        r#"[{"a":1e400}]"#,
        r#"[{"a":-1e99999999999999999999999}]"#,
        r#"[{"a":01}]"#,
        r#"[{"a":"\u0000"}]"#,
        r#"[{"\u0000":1}]"#,
        r#"[{"a":"\ud800"}]"#,
        r#"[{"a":"\udc00"}]"#,
        r#"[{"a":"\ud800\ud800"}]"#,
        r#"[{"a":"\uZZZZ"}]"#,
        r#"[{"a":"\u00"#,
        r#"[{"a":"\x00"}]"#,
        "[{\"a\":\"\u{0}\"}]",
        "[{\"a\":\"\n\"}]",
        "\u{0}",
        "[\"\\u0000\"]",
        "[\"\"]",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    for value in [
        "null",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "[[]]",
        "1e400",
        "NaN",
        "-1",
        "1.5",
        "9223372036854775808",
        "\" \"",
        "\"%00\"",
        "\"a/b\"",
        "\"\u{0}\"",
    ] {
        bodies.push(every_field(value).into_bytes());
    }
    bodies.push(every_field(&format!("\"{}\"", "x".repeat(2000))).into_bytes());
    bodies.push(every_field(&"9".repeat(1000)).into_bytes());
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        bodies.push(open.repeat(deep).into_bytes());
        bodies.push(format!("{}1{}", open.repeat(deep), close.repeat(deep)).into_bytes());
    }
    let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    bodies.push(format!(r#"[{{"a":{nested}}}]"#).into_bytes());
    bodies.push(every_field(&nested).into_bytes());
    // more digits than a number of Postgres has
    bodies.push(format!(r#"[{{"a":{}}}]"#, "9".repeat(140_000)).into_bytes());
    bodies.push(format!(r#"[{{"a":0.{}}}]"#, "9".repeat(140_000)).into_bytes());
    // not UTF-8
    for bytes in [
        &b"\xff"[..],
        b"\xff\xfe[\0]\0",
        b"[{\"a\":\"\xff\"}]",
        b"[{\"\xc3\":1}]",
        b"{\"id\":\"\xed\xa0\x80\"}",
        b"[{\"a\":\"\xf4\x90\x80\x80\"}]",
        b"\x1f\x8b\x08\0\0\0\0\0",
        b"[\"\xe2\x82\"]",
    ] {
        bodies.push(bytes.to_vec());
    }
    bodies
}

/// Contract point 1.
#[tokio::test]
async fn hostile_bodies_are_422_on_every_route_or_413_where_they_are_long() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for body in hostile_bodies() {
        for (method, path) in routes() {
            // settling nothing is no mistake
            if path.ends_with("/settle") && body == b"{}" {
                continue;
            }
            let status = if body.len() > limit(&path) { 413 } else { 422 };
            for headers in ["", "Content-Type: application/json\r\n"] {
                let answer = send(&app, request(method, &path, headers, &body)).await;
                let what = format!("{method} {path} {}", show(&body));
                assert_refused(&answer, status, &what);
            }
        }
    }

    assert_unharmed(&app, &before).await;
}

#[tokio::test]
async fn bodies_of_another_content_type_are_422() {
    let app = app().await;
    let before = contents(&app.pool()).await;

    for content_type in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application",
        "application/",
        "/",
        "*/*",
        ";",
        "",
        "application/jsonx",
        "application/json x",
        "json",
        "application/xml",
        "caf\u{e9}",
        "\u{e9}; application/json",
    ] {
        for (method, path) in &routes()[..9] {
            let headers = format!("Content-Type: {content_type}\r\n");
            let answer = send(&app, request(method, path, &headers, b"{\"id\": \"x\"}")).await;
            assert_refused(&answer, 422, &format!("{method} {path} {content_type}"));
        }
    }

    assert_unharmed(&app, &before).await;
}
