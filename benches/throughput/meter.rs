//! What is spent: WAL, and processor time of Postgres, of the servers and of this program.

use std::time::Instant;

use sqlx::postgres::PgConnection;

use crate::cluster::Cluster;
use crate::server::Server;

/// Of a clock tick, in which Linux tells processor time (USER_HZ is 100 everywhere).
const MICROS_PER_TICK: f64 = 10_000.0;

/// Reads what was spent so far.
pub(crate) struct Meter {
    connection: PgConnection,
    postmaster: u32,
    servers: Vec<u32>,
}

pub(crate) struct Reading {
    pub(crate) at: Instant,
    pub(crate) messages: u64,
    wal_bytes: f64,
    postgres: f64,
    servers: f64,
    client: f64,
}

/// What one message costs: bytes, microseconds of a processor.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wal_bytes: f64,
    pub(crate) postgres: f64,
    pub(crate) servers: f64,
    pub(crate) client: f64,
}

impl Meter {
    pub(crate) async fn new(cluster: &Cluster, servers: &[&Server]) -> Self {
        Self {
            connection: cluster.postgres.connect().await,
            postmaster: cluster.postmaster,
            servers: servers.iter().map(|server| server.pid).collect(),
        }
    }

    pub(crate) async fn read(&mut self, messages: impl FnOnce() -> u64) -> Reading {
        let wal_bytes = sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0')::float8")
            .fetch_one(&mut self.connection)
            .await
            .unwrap();
        Reading {
            wal_bytes,
            postgres: family_micros(self.postmaster),
            servers: self.servers.iter().map(|pid| process(*pid).micros).sum(),
            client: process(std::process::id()).micros,
            messages: messages(),
            at: Instant::now(),
        }
    }
}

impl Reading {
    /// Messages a second and the cost of one, since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, Cost) {
        let messages = (self.messages - earlier.messages) as f64;
        let cost = Cost {
            wal_bytes: (self.wal_bytes - earlier.wal_bytes) / messages,
            postgres: (self.postgres - earlier.postgres) / messages,
            servers: (self.servers - earlier.servers) / messages,
            client: (self.client - earlier.client) / messages,
        };
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        (messages / seconds, cost)
    }
}

struct Process {
    parent: u32,
    /// Of its own.
    micros: f64,
    /// Of children that ended.
    ended_micros: f64,
}

fn process(pid: u32) -> Process {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // the name before it may hold anything
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace()
        .collect();
    let number = |at: usize| fields.get(at).map_or(0, |field| field.parse().unwrap());
    let micros = |at: usize| (number(at) + number(at + 1)) as f64 * MICROS_PER_TICK;
    Process {
        parent: u32::try_from(number(1)).unwrap(),
        micros: micros(11),
        ended_micros: micros(13),
    }
}

/// Processor time of a process.
pub(crate) fn micros_of(pid: u32) -> f64 {
    process(pid).micros
}

/// Of a process and its children, those that ended included.
fn family_micros(parent: u32) -> f64 {
    let own = process(parent);
    let children: f64 = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .map(process)
        .filter(|process| process.parent == parent)
        .map(|process| process.micros)
        .sum();
    own.micros + own.ended_micros + children
}

/// Resident memory of a process in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    f64::from(kib) / 1024.0
}
