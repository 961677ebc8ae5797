//! The database that a subcommand works on: the settings' one, or the private Postgres.

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::Failed;
use crate::config::Settings;
use crate::db;
use crate::db::schema::{self, Fit};
use crate::postgres::Embedded;

/// Work on the database, which is closed again whatever happens.
pub(super) async fn with_database<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let database = Database::open(settings, false).await?;
    let worked = match connect(&database.options).await {
        Ok(mut connection) => {
            let worked = work(&mut connection).await;
            // a result is worth more than a goodbye
            let _closed = connection.close().await;
            worked
        }
        Err(failed) => Err(failed),
    };
    database.close().await?;
    worked
}

/// Work on a database that has our schema.
pub(super) async fn with_schema<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failed>,
) -> Result<T, Failed> {
    with_database(settings, async |connection| {
        check_schema(connection, settings.database_url.is_none()).await?;
        work(connection).await
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
        Fit::Older => Err(Failed(
            "the database schema is missing or older than this fastpubsub: run db-migrate"
                .to_owned(),
        )),
    }
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failed> {
    db::connect(options).await.map_err(|error| {
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let Failed(reason) = error.into();
        Failed(format!("cannot use the database at {place}: {reason}"))
    })
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
