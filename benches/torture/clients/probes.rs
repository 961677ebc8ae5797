//! Probes: ask every server at every door ten times a second.

use std::sync::Arc;
use std::time::Duration;

use super::super::history::{Door, Outcome, Probe};
use super::super::stage::{Phase, Stage};
use super::super::wire::{Cut, Wire};

const INTERVAL: Duration = Duration::from_millis(100);

pub const DOORS: [Door; 3] = [Door::Liveness, Door::Readiness, Door::Topics];

pub async fn probe(stage: Arc<Stage>, server: usize, door: Door) -> Vec<Probe> {
    let path = match door {
        Door::Liveness => "/liveness",
        Door::Readiness => "/readiness",
        Door::Topics => "/topics",
    };
    let mut wire = Wire::new("probe", &stage.servers, stage.clock);
    let mut probes = Vec::new();
    while stage.phase() != Phase::Over {
        let answer = wire.call(server, ("GET", path, ""), Cut::Never).await;
        if door == Door::Topics && answer.call.outcome == Outcome::Done {
            stage.note_answer(server, answer.call.sent);
        }
        probes.push(Probe {
            door,
            call: answer.call,
        });
        tokio::time::sleep(INTERVAL).await;
    }
    probes
}
