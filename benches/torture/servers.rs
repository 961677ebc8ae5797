//! The servers: the built binary, several times over one database, each with its own port and log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::clock::Clock;
use super::history::Outcome;
use super::wire::{Cut, Wire};
use super::world::DEFAULT_ACK_DEADLINE_SECONDS;

const BINARY: &str = env!("CARGO_BIN_EXE_fastpubsub");
pub const COUNT: usize = 2;
/// Longer than any outage of the database.
const START_TIMEOUT: Duration = Duration::from_secs(60);

struct Server {
    port: u16,
    log: PathBuf,
    generation: AtomicU64,
    /// None while it was killed on purpose.
    child: Mutex<Option<Child>>,
}

pub struct Servers {
    directory: PathBuf,
    database_url: String,
    servers: Vec<Server>,
}

impl Servers {
    pub fn new(directory: &Path, database_url: &str) -> Arc<Self> {
        let server = |number| Server {
            port: free_port(),
            log: directory.join(format!("server-{number}.log")),
            generation: AtomicU64::new(0),
            child: Mutex::new(None),
        };
        Arc::new(Self {
            directory: directory.to_owned(),
            database_url: database_url.to_owned(),
            servers: (0..COUNT).map(server).collect(),
        })
    }

    pub fn address(&self, server: usize) -> (&'static str, u16) {
        ("127.0.0.1", self.servers[server].port)
    }

    /// Counts the processes that a server was.
    pub fn generation(&self, server: usize) -> u64 {
        self.servers[server].generation.load(Ordering::SeqCst)
    }

    /// The binary with an environment of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .args(["--database-url", &self.database_url])
            .env_clear()
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Start a server and wait until it is alive. It gives up where there is no database; then it is
    /// started again, as whatever runs it would.
    pub async fn start(self: &Arc<Self>, number: usize, clock: Clock) {
        let server = &self.servers[number];
        let mut child = self.spawn(number);
        let mut wire = Wire::new("starter", self, clock);
        let end = Instant::now() + START_TIMEOUT;
        loop {
            assert!(Instant::now() < end, "server {number} does not start");
            if child.try_wait().unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
                child = self.spawn(number);
            }
            let answer = wire
                .call(number, ("GET", "/liveness", ""), Cut::Never)
                .await;
            if answer.call.outcome == Outcome::Done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        *server.child.lock().await = Some(child);
    }

    fn spawn(&self, number: usize) -> Child {
        let server = &self.servers[number];
        let log = File::options()
            .create(true)
            .append(true)
            .open(&server.log)
            .unwrap();
        let deadline = DEFAULT_ACK_DEADLINE_SECONDS.to_string();
        self.command(&["server", "--api-host", "127.0.0.1"])
            .args(["--push-allowed-networks", "127.0.0.1"])
            .args(["--api-port", &server.port.to_string()])
            .args(["--log-level", "warning"])
            .args(["--cleanup-stuck-messages-lock-timeout-seconds", &deadline])
            // the books are checked against the acked messages, and only our own clean-ups noted down
            .args(["--cleanup-acked-messages-older-than-seconds", "604800"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub async fn kill(&self, number: usize) {
        let server = &self.servers[number];
        let mut child = server.child.lock().await.take().unwrap();
        child.kill().await.unwrap();
        server.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub async fn freeze(&self, number: usize) {
        self.signal(number, Signal::SIGSTOP).await;
    }

    pub async fn thaw(&self, number: usize) {
        self.signal(number, Signal::SIGCONT).await;
    }

    async fn signal(&self, number: usize, signal: Signal) {
        let child = self.servers[number].child.lock().await;
        // one that ended by itself is reported as such
        if let Some(pid) = child.as_ref().and_then(Child::id) {
            kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
        }
    }

    /// The servers that ended without having been killed.
    pub async fn ended(&self) -> Vec<String> {
        let mut ended = Vec::new();
        for (number, server) in self.servers.iter().enumerate() {
            if let Some(child) = server.child.lock().await.as_mut()
                && let Some(status) = child.try_wait().unwrap()
            {
                ended.push(format!("server {number} ended by itself: {status}"));
            }
        }
        ended
    }

    /// Stop all of them as an operator would, and tell which did not stop cleanly.
    pub async fn stop(&self) -> Vec<String> {
        let mut unclean = Vec::new();
        for number in 0..COUNT {
            self.signal(number, Signal::SIGTERM).await;
        }
        for (number, server) in self.servers.iter().enumerate() {
            let Some(mut child) = server.child.lock().await.take() else {
                continue;
            };
            match tokio::time::timeout(Duration::from_secs(40), child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                ended => unclean.push(format!("server {number} did not stop cleanly: {ended:?}")),
            }
        }
        unclean
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
