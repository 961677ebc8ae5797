//! The command line: one subcommand, one function. Results go to stdout, logs and errors to stderr.

mod database;
mod parse;
mod server;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use uuid::Uuid;

use crate::auth::{api_keys, scopes, secrets};
use crate::config::{Settings, boolean};
use crate::db;
use crate::db::clients::ClientSettings;
use crate::db::schema::{self, Migrated};
use crate::error::Error;
use crate::shutdown::Signal;
use crate::telemetry::logs;
use database::{with_database, with_schema};

/// Exit code of what did not work out.
const FAILURE: u8 = 1;
/// Exit code of a wrong command line or setting, as clap's.
const USAGE_ERROR: u8 = 2;

/// Settings of whatever works on the database.
const DATABASE_SETTINGS: &[&str] = &[
    "database_url",
    "data_dir",
    "pg_bin",
    "database_echo",
    "log_level",
    "log_formatter",
    "api_debug",
];

/// Whether a subcommand uses a setting: only then it is checked, and stands in the help.
fn uses(subcommand: &str, setting: &str) -> bool {
    match subcommand {
        "server" => true,
        "generate_secret_key" => false,
        "cleanup_acked_messages" if setting == "cleanup_acked_messages_older_than_seconds" => true,
        "cleanup_stuck_messages" if setting == "cleanup_stuck_messages_lock_timeout_seconds" => {
            true
        }
        _ => DATABASE_SETTINGS.contains(&setting),
    }
}

/// Postgres-native pub/sub: topics, subscriptions, filters, retries and dead letters
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or update the database schema; does nothing when it is up to date
    #[command(name = "db-migrate")]
    DbMigrate,
    /// Serve the HTTP API
    Server,
    /// Forget acked messages older than the threshold, and print how many
    #[command(name = "cleanup_acked_messages")]
    CleanupAckedMessages,
    /// Make messages of crashed consumers available again, and print how many
    #[command(name = "cleanup_stuck_messages")]
    CleanupStuckMessages,
    /// Create a client of the API, and print its id and secret
    #[command(name = "create_client")]
    CreateClient {
        /// Its name, for people
        name: String,
        /// What it may do, separated by spaces: *, resource:action or resource:action:object, where an
        /// object that ends in * is the beginning of ids
        #[arg(default_value = "*")]
        scopes: String,
        /// Whether it can get tokens
        #[arg(default_value = "true", value_parser = boolean, action = ArgAction::Set)]
        is_active: bool,
        /// Make an API key too, and print it: it is shown this once
        #[arg(long)]
        with_api_key: bool,
    },
    /// Print a new random key for FASTPUBSUB_AUTH_SECRET_KEY
    #[command(name = "generate_secret_key")]
    GenerateSecretKey,
}

/// Why a subcommand failed, in one line.
struct Failed {
    text: String,
    code: u8,
}

impl Failed {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: FAILURE,
        }
    }
}

impl From<Signal> for Failed {
    fn from(signal: Signal) -> Self {
        Self {
            text: format!("ended by {}", signal.name()),
            code: signal.exit_code(),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut text = db::errors::describe(reason(&error));
        // pgbouncer's, which has no code of its own
        if text.contains("statement pooling mode") {
            text.push_str(": set pool_mode of the pooler to transaction or session");
        }
        Self::new(text)
    }
}

/// What there is to say: of a failure of the database the cause, which callers of the API are not told.
fn reason<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    match error.downcast_ref::<Error>() {
        Some(Error::Unavailable(_) | Error::Timeout(_) | Error::Internal(_)) => {
            error.source().unwrap_or(error)
        }
        _ => error,
    }
}

/// Parse the command line, run the subcommand, tell how it went.
#[must_use]
pub fn main() -> ExitCode {
    let (cli, warnings) = match parse::parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    logs::start(&cli.settings);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.settings.api_num_workers {
        runtime.worker_threads(threads);
    }
    let ran = match runtime.enable_all().build() {
        Ok(runtime) => {
            let ran = runtime.block_on(run(cli));
            // not held up by what cannot be broken off: the lookup of a name, a lock on a file
            runtime.shutdown_background();
            ran
        }
        Err(error) => Err(error.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { text, code }) => fail(&text, code),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    // when nobody listens the code must do
    let _closed = writeln!(io::stderr(), "error: {text}");
    ExitCode::from(code)
}

/// Print a result.
fn print(text: &str) -> Result<(), Failed> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failed::new(format!("cannot write to stdout: {error}")))
}

async fn run(cli: Cli) -> Result<(), Failed> {
    let settings = cli.settings;
    match cli.command {
        Command::DbMigrate => db_migrate(&settings).await,
        Command::Server => server::run(settings).await,
        Command::CleanupAckedMessages => cleanup_acked_messages(&settings).await,
        Command::CleanupStuckMessages => cleanup_stuck_messages(&settings).await,
        Command::CreateClient {
            name,
            scopes,
            is_active,
            with_api_key,
        } => {
            let client = ClientSettings {
                name,
                scopes,
                is_active: Some(is_active),
            };
            create_client(&settings, client, with_api_key).await
        }
        Command::GenerateSecretKey => print(&format!("new_secret={}", secrets::generate(32))),
    }
}

async fn db_migrate(settings: &Settings) -> Result<(), Failed> {
    let migrated = with_database(settings, async |connection, _| {
        Ok(schema::migrate(connection).await?)
    });
    match migrated.await? {
        Migrated::Applied => print("schema=migrated"),
        Migrated::UpToDate => print("schema=up-to-date"),
    }
}

async fn cleanup_acked_messages(settings: &Settings) -> Result<(), Failed> {
    let older_than = settings.cleanup_acked_messages_older_than_seconds;
    let removed = with_schema(settings, async |database| {
        let removed = db::maintenance::cleanup_acked_messages(database, older_than).await?;
        db::maintenance::rotate(database, older_than).await?;
        Ok(removed)
    });
    print(&format!("removed={}", removed.await?))
}

async fn cleanup_stuck_messages(settings: &Settings) -> Result<(), Failed> {
    let timeout = settings.cleanup_stuck_messages_lock_timeout_seconds;
    let released = with_schema(settings, async |database| {
        Ok(db::maintenance::cleanup_stuck_messages(database, timeout).await?)
    });
    print(&format!("released={}", released.await?))
}

async fn create_client(
    settings: &Settings,
    client: ClientSettings,
    with_api_key: bool,
) -> Result<(), Failed> {
    let client = ClientSettings {
        name: client.name.trim().to_owned(),
        scopes: client.scopes.trim().to_owned(),
        ..client
    };
    if client.name.is_empty() || client.scopes.is_empty() {
        return Err(Failed::new("NAME and SCOPES must not be empty"));
    }
    scopes::validate(&client.scopes).map_err(Failed::new)?;
    let (id, secret) = (Uuid::now_v7(), secrets::generate(16));
    let hash = secrets::hash(&secret);
    let api_key = with_api_key.then(api_keys::generate);
    let key_hash = api_key.as_deref().map(secrets::hash);
    with_schema(settings, async |database| {
        let key_hash = key_hash.as_deref();
        Ok(db::clients::create(database, id, &client, &hash, key_hash).await?)
    })
    .await?;
    let key_line = api_key.map_or_else(String::new, |key| format!("\napi_key={key}"));
    print(&format!("client_id={id}\nclient_secret={secret}{key_line}"))
}
