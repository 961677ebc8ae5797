//! The cluster under the data directory: creating it and starting its postmaster.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokio::process::Command;

use super::directory::{free_port, give, socket_fits};
use super::{Embedded, Failure, SUPERUSER};
use crate::auth::secrets;

/// The variables that Postgres gets, beside those of the locale: where things are, no settings.
const PASSED_ON: &[&str] = &["PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];

impl Embedded {
    pub(super) async fn create_cluster(&self, bin: &Path) -> Result<(), Failure> {
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
        give(&file, self.owner.as_ref())?;
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
            .kill_on_drop(true)
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

    pub(super) fn spawn(&self, bin: &Path) -> Result<tokio::process::Child, Failure> {
        let log = self.dir.join("postgres.log");
        let open = || -> std::io::Result<(File, File)> {
            let file = File::options().create(true).append(true).open(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().map_err(|error| Failure::io("open", &log, &error))?;
        let (listen, port, sockets) = if socket_fits(&self.dir) {
            ("", 5432, self.dir.display().to_string())
        } else {
            ("127.0.0.1", free_port()?, String::new())
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

    /// A program of Postgres: as its owner, without our secrets, in its own process group, so that ^C
    /// does not reach it.
    fn command(&self, program: &Path) -> Command {
        let passed_on = std::env::vars_os().filter(|(name, _)| {
            name.to_str()
                .is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_"))
        });
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(passed_on)
            .current_dir(&self.dir)
            .stdin(std::process::Stdio::null())
            .process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    pub(super) fn last_log_line(&self) -> String {
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
