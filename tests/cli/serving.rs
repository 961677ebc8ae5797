//! `server` and the database it is given: which one it serves, and how it refuses the others.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};
use tokio::net::TcpListener;

use super::Sandbox;
use crate::support::database::TestDatabase;

/// "Within a few seconds", on a busy machine.
const SOON: Duration = Duration::from_secs(10);
const MISSING: &str =
    "the database schema is missing or older than this fastpubsub: run db-migrate";

async fn stamp(database: &TestDatabase, comment: &str) {
    let statement = format!("comment on schema pubsub is {comment}");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut database.plain().await)
        .await
        .unwrap();
}

/// The stamp, the routines and the relations, with their ids.
async fn fingerprint(database: &TestDatabase) -> String {
    sqlx::query(
        "select concat_ws(' ',
            obj_description('pubsub'::regnamespace, 'pg_namespace'),
            (select string_agg(p.oid::text, ',' order by p.oid) from pg_proc p
                where p.pronamespace = 'pubsub'::regnamespace),
            (select string_agg(c.oid::text, ',' order by c.oid) from pg_class c
                where c.relnamespace in ('pubsub'::regnamespace, 'pubsub_data'::regnamespace)))",
    )
    .fetch_one(&mut database.plain().await)
    .await
    .unwrap()
    .get(0)
}

#[tokio::test]
async fn a_database_without_the_schema_is_refused() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url());

    let line = sandbox.run(&["server", "--api-port", "0"]).await.fails(1);

    assert_eq!(line, MISSING);
}

#[tokio::test]
async fn a_database_with_an_older_schema_is_refused_and_left_alone() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    for comment in [
        "'fastpubsub 0.0.1 schema=1 checksum=0123456789abcdef'",
        "'fastpubsub 99.0.0 schema=0 checksum=0123456789abcdef'",
        "'something else'",
        "null",
    ] {
        stamp(&database, comment).await;
        let before = fingerprint(&database).await;

        let line = sandbox.run(&["server", "--api-port", "0"]).await.fails(1);

        assert_eq!(line, MISSING, "{comment}");
        assert_eq!(fingerprint(&database).await, before, "{comment}");
    }
}

#[tokio::test]
async fn a_migrated_database_is_served() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url());
    sandbox.run(&["db-migrate"]).await.quietly();

    let server = sandbox.serve(&[]).await;

    server.get("/readiness").await.expect(200);
    let topic = serde_json::json!({"id": "t"});
    server.post("/topics", topic).await.expect(201);
    let log = server.stop().await;
    assert!(
        !log.contains("level=warn") && !log.contains("level=error"),
        "{log}"
    );
}

#[tokio::test]
async fn a_newer_schema_is_served_with_a_warning() {
    let database = TestDatabase::create().await;
    let newer = "'fastpubsub 99.0.0 schema=99 checksum=0123456789abcdef'";
    stamp(&database, newer).await;
    let sandbox = Sandbox::over(&database.url());

    let server = sandbox.serve(&[]).await;

    server.get("/readiness").await.expect(200);
    let log = server.stop().await;
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("level=warn"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("made by a newer fastpubsub"), "{log}");
}

#[tokio::test]
async fn db_migrate_refuses_a_newer_schema_and_changes_nothing() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    let same_tables = format!(
        "'fastpubsub 99.0.0 schema={} checksum=0123456789abcdef'",
        newest_migration()
    );
    for comment in [
        "'fastpubsub 99.0.0 schema=99 checksum=0123456789abcdef'",
        concat!(
            "'fastpubsub ",
            env!("CARGO_PKG_VERSION"),
            " schema=99 checksum=0'"
        ),
        &same_tables,
    ] {
        stamp(&database, comment).await;
        let before = fingerprint(&database).await;

        let line = sandbox.run(&["db-migrate"]).await.fails(1);

        assert_eq!(
            line, "the database schema was made by a newer fastpubsub; nothing was changed",
            "{comment}"
        );
        assert_eq!(fingerprint(&database).await, before, "{comment}");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_that_names_the_setting() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();

    let flags = [
        "server",
        "--api-host",
        "127.0.0.1",
        "--api-port",
        &port.to_string(),
    ];
    let ran = sandbox.run(&flags).await;

    assert!(ran.took < SOON, "{ran:?}");
    let expected = format!(
        "cannot listen on 127.0.0.1:{port} (FASTPUBSUB_API_HOST, FASTPUBSUB_API_PORT): \
         Address already in use"
    );
    let line = ran.fails(1);
    assert!(line.starts_with(&expected), "{line}");
}

#[tokio::test]
async fn a_server_without_authentication_warns_where_others_can_reach_it() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    for (host, warnings) in [("0.0.0.0", 1), ("127.0.0.1", 0)] {
        let flags = ["server", "--api-host", host, "--api-port", "0"];
        let server = sandbox.listening(sandbox.start(sandbox.command(&flags)));
        let log = server.await.stop().await;

        let said = log.matches("FASTPUBSUB_AUTH_ENABLED is false").count();
        assert_eq!(said, warnings, "{host}: {log}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_one_line_without_the_password() {
    let database = TestDatabase::create_empty().await;
    let url = database.url();
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (address, query) = url.split_once('?').unwrap();
    let missing = format!("{address}_missing?{query}").replacen('@', ":hunter2@", 1);
    let no_role = url.replacen("postgres@", "nobody_here:hunter2@", 1);
    let cases = [
        (
            format!("postgresql://u:hunter2@{free}/d"),
            free.to_string(),
            "Connection refused",
        ),
        (
            "postgresql://u:hunter2@nowhere.invalid/d".to_owned(),
            "nowhere.invalid:5432".to_owned(),
            "failed to lookup address",
        ),
        (missing, String::new(), "_missing\" does not exist"),
        (
            no_role,
            String::new(),
            "role \"nobody_here\" does not exist",
        ),
    ];

    for (url, place, reason) in cases {
        let sandbox = Sandbox::over(&url);
        for command in ["server", "db-migrate", "cleanup_stuck_messages"] {
            let ran = sandbox.run(&[command, "--api-port", "0"]).await;

            assert!(ran.took < SOON, "{ran:?}");
            let line = ran.fails(1);
            let start = format!("cannot use the database at {place}");
            assert!(line.starts_with(&start), "{command}: {line}");
            assert!(line.contains(reason), "{command}: {line}");
            assert!(!line.contains("hunter2"), "{command}: {line}");
        }
    }
}

#[tokio::test]
async fn a_database_that_never_answers_is_given_up_on() {
    // connections are taken by the kernel and never read
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let sandbox = Sandbox::over(&format!("postgresql://u:hunter2@{address}/d"));

    for command in ["server", "db-migrate"] {
        let ran = sandbox.run(&[command, "--api-port", "0"]).await;

        assert!(ran.took < SOON * 2, "{ran:?}");
        let line = ran.fails(1);
        let start = format!("cannot use the database at {address}");
        assert!(line.starts_with(&start), "{command}: {line}");
    }
}

/// Original's defect 22.
#[tokio::test]
async fn the_metrics_of_all_worker_threads_are_in_one_place() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());
    let server = sandbox.serve(&["--api-num-workers", "4"]).await;

    let counted = async || {
        let metrics = server.get("/metrics").await.expect(200).body;
        let line = metrics
            .lines()
            .find(|line| line.contains(r#"path="/topics",status="200""#));
        line.map_or(0, |line| {
            line.split(' ').next_back().unwrap().parse().unwrap()
        })
    };
    for total in [8, 16, 24] {
        let get = || server.get("/topics");
        tokio::join!(get(), get(), get(), get(), get(), get(), get(), get());
        assert_eq!(counted().await, total);
    }
}

/// The highest version of migrations/.
fn newest_migration() -> u32 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let names = std::fs::read_dir(folder).unwrap();
    let version = |name: &str| name.strip_prefix('V')?.split_once("__")?.0.parse().ok();
    names
        .filter_map(|entry| version(entry.unwrap().file_name().to_str()?))
        .max()
        .unwrap()
}
