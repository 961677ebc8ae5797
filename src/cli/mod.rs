//! The command line: one subcommand, one function. Results go to stdout, logs and errors to stderr.

mod database;
mod parse;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use sqlx::Connection;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{scopes, secrets};
use crate::config::{Settings, boolean};
use crate::db::clients::ClientSettings;
use crate::db::schema::{self, Migrated};
use crate::http;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::{db, maintenance, shutdown};
use database::{Database, check_schema, connect, with_database, with_schema};

/// Exit code of a wrong command line or setting, as clap's.
const USAGE_ERROR: u8 = 2;

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
        /// What it may do, separated by spaces: *, resource:action or resource:action:object
        #[arg(default_value = "*")]
        scopes: String,
        /// Whether it can get tokens
        #[arg(default_value = "true", value_parser = boolean, action = ArgAction::Set)]
        is_active: bool,
    },
    /// Print a new random key for FASTPUBSUB_AUTH_SECRET_KEY
    #[command(name = "generate_secret_key")]
    GenerateSecretKey,
}

/// Why a subcommand failed, in one line.
struct Failed(String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self(text.replace('\n', " "))
    }
}

/// Parse the command line, run the subcommand, tell how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    logs::start(&cli.settings);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.settings.api_num_workers {
        runtime.worker_threads(threads);
    }
    let ran = match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(error.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(text)) => fail(&text, 1),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(code)
}

async fn run(cli: Cli) -> Result<(), Failed> {
    let settings = cli.settings;
    match cli.command {
        Command::DbMigrate => db_migrate(&settings).await,
        Command::Server => server(settings).await,
        Command::CleanupAckedMessages => cleanup_acked_messages(&settings).await,
        Command::CleanupStuckMessages => cleanup_stuck_messages(&settings).await,
        Command::CreateClient {
            name,
            scopes,
            is_active,
        } => {
            let client = ClientSettings {
                name,
                scopes,
                is_active: Some(is_active),
            };
            create_client(&settings, client).await
        }
        Command::GenerateSecretKey => {
            println!("new_secret={}", secrets::generate(32));
            Ok(())
        }
    }
}

async fn db_migrate(settings: &Settings) -> Result<(), Failed> {
    let migrated = with_database(settings, async |connection| {
        Ok(schema::migrate(connection).await?)
    });
    match migrated.await? {
        Migrated::Applied => println!("schema=migrated"),
        Migrated::UpToDate => println!("schema=up-to-date"),
    }
    Ok(())
}

async fn cleanup_acked_messages(settings: &Settings) -> Result<(), Failed> {
    let older_than = settings.cleanup_acked_messages_older_than_seconds;
    let removed = with_schema(settings, async |connection| {
        let removed = db::maintenance::cleanup_acked_messages(connection, older_than).await?;
        db::maintenance::rotate(connection, older_than).await?;
        Ok(removed)
    });
    println!("removed={}", removed.await?);
    Ok(())
}

async fn cleanup_stuck_messages(settings: &Settings) -> Result<(), Failed> {
    let timeout = settings.cleanup_stuck_messages_lock_timeout_seconds;
    let released = with_schema(settings, async |connection| {
        Ok(db::maintenance::cleanup_stuck_messages(connection, timeout).await?)
    });
    println!("released={}", released.await?);
    Ok(())
}

async fn create_client(settings: &Settings, client: ClientSettings) -> Result<(), Failed> {
    let client = ClientSettings {
        name: client.name.trim().to_owned(),
        scopes: client.scopes.trim().to_owned(),
        ..client
    };
    if client.name.is_empty() || client.scopes.is_empty() {
        return Err(Failed("NAME and SCOPES must not be empty".to_owned()));
    }
    scopes::validate(&client.scopes).map_err(Failed)?;
    let (id, secret) = (Uuid::now_v7(), secrets::generate(16));
    let hash = secrets::hash(&secret);
    with_schema(settings, async |connection| {
        Ok(db::clients::create(connection, id, &client, &hash).await?)
    })
    .await?;
    println!("client_id={id}\nclient_secret={secret}");
    Ok(())
}

async fn server(settings: Settings) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal()?;
    let address = (settings.api_host, settings.api_port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failed(format!(
            "cannot listen on {}:{} (FASTPUBSUB_API_HOST, FASTPUBSUB_API_PORT): {error}",
            address.0, address.1
        ))
    })?;
    // not broken off by a signal, which would leave a Postgres behind that is only just starting
    let database = Database::open(&settings, true).await?;
    if shutdown.is_cancelled() {
        return database.close().await;
    }
    let served = serve(settings, listener, &database, shutdown).await;
    database.close().await?;
    if served.is_ok() {
        tracing::info!("stopped");
    }
    served
}

async fn serve(
    settings: Settings,
    listener: TcpListener,
    database: &Database,
    shutdown: CancellationToken,
) -> Result<(), Failed> {
    let mut connection = connect(&database.options).await?;
    check_schema(&mut connection, database.embedded.is_some()).await?;
    connection.close().await?;

    let pool = db::pool(&settings, database.options.clone());
    let metrics = Metrics::install().map_err(Failed)?;
    let app = App::new(settings.clone(), pool.clone(), metrics);
    let work = tokio::spawn(maintenance::run(pool.clone(), settings, shutdown.clone()));
    tracing::info!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        () = http::serve::serve(listener, app, shutdown) => {}
        // a drain needs the database too
        () = database.watch() => {}
    }
    work.await?;
    // a request that was cut off may still hold a connection
    let _in_use = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    Ok(())
}
