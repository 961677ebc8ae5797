//! What operators do meanwhile: subcommands, and a transaction that is left open.

use std::time::Duration;

use rand::RngExt;
use sqlx::Connection;

use super::super::history::{Fault, Kind};
use super::Lane;

/// Less than the default ack deadline, so that live leases are ended too.
const STUCK_AFTER_SECONDS: u32 = 1;
/// Acked messages younger than this are kept: longer than reading the books takes.
const FORGET_AFTER_SECONDS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

impl Lane {
    /// Run a subcommand, again where the database was away.
    pub(super) async fn run_subcommand(&mut self, kind: Kind) {
        loop {
            let ran = if kind == Kind::CleanUpAcked {
                let faults = std::sync::Arc::clone(&self.faults);
                let ran = faults
                    .archive
                    .keep(&faults.cluster, self.run_once(kind))
                    .await;
                ran.unwrap_or(false)
            } else {
                self.run_once(kind).await
            };
            if ran {
                return;
            }
            self.pause(500..1500).await;
        }
    }

    async fn run_once(&self, kind: Kind) -> bool {
        let (stuck, forgotten) = (
            STUCK_AFTER_SECONDS.to_string(),
            FORGET_AFTER_SECONDS.to_string(),
        );
        let arguments: &[&str] = match kind {
            Kind::CleanUpStuck => &[
                "cleanup_stuck_messages",
                "--cleanup-stuck-messages-lock-timeout-seconds",
                &stuck,
            ],
            Kind::CleanUpAcked => &[
                "cleanup_acked_messages",
                "--cleanup-acked-messages-older-than-seconds",
                &forgotten,
            ],
            _ => &["db-migrate"],
        };
        let from = self.now();
        let mut command = self.faults.stage.servers.command(arguments);
        let ran = tokio::time::timeout(PATIENCE, command.output()).await;
        let until = self.now();
        let failure = match ran {
            Ok(Ok(output)) if output.status.success() => None,
            Ok(Ok(output)) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Ok(Err(error)) => panic!("{arguments:?}: {error}"),
            Err(_) => Some("it took too long".to_owned()),
        };
        let worked = failure.is_none();
        if let Some(text) = failure {
            let text = format!("{arguments:?} failed: {}", text.trim());
            self.faults.note_mishap(text, from, until).await;
        }
        // one that failed may have ended leases too
        if worked || kind == Kind::CleanUpStuck {
            let fault = Fault {
                kind,
                server: None,
                from,
                until,
                gone: None,
                crashed: None,
            };
            self.faults.note(fault).await;
        }
        worked
    }

    /// Keep a snapshot, which keeps vacuum away from everything that dies after it.
    pub(super) async fn pin_horizon(&mut self) {
        let seconds = self.random.random_range(5..15);
        let Ok(mut connection) = self.faults.cluster.connect().await else {
            return;
        };
        let from = self.now();
        let pinned = sqlx::raw_sql(
            "begin isolation level repeatable read; select pg_catalog.count(*) from pubsub.topics",
        );
        if pinned.execute(&mut connection).await.is_err() {
            return;
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        // until it is over, or the database is
        while tokio::time::Instant::now() < end && connection.ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let fault = Fault {
            kind: Kind::PinHorizon,
            server: None,
            from,
            until: self.now(),
            gone: None,
            crashed: None,
        };
        self.faults.note(fault).await;
        connection.close().await.ok();
    }
}
