//! The assert files of `tests/sql`: each runs in a database of its own, inside one transaction that
//! is rolled back, on a session as the service has it.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, Connection};

use crate::layers::sources;
use crate::support::database::TestDatabase;
use crate::support::hostile;

/// On a session with hostile defaults, what the text of the files themselves needs.
const OWN_MEANING: &str = "set search_path = ''; set standard_conforming_strings = on; \
    set array_nulls = on; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; \
    set default_transaction_isolation = 'read committed'";

/// What the files stand on; it proves nothing itself.
const PRELUDE: &str = "prelude";

macro_rules! files {
    ($($folder:ident { $($name:ident),* $(,)? })*) => {
        const FILES: &[&str] = &[
            "meta", $($(concat!(stringify!($folder), "/", stringify!($name))),*),*
        ];

        $(
            mod $folder {
                $(
                    #[tokio::test]
                    async fn $name() {
                        super::run(concat!(stringify!($folder), "/", stringify!($name))).await;
                    }
                )*
            }
        )*
    };
}

files! {
    base { allowed, faults, ids, sequences }
    filters { filters, operators, sets, trials }
    catalog { clients, counters, keys, rewinds, settings, subscriptions, topics }
    publish { deliveries, idempotency, lanes, limits, publish }
    claim {
        answers, claims, consume, dead_letters, departures, fairness, flow, hints, ordering,
        priorities, turns, waiting, wakeups,
    }
    settle { extend, settle, settlements, transactions }
    replay {
        given_up, jobs, new_subscriptions, parking, replay, reprocess, seek, seek_steps, snapshots,
    }
    observe { filter_previews, health, metrics, states, timeline, views }
    upkeep { cleanup, clock, leadership, partitions }
}

#[tokio::test]
async fn meta() {
    run("meta").await;
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(name: &str) -> String {
    let file = folder("tests/sql").join(format!("{name}.sql"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The names of the .sql files of a folder and of its folders, without their ending.
fn names(path: &str) -> Vec<String> {
    let mut names: Vec<String> = sources(path, &["sql"])
        .iter()
        .map(|file| file.path[path.len() + 1..file.path.len() - ".sql".len()].to_owned())
        .collect();
    names.sort();
    names
}

async fn run(name: &str) {
    let database = TestDatabase::create().await;
    let mut connection = if hostile::is_profile() {
        let mut plain = database.plain().await;
        sqlx::raw_sql(OWN_MEANING)
            .execute(&mut plain)
            .await
            .unwrap();
        plain
    } else {
        database.connect().await
    };
    let mut transaction = connection.begin().await.unwrap();

    sqlx::raw_sql(AssertSqlSafe(text(PRELUDE)))
        .execute(&mut *transaction)
        .await
        .unwrap();
    let ran = sqlx::raw_sql(AssertSqlSafe(text(name)))
        .execute(&mut *transaction)
        .await;
    transaction.rollback().await.unwrap();

    if let Err(error) = ran {
        let database = error.as_database_error();
        let place = database
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .and_then(PgDatabaseError::r#where)
            .unwrap_or_default();
        panic!("tests/sql/{name}.sql: {error}\n{place}");
    }
}

#[test]
fn every_assert_file_is_run() {
    let written = names("tests/sql");

    let mut run: Vec<&str> = FILES.iter().copied().chain([PRELUDE]).collect();
    run.sort_unstable();
    assert_eq!(written, run);
}

#[test]
fn every_file_of_routines_has_an_assert_file() {
    // they make nothing that could be called; schema and meta look at what they do
    let without = ["base/reset", "upkeep/grants", "upkeep/search_path"];

    for name in names("sql") {
        assert!(
            FILES.contains(&name.as_str()) || without.contains(&name.as_str()),
            "sql/{name}.sql has no tests/sql/{name}.sql"
        );
    }
}

/// An assert file that proves nothing would pass too.
#[tokio::test]
async fn every_routine_and_view_is_named_in_an_assert_file() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let asserts: String = FILES.iter().map(|name| text(name)).collect();

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
    // what takes text ids calls them
    let by_their_wrappers = [
        "ack_deliveries",
        "choose_ordered",
        "claim_deliveries",
        "nack_deliveries",
        "take_runs",
    ];
    assert_eq!(untested, by_their_wrappers);
}
