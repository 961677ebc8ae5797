//! What happens to servers: killed and started again, frozen until their leases are over.

use rand::RngExt;

use super::super::history::{Fault, Kind};
use super::super::servers::COUNT;
use super::Lane;

/// How long a server may still be behind after it goes on.
const SLACK: u64 = 1_000_000;

impl Lane {
    pub(super) async fn hit_server(&mut self, kind: Kind) {
        let server = self.random.random_range(0..COUNT);
        let stage = std::sync::Arc::clone(&self.faults.stage);
        let from = self.now();
        if kind == Kind::KillServer {
            stage.servers.kill(server).await;
            self.pause(200..1500).await;
            stage.servers.start(server, stage.clock).await;
        } else {
            stage.servers.freeze(server).await;
            // leases last at most three seconds
            self.pause(3500..5000).await;
            stage.servers.thaw(server).await;
        }
        let fault = Fault {
            kind,
            server: Some(server),
            from,
            until: self.now() + SLACK,
            gone: None,
            crashed: None,
        };
        self.faults.note(fault).await;
    }
}
