//! The private Postgres of a server that was given no database.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tokio::process::Command;

use super::{PATIENCE, Sandbox, make_directory};

#[tokio::test]
async fn the_server_runs_its_own_postgres_and_stops_it() {
    let sandbox = Sandbox::new();

    let server = sandbox.serve(&[]).await;

    server.get("/readiness").await.expect(200);
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    assert!(sandbox.postgres().is_some());
    let log = server.stop().await;
    assert_eq!(sandbox.postgres(), None);
    assert!(log.contains("no FASTPUBSUB_DATABASE_URL"), "{log}");
    assert!(log.contains("psql -h "), "{log}");
}

#[tokio::test]
async fn data_survives_a_stop_and_a_start() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]).await;
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    server.stop().await;

    let started = Instant::now();
    let server = sandbox.serve(&[]).await;
    println!("a start on existing data took {:?}", started.elapsed());

    server.get("/topics/t").await.expect(200);
}

#[tokio::test]
async fn a_server_that_was_killed_leaves_a_postgres_that_the_next_one_takes_over() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.serve(&[]).await;
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    let orphan = sandbox.postgres();
    server.signal(Signal::SIGKILL);
    assert_eq!(server.exits_within(PATIENCE).await, None);
    assert_eq!(sandbox.postgres(), orphan);

    let next = sandbox.serve(&[]).await;

    next.get("/topics/t").await.expect(200);
    assert_eq!(sandbox.postgres(), orphan);
    next.stop().await;
    assert_eq!(sandbox.postgres(), None);
}

#[tokio::test]
async fn a_second_server_on_the_directory_is_refused_in_one_line() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]).await;
    let postgres = sandbox.postgres();

    let line = sandbox.run(&["server", "--api-port", "0"]).await.fails(1);

    let expected = format!(
        "another fastpubsub server runs on {}: stop it, or choose another FASTPUBSUB_DATA_DIR",
        sandbox.data_dir.display()
    );
    assert_eq!(line, expected);
    assert_eq!(sandbox.postgres(), postgres);
    server.get("/readiness").await.expect(200);
}

#[tokio::test]
async fn subcommands_use_the_database_of_the_running_server_and_leave_it_running() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]).await;
    let postgres = sandbox.postgres();

    let migrated = sandbox.run(&["db-migrate"]).await.quietly();
    let created = sandbox
        .run(&["create_client", "made by hand"])
        .await
        .quietly();

    assert_eq!(migrated, "schema=up-to-date\n");
    let id = created.lines().next().unwrap().replace("client_id=", "");
    let client = server
        .get(&format!("/clients/{id}"))
        .await
        .expect(200)
        .json();
    assert_eq!(client["name"], "made by hand");
    assert_eq!(sandbox.postgres(), postgres);
}

#[tokio::test]
async fn a_subcommand_alone_starts_and_stops_postgres() {
    let sandbox = Sandbox::new();

    // each makes or finds what it needs
    for (arguments, expected) in [
        (&["cleanup_stuck_messages"][..], "released=0\n"),
        (&["db-migrate"], "schema=up-to-date\n"),
        (&["cleanup_acked_messages"], "removed=0\n"),
    ] {
        let ran = sandbox.run(arguments).await;

        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), expected),
            "{ran:?}"
        );
        assert_eq!(sandbox.postgres(), None, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_client_created_before_the_first_start_is_there_afterwards() {
    let sandbox = Sandbox::new();
    let created = sandbox.run(&["create_client", "first"]).await;
    assert_eq!(created.code, Some(0), "{created:?}");

    let server = sandbox.serve(&[]).await;

    let clients = server.get("/clients").await.expect(200).json();
    assert_eq!(clients["data"][0]["name"], "first");
}

#[tokio::test]
async fn two_subcommands_at_once_share_one_postgres() {
    let sandbox = Sandbox::new();

    let (one, other) = tokio::join!(
        sandbox.run(&["create_client", "one"]),
        sandbox.run(&["create_client", "other"])
    );

    assert_eq!(
        (one.code, other.code),
        (Some(0), Some(0)),
        "{one:?} {other:?}"
    );
    let server = sandbox.serve(&[]).await;
    let clients = server.get("/clients").await.expect(200).json();
    assert_eq!(clients["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_postgres_that_was_killed_comes_back_and_nothing_answers_500_meanwhile() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]).await;
    server.post("/topics", json!({"id": "t"})).await.expect(201);
    let killed = sandbox.postgres().unwrap();

    kill(killed, Signal::SIGKILL).unwrap();

    let at = Instant::now();
    loop {
        let answer = server.get("/topics/t").await;
        let is_new = sandbox.postgres().is_some_and(|pid| pid != killed);
        if answer.status == 200 && is_new {
            break;
        }
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        let retry = (answer.status == 503).then_some("1");
        assert_eq!(answer.header("retry-after"), retry, "{answer:?}");
        assert!(at.elapsed() < Duration::from_secs(10), "{}", server.log());
    }
    server.post("/topics", json!({"id": "u"})).await.expect(201);
    server.get("/readiness").await.expect(200);
    let log = server.stop().await;
    assert!(log.contains("it was started again"), "{log}");
    assert_eq!(sandbox.postgres(), None);
}

#[tokio::test]
async fn a_path_too_long_for_a_unix_socket_works_over_loopback() {
    let sandbox = Sandbox::new();
    let parent = sandbox.dir.join("x".repeat(120));
    make_directory(&parent, 0o755);
    let sandbox = sandbox.with_data_dir(parent.join("data"));
    let created = sandbox.run(&["create_client", "early"]).await;
    assert_eq!(created.code, Some(0), "{created:?}");
    assert_eq!(sandbox.postgres(), None);

    let server = sandbox.serve(&[]).await;

    server.post("/topics", json!({"id": "t"})).await.expect(201);
    sandbox.run(&["create_client", "late"]).await.quietly();
    let clients = server.get("/clients").await.expect(200).json();
    assert_eq!(clients["data"].as_array().unwrap().len(), 2);
    server.stop().await;
    assert_eq!(sandbox.postgres(), None);
}

#[tokio::test]
async fn the_database_can_be_entered_with_the_command_that_is_logged() {
    for length in [1, 120] {
        let sandbox = Sandbox::new();
        let parent = sandbox.dir.join("x".repeat(length));
        make_directory(&parent, 0o755);
        let sandbox = sandbox.with_data_dir(parent.join("data"));
        let server = sandbox.serve(&["--log-formatter", "json"]).await;

        let log = server.log();
        let prompt = log.split("its prompt: ").nth(1).unwrap();
        let prompt = &prompt[..prompt.find('"').unwrap()];
        let query = format!("{prompt} -Atc 'select count(*) from pubsub.topics'");
        let ran = Command::new("sh")
            .args(["-c", &query])
            .output()
            .await
            .unwrap();

        assert_eq!(String::from_utf8(ran.stdout).unwrap(), "0\n", "{query}");
    }
}

#[tokio::test]
async fn over_loopback_the_password_of_the_directory_is_needed() {
    let sandbox = Sandbox::new();
    let parent = sandbox.dir.join("x".repeat(120));
    make_directory(&parent, 0o755);
    let sandbox = sandbox.with_data_dir(parent.join("data"));
    let _server = sandbox.serve(&[]).await;
    let pid_file = fs::read_to_string(sandbox.data_dir.join("pg/postmaster.pid")).unwrap();
    let port = pid_file.lines().nth(3).unwrap();
    let password = fs::read_to_string(sandbox.data_dir.join("password")).unwrap();
    let url =
        |password: &str| format!("postgresql://postgres:{password}@127.0.0.1:{port}/fastpubsub");

    let wrong = Sandbox::over(&url("hunter2")).run(&["db-migrate"]).await;
    let right = Sandbox::over(&url(&password)).run(&["db-migrate"]).await;

    let line = wrong.fails(1);
    let expected = format!("cannot use the database at 127.0.0.1:{port}: ");
    assert!(line.starts_with(&expected), "{line}");
    assert!(line.contains("password authentication failed"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    assert_eq!(right.quietly(), "schema=up-to-date\n");
    let mode = fs::metadata(sandbox.data_dir.join("password"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[tokio::test]
async fn the_private_postgres_has_nothing_of_our_settings_in_its_environment() {
    let sandbox = Sandbox::new()
        .with_auth()
        .with("PGPASSWORD", super::HIDDEN)
        .with("TZ", "UTC");
    let _server = sandbox.serve(&[]).await;

    let environ = format!("/proc/{}/environ", sandbox.postgres().unwrap());

    let environ = String::from_utf8(std::fs::read(environ).unwrap()).unwrap();
    for secret in ["FASTPUBSUB", super::KEY, super::HIDDEN] {
        assert!(!environ.contains(secret), "{environ:?}");
    }
    assert!(
        environ.contains("PATH=") && environ.contains("TZ=UTC"),
        "{environ:?}"
    );
}
