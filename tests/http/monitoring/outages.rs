//! A database that cannot be reached.

use std::path::Path;

use fastpubsub::app::App;
use fastpubsub::db::database::Database;
use fastpubsub::db::pooler::Sessions;
use fastpubsub::doors;
use fastpubsub::doors::serve::{Limits, serve};
use fastpubsub::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;
use crate::support::{Answer, TestApp, answer, settings};

/// The address of a service whose database is found with these options, while the guard lives.
async fn start_on(options: PgConnectOptions) -> (String, impl Drop) {
    let settings = settings(&[]);
    let pool = Database::new(&settings, options, Sessions::Own);
    let app = App::new(settings, pool, Metrics::install().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let (limits, ended) = (Limits::of(&app.settings), shutdown.clone());
    tokio::spawn(async move {
        let listening = vec![doors::listening(listener, &app)];
        serve(listening, &app, ended, limits).await;
    });
    (url, shutdown.drop_guard())
}

fn nowhere() -> PgConnectOptions {
    PgConnectOptions::new()
        .username("postgres")
        .socket(Path::new("/nonexistent/fastpubsub"))
}

async fn send(url: &str, method: &str, path: &str, body: &Value) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    answer(
        reqwest::Client::new()
            .request(method, format!("{url}{path}"))
            .json(body),
    )
    .await
}

fn assert_unavailable(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.body);
    assert_eq!(
        answer.json(),
        json!({"detail": "database is unavailable"}),
        "{what}"
    );
    assert_eq!(answer.header("retry-after"), Some("1"), "{what}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
}

#[tokio::test]
async fn every_request_that_needs_an_unreachable_database_is_503() {
    let (url, _guard) = start_on(nowhere()).await;
    let client = json!({"name": "n", "scopes": "*"});
    let client_path = "/clients/01890000-0000-7000-8000-000000000000";

    for (method, path, body) in [
        ("GET", "/topics", json!(null)),
        ("POST", "/topics", json!({"id": "t"})),
        ("GET", "/topics/t", json!(null)),
        ("DELETE", "/topics/t", json!(null)),
        ("POST", "/topics/t/messages", json!([{"a": 1}])),
        ("GET", "/subscriptions", json!(null)),
        (
            "POST",
            "/subscriptions",
            json!({"id": "s", "topic_id": "t"}),
        ),
        ("GET", "/subscriptions/s", json!(null)),
        ("DELETE", "/subscriptions/s", json!(null)),
        (
            "GET",
            "/subscriptions/s/messages?consumer_id=c",
            json!(null),
        ),
        ("POST", "/subscriptions/s/acks", json!([])),
        ("POST", "/subscriptions/s/nacks", json!([])),
        (
            "POST",
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "wait_seconds": 30}),
        ),
        ("POST", "/subscriptions/s/settle", json!({})),
        ("GET", "/subscriptions/s/dlq", json!(null)),
        ("POST", "/subscriptions/s/dlq/reprocess", json!([])),
        ("GET", "/subscriptions/s/metrics", json!(null)),
        ("GET", "/clients", json!(null)),
        ("POST", "/clients", client.clone()),
        ("GET", client_path, json!(null)),
        ("PUT", client_path, client),
        ("DELETE", client_path, json!(null)),
    ] {
        let answer = send(&url, method, path, &body).await;
        assert_unavailable(&answer, &format!("{method} {path}"));
    }
}

#[tokio::test]
async fn without_a_database_the_service_is_alive_but_not_ready() {
    let (url, _guard) = start_on(nowhere()).await;

    let readiness = send(&url, "GET", "/readiness", &Value::Null)
        .await
        .expect(503);
    let liveness = send(&url, "GET", "/liveness", &Value::Null)
        .await
        .expect(200);

    assert_eq!(readiness.json(), json!({"detail": "database is down"}));
    assert!(readiness.header("x-request-id").is_some());
    assert_eq!(liveness.json(), json!({"status": "alive"}));
    for path in ["/metrics", "/docs", "/openapi.json"] {
        send(&url, "GET", path, &Value::Null).await.expect(200);
    }
    // what needs no database is still refused for what it is
    send(&url, "POST", "/topics", &json!({"id": "a b"}))
        .await
        .expect(422);
    send(&url, "GET", "/nope", &Value::Null).await.expect(404);
}

/// A refused connection may be a database that starts: it is tried for some seconds.
#[tokio::test]
async fn a_database_that_refuses_connections_is_503() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("postgres");
    let (url, _guard) = start_on(options).await;

    let (topics, readiness) = tokio::join!(
        send(&url, "GET", "/topics", &Value::Null),
        send(&url, "GET", "/readiness", &Value::Null)
    );

    assert_unavailable(&topics, "GET /topics");
    assert_eq!(
        readiness.expect(503).json(),
        json!({"detail": "database is down"})
    );
}

/// On a full disk, a connection may end at its start with an internal error of Postgres.
#[tokio::test]
async fn a_database_that_ends_connections_is_503_whatever_its_reason() {
    let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(postgres.local_addr().unwrap().port())
        .username("postgres")
        .ssl_mode(PgSslMode::Disable);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = postgres.accept().await.unwrap();
            let mut startup = [0; 1024];
            let read = stream.read(&mut startup).await.unwrap();
            assert!(read > 0);
            let fields = b"SFATAL\0VFATAL\0CXX000\0Mcould not write init file\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let error = [b"E".as_slice(), &length, fields].concat();
            stream.write_all(&error).await.unwrap();
        }
    });
    let (url, _guard) = start_on(options).await;

    let topics = send(&url, "GET", "/topics", &Value::Null).await;

    assert_unavailable(&topics, "GET /topics");
}

#[tokio::test]
async fn a_database_that_is_dropped_under_the_service_is_503() {
    let database = TestDatabase::create().await;
    let app = TestApp::start_on(database.share(), &[]).await;
    app.get("/topics").await.expect(200);
    app.get("/readiness").await.expect(200);

    drop(database);

    // the first request may find out on a connection that was cut, the others on a new one
    for _ in 0..3 {
        assert_unavailable(&app.get("/topics").await, "GET /topics");
        let readiness = app.get("/readiness").await.expect(503);
        assert_eq!(readiness.json(), json!({"detail": "database is down"}));
    }
}

#[tokio::test]
async fn a_cut_connection_is_replaced_by_the_next_request() {
    // one connection, however many the doors opened at their start
    let flags = ["--database-pool-size", "1", "--database-max-overflow", "0"];
    let app = TestApp::start_with(&flags).await;
    app.get("/topics").await.expect(200);
    sqlx::query(
        "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
         where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let first = app.get("/topics").await;
    let second = app.get("/topics").await;

    assert!(
        matches!(first.status, 200 | 503),
        "{}: {}",
        first.status,
        first.body
    );
    second.expect(200);
}

#[tokio::test]
async fn a_read_only_database_is_not_ready_until_it_takes_writes_again() {
    let database = TestDatabase::create().await;
    let mut admin = database.connect().await;
    let name: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let mut set_read_only = async |value: &str| {
        let sql = format!("alter database {name} set default_transaction_read_only = {value}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
    };
    set_read_only("on").await;
    let (url, _guard) = start_on(database.options()).await;

    let refused = send(&url, "GET", "/readiness", &Value::Null).await;
    let alive = send(&url, "GET", "/liveness", &Value::Null).await;
    set_read_only("off").await;
    let ready = send(&url, "GET", "/readiness", &Value::Null).await;

    assert_eq!(
        refused.expect(503).json(),
        json!({"detail": "database is read-only: default_transaction_read_only is on"})
    );
    alive.expect(200);
    ready.expect(200);
}
