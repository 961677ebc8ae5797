//! The private Postgres of a run: started by the code of the embedded default, ended by signals.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastpubsub::postgres::Embedded;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

/// How many connections it takes, as `src/postgres` starts it.
pub const MAX_CONNECTIONS: usize = 200;

pub struct Cluster {
    directory: PathBuf,
    options: PgConnectOptions,
}

impl Cluster {
    /// Create and start it in a directory that does not exist yet.
    pub async fn create(directory: PathBuf) -> Self {
        let embedded = Embedded::start(&directory, None, false).await.unwrap();
        let options = embedded.options().unwrap().application_name("torture");
        let cluster = Self { directory, options };
        let mut connection = cluster.connect().await.unwrap();
        // little log, so that the disk may be small; many checkpoints, so that recovery has work
        for statement in [
            "alter system set max_wal_size = '128MB'",
            "alter system set min_wal_size = '32MB'",
            "alter system set checkpoint_timeout = '30s'",
            "select pg_catalog.pg_reload_conf()",
        ] {
            sqlx::query(statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        for setting in [
            "show fsync",
            "show synchronous_commit",
            "show full_page_writes",
        ] {
            let value: String = sqlx::query_scalar(setting)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(value, "on", "{setting}");
        }
        connection.close().await.unwrap();
        cluster
    }

    pub fn url(&self) -> String {
        let directory = self.directory.display().to_string().replace('/', "%2F");
        format!("postgresql://postgres@{directory}/fastpubsub")
    }

    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.options.connect().await
    }

    /// What is another one after every end of Postgres, also after a crash that its postmaster survives.
    pub async fn incarnation(&self) -> Option<String> {
        let mut connection = self.connect().await.ok()?;
        let started_at = sqlx::query_scalar(
            "select backend_start::text from pg_catalog.pg_stat_activity \
             where backend_type = 'checkpointer'",
        );
        let started_at = started_at.fetch_one(&mut connection).await.ok()?;
        connection.close().await.ok();
        Some(started_at)
    }

    /// Connect as soon as it takes connections.
    pub async fn connect_patiently(&self) -> PgConnection {
        loop {
            if let Ok(connection) = self.connect().await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Start it again, if it does not run, and wait until it takes connections.
    pub async fn start(&self) {
        let mut tries = 0;
        loop {
            // what is left of the one before may still hold its shared memory
            match Embedded::start(&self.directory, None, false).await {
                Ok(_) => return,
                Err(error) if tries == 100 => panic!("Postgres does not start: {error}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// End it with a signal to the postmaster and wait until it is gone.
    pub async fn stop(&self, signal: Signal) {
        if let Some(postmaster) = self.postmaster() {
            kill(postmaster, signal).unwrap();
            wait_for(&[postmaster]).await;
        }
    }

    /// Kill the postmaster and all of its children at one stroke.
    pub async fn kill(&self) {
        let Some(postmaster) = self.postmaster() else {
            return;
        };
        // a stopped one starts no child
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let mut pids = children(postmaster);
        pids.push(postmaster);
        for pid in &pids {
            // a child may have ended meanwhile
            let _gone = kill(*pid, Signal::SIGKILL);
        }
        wait_for(&pids).await;
    }

    pub fn is_running(&self) -> bool {
        self.postmaster().is_some()
    }

    fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.directory.join("pg/postmaster.pid")).ok()?;
        let pid = Pid::from_raw(file.lines().next()?.parse().ok()?);
        is_alive(pid).then_some(pid)
    }
}

/// The fields of /proc/PID/stat after the name: state, parent, ...
fn stat(process: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

fn is_alive(pid: Pid) -> bool {
    let fields = stat(&PathBuf::from(format!("/proc/{pid}")));
    fields.is_some_and(|fields| fields[0] != "Z")
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let children = processes.filter_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let fields = stat(&process.path())?;
        (fields[1] == parent.to_string()).then(|| Pid::from_raw(pid))
    });
    children.collect()
}

async fn wait_for(pids: &[Pid]) {
    for _ in 0..6000 {
        if !pids.iter().any(|pid| is_alive(*pid)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("Postgres did not end within a minute");
}
