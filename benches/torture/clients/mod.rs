//! The clients: each a task with one connection and a history of its own.

pub mod consumers;
pub mod dead_letters;
pub mod events;
pub mod operators;
pub mod probes;
pub mod publishers;
pub mod receivers;
pub mod sockets;
mod streams;
pub mod transactors;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::history::{Call, Event, Micros, Outcome, What};
use super::servers::COUNT;
use super::stage::{Phase, Stage};
use super::wire::{Answer, Cut, Wire};

/// One call in so many is cut, in the request and in the response each.
const CUT_EVERY: u32 = 300;
/// One call in so many goes to another server than the one before.
const MOVE_EVERY: u32 = 100;

/// A client at work.
pub struct Session {
    pub stage: Arc<Stage>,
    pub random: StdRng,
    wire: Wire,
    server: usize,
    events: Vec<Event>,
}

impl Session {
    pub fn new(stage: &Arc<Stage>, name: &str) -> Self {
        let salt = name.bytes().fold(0_u64, |salt, byte| {
            salt.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let mut random = StdRng::seed_from_u64(stage.seed ^ salt);
        Self {
            wire: Wire::new(name, &stage.servers, stage.clock),
            server: random.random_range(0..COUNT),
            random,
            stage: Arc::clone(stage),
            events: Vec::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.stage.phase() == Phase::Running
    }

    pub fn is_over(&self) -> bool {
        self.stage.phase() == Phase::Over
    }

    /// Whether one in so many times has come.
    pub fn one_in(&mut self, times: u32) -> bool {
        self.random.random_range(0..times) == 0
    }

    pub async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        let pause = self.random.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Call some server, and note it down with what the answer makes of it.
    pub async fn call(
        &mut self,
        request: (&str, &str, &str),
        what: impl FnOnce(Option<&Value>) -> What,
    ) -> (Outcome, &What) {
        let cut = match self.random.random_range(0..CUT_EVERY) {
            _ if !self.is_running() => Cut::Never,
            0 => Cut::InRequest,
            1 => Cut::InResponse,
            _ => Cut::Never,
        };
        if self.one_in(MOVE_EVERY) {
            self.move_on();
        }
        let Answer { call, body } = self.wire.call(self.server, request, cut).await;
        let outcome = call.outcome;
        match outcome {
            Outcome::NoConnection | Outcome::Broken | Outcome::TimedOut => {
                self.move_on();
                self.pause(20..80).await;
            }
            Outcome::Failed { .. } => {
                let unavailable = &self.stage.tally.unavailable;
                unavailable.fetch_add(1, Ordering::Relaxed);
                // sooner than Retry-After says: the more requests meet the outage
                self.pause(100..300).await;
            }
            _ => {}
        }
        let body: Option<Value> = (outcome == Outcome::Done && !body.is_empty())
            .then(|| serde_json::from_slice(&body).unwrap());
        let what = what(body.as_ref());
        self.events.push(Event { call, what });
        (outcome, &self.events.last().unwrap().what)
    }

    /// To the next server.
    fn move_on(&mut self) {
        self.server = (self.server + 1) % COUNT;
    }

    /// Note down what was no such call, and when it happened.
    pub fn note(
        &mut self,
        server: usize,
        (sent, done): (Micros, Micros),
        outcome: Outcome,
        what: What,
    ) {
        let call = Call {
            client: Arc::clone(&self.wire.client),
            server,
            sent,
            done,
            outcome,
        };
        self.events.push(Event { call, what });
    }

    pub fn finish(self) -> Vec<Event> {
        self.events
    }
}
