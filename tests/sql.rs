//! The assert files of `tests/sql`: each runs inside one transaction that is rolled back, on a session as
//! the service has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection};

use crate::support::database::TestDatabase;
use crate::support::hostile;

/// On a session with hostile defaults, what the text of the files themselves needs.
const OWN_MEANING: &str = "set search_path = ''; set standard_conforming_strings = on; \
    set array_nulls = on; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; \
    set default_transaction_isolation = 'read committed'";

/// What the files stand on; it proves nothing itself.
const PRELUDE: &str = "prelude";

/// Runs the files whose names contain it, and no others.
const ONLY: &str = "FASTPUBSUB_TEST_SQL";

/// The .sql files below a folder, by their names without the ending.
fn files(path: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            files.extend(self::files(&file));
        } else if file.extension().is_some_and(|ending| ending == "sql") {
            files.insert(file.file_stem().unwrap().to_str().unwrap().to_owned(), file);
        }
    }
    files
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The assert files, and what they stand on.
fn assert_files() -> (BTreeMap<String, PathBuf>, String) {
    let mut files = files(&folder("tests/sql"));
    let prelude = files.remove(PRELUDE).unwrap();
    (files, fs::read_to_string(prelude).unwrap())
}

async fn connect(database: &TestDatabase) -> PgConnection {
    if !hostile::is_profile() {
        return database.connect().await;
    }
    let mut plain = database.plain().await;
    sqlx::raw_sql(OWN_MEANING)
        .execute(&mut plain)
        .await
        .unwrap();
    plain
}

/// As in a new database: a rollback does not take numbers back.
const RESTART: &str = "select setval(format('%I.%I', schemaname, sequencename)::regclass, \
    start_value, false) from pg_sequences where schemaname = 'pubsub_data'";

/// What does not hold of a file's sentences, and where.
async fn failure(database: &TestDatabase, prelude: &str, text: &str) -> Option<String> {
    // a session of its own: what is prepared and noted in one outlives a rollback
    let mut connection = connect(database).await;
    sqlx::raw_sql(RESTART)
        .execute(&mut connection)
        .await
        .unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(prelude.to_owned()))
        .execute(&mut *transaction)
        .await
        .unwrap();
    let ran = sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(&mut *transaction)
        .await;
    transaction.rollback().await.unwrap();
    connection.close().await.unwrap();

    let error = ran.err()?;
    let place = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .and_then(PgDatabaseError::r#where)
        .unwrap_or_default();
    Some(format!("{error}\n{place}"))
}

/// Run files until none is left, in a database.
async fn failures(left: &Mutex<BTreeMap<String, PathBuf>>, prelude: &str) -> Vec<String> {
    let database = TestDatabase::create().await;
    // what attaches a partition leaves it for later while the default one is vacuumed
    let mut connection = connect(&database).await;
    sqlx::raw_sql(
        "alter table pubsub_data.messages_default set (autovacuum_enabled = false); \
         alter table pubsub_data.acked_default set (autovacuum_enabled = false)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let next = || left.lock().unwrap().pop_first();
    let mut failures = Vec::new();
    while let Some((name, file)) = next() {
        let text = fs::read_to_string(file).unwrap();
        if let Some(failure) = failure(&database, prelude, &text).await {
            failures.push(format!("{name}.sql: {failure}"));
        }
    }
    failures
}

/// One test, since each would need a database: FASTPUBSUB_TEST_SQL=publish runs one file.
#[tokio::test]
async fn every_sentence_of_the_assert_files_holds() {
    let (mut files, prelude) = assert_files();
    if let Ok(only) = std::env::var(ONLY) {
        files.retain(|name, _| name.contains(&only));
    }
    if hostile::is_profile() {
        // it looks at the defaults of the database
        files.remove("health");
    }
    assert!(!files.is_empty());
    let count = files.len();

    let left = Mutex::new(files);
    let (mut failures, others) = tokio::join!(failures(&left, &prelude), failures(&left, &prelude));
    failures.extend(others);
    assert!(
        failures.is_empty(),
        "{} of {count} files:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn every_file_of_routines_has_an_assert_file() {
    // they make nothing that could be called; schema and meta look at what they do
    let without = ["grants", "reset", "search_path"];
    let (asserts, _) = assert_files();

    for name in files(&folder("sql")).keys() {
        assert!(
            asserts.contains_key(name) || without.contains(&name.as_str()),
            "{name}.sql has no assert file"
        );
    }
}

/// An assert file that proves nothing would pass too.
#[tokio::test]
async fn every_routine_and_view_is_named_in_an_assert_file() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let (files, _) = assert_files();
    let asserts: String = files
        .values()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();

    let objects: Vec<String> = sqlx::query_scalar(
        "select p.proname::text from pg_proc p where p.pronamespace = 'pubsub'::regnamespace \
         union select c.relname::text from pg_class c where c.relnamespace = 'pubsub'::regnamespace \
         order by 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();

    let untested: Vec<String> = objects
        .into_iter()
        .filter(|name| !asserts.contains(&format!("pubsub.{name}")))
        .collect();
    // others call them
    let by_their_wrappers = [
        "ack_deliveries",
        "ack_held",
        "ack_noted",
        "ack_runs",
        "believed_fair_hint",
        "believed_ordered_hint",
        "break_up_leased",
        "check_claim",
        "choose_ordered",
        "claim_fresh_many",
        "claim_in_turn",
        "claim_messages",
        "claim_thoroughly",
        "find_candidates",
        "find_open_lanes",
        "highest_first",
        "keep_runs",
        "lease_chosen",
        "lease_deliveries",
        "lease_of",
        "lease_run",
        "lease_runs",
        "look_again",
        "look_back_ordered",
        "may_run",
        "nack_deliveries",
        "next_lanes",
        "note_acked",
        "note_leases",
        "note_run_size",
        "pop_runs",
        "pop_wakeups",
        "runs_ahead",
        "settle_deliveries",
        "state_of",
        "take_due_ordered",
        "take_fresh",
        "take_missed",
        "take_runs",
        "takes_whole_runs",
        "walk_lanes",
        "with_push_limit",
    ];
    assert_eq!(untested, by_their_wrappers);
}
