//! Stopping the server.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::Connection;

use super::{PATIENCE, Sandbox, Server};
use crate::support::answer;
use crate::support::database::TestDatabase;

/// Wait until a statement waits for a lock.
pub(super) async fn blocked(database: &TestDatabase) {
    let mut connection = database.plain().await;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if waiting > 0 {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "nothing waits for a lock"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a new connection is refused.
async fn refuses_connections(server: &Server<'_>) -> bool {
    server.request("GET", "/liveness").send().await.is_err()
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox.serve(&[]).await;
    server.post("/topics", json!({"id": "x"})).await.expect(201);
    let mut holder = database.connect().await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("select from pubsub_data.topics for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    let in_flight = tokio::spawn(answer(server.request("DELETE", "/topics/x")));
    blocked(&database).await;

    server.signal(Signal::SIGTERM);
    server.logged("stopping on SIGTERM").await;
    while !refuses_connections(&server).await {}
    assert!(server.child.try_wait().unwrap().is_none(), "it waits");
    lock.rollback().await.unwrap();

    assert_eq!(in_flight.await.unwrap().status, 204);
    assert_eq!(server.exits_within(PATIENCE).await, Some(0));
    let log = server.log();
    assert!(log.contains("\"DELETE /topics/{id} 204\""), "{log}");
    assert!(!log.contains("stopped with requests in flight"), "{log}");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_after_the_shutdown_timeout() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox
        .serve(&["--api-shutdown-timeout-seconds", "1"])
        .await;
    server.post("/topics", json!({"id": "x"})).await.expect(201);
    let mut holder = database.connect().await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("select from pubsub_data.topics for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    let endless = tokio::spawn(server.request("DELETE", "/topics/x").send());
    blocked(&database).await;

    server.signal(Signal::SIGTERM);

    assert_eq!(server.exits_within(Duration::from_secs(6)).await, Some(0));
    assert!(endless.await.unwrap().is_err(), "no answer");
    assert!(server.log().contains("stopped with requests in flight"));
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_end() {
    use tokio::io::AsyncWriteExt;

    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox
        .serve(&["--api-shutdown-timeout-seconds", "1"])
        .await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    idle.write_all(b"POST /topics HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();

    server.signal(Signal::SIGTERM);

    assert_eq!(server.exits_within(Duration::from_secs(6)).await, Some(0));
}

#[tokio::test]
async fn an_idle_server_ends_at_once_on_sigterm_and_on_sigint() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    for (signal, expected) in [
        (Signal::SIGTERM, "stopping on SIGTERM"),
        (Signal::SIGINT, "stopping on SIGINT"),
    ] {
        let mut server = sandbox.serve(&[]).await;
        server.get("/readiness").await.expect(200);

        server.signal(signal);

        // far below the shutdown timeout of 30 s
        assert_eq!(server.exits_within(Duration::from_secs(10)).await, Some(0));
        assert!(server.log().contains(expected), "{}", server.log());
    }
}
