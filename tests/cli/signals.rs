//! Signals end what waits: in time for the server, at once for the other subcommands.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgConnection;
use tokio::net::TcpListener;

use super::shutdown::blocked;
use super::{BINARY, PATIENCE, Sandbox};
use crate::support::database::TestDatabase;

/// Far more than a signal needs, far less than any limit of the database's.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn lock(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

/// Wait until no session of a subcommand is left.
async fn no_session_is_left(database: &TestDatabase) {
    let mut connection = database.plain().await;
    let deadline = Instant::now() + AT_ONCE;
    loop {
        let sessions: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
            where datname = current_database() and application_name like 'fastpubsub subcommand%'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if sessions == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{sessions} sessions are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What each waiting subcommand waits for.
const WAITS: &[(&[&str], &str)] = &[
    (
        &["db-migrate"],
        "begin; select pg_advisory_xact_lock(28834097089705314)",
    ),
    (
        &["cleanup_acked_messages"],
        "begin; lock table pubsub_data.acked in access exclusive mode",
    ),
    (
        &["cleanup_stuck_messages"],
        "begin; lock table pubsub_data.subscriptions in access exclusive mode",
    ),
    (
        &["create_client", "n"],
        "begin; lock table pubsub_data.clients in access exclusive mode",
    ),
];

#[tokio::test]
async fn a_signal_ends_a_waiting_subcommand_at_once_and_what_it_does_in_the_database() {
    for (arguments, statement) in WAITS {
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
            let database = TestDatabase::create().await;
            let sandbox = Sandbox::over(&database.url());
            let mut holder = database.plain().await;
            sqlx::raw_sql("comment on schema pubsub is 'older'")
                .execute(&mut holder)
                .await
                .unwrap();
            if arguments[0] != "db-migrate" {
                let comment = format!(
                    "comment on schema pubsub is 'fastpubsub 0.0.0 schema=0 checksum={}'",
                    fastpubsub::db::schema::checksum()
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(comment))
                    .execute(&mut holder)
                    .await
                    .unwrap();
            }
            lock(&mut holder, statement).await;
            let mut command = sandbox.command(arguments);
            let child = command.stderr(Stdio::piped()).stdout(Stdio::piped());
            let child = child.spawn().unwrap();
            blocked(&database).await;

            let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
            kill(pid, signal).unwrap();

            let output = tokio::time::timeout(AT_ONCE, child.wait_with_output());
            let output = output.await.expect("it ends at once").unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
            assert_eq!(
                String::from_utf8(output.stderr).unwrap(),
                format!("error: ended by {}\n", signal.as_str())
            );
            assert_eq!(output.stdout, b"");
            no_session_is_left(&database).await;
            lock(&mut holder, "rollback").await;
            let clients: i64 = sqlx::query_scalar("select count(*) from pubsub_data.clients")
                .fetch_one(&mut holder)
                .await
                .unwrap();
            assert_eq!(clients, 0);
            let comment: String = sqlx::query_scalar(
                "select obj_description('pubsub'::regnamespace, 'pg_namespace')",
            )
            .fetch_one(&mut holder)
            .await
            .unwrap();
            assert!(
                arguments[0] != "db-migrate" || comment == "older",
                "{comment}"
            );
        }
    }
}

/// As the first process of a container: signals without a handler are ignored.
#[tokio::test]
async fn a_signal_ends_a_waiting_subcommand_that_is_process_1() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: a process namespace needs root");
        return;
    }
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut holder = database.plain().await;
    lock(
        &mut holder,
        "begin; lock table pubsub_data.clients in access exclusive mode",
    )
    .await;
    let mut command = tokio::process::Command::new("unshare");
    let child = command
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            BINARY,
            "create_client",
            "n",
        ])
        .envs(sandbox.environment.iter().cloned())
        .current_dir(&sandbox.dir)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    blocked(&database).await;
    let children = format!("/proc/{0}/task/{0}/children", child.id().unwrap());
    let first: i32 = std::fs::read_to_string(children)
        .unwrap()
        .trim()
        .parse()
        .unwrap();

    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();

    let output = tokio::time::timeout(AT_ONCE, child.wait_with_output());
    let output = output.await.expect("it ends at once").unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
}

#[tokio::test]
async fn an_idle_server_whose_maintenance_waits_for_a_lock_ends_in_time() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut holder = database.plain().await;
    lock(
        &mut holder,
        "begin; lock table pubsub_data.deliveries in access exclusive mode",
    )
    .await;
    let mut server = sandbox
        .serve(&["--api-shutdown-timeout-seconds", "2"])
        .await;
    blocked(&database).await;

    server.signal(Signal::SIGTERM);

    assert_eq!(server.exits_within(AT_ONCE).await, Some(0));
}

#[tokio::test]
async fn a_server_whose_database_does_not_answer_at_the_start_ends_at_once() {
    for url in [
        "postgresql://u@127.0.0.1:PORT/d",
        "postgresql://u@127.0.0.1:PORT/d?sslmode=disable",
        "postgresql://u@127.0.0.1:PORT/d?sslmode=require",
    ] {
        for arguments in [&["server", "--api-port", "0"][..], &["db-migrate"]] {
            // it takes connections and never says a word
            let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = silent.local_addr().unwrap().port();
            let sandbox = Sandbox::over(&url.replace("PORT", &port.to_string()));
            let mut command = sandbox.command(arguments);
            let child = command.stderr(Stdio::piped()).spawn().unwrap();
            // held open
            let accepted = tokio::time::timeout(PATIENCE, silent.accept()).await;
            let accepted = accepted.unwrap().unwrap();
            let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());

            kill(pid, Signal::SIGTERM).unwrap();

            let output = tokio::time::timeout(AT_ONCE, child.wait_with_output());
            let output = output.await.expect("it ends at once").unwrap();
            let expected = if arguments[0] == "server" { 0 } else { 143 };
            assert_eq!(output.status.code(), Some(expected), "{url} {output:?}");
            drop(accepted);
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let mut server = sandbox.serve(&[]).await;
    let topic = serde_json::json!({"id": "x"});
    server.post("/topics", topic).await.expect(201);
    let mut holder = database.plain().await;
    lock(
        &mut holder,
        "begin; select from pubsub_data.topics for update",
    )
    .await;
    let endless = tokio::spawn(server.request("DELETE", "/topics/x").send());
    blocked(&database).await;

    server.signal(Signal::SIGTERM);
    server.logged("stopping on SIGTERM").await;
    server.signal(Signal::SIGINT);

    assert_eq!(server.exits_within(AT_ONCE).await, Some(130));
    assert!(endless.await.unwrap().is_err());
}

#[tokio::test]
async fn a_signal_during_the_first_start_leaves_no_postgres_behind_and_the_next_start_works() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.spawn(&[]);
    server.logged("creating a private Postgres").await;

    server.signal(Signal::SIGINT);

    assert_eq!(server.exits_within(AT_ONCE).await, Some(0));
    super::wait_until(|| super::processes_on(&sandbox.data_dir).is_empty());
    assert_eq!(super::processes_on(&sandbox.data_dir), []);
    let server = sandbox.serve(&[]).await;
    server.get("/readiness").await.expect(200);
}

#[tokio::test]
async fn a_result_that_nobody_reads_is_an_error_and_no_panic() {
    for arguments in [&["generate_secret_key"][..], &["--help"], &["--version"]] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(arguments);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
        // the command holds the pipe too
        drop(command);

        let output = child.unwrap().wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot write to stdout: "),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[tokio::test]
async fn a_server_whose_log_nobody_reads_goes_on() {
    let database = TestDatabase::create().await;
    for format in ["json", "logfmt", "text"] {
        let sandbox = Sandbox::over(&database.url());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let mut command = sandbox.command(&["server", "--api-host", "127.0.0.1"]);
        command.args(["--api-port", &port, "--log-formatter", format]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + PATIENCE;
        while reqwest::get(format!("{url}/liveness")).await.is_err() {
            assert!(Instant::now() < deadline, "{format}: it does not serve");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        let answer = reqwest::get(format!("{url}/topics")).await.unwrap();

        assert_eq!(answer.status(), 200, "{format}");
        child.kill().await.unwrap();
    }
}
