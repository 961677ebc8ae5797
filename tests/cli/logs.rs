//! What the server logs, and what it never does.

use serde_json::{Value, json};

use super::{Sandbox, Server};
use crate::support::database::TestDatabase;
use crate::support::{Answer, answer};

pub(super) const PAYLOAD: &str = "confidential-payload";

/// A client of the API, and a token of it.
pub(super) async fn client(sandbox: &Sandbox, server: &Server<'_>) -> (String, String, String) {
    let ran = sandbox.run(&["create_client", "n"]).await;
    let value = |name: &str| {
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{ran:?}")).to_owned()
    };
    let (id, secret) = (value("client_id="), value("client_secret="));
    let body = json!({"client_id": id, "client_secret": secret});
    let token = server.post("/oauth/token", body).await.expect(201).json();
    let token = token["access_token"].as_str().unwrap().to_owned();
    (id, secret, token)
}

pub(super) async fn send(
    server: &Server<'_>,
    (method, path): (&str, &str),
    token: Option<&str>,
    id: &str,
    body: Value,
) -> Answer {
    let mut request = server.request(method, path).header("x-request-id", id);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if method != "GET" {
        request = request.json(&body);
    }
    answer(request).await
}

/// Requests, one of each kind, and what is logged of them: id, route, status, whether with a client.
async fn requests(
    server: &Server<'_>,
    token: &str,
) -> Vec<(&'static str, &'static str, u16, bool)> {
    let topic = json!({"id": "t"});
    let messages = json!([{"text": PAYLOAD}]);
    let invalid = json!({"id": PAYLOAD.to_owned() + " "});
    let query = format!("/topics?limit=5&after={PAYLOAD}");
    let some = Some(token);
    let stream = format!("/subscriptions/x/stream?access_token={token}");
    for (route, token, id, body, status) in [
        (("POST", "/topics"), some, "req-1", topic, 201),
        (("POST", "/topics/t/messages"), some, "req-2", messages, 204),
        (("GET", query.as_str()), some, "req-3", Value::Null, 200),
        (("POST", "/topics"), some, "req-4", invalid, 422),
        (("GET", "/topics"), None, "req-5", Value::Null, 401),
        (
            ("GET", "/confidential-payload"),
            None,
            "req-6",
            Value::Null,
            404,
        ),
        (("GET", "/topics/t"), some, "req-7", Value::Null, 200),
        (("GET", stream.as_str()), None, "req-8", Value::Null, 404),
    ] {
        send(server, route, token, id, body).await.expect(status);
    }
    vec![
        ("req-1", "/topics", 201, true),
        ("req-2", "/topics/{id}/messages", 204, true),
        ("req-3", "/topics", 200, true),
        ("req-4", "/topics", 422, true),
        ("req-5", "/topics", 401, false),
        ("req-6", "unmatched", 404, false),
        ("req-7", "/topics/{id}", 200, true),
        ("req-8", "/subscriptions/{id}/stream", 404, true),
    ]
}

/// The one line about a request.
fn line<'a>(log: &'a str, id: &str) -> &'a str {
    let mut lines = log.lines().filter(|line| line.contains(id));
    let line = lines.next().unwrap_or_else(|| panic!("no {id}: {log}"));
    assert_eq!(lines.next(), None, "{id}: {log}");
    line
}

#[tokio::test]
async fn each_request_is_one_line_of_json_with_its_fields() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let server = sandbox.serve(&["--log-formatter", "json"]).await;
    let (client_id, _, token) = client(&sandbox, &server).await;

    let requests = requests(&server, &token).await;

    let log = server.stop().await;
    for line in log.lines() {
        let fields: Result<Value, _> = serde_json::from_str(line);
        assert!(fields.is_ok_and(|fields| fields.is_object()), "{line}");
    }
    for (id, route, status, has_client) in requests {
        let fields: Value = serde_json::from_str(line(&log, id)).unwrap();
        assert_eq!(fields["request.id"], json!(id), "{fields}");
        assert_eq!(fields["http.route"], json!(route), "{fields}");
        assert_eq!(fields["http.status"], json!(status), "{fields}");
        assert!(fields["http.method"].is_string(), "{fields}");
        assert!(fields["duration_ms"].as_f64().unwrap() > 0.0, "{fields}");
        let client = has_client.then_some(&client_id);
        assert_eq!(
            fields.get("client.id"),
            client.map(|id| json!(id)).as_ref(),
            "{fields}"
        );
        assert!(fields["timestamp"].is_string(), "{fields}");
        assert_eq!(fields["level"], "INFO", "{fields}");
    }
    assert!(!log.contains(PAYLOAD), "{log}");
    assert!(!log.contains(&token), "{log}");
}

#[tokio::test]
async fn each_request_is_one_line_of_logfmt_or_text_with_its_fields() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    for (format, quote) in [("logfmt", ""), ("text", "\"")] {
        let server = sandbox.serve(&["--log-formatter", format]).await;
        let (client_id, _, token) = client(&sandbox, &server).await;
        sqlx::query("delete from pubsub_data.topics")
            .execute(&mut database.connect().await)
            .await
            .unwrap();

        let requests = requests(&server, &token).await;

        let log = server.stop().await;
        for (id, route, status, has_client) in requests {
            let line = line(&log, id);
            for field in [
                format!(" request.id={quote}{id}{quote} "),
                format!(" http.route={quote}{route}{quote} "),
                format!(" http.status={status} "),
                " duration_ms=".to_owned(),
            ] {
                assert!(line.contains(&field), "{format} {field}: {line}");
            }
            let client = format!(" client.id={quote}{client_id}{quote}");
            assert_eq!(line.contains(&client), has_client, "{format}: {line}");
            assert_eq!(line.contains("client.id"), has_client, "{format}: {line}");
        }
        assert!(!log.contains(PAYLOAD), "{log}");
    }
}

#[tokio::test]
async fn a_log_that_is_no_terminal_has_no_colours() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    for format in ["json", "logfmt", "text"] {
        let server = sandbox.serve(&["--log-formatter", format]).await;
        server.get("/liveness").await.expect(200);

        let log = server.stop().await;

        assert!(!log.contains('\u{1b}'), "{format}: {log}");
    }
}

#[tokio::test]
async fn the_log_level_leaves_out_what_is_below_it() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    let server = sandbox
        .serve(&["--api-debug", "true", "--log-level", "error"])
        .await;
    server.get("/liveness").await.expect(200);
    let debug = server.stop().await;

    // it runs until the port is seen to be taken
    let mut quiet = sandbox.command(&["server", "--log-level", "error"]);
    quiet.args(["--api-host", "127.0.0.1", "--api-port", &port]);
    let mut quiet = quiet.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}/liveness");
    while reqwest::get(&url).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    quiet.kill().await.unwrap();
    let quiet = quiet.wait_with_output().await.unwrap();

    assert!(debug.contains("GET /liveness 200"), "{debug}");
    assert_eq!(String::from_utf8(quiet.stderr).unwrap(), "");
}

#[tokio::test]
async fn a_request_for_an_object_is_logged_with_its_id_up_to_a_bound() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let server = sandbox.serve(&["--log-formatter", "json"]).await;
    let long = "x".repeat(1000);

    for (id, method, path) in [
        ("req-1", "DELETE", "/topics/orders"),
        ("req-2", "GET", "/subscriptions/orders/dlq"),
        (
            "req-3",
            "DELETE",
            "/snapshots/orders?x=confidential-payload",
        ),
        ("req-4", "GET", &format!("/topics/{long}")),
        ("req-5", "GET", "/topics"),
    ] {
        send(&server, (method, path), None, id, Value::Null).await;
    }

    let log = server.stop().await;
    for (id, expected) in [
        ("req-1", json!("orders")),
        ("req-2", json!("orders")),
        ("req-3", json!("orders")),
        ("req-4", json!("x".repeat(128))),
        ("req-5", Value::Null),
    ] {
        let fields: Value = serde_json::from_str(line(&log, id)).unwrap();
        let logged = fields.get("object.id").unwrap_or(&Value::Null);
        assert_eq!(logged, &expected, "{fields}");
    }
    assert!(!log.contains(PAYLOAD), "{log}");
}

#[tokio::test]
async fn probes_are_logged_at_debug_unless_they_fail() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    for (level, expected) in [("info", 0), ("debug", 3)] {
        let server = sandbox.serve(&["--log-level", level]).await;
        for probe in ["/liveness", "/readiness", "/metrics"] {
            server.get(probe).await.expect(200);
        }

        let log = server.stop().await;

        let lines = log.lines().filter(|line| line.contains("http.route=/"));
        assert_eq!(lines.count(), expected, "{level}: {log}");
    }
}

#[tokio::test]
async fn the_end_of_a_job_is_one_line_with_its_result() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox.serve(&["--log-formatter", "json"]).await;
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    let subscription = json!({"id": "audited", "topic_id": "t"});
    server
        .post("/subscriptions", subscription)
        .await
        .expect(201);
    let messages: Vec<Value> = (0..7).map(|n| json!({"n": n, "text": PAYLOAD})).collect();
    server
        .post("/topics/t/messages", json!(messages))
        .await
        .expect(204);

    let path = "/subscriptions/audited/seek";
    server.post(path, json!({"to": "end"})).await.expect(200);

    server.logged("job.kind").await;
    let log = server.stop().await;
    let fields: Value = serde_json::from_str(line(&log, "job.kind")).unwrap();
    assert_eq!(fields["job.kind"], "seek", "{fields}");
    assert_eq!(fields["job.state"], "done", "{fields}");
    assert_eq!(fields["job.scanned"], 7, "{fields}");
    assert_eq!(fields["job.changed"], 7, "{fields}");
    assert_eq!(fields["subscription.id"], "audited", "{fields}");
    assert!(fields["job.duration_ms"].is_number(), "{fields}");
    assert!(!log.contains(PAYLOAD), "{log}");
}
