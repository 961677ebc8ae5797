//! A first start that did not come to its end.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::{PATIENCE, Sandbox, Server, processes_on};

/// Wait until initdb is at work.
async fn initdb_works(sandbox: &Sandbox, server: &mut Server<'_>) {
    server.logged("creating a private Postgres").await;
    let deadline = Instant::now() + PATIENCE;
    while fs::read_dir(&sandbox.data_dir).unwrap().all(|entry| {
        // the cluster, whatever it is called while it is made
        !entry.unwrap().path().join("PG_VERSION").exists()
    }) {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn assert_works(sandbox: &Sandbox) {
    let ran = sandbox.run(&["db-migrate"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "schema=migrated\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn what_an_earlier_attempt_left_is_cleared() {
    let sandbox = Sandbox::new();
    let left = sandbox.data_dir.join("pg.creating-1");
    fs::create_dir_all(left.join("base")).unwrap();
    fs::write(sandbox.data_dir.join("password"), "old").unwrap();
    fs::write(sandbox.data_dir.join("start.lock"), "").unwrap();

    assert_works(&sandbox).await;

    assert!(!left.exists());
}

#[tokio::test]
async fn a_first_start_that_was_killed_is_done_again() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.spawn(&[]);
    initdb_works(&sandbox, &mut server).await;

    // as when the power fails
    drop(server);
    for pid in processes_on(&sandbox.data_dir) {
        let _gone = kill(pid, Signal::SIGKILL);
    }

    assert_works(&sandbox).await;
}

#[tokio::test]
async fn a_first_start_that_was_stopped_is_done_again_at_once() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.spawn(&[]);
    initdb_works(&sandbox, &mut server).await;

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exits_within(PATIENCE).await, Some(0));

    assert_works(&sandbox).await;
}

#[tokio::test]
async fn a_start_that_is_stopped_leaves_no_process_behind() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.spawn(&[]);
    initdb_works(&sandbox, &mut server).await;

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exits_within(PATIENCE).await, Some(0));

    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_on(&sandbox.data_dir).is_empty() {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            processes_on(&sandbox.data_dir)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_start_on_existing_data_that_is_stopped_leaves_no_process_behind() {
    let sandbox = Sandbox::new();
    assert_works(&sandbox).await;

    for _ in 0..3 {
        let mut server = sandbox.spawn(&[]);
        let deadline = Instant::now() + PATIENCE;
        while sandbox.postgres().is_none() {
            assert!(Instant::now() < deadline, "{}", server.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        server.signal(Signal::SIGTERM);
        assert_eq!(server.exits_within(PATIENCE).await, Some(0));

        assert_eq!(sandbox.postgres(), None, "{}", server.log());
    }
}
