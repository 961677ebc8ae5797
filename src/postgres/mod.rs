//! The embedded default: a private Postgres under the data directory, for trying out, development
//! and tests.
//!
//! The directory holds `pg/` (the cluster), `password`, `postgres.log`, two lock files and, while it
//! runs, the socket. It outlives a killed server: whoever comes next takes it over.

mod binaries;
mod directory;
mod process;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::User;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::process::Command;

use crate::auth::secrets;
use directory::{
    free_port, give, lock_as_server, lock_as_user, lock_to_start, prepare_directory, socket_fits,
};
use process::{Postmaster, postmaster};

/// The one database.
const DATABASE: &str = "fastpubsub";
const SUPERUSER: &str = "postgres";
/// Crash recovery can take its time.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
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
        embedded.ensure_running().await?;
        embedded.ensure_database().await?;
        Ok(embedded)
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
        let mut child = None;
        if postmaster(&self.cluster()).is_none() {
            let version = fs::read_to_string(self.cluster().join("PG_VERSION")).ok();
            let major = version
                .as_deref()
                .and_then(|version| version.trim().parse().ok());
            let bin = binaries::find(self.bin.as_deref(), major)?;
            if version.is_none() {
                self.create_cluster(&bin).await?;
            }
            child = Some(self.spawn(&bin)?);
        }
        let started = child.is_some();
        let deadline = Instant::now() + START_TIMEOUT;
        while !postmaster(&self.cluster()).is_some_and(|postmaster| postmaster.ready) {
            if let Some(child) = &mut child
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
        // whoever waits for it reaps it
        tokio::spawn(async move {
            if let Some(mut child) = child {
                let _status = child.wait().await;
            }
        });
        Ok(started)
    }

    async fn create_cluster(&self, bin: &Path) -> Result<(), Failure> {
        tracing::info!(dir = %self.dir.display(), "creating a private Postgres");
        // made aside and moved into place when it is whole: a start may be killed at any point
        let cluster = self.dir.join(format!("pg.creating-{}", std::process::id()));
        self.remove_broken_off()?;
        let file = self.dir.join("password");
        let mut options = File::options();
        let mut written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .map_err(|error| Failure::io("create", &file, &error))?;
        written
            .write_all(secrets::generate(16).as_bytes())
            .map_err(|error| Failure::io("write", &file, &error))?;
        self.give_to_owner(&file)?;
        let output = self
            .command(&bin.join("initdb"))
            .arg("--pgdata")
            .arg(&cluster)
            .args([
                "--username",
                SUPERUSER,
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ])
            .args([
                "--auth-local",
                "trust",
                "--auth-host",
                "scram-sha-256",
                "--pwfile",
            ])
            .arg(&file)
            .output()
            .await
            .map_err(|error| Failure::io("run", &bin.join("initdb"), &error))?;
        if output.status.success() {
            let place = self.cluster();
            if place.exists() {
                // not a cluster, or it would not be created
                fs::remove_dir_all(&place)
                    .map_err(|error| Failure::io("replace", &place, &error))?;
            }
            return fs::rename(&cluster, &place)
                .map_err(|error| Failure::io("create", &place, &error));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .find(|line| line.contains("error"))
            .or(text.lines().next_back());
        Err(Failure::new(format!(
            "initdb failed: {}",
            line.unwrap_or("no reason given").trim()
        )))
    }

    /// What starts that were killed left behind. An initdb that outlived its server may still write
    /// there; what cannot be removed now is removed by a later start.
    fn remove_broken_off(&self) -> Result<(), Failure> {
        let entries =
            fs::read_dir(&self.dir).map_err(|error| Failure::io("read", &self.dir, &error))?;
        for entry in entries.flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("pg.creating-")
            {
                let _still_written_to = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    fn spawn(&self, bin: &Path) -> Result<tokio::process::Child, Failure> {
        let log = self.dir.join("postgres.log");
        let open = || -> std::io::Result<(File, File)> {
            let file = File::options().create(true).append(true).open(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().map_err(|error| Failure::io("open", &log, &error))?;
        let port = if socket_fits(&self.dir) {
            5432
        } else {
            free_port()?
        };
        let listen = if socket_fits(&self.dir) {
            ""
        } else {
            "127.0.0.1"
        };
        let sockets = if socket_fits(&self.dir) {
            self.dir.display().to_string()
        } else {
            String::new()
        };
        let program = bin.join("postgres");
        self.command(&program)
            .arg("-D")
            .arg(self.cluster())
            .args([
                "-c",
                &format!("listen_addresses={listen}"),
                "-c",
                &format!("port={port}"),
            ])
            .args(["-c", &format!("unix_socket_directories={sockets}")])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=256MB"])
            .args([
                "-c",
                "logging_collector=off",
                "-c",
                "log_timezone=UTC",
                "-c",
                "jit=off",
            ])
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| Failure::io("run", &program, &error))
    }

    /// A program of Postgres: as its owner, in its own process group, so that ^C does not reach it.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.dir)
            .stdin(std::process::Stdio::null())
            .process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    fn give_to_owner(&self, path: &Path) -> Result<(), Failure> {
        give(path, self.owner.as_ref())
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

    fn last_log_line(&self) -> String {
        let log = fs::read_to_string(self.dir.join("postgres.log")).unwrap_or_default();
        let failed = log
            .lines()
            .rev()
            .find(|line| line.contains("FATAL") || line.contains("ERROR"));
        failed
            .or(log.lines().next_back())
            .unwrap_or("nothing in postgres.log")
            .to_owned()
    }
}
