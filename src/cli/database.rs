//! The database that a subcommand works on: the settings' one, or the private Postgres.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::timeout;

use super::Failed;
use crate::auth::secrets;
use crate::config::Settings;
use crate::db;
use crate::db::schema::{self, Fit};
use crate::postgres::Embedded;
use crate::shutdown::Signals;

/// How long the end of a subcommand that a signal ends may take.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Work on the database, which is closed again whatever happens. A signal breaks it off, and what
/// runs in the database with it: its transaction is rolled back.
pub(super) async fn with_database<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&mut PgConnection, PgConnectOptions) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let mut signals = Signals::new()?;
    let database = tokio::select! {
        opened = Database::open(settings, false) => opened?,
        signal = signals.next() => {
            let _late = timeout(END_TIMEOUT, Embedded::broken_off(&settings.data_dir)).await;
            return Err(signal.into());
        }
    };
    // one that no other session has, so that it can be found by it
    let name = format!("fastpubsub subcommand {}", secrets::generate(8));
    let options = database.options.clone().application_name(&name);
    let worked = tokio::select! {
        worked = connect_and(&options, work) => worked,
        signal = signals.next() => {
            // an end that does not come in time comes by itself
            let _late = timeout(END_TIMEOUT, db::cancel(&database.options, &name)).await;
            let _late = timeout(END_TIMEOUT, database.close()).await;
            return Err(signal.into());
        }
    };
    tokio::select! {
        closed = database.close() => closed.and(worked),
        _ = signals.next() => worked,
    }
}

async fn connect_and<T>(
    options: &PgConnectOptions,
    work: impl AsyncFnOnce(&mut PgConnection, PgConnectOptions) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let mut connection = connect(options).await?;
    let worked = work(&mut connection, options.clone()).await;
    // a result is worth more than a goodbye
    let _closed = connection.close().await;
    worked
}

/// Work on a database that has our schema.
pub(super) async fn with_schema<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&db::database::Database) -> Result<T, Failed>,
) -> Result<T, Failed> {
    with_database(settings, async |connection, options| {
        check_schema(connection, settings.database_url.is_none()).await?;
        let database = db::database::Database::single(settings, options);
        let worked = work(&database).await;
        database.close().await;
        worked
    })
    .await
}

/// The embedded database is ours to migrate; any other is migrated by `db-migrate`.
pub(super) async fn check_schema(
    connection: &mut PgConnection,
    is_ours: bool,
) -> Result<(), Failed> {
    match schema::check(connection).await? {
        Fit::Same => Ok(()),
        Fit::Newer => {
            tracing::warn!("the database schema was made by a newer fastpubsub; going on anyway");
            Ok(())
        }
        Fit::Older if is_ours => {
            schema::migrate(connection).await?;
            Ok(())
        }
        Fit::Older => Err(Failed::new(
            "the database schema is missing or older than this fastpubsub: run db-migrate",
        )),
    }
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failed> {
    db::connect(options).await.map_err(|error| {
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let reason = Failed::from(error).text;
        let way_out = way_out(&reason).map_or_else(String::new, |way_out| format!(": {way_out}"));
        Failed::new(format!(
            "cannot use the database at {place}: {reason}{way_out}"
        ))
    })
}

/// What to do about a failed TLS handshake. The driver tells its reason only as text.
fn way_out(reason: &str) -> Option<&'static str> {
    const UNKNOWN_AUTHORITY: &str = "no authority that is trusted signed its certificate; name the \
        file of its authority with sslrootcert=FILE in FASTPUBSUB_DATABASE_URL, PGSSLROOTCERT or \
        SSL_CERT_FILE, or add it to the system's";
    const WAYS: &[(&str, &str)] = &[
        (
            "does not support TLS",
            "turn it on there (ssl = on), or set sslmode=prefer",
        ),
        ("UnknownIssuer", UNKNOWN_AUTHORITY),
        // one of the same name, with another key
        ("BadSignature", UNKNOWN_AUTHORITY),
        ("UnsupportedSignatureAlgorithm", UNKNOWN_AUTHORITY),
        (
            "CaUsedAsEndEntity",
            "its certificate is made for an authority (CA:TRUE); make one with \
             basicConstraints=CA:FALSE",
        ),
        (
            "not valid for name",
            "connect by a name in its certificate's subjectAltName, or set sslmode=verify-ca",
        ),
        (
            "NotValidForName",
            "connect by a name in its certificate's subjectAltName, or set sslmode=verify-ca",
        ),
        ("xpired", "renew the certificate of the server"),
        (
            "UnsupportedCertVersion",
            "its certificate is of an old version; make one with subjectAltName, of version 3",
        ),
        (
            "connection requires a valid client certificate",
            "name one with sslcert and sslkey",
        ),
        (
            "CertificateRequired",
            "name a client certificate with sslcert and sslkey",
        ),
        (
            "UnknownCA",
            "the server does not know the authority of sslcert (ssl_ca_file)",
        ),
    ];
    let way = WAYS.iter().find(|(part, _)| reason.contains(part));
    way.map(|(_, way_out)| *way_out)
}

/// The database of the settings, or the private one.
pub(super) struct Database {
    pub(super) options: PgConnectOptions,
    pub(super) embedded: Option<Embedded>,
}

impl Database {
    pub(super) async fn open(settings: &Settings, as_server: bool) -> Result<Self, Failed> {
        if let Some(url) = &settings.database_url {
            return Ok(Self {
                options: db::options(settings, url.reveal())?,
                embedded: None,
            });
        }
        let dir = &settings.data_dir;
        let embedded = Embedded::start(dir, settings.pg_bin.as_deref(), as_server).await?;
        if as_server {
            tracing::info!(
                "no FASTPUBSUB_DATABASE_URL: a private Postgres under {} serves, for trying out \
                 and development; its prompt: {}",
                dir.display(),
                embedded.psql_command()?
            );
        }
        Ok(Self {
            options: embedded.options()?,
            embedded: Some(embedded),
        })
    }

    /// Keep it running. Never ends.
    pub(super) async fn watch(&self) {
        match &self.embedded {
            Some(embedded) => embedded.watch().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn close(self) -> Result<(), Failed> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }
}
