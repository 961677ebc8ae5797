//! The embedded default: a private Postgres under the data directory, for trying out, development
//! and tests.
//!
//! The directory holds `pg/` (the cluster), `password`, `postgres.log`, three lock files and, while
//! it runs, the socket. It outlives a killed server: whoever comes next takes it over.

mod binaries;
mod cluster;
mod directory;
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::User;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use directory::{lock_as_server, lock_as_user, lock_to_start, prepare_directory, socket_fits};
use process::{Postmaster, Starting, Unfinished, postmaster};

/// The one database.
const DATABASE: &str = "fastpubsub";
const SUPERUSER: &str = "postgres";
/// Crash recovery can take its time.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const BREAK_OFF_TIME: Duration = Duration::from_millis(200);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// One line: why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// A private Postgres that runs.
#[derive(Debug)]
pub struct Embedded {
    dir: PathBuf,
    bin: Option<PathBuf>,
    owner: Option<User>,
    /// Held by the one server that runs on the directory.
    _server_lock: Option<File>,
    /// Shared by everyone who uses it.
    user_lock: File,
}

impl Embedded {
    /// Start the Postgres of a data directory, or take over the one that runs there.
    ///
    /// # Errors
    /// One line with what to do about it.
    pub async fn start(dir: &Path, bin: Option<&Path>, as_server: bool) -> Result<Self, Failure> {
        if !dir.join("pg").exists() {
            // told before a directory is made, or cannot be made, for nothing
            binaries::find(bin, None)?;
        }
        let owner = binaries::owner()?;
        let dir = prepare_directory(dir, owner.as_ref())?;
        let server_lock = as_server.then(|| lock_as_server(&dir)).transpose()?;
        let user_lock = lock_as_user(&dir).await?;
        let bin = bin.map(Path::to_owned);
        let embedded = Self {
            dir,
            bin,
            owner,
            _server_lock: server_lock,
            user_lock,
        };
        let started = embedded.ensure_running().await?;
        let mut unfinished = Unfinished(started.then(|| embedded.cluster()));
        embedded.ensure_database().await?;
        unfinished.0 = None;
        Ok(embedded)
    }

    /// Wait until the Postgres of a start that was broken off is gone.
    pub async fn broken_off(dir: &Path) {
        // one that was told to stop takes a moment to say that it does
        let told = Instant::now();
        let Ok(dir) = fs::canonicalize(dir) else {
            return;
        };
        while postmaster(&dir.join("pg"))
            .is_some_and(|postmaster| !postmaster.ready || told.elapsed() < BREAK_OFF_TIME)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How to connect to it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn options(&self) -> Result<PgConnectOptions, Failure> {
        let options = PgConnectOptions::new_without_pgpass()
            .username(SUPERUSER)
            .database(DATABASE)
            .application_name("fastpubsub")
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging();
        if socket_fits(&self.dir) {
            return Ok(options.socket(&self.dir));
        }
        let port = self.running()?.port;
        let password = self.password()?;
        Ok(options.host("127.0.0.1").port(port).password(&password))
    }

    /// The command that opens a psql prompt on it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn psql_command(&self) -> Result<String, Failure> {
        if socket_fits(&self.dir) {
            return Ok(format!(
                "psql -h {} -U {SUPERUSER} {DATABASE}",
                self.dir.display()
            ));
        }
        let port = self.running()?.port;
        let file = self.dir.join("password");
        Ok(format!(
            "PGPASSWORD=$(cat {}) psql -h 127.0.0.1 -p {port} -U {SUPERUSER} {DATABASE}",
            file.display()
        ))
    }

    /// Start Postgres again within seconds whenever it is gone. Never ends.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            match self.ensure_running().await {
                Ok(true) => tracing::warn!("the private Postgres was gone; it was started again"),
                Ok(false) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    /// Stop Postgres, unless another process uses it: then that one will.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(self) -> Result<(), Failure> {
        let unlocked = self
            .user_lock
            .unlock()
            .and_then(|()| Ok(self.user_lock.try_lock()?));
        let Some(postmaster) = postmaster(&self.cluster()).filter(|_| unlocked.is_ok()) else {
            return Ok(());
        };
        postmaster.interrupt();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while postmaster.is_alive() {
            if Instant::now() > deadline {
                return Err(Failure::new(
                    "the private Postgres did not stop within 60 s",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn cluster(&self) -> PathBuf {
        self.dir.join("pg")
    }

    fn password(&self) -> Result<String, Failure> {
        let file = self.dir.join("password");
        fs::read_to_string(&file).map_err(|error| Failure::io("read", &file, &error))
    }

    fn running(&self) -> Result<Postmaster, Failure> {
        postmaster(&self.cluster()).ok_or_else(|| Failure::new("the private Postgres does not run"))
    }

    /// Returns whether it had to be started.
    async fn ensure_running(&self) -> Result<bool, Failure> {
        if postmaster(&self.cluster()).is_some_and(|postmaster| postmaster.ready) {
            return Ok(false);
        }
        let _lock = lock_to_start(&self.dir).await?;
        let mut child = Starting(None);
        if postmaster(&self.cluster()).is_none() {
            let version = fs::read_to_string(self.cluster().join("PG_VERSION")).ok();
            let major = version
                .as_deref()
                .and_then(|version| version.trim().parse().ok());
            let bin = binaries::find(self.bin.as_deref(), major)?;
            if version.is_none() {
                self.create_cluster(&bin).await?;
            }
            child.0 = Some(self.spawn(&bin)?);
        }
        let started = child.0.is_some();
        let deadline = Instant::now() + START_TIMEOUT;
        while !postmaster(&self.cluster()).is_some_and(|postmaster| postmaster.ready) {
            if let Some(child) = &mut child.0
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(Failure::new(format!(
                    "the private Postgres ended with {status}: {}",
                    self.last_log_line()
                )));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(
                    "the private Postgres was not ready within 300 s",
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(mut child) = child.0.take() {
            // whoever waits for it reaps it
            tokio::spawn(async move { child.wait().await });
        }
        Ok(started)
    }

    async fn ensure_database(&self) -> Result<(), Failure> {
        let refused =
            |error: sqlx::Error| Failure::new(format!("cannot use the private Postgres: {error}"));
        let options = self.options()?;
        let error = match options.connect().await {
            Ok(connection) => return connection.close().await.map_err(refused),
            Err(error) => error,
        };
        let missing = error
            .as_database_error()
            .is_some_and(|error| error.code().as_deref() == Some("3D000"));
        if !missing {
            return Err(refused(error));
        }
        let mut admin = options
            .database(SUPERUSER)
            .connect()
            .await
            .map_err(refused)?;
        let created = sqlx::query("create database fastpubsub")
            .execute(&mut admin)
            .await;
        // another process may have been faster
        let exists = |error: &sqlx::Error| {
            error
                .as_database_error()
                .is_some_and(|error| matches!(error.code().as_deref(), Some("42P04" | "23505")))
        };
        match created {
            Err(error) if !exists(&error) => Err(refused(error)),
            _ => admin.close().await.map_err(refused),
        }
    }
}
