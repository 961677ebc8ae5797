//! What happens to Postgres: killed, stopped, crowded, without room on its disk.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::RngExt;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::super::cluster::MAX_CONNECTIONS;
use super::super::history::{Fault, Kind};
use super::Lane;

impl Lane {
    pub(super) async fn hit_database(&mut self, kind: Kind) -> Fault {
        let before = self.faults.cluster.incarnation().await;
        let from = self.now();
        let gone = match kind {
            Kind::ExhaustConnections => {
                self.exhaust_connections().await;
                None
            }
            Kind::FillDisk => {
                self.fill_disk().await;
                None
            }
            _ => Some(self.end_postgres(kind).await),
        };
        let connection = self.faults.cluster.connect_patiently().await;
        let until = self.now();
        connection.close().await.ok();
        let after = self.faults.cluster.incarnation().await;
        // where neither could be asked, it counts as another one
        let is_another = before.is_none() || before != after;
        let crashed = (is_another && kind != Kind::StopPostgresFast)
            .then_some((from, gone.map_or(until, |(gone, _)| gone)));
        Fault {
            kind,
            server: None,
            from,
            until,
            gone,
            crashed,
        }
    }

    /// When there surely was no Postgres.
    async fn end_postgres(&mut self, kind: Kind) -> (u64, u64) {
        let cluster = &self.faults.cluster;
        match kind {
            Kind::StopPostgresFast => cluster.stop(Signal::SIGINT).await,
            Kind::StopPostgresImmediately => cluster.stop(Signal::SIGQUIT).await,
            _ => cluster.kill().await,
        }
        let gone = self.now();
        // now and then longer than a request waits for a connection
        let longest = if self.random.random_range(0..4) == 0 {
            8000
        } else {
            2500
        };
        self.pause(500..longest).await;
        let back = self.now();
        self.faults.cluster.start().await;
        (gone, back)
    }

    /// Open connections until there is no more room, and throw the service's own out.
    async fn exhaust_connections(&mut self) {
        let mut held: Vec<PgConnection> = Vec::with_capacity(MAX_CONNECTIONS);
        let seconds = self.random.random_range(2..5);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            if let Ok(connection) = self.faults.cluster.connect().await {
                held.push(connection);
                continue;
            }
            if let Some(connection) = held.first_mut() {
                let thrown_out = sqlx::query(
                    "select pg_catalog.pg_terminate_backend(pid) \
                     from pg_catalog.pg_stat_activity where application_name = 'fastpubsub'",
                );
                thrown_out.execute(connection).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for connection in held {
            connection.close().await.unwrap();
        }
    }

    async fn fill(&self) {
        let faults = Arc::clone(&self.faults);
        let filled = tokio::task::spawn_blocking(move || faults.disk.fill());
        filled.await.unwrap();
    }

    /// Fill the disk for some seconds. Postgres answers with errors, or it stops when it cannot write
    /// its log; then it has to be started again.
    async fn fill_disk(&mut self) {
        // turning the log over asks for new files
        if self.random.random_range(0..2) == 0
            && let Ok(mut connection) = self.faults.cluster.connect().await
        {
            self.fill().await;
            for _ in 0..16 {
                let turned = sqlx::query("select pg_catalog.pg_switch_wal()")
                    .execute(&mut connection)
                    .await;
                if turned.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            self.fill().await;
        }
        self.pause(2000..4000).await;
        self.faults.disk.free();
        loop {
            if !self.faults.cluster.is_running() {
                self.faults.cluster.start().await;
            }
            if let Ok(connection) = self.faults.cluster.connect().await {
                connection.close().await.ok();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
