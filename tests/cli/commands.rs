//! Every subcommand but `server`: what it does, prints and exits with.

use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use super::Sandbox;
use crate::support::database::TestDatabase;

/// The values of `client_id=` and `client_secret=` lines.
fn credentials(stdout: &str) -> (String, String) {
    let lines: Vec<&str> = stdout.lines().collect();
    let [id, secret] = lines[..] else {
        panic!("{stdout:?}")
    };
    let id = id.strip_prefix("client_id=").unwrap();
    let secret = secret.strip_prefix("client_secret=").unwrap();
    (id.to_owned(), secret.to_owned())
}

#[tokio::test]
async fn db_migrate_creates_the_schema_once() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url());

    let first = sandbox.run(&["db-migrate"]).await.quietly();
    let second = sandbox.run(&["db-migrate"]).await.quietly();

    assert_eq!(first, "schema=migrated\n");
    assert_eq!(second, "schema=up-to-date\n");
}

#[tokio::test]
async fn two_migrators_at_once_both_succeed() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url());

    let (one, other) = tokio::join!(sandbox.run(&["db-migrate"]), sandbox.run(&["db-migrate"]));

    let mut printed = [one.quietly(), other.quietly()];
    printed.sort();
    assert_eq!(printed, ["schema=migrated\n", "schema=up-to-date\n"]);
}

#[tokio::test]
async fn create_client_prints_an_id_and_a_secret() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    let printed = sandbox.run(&["create_client", "  My App "]).await.quietly();

    let (id, secret) = credentials(&printed);
    assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    assert_eq!(secret.len(), 32);
    assert!(secret.chars().all(|c| c.is_ascii_hexdigit()), "{secret}");
    let stored =
        sqlx::query("select name, scopes, is_active, client_id::text from pubsub_data.clients")
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
    let text = |column: &str| stored.get::<String, _>(column);
    assert_eq!(
        (text("name"), text("scopes")),
        ("My App".into(), "*".into())
    );
    assert!(stored.get::<bool, _>("is_active"));
    assert_eq!(text("client_id"), id);
}

#[tokio::test]
async fn create_client_makes_an_api_key_where_one_is_asked_for() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    let arguments = ["create_client", "--with-api-key", "n", "topics:read"];
    let printed = sandbox.run(&arguments).await.quietly();

    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    let key = lines[2].strip_prefix("api_key=").unwrap();
    assert!(fastpubsub::auth::api_keys::is_key(key), "{key}");
    let hash = fastpubsub::auth::secrets::hash(key);
    let scopes: String =
        sqlx::query_scalar("select scopes from pubsub.api_key_credentials(array[$1])")
            .bind(hash)
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
    assert_eq!(scopes, "topics:read");
}

#[tokio::test]
async fn create_client_takes_scopes_and_whether_it_is_active() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    for (given, expected) in [
        ("true", true),
        ("false", false),
        ("0", false),
        ("Yes", true),
    ] {
        let scopes = " topics:read subscriptions:consume:s ";
        let printed = sandbox.run(&["create_client", "n", scopes, given]).await;

        let (id, _) = credentials(&printed.quietly());
        let (scopes, is_active): (String, bool) = sqlx::query_as(
            "select scopes, is_active from pubsub_data.clients where client_id = $1::uuid",
        )
        .bind(id)
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
        assert_eq!(scopes, "topics:read subscriptions:consume:s");
        assert_eq!(is_active, expected, "{given}");
    }
}

#[tokio::test]
async fn create_client_refuses_what_it_cannot_store_in_one_line() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url());

    for (arguments, code, expected) in [
        (
            &["n", "topics:publish:us*er"][..],
            1,
            "Invalid scope topics:publish:us*er",
        ),
        (
            &["n", "topics:read topic:read"],
            1,
            "Invalid scope topic:read",
        ),
        (&[" ", "*"], 1, "NAME and SCOPES must not be empty"),
        (&["n", " "], 1, "NAME and SCOPES must not be empty"),
        (&["n", "*", "maybe"], 2, "[IS_ACTIVE] must be true or false"),
    ] {
        let line = sandbox
            .run(&[&["create_client"], arguments].concat())
            .await
            .fails(code);

        assert_eq!(line, expected, "{arguments:?}");
    }
    let clients: i64 = sqlx::query_scalar("select count(*) from pubsub_data.clients")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(clients, 0);
}

#[tokio::test]
async fn the_printed_credentials_get_a_token_from_a_running_server() {
    let database = TestDatabase::create().await;
    let sandbox = Sandbox::over(&database.url()).with_auth();
    let server = sandbox.serve(&[]).await;

    let printed = sandbox
        .run(&["create_client", "n", "topics:read"])
        .await
        .quietly();

    let (id, secret) = credentials(&printed);
    let body = json!({"client_id": id, "client_secret": secret});
    let token = server.post("/oauth/token", body).await.expect(201).json();
    assert_eq!(token["scope"], "topics:read");
    let request = server
        .request("GET", "/topics")
        .bearer_auth(token["access_token"].as_str().unwrap());
    crate::support::answer(request).await.expect(200);
}

#[tokio::test]
async fn generate_secret_key_prints_a_new_key_of_64_hex_digits() {
    let sandbox = Sandbox::new();

    let printed = [
        sandbox.run(&["generate_secret_key"]).await.quietly(),
        sandbox.run(&["generate_secret_key"]).await.quietly(),
    ];

    for line in &printed {
        let key = line
            .strip_prefix("new_secret=")
            .unwrap()
            .strip_suffix('\n')
            .unwrap();
        assert_eq!(key.len(), 64, "{line}");
        assert!(
            key.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
            "{line}"
        );
    }
    assert_ne!(printed[0], printed[1]);
}

#[tokio::test]
async fn a_generated_key_is_good_for_the_server() {
    let sandbox = Sandbox::new();
    let printed = sandbox.run(&["generate_secret_key"]).await.quietly();
    let key = printed.trim().strip_prefix("new_secret=").unwrap();

    let flags = ["generate_secret_key", "--auth-secret-key", key];

    sandbox.run(&flags).await.quietly();
}

#[tokio::test]
async fn results_go_to_stdout_and_logs_to_stderr() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url())
        .with("FASTPUBSUB_LOG_LEVEL", "debug")
        .with("FASTPUBSUB_DATABASE_ECHO", "true");

    for (command, expected) in [
        ("db-migrate", "schema=migrated\n"),
        ("cleanup_stuck_messages", "released=0\n"),
        ("cleanup_acked_messages", "removed=0\n"),
    ] {
        let ran = sandbox.run(&[command]).await;

        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), expected),
            "{command}"
        );
        assert!(
            ran.stderr.contains("target=sqlx::query"),
            "{command}: {}",
            ran.stderr
        );
        assert!(
            ran.stderr.lines().all(|line| line.starts_with("ts=")),
            "{command}: {}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn a_subcommand_on_a_database_without_the_schema_says_db_migrate() {
    let database = TestDatabase::create_empty().await;
    let sandbox = Sandbox::over(&database.url());

    for command in [
        &["cleanup_stuck_messages"][..],
        &["cleanup_acked_messages"],
        &["create_client", "n"],
    ] {
        let line = sandbox.run(command).await.fails(1);

        assert!(line.ends_with("run db-migrate"), "{command:?}: {line}");
    }
}

#[tokio::test]
async fn a_subcommand_that_the_database_refuses_says_the_reason_alone() {
    let database = TestDatabase::create().await;
    let read_only = "do $$ begin execute format( \
        'alter database %I set default_transaction_read_only = on', current_database()); end $$";
    sqlx::raw_sql(read_only)
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    let sandbox = Sandbox::over(&database.url());

    let line = sandbox
        .run(&["create_client", "a", "topics:read"])
        .await
        .fails(1);

    assert_eq!(line, "cannot execute INSERT in a read-only transaction");
}

#[tokio::test]
async fn help_and_version_go_to_stdout() {
    let sandbox = Sandbox::new();

    let version = sandbox.run(&["--version"]).await.quietly();
    let help = sandbox.run(&["--help"]).await.quietly();
    let nothing = sandbox.run(&[]).await;

    assert_eq!(
        version,
        concat!("fastpubsub ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for command in [
        "db-migrate",
        "server",
        "cleanup_acked_messages",
        "cleanup_stuck_messages",
        "create_client",
        "generate_secret_key",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
}

#[tokio::test]
async fn an_unknown_subcommand_is_one_line_with_the_nearest_one() {
    let sandbox = Sandbox::new();

    let near = sandbox.run(&["sever"]).await.fails(2);
    let far = sandbox.run(&["frobnicate"]).await.fails(2);

    let end = "; see fastpubsub --help";
    assert_eq!(
        near,
        format!("there is no such subcommand (nearest: server){end}")
    );
    assert_eq!(far, format!("there is no such subcommand{end}"));
}
