//! A subcommand looks at the settings that it uses, and at no other; names that are no settings.

use std::fs;

use super::{HIDDEN, Sandbox};
use crate::support::database::TestDatabase;

/// Bad values of what only the server uses.
const OF_THE_SERVER: &[(&str, &str)] = &[
    ("FASTPUBSUB_API_PORT", HIDDEN),
    ("FASTPUBSUB_AUTH_ENABLED", "true"),
    ("FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS", "1000"),
    ("FASTPUBSUB_DATABASE_POOL_SIZE", ""),
];

fn misled(mut sandbox: Sandbox) -> Sandbox {
    for (name, value) in OF_THE_SERVER {
        sandbox = sandbox.with(name, value);
    }
    sandbox
}

#[tokio::test]
async fn a_key_is_made_whatever_the_settings_are() {
    let sandbox = misled(Sandbox::new())
        .with("FASTPUBSUB_DATABASE_URL", "")
        .with("FASTPUBSUB_LOG_LEVEL", HIDDEN)
        .with("FASTPUBSUB_AUTH_SECRET_KEY", "short");
    fs::write(sandbox.dir.join(".env"), "this is no line\n").unwrap();

    let printed = sandbox.run(&["generate_secret_key"]).await.quietly();

    assert!(printed.starts_with("new_secret="), "{printed}");
}

#[tokio::test]
async fn a_subcommand_of_the_database_is_not_stopped_by_settings_of_the_server() {
    let database = TestDatabase::create_empty().await;
    let sandbox = misled(Sandbox::over(&database.url()));

    for (command, expected) in [
        (&["db-migrate"][..], "schema=migrated\n"),
        (
            &["--api-port", "none", "cleanup_stuck_messages"],
            "released=0\n",
        ),
        (
            &["cleanup_acked_messages", "--api-port", "none"],
            "removed=0\n",
        ),
        (&["create_client", "n"], "client_id="),
    ] {
        let printed = sandbox.run(command).await.quietly();
        assert!(printed.starts_with(expected), "{command:?}: {printed}");
    }
    let line = sandbox.run(&["server"]).await.fails(2);
    assert!(!line.contains(HIDDEN), "{line}");
}

#[tokio::test]
async fn a_bad_value_of_what_a_subcommand_uses_stops_it() {
    let acked = "FASTPUBSUB_CLEANUP_ACKED_MESSAGES_OLDER_THAN_SECONDS";
    let sandbox = Sandbox::new().with(acked, "0");

    let line = sandbox.run(&["cleanup_acked_messages"]).await.fails(2);
    assert!(line.starts_with(acked), "{line}");
    for command in [
        &["db-migrate"][..],
        &["cleanup_acked_messages"],
        &["cleanup_stuck_messages"],
        &["create_client", "n"],
        &["server"],
    ] {
        let sandbox = Sandbox::new().with("FASTPUBSUB_DATABASE_URL", "");
        let line = sandbox.run(command).await.fails(2);
        assert!(
            line.starts_with("FASTPUBSUB_DATABASE_URL (--database-url) must not be empty"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn the_help_of_a_subcommand_lists_what_it_uses_within_100_columns() {
    let sandbox = Sandbox::new().with("COLUMNS", "200");
    for (command, is_listed, is_not) in [
        (&["generate_secret_key"][..], "--help", "[env:"),
        (
            &["db-migrate"],
            "FASTPUBSUB_DATABASE_URL",
            "FASTPUBSUB_API_PORT",
        ),
        (
            &["create_client"],
            "FASTPUBSUB_LOG_LEVEL",
            "FASTPUBSUB_CLEANUP",
        ),
        (
            &["cleanup_acked_messages"],
            "OLDER_THAN_SECONDS",
            "LOCK_TIMEOUT",
        ),
        (
            &["cleanup_stuck_messages"],
            "LOCK_TIMEOUT",
            "OLDER_THAN_SECONDS",
        ),
        (&["server"], "FASTPUBSUB_AUTH_SECRET_KEY", "FASTPUBSUB_TEST"),
        (&[], "FASTPUBSUB_AUTH_SECRET_KEY", "FASTPUBSUB_TEST"),
    ] {
        for arguments in [
            [command, &["--help"]].concat(),
            [&["help"], command].concat(),
        ] {
            let help = sandbox.run(&arguments).await.quietly();

            assert!(help.contains(is_listed), "{arguments:?}: {help}");
            assert!(!help.contains(is_not), "{arguments:?}: {help}");
            let longest = help.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(100), "{arguments:?}: {longest:?}");
        }
    }
}

#[tokio::test]
async fn a_misspelt_setting_is_one_warning_that_names_the_nearest() {
    let sandbox = Sandbox::without_postgres()
        .with("FASTPUBSUB_DATABSE_URL", HIDDEN)
        .with("fastpubsub_auth_secret", HIDDEN)
        // of a Service in Kubernetes
        .with("FASTPUBSUB_PORT", "tcp://10.0.0.1:80")
        .with("FASTPUBSUB_SERVICE_HOST", "10.0.0.1")
        .with("FASTPUBSUB_PORT_80_TCP_ADDR", "10.0.0.1");
    fs::write(sandbox.dir.join(".env"), "FASTPUBSUB_API_PROT=1\nOTHER=1\n").unwrap();

    for command in ["server", "db-migrate"] {
        let ran = sandbox.run(&[command]).await;

        let warnings: Vec<&str> = ran
            .stderr
            .lines()
            .filter(|line| line.contains("level=warn"))
            .filter(|line| line.contains("is no setting"))
            .collect();
        assert_eq!(warnings.len(), 3, "{ran:?}");
        for (name, near) in [
            ("FASTPUBSUB_API_PROT ", "FASTPUBSUB_API_PORT"),
            ("FASTPUBSUB_AUTH_SECRET ", "FASTPUBSUB_AUTH_SECRET_KEY"),
            ("FASTPUBSUB_DATABSE_URL ", "FASTPUBSUB_DATABASE_URL"),
        ] {
            let is_told = |line: &&str| line.contains(name) && line.contains(near);
            assert!(warnings.iter().any(is_told), "{name}: {ran:?}");
        }
        assert!(!ran.stderr.contains(HIDDEN), "{ran:?}");
    }
}
