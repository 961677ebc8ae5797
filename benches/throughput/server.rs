//! A server process of the release binary.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cluster::{Bench, Database};
use crate::http::Client;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A server that answers; killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    child: Child,
}

impl Server {
    pub(crate) async fn start(bench: &Bench, database: &Database) -> Self {
        Self::start_with(bench, database, &[]).await
    }

    pub(crate) async fn start_with(bench: &Bench, database: &Database, settings: &[&str]) -> Self {
        let address = free_address();
        let child = Command::new(&database.program)
            // no setting of the caller's
            .env_clear()
            .current_dir(&bench.cluster.directory)
            .arg("server")
            .args(["--database-url", &database.url()])
            .args(["--database-pool-size", &bench.flags.pool_size.to_string()])
            .args(["--database-max-overflow", "0"])
            .args(["--log-level", "warning"])
            .args(["--api-host", &address.ip().to_string()])
            .args(["--api-port", &address.port().to_string()])
            .args(settings)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut server = Self {
            address,
            pid: child.id().unwrap(),
            child,
        };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).await.is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended with {ended:?}");
            assert!(Instant::now() < deadline, "the server does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Client::connect(self.address).await.get("/readiness").await;
    }

    pub(crate) async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await;
        let status = ended.expect("the server does not stop").unwrap();
        assert!(status.success(), "the server ended with {status}");
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
