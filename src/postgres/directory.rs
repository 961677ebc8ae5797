//! The data directory: making it, giving it to its owner, locking it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::{Failure, binaries};

/// Who has no place for one may want a database of their own anyway.
const NO_DIRECTORY: &str = "create FASTPUBSUB_DATA_DIR (FASTPUBSUB_DATABASE_URL is not set)";

/// Longest path of a Unix socket (sockaddr_un, with its final NUL).
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn prepare_directory(dir: &Path, owner: Option<&User>) -> Result<PathBuf, Failure> {
    let existed = dir.is_dir();
    let create = || -> std::io::Result<()> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
    };
    create().map_err(|error| Failure::io(NO_DIRECTORY, dir, &error))?;
    let dir = fs::canonicalize(dir).map_err(|error| Failure::io("open", dir, &error))?;
    if let Some(owner) = owner {
        binaries::check_reachable(&dir, owner)?;
    }
    let ours = ["pg", "users.lock", "start.lock", "server.lock"];
    // one look: another start may be making them
    let names: Vec<OsString> = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(|error| Failure::io("read", &dir, &error))?;
    let is_ours = names.is_empty() || names.iter().any(|name| ours.iter().any(|our| name == our));
    if existed && !is_ours {
        return Err(Failure::new(format!(
            "FASTPUBSUB_DATA_DIR is {}, which holds something else: choose an empty directory",
            dir.display()
        )));
    }
    give(&dir, owner)?;
    Ok(dir)
}

pub(super) fn give(path: &Path, owner: Option<&User>) -> Result<(), Failure> {
    let Some(owner) = owner else { return Ok(()) };
    chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
        .map_err(|error| Failure::io("give Postgres", path, &error))
}

/// Held by everyone who uses the Postgres of the directory, so that nobody stops it under another.
pub(super) async fn lock_as_user(dir: &Path) -> Result<File, Failure> {
    lock(dir.join("users.lock"), File::lock_shared).await
}

/// Held while Postgres is created or started.
pub(super) async fn lock_to_start(dir: &Path) -> Result<File, Failure> {
    lock(dir.join("start.lock"), File::lock).await
}

async fn lock(path: PathBuf, how: fn(&File) -> std::io::Result<()>) -> Result<File, Failure> {
    let waited = tokio::task::spawn_blocking(move || {
        File::create(&path)
            .and_then(|file| how(&file).map(|()| file))
            .map_err(|error| Failure::io("lock", &path, &error))
    });
    waited
        .await
        .map_err(|error| Failure::new(error.to_string()))?
}

pub(super) fn lock_as_server(dir: &Path) -> Result<File, Failure> {
    let file = dir.join("server.lock");
    let lock = File::create(&file).map_err(|error| Failure::io("create", &file, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
            "another fastpubsub server runs on {}: stop it, or choose another \
             FASTPUBSUB_DATA_DIR",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Failure::io("lock", &file, &error)),
    }
}

pub(super) fn socket_fits(dir: &Path) -> bool {
    dir.join(".s.PGSQL.5432").as_os_str().len() <= MAX_SOCKET_PATH
}

pub(super) fn free_port() -> Result<u16, Failure> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::new(format!("no free port for the private Postgres: {error}")))
}
