//! Faults, in three lanes that run beside each other: the database's, the servers' and the upkeep's.
//! Each lane goes through its kinds in rounds, in a random order, with random pauses.

mod database;
mod servers;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::books::Archive;
use super::cluster::Cluster;
use super::disk::Disk;
use super::history::{Fault, Kind, Micros};
use super::stage::Stage;

/// How long the next fault of the database waits for the servers to recover from the one before.
const RECOVERY: Duration = Duration::from_secs(6);

/// What went wrong without a call, and when: excused where the database was away.
struct Mishap {
    text: String,
    from: Micros,
    until: Micros,
}

/// What faults work on, and what they note down.
pub struct Faults {
    pub stage: Arc<Stage>,
    pub cluster: Cluster,
    pub disk: Disk,
    pub archive: Archive,
    log: Mutex<Vec<Fault>>,
    mishaps: Mutex<Vec<Mishap>>,
}

impl Faults {
    pub fn new(stage: &Arc<Stage>, cluster: Cluster, disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            stage: Arc::clone(stage),
            cluster,
            disk,
            archive: Archive::default(),
            log: Mutex::default(),
            mishaps: Mutex::default(),
        })
    }

    /// Run all lanes until a time has passed and each kind has happened so many times.
    pub async fn run(self: &Arc<Self>, duration: Duration, rounds: u32) {
        let mut database = vec![
            Kind::KillPostgres,
            Kind::StopPostgresFast,
            Kind::StopPostgresImmediately,
            Kind::ExhaustConnections,
        ];
        if self.disk.refused.is_none() {
            database.push(Kind::FillDisk);
        }
        let servers = vec![Kind::KillServer, Kind::FreezeServer];
        let upkeep = vec![Kind::Migrate, Kind::CleanUpStuck, Kind::CleanUpAcked];
        let mut lanes = JoinSet::new();
        for (number, kinds) in [database, servers, upkeep, vec![Kind::PinHorizon]]
            .into_iter()
            .enumerate()
        {
            let lane = Lane {
                faults: Arc::clone(self),
                random: StdRng::seed_from_u64(self.stage.seed ^ u64::try_from(number).unwrap()),
            };
            lanes.spawn(lane.run(kinds, duration, rounds));
        }
        while let Some(lane) = lanes.join_next().await {
            lane.unwrap();
        }
    }

    async fn note(&self, fault: Fault) {
        self.log.lock().await.push(fault);
    }

    pub async fn note_mishap(&self, text: String, from: Micros, until: Micros) {
        let mishap = Mishap { text, from, until };
        self.mishaps.lock().await.push(mishap);
    }

    pub async fn count(&self) -> usize {
        self.log.lock().await.len()
    }

    /// Everything that was noted down, without the mishaps that a fault of the database explains.
    pub async fn take(&self) -> (Vec<Fault>, Vec<String>) {
        let mut faults = std::mem::take(&mut *self.log.lock().await);
        faults.sort_by_key(|fault| fault.from);
        let mishaps = std::mem::take(&mut *self.mishaps.lock().await);
        let unexplained = mishaps.into_iter().filter(|mishap| {
            !faults.iter().any(|fault| {
                fault.kind.hits_database() && fault.overlaps(mishap.from, mishap.until)
            })
        });
        let texts = unexplained.map(|mishap| mishap.text).collect();
        (faults, texts)
    }
}

struct Lane {
    faults: Arc<Faults>,
    random: StdRng,
}

impl Lane {
    async fn run(mut self, mut kinds: Vec<Kind>, duration: Duration, rounds: u32) {
        let end = tokio::time::Instant::now() + duration;
        let mut round = 0;
        while round < rounds || tokio::time::Instant::now() < end {
            kinds.shuffle(&mut self.random);
            for kind in &kinds {
                if round >= rounds && tokio::time::Instant::now() >= end {
                    return;
                }
                self.inflict(*kind).await;
            }
            round += 1;
        }
    }

    async fn inflict(&mut self, kind: Kind) {
        match kind {
            Kind::KillPostgres
            | Kind::StopPostgresFast
            | Kind::StopPostgresImmediately
            | Kind::ExhaustConnections
            | Kind::FillDisk => {
                self.pause(1000..3000).await;
                let fault = self.hit_database(kind).await;
                let back = fault.until;
                self.faults.note(fault).await;
                let answered = async {
                    while !self.faults.stage.all_answered_since(back) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                // a frozen server may not; whether one that is not did in time, the checker says
                let _answered = tokio::time::timeout(RECOVERY, answered).await;
            }
            Kind::KillServer | Kind::FreezeServer => {
                self.pause(2000..6000).await;
                self.hit_server(kind).await;
            }
            Kind::PinHorizon => {
                self.pause(1000..5000).await;
                self.pin_horizon().await;
            }
            Kind::Migrate | Kind::CleanUpStuck | Kind::CleanUpAcked => {
                self.pause(1000..3000).await;
                self.run_subcommand(kind).await;
            }
            Kind::CutInRequest | Kind::CutInResponse => unreachable!("clients cut"),
        }
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        let pause = self.random.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn now(&self) -> Micros {
        self.faults.stage.clock.now()
    }
}
