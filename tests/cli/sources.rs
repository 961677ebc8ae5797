//! Where settings come from: flags, variables, the file `.env`.

use std::fs;

use super::{HIDDEN, PROBE, Sandbox, run};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_flag_beats_a_variable_beats_a_lower_case_one_beats_the_env_file() {
    const NAME: &str = "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS";
    let mut sandbox = Sandbox::new();
    // more than the default maximum, so that the error tells which one counts
    fs::write(
        sandbox.dir.join(".env"),
        format!("# comment\nOTHER=x\n{NAME}=1001\n"),
    )
    .unwrap();
    let by_file = sandbox.run(&[PROBE]).await.fails(2);
    sandbox = sandbox.with(&NAME.to_lowercase(), "1002");
    let by_lower_case = sandbox.run(&[PROBE]).await.fails(2);
    sandbox = sandbox.with(NAME, "1003");
    let by_variable = sandbox.run(&[PROBE]).await.fails(2);
    let flag = "--subscription-backoff-min-seconds";

    let by_flag = sandbox.run(&[PROBE, flag, "1004"]).await.fails(2);

    for (line, expected) in [
        (by_file, "(1001)"),
        (by_lower_case, "(1002)"),
        (by_variable, "(1003)"),
        (by_flag, "(1004)"),
    ] {
        assert!(line.ends_with(&format!("{NAME} {expected}")), "{line}");
    }
}

#[tokio::test]
async fn a_bad_value_in_the_env_file_or_a_lower_case_variable_is_one_line() {
    let expected = "FASTPUBSUB_API_PORT (--api-port) must be a whole number from 0 to 65535";
    let in_file = Sandbox::new();
    fs::write(in_file.dir.join(".env"), "FASTPUBSUB_API_PORT=hunter2\n").unwrap();
    let lower_case = Sandbox::new().with("fastpubsub_api_port", HIDDEN);

    let lines = [
        in_file.run(&[PROBE]).await.fails(2),
        lower_case.run(&[PROBE]).await.fails(2),
    ];

    assert_eq!(lines, [expected, expected]);
}

#[tokio::test]
async fn a_line_of_the_env_file_that_makes_no_sense_is_refused_without_showing_it() {
    for text in [
        "FASTPUBSUB_AUTH_SECRET_KEY=hunter2 hunter2\n",
        "FASTPUBSUB_AUTH_SECRET_KEY='hunter2\n",
        "FASTPUBSUB_LOG_LEVEL=info\nhunter2 is no line\n",
    ] {
        let sandbox = Sandbox::new();
        fs::write(sandbox.dir.join(".env"), text).unwrap();

        let line = sandbox.run(&[PROBE]).await.fails(2);

        assert!(line.contains(".env"), "{text:?}: {line}");
        assert!(!line.contains(HIDDEN), "{text:?}: {line}");
    }
}

#[tokio::test]
async fn only_the_env_file_of_the_working_directory_counts() {
    let sandbox = Sandbox::new().with("FASTPUBSUB_PG_BIN", "/nonexistent");
    let below = sandbox.dir.join("below");
    fs::create_dir(&below).unwrap();
    fs::write(sandbox.dir.join(".env"), "FASTPUBSUB_API_PORT=none\n").unwrap();
    let mut command = sandbox.command(&[PROBE]);
    command.current_dir(below);

    // 2 would be the bad port
    run(command).await.fails(1);
}

/// Contract point 12. Original's defect 23.
#[tokio::test]
async fn the_urls_of_the_original_work_also_with_percent_signs() {
    let database = TestDatabase::create_empty().await;
    let url = database.url().replacen(
        "postgresql://postgres@",
        "postgresql+psycopg://postgres:a%40b%25@",
        1,
    );
    let (address, host) = url.split_once("host=").unwrap();
    let url = format!("{address}host={}", host.replace('/', "%2F"));
    let sandbox = Sandbox::over(&url);

    let printed = sandbox.run(&["db-migrate"]).await.quietly();

    assert_eq!(printed, "schema=migrated\n");
}
