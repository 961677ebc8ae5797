//! A private Postgres whose clock tests set, by libfaketime (Debian: `faketime`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fastpubsub::postgres::Embedded;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

/// Stopped and removed when it is dropped.
pub struct ClockedPostgres {
    directory: PathBuf,
    offset: PathBuf,
    embedded: Embedded,
}

impl ClockedPostgres {
    /// Its clock is right.
    pub async fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("fastpubsub-clock-{}", Uuid::now_v7()));
        let programs = directory.join("bin");
        fs::create_dir_all(&programs).unwrap();
        // user postgres may read it, too
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let offset = directory.join("offset");
        fs::write(&offset, "+0").unwrap();
        let real = real_programs();
        std::os::unix::fs::symlink(real.join("initdb"), programs.join("initdb")).unwrap();
        let postgres = programs.join("postgres");
        let script = format!(
            "#!/bin/sh\n\
             export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1\n\
             export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n\
             exec {}/postgres \"$@\"\n",
            library().display(),
            offset.display(),
            real.display(),
        );
        fs::write(&postgres, script).unwrap();
        fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
        let embedded = Embedded::start(&directory.join("data"), Some(&programs), false)
            .await
            .unwrap();
        Self {
            directory,
            offset,
            embedded,
        }
    }

    pub fn options(&self) -> PgConnectOptions {
        self.embedded.options().unwrap()
    }

    /// Its clock is behind the right time from now on.
    pub fn set_back(&self, seconds: u32) {
        // in one step: it may be read at any time
        let next = self.directory.join("next");
        fs::write(&next, format!("-{seconds}")).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&next, &self.offset).unwrap();
    }
}

impl Drop for ClockedPostgres {
    fn drop(&mut self) {
        let file = fs::read_to_string(self.directory.join("data/pg/postmaster.pid"));
        let pid = file
            .ok()
            .and_then(|file| file.lines().next()?.trim().parse().ok());
        if let Some(pid) = pid {
            let pid = Pid::from_raw(pid);
            let _gone = kill(pid, Signal::SIGQUIT);
            for _ in 0..500 {
                if kill(pid, None).is_err() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

fn library() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap();
    libraries
        .map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketime.so.1")])
        .find(|library| library.is_file())
        .expect("libfaketime is not installed: make setup installs it (Debian: faketime)")
}

fn real_programs() -> PathBuf {
    if let Some(named) = std::env::var_os("FASTPUBSUB_PG_BIN") {
        return PathBuf::from(named);
    }
    (14..=18)
        .rev()
        .map(|major| Path::new("/usr/lib/postgresql").join(format!("{major}/bin")))
        .find(|place| place.join("initdb").is_file())
        .expect("PostgreSQL is not installed: make setup installs it")
}
