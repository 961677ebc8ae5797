//! What everyone in a run shares: the clock, the servers, how far the run is, counts for the progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::clock::Clock;
use super::history::Micros;
use super::servers::{COUNT, Servers};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients and faults.
    Running,
    /// No faults and no publishers; consumers ack everything.
    Draining,
    Over,
}

#[derive(Default)]
pub struct Tally {
    pub published: AtomicU64,
    pub delivered: AtomicU64,
    pub acked: AtomicU64,
    pub unavailable: AtomicU64,
}

pub struct Stage {
    pub seed: u64,
    pub clock: Clock,
    pub servers: Arc<Servers>,
    pub tally: Tally,
    /// When each server was last seen to answer from the database.
    answered: [AtomicU64; COUNT],
    phase: AtomicU8,
}

impl Stage {
    pub fn new(seed: u64, clock: Clock, servers: Arc<Servers>) -> Arc<Self> {
        Arc::new(Self {
            seed,
            clock,
            servers,
            tally: Tally::default(),
            answered: std::array::from_fn(|_| AtomicU64::new(0)),
            phase: AtomicU8::new(0),
        })
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Over,
        }
    }

    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Running => 0,
            Phase::Draining => 1,
            Phase::Over => 2,
        };
        self.phase.store(number, Ordering::SeqCst);
    }

    pub fn note_answer(&self, server: usize, at: Micros) {
        self.answered[server].fetch_max(at, Ordering::SeqCst);
    }

    /// Whether every server has answered since a time.
    pub fn all_answered_since(&self, at: Micros) -> bool {
        let mut answers = self.answered.iter();
        answers.all(|answer| answer.load(Ordering::SeqCst) >= at)
    }
}
