//! The subcommand `server`: start, serve, and end in time.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::Connection;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Failed;
use super::database::{Database, check_schema, connect};
use crate::app::App;
use crate::config::Settings;
use crate::db::pooler::{self, Sessions};
use crate::doors::Which;
use crate::doors::serve::{self, Limits};
use crate::engine::upkeep;
use crate::postgres::Embedded;
use crate::telemetry::metrics::Metrics;
use crate::{db, doors, shutdown};

/// For closing what is open once the requests in flight have had their time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serve until a signal, and end within the shutdown timeout whatever is still waited for.
pub(super) async fn run(settings: Settings) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal()?;
    let limit = Duration::from_secs(settings.api_shutdown_timeout_seconds);
    let overdue = async {
        shutdown.cancelled().await;
        sleep(limit + CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        ran = start(settings, shutdown.clone()) => ran?,
        () = overdue => tracing::warn!("what is still open is left to end by itself"),
    }
    tracing::info!("stopped");
    Ok(())
}

async fn start(settings: Settings, shutdown: CancellationToken) -> Result<(), Failed> {
    let entrances = listen(&settings).await?;
    let database = tokio::select! {
        opened = Database::open(&settings, true) => opened?,
        () = shutdown.cancelled() => {
            Embedded::broken_off(&settings.data_dir).await;
            return Ok(());
        }
    };
    let served = tokio::select! {
        ready = check_database(&database) => match ready {
            Ok(sessions) => serve(settings, entrances, &database, sessions, shutdown).await,
            Err(failed) => Err(failed),
        },
        () = shutdown.cancelled() => Ok(()),
    };
    database.close().await?;
    served
}

/// Take every address before anything else is done: a taken one is told at once.
async fn listen(settings: &Settings) -> Result<Vec<(TcpListener, Which)>, Failed> {
    let mut listeners = Vec::new();
    for entrance in doors::entrances(settings) {
        let address = entrance.address;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failed::new(format!(
                "cannot listen on {address} ({}): {error}",
                entrance.settings
            ))
        })?;
        listeners.push((listener, entrance.which));
    }
    Ok(listeners)
}

/// Whether the schema is ours, and the sessions are; those of the private Postgres are.
async fn check_database(database: &Database) -> Result<Sessions, Failed> {
    let mut connection = connect(&database.options).await?;
    check_schema(&mut connection, database.embedded.is_some()).await?;
    connection.close().await?;
    if database.embedded.is_some() {
        return Ok(Sessions::Own);
    }
    let sessions = pooler::probe(&database.options).await?;
    if sessions == Sessions::Shared {
        tracing::info!(
            "a pooler that shares sessions is in front of the database: each call is made in an \
             explicit transaction, without prepared statements"
        );
    }
    Ok(sessions)
}

async fn serve(
    settings: Settings,
    entrances: Vec<(TcpListener, Which)>,
    database: &Database,
    sessions: Sessions,
    shutdown: CancellationToken,
) -> Result<(), Failed> {
    let connections = db::database::Database::new(&settings, database.options.clone(), sessions);
    let metrics = Metrics::install().map_err(Failed::new)?;
    let app = App::new(settings.clone(), connections.clone(), metrics);
    doors::prepare(&app).await?;
    if entrances.iter().all(|(_, which)| *which != Which::All) {
        tracing::info!("the native API is not served: give it a port, FASTPUBSUB_API_PORT");
    }
    let mut listening = Vec::new();
    for (listener, which) in entrances {
        announce(listener.local_addr()?, which, &app.settings);
        listening.push(which.open(listener, &app));
    }
    let work = tokio::spawn(upkeep::run(connections.clone(), settings, shutdown.clone()));
    let pushing = tokio::spawn(doors::push(app.clone(), shutdown.clone()));
    let limits = Limits::of(&app.settings);
    tokio::select! {
        () = serve::serve(listening, &app, shutdown, limits) => {}
        // a drain needs the database too
        () = database.watch() => {}
    }
    work.await?;
    pushing.await?;
    // a request that was cut off may still hold a connection
    let _in_use = tokio::time::timeout(Duration::from_secs(1), connections.close()).await;
    Ok(())
}

/// Tell where the service is.
fn announce(address: SocketAddr, which: Which, settings: &Settings) {
    match which {
        Which::All => tracing::info!("listening on http://{address}"),
        Which::Pyqueue => tracing::info!("listening on http://{address} for PyQueue"),
        Which::Broker => tracing::info!("listening on http://{address} for Message Broker"),
        Which::Pulsar => tracing::info!("listening on http://{address} for Pulsar Proxy"),
    }
    let closed = settings.auth_enabled;
    let (is_open, setting) = match which {
        Which::All => (!closed, "FASTPUBSUB_AUTH_ENABLED is false"),
        Which::Pyqueue => (false, ""),
        Which::Broker => (
            settings.broker.is_open(closed),
            "there is neither FASTPUBSUB_BROKER_API_KEY nor FASTPUBSUB_BROKER_JWT_SECRET",
        ),
        Which::Pulsar => (
            settings.pulsar.is_open(closed),
            "FASTPUBSUB_PULSAR_JWT_ENABLED is false",
        ),
    };
    if is_open && !address.ip().to_canonical().is_loopback() {
        tracing::warn!("anybody who reaches {address} may do everything: {setting}");
    }
}
