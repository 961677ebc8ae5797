//! Consumers settle what they hold: each delivery in its own way, or many alike.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::seq::SliceRandom;
use uuid::Uuid;

use super::calls::{Item, is_locked, settle, settle_alike};
use super::{CONSUMERS, World};

impl World {
    pub(super) async fn settle(&mut self) {
        let open: BTreeSet<Uuid> = self
            .open
            .iter()
            .flatten()
            .flat_map(|open| &open.before)
            .map(|(id, _)| *id)
            .collect();
        let mut held = self.oracle.held(self.clock.now());
        held.retain(|(id, _)| !open.contains(id));
        if held.is_empty() {
            return;
        }
        held.shuffle(&mut self.random);
        held.truncate(self.random.random_range(1..20));
        if self.random.random_bool(0.2) {
            self.settle_alike(held).await;
        } else {
            self.settle_each(held).await;
        }
    }

    /// Some connection that has nothing open.
    fn settler(&mut self) -> Option<usize> {
        let consumer = self.random.random_range(0..CONSUMERS);
        self.open[consumer].is_none().then_some(consumer)
    }

    /// A lease that is over, or none that ever was.
    fn stale(&mut self, id: Uuid, lease: i64) -> Option<i64> {
        let is_stale = self.random.random_bool(0.05);
        is_stale.then(|| self.oracle.entries[&id].old_lease.unwrap_or(lease + 1))
    }

    async fn settle_each(&mut self, held: Vec<(Uuid, i64)>) {
        let Some(settler) = self.settler() else {
            return;
        };
        let mut items: Vec<Item<'_>> = Vec::new();
        let mut expected = Vec::new();
        for (id, lease) in held {
            let stale = self.stale(id, lease);
            let random = &mut self.random;
            let delay = random.random_bool(0.3).then(|| random.random_range(0..30));
            let (action, seconds, status) = match random.random_range(0..100) {
                0..62 => ("ack", None, "acked"),
                62..82 => ("nack", delay, self.oracle.fate_of_nack(id)),
                82..85 => ("reject", None, "dead_lettered"),
                _ if !self.oracle.entries[&id].is_held(self.clock.now()) => ("ack", None, "acked"),
                _ => ("extend", Some(random.random_range(5..90)), "extended"),
            };
            items.push((id, stale.unwrap_or(lease), action, seconds));
            expected.push(if stale.is_some() {
                "lease_lost"
            } else {
                status
            });
        }
        let now = self.clock.now();
        let answer = settle(&mut self.consumers[settler], &items).await;
        if is_locked(&answer) && self.open.iter().any(Option::is_some) {
            return;
        }
        assert_eq!(answer.unwrap(), expected);
        self.operations += items.len();
        for ((id, _, action, seconds), status) in items.into_iter().zip(expected) {
            match (action, status) {
                (_, "lease_lost") => {}
                ("ack", _) => self.oracle.acked(id),
                ("nack", _) => self.oracle.nacked(id, seconds, now),
                ("reject", _) => self.oracle.end(id, super::State::Dead),
                _ => self.oracle.extended(id, now, f64::from(seconds.unwrap())),
            }
        }
    }

    async fn settle_alike(&mut self, held: Vec<(Uuid, i64)>) {
        let Some(settler) = self.settler() else {
            return;
        };
        let functions = ["ack_messages", "nack_messages", "release_messages"];
        let function = functions[self.random.random_range(0..3)];
        let mut settled = Vec::new();
        let mut named = Vec::new();
        for (id, lease) in held {
            let stale = self.stale(id, lease);
            named.push((id, stale.unwrap_or(lease)));
            if stale.is_none() {
                settled.push(id);
            }
        }
        let now = self.clock.now();
        let answer = settle_alike(&mut self.consumers[settler], function, &named).await;
        if is_locked(&answer) && self.open.iter().any(Option::is_some) {
            return;
        }
        assert_eq!(
            usize::try_from(answer.unwrap()).unwrap(),
            settled.len(),
            "{function}"
        );
        self.operations += settled.len();
        for id in settled {
            match function {
                "ack_messages" => self.oracle.acked(id),
                "nack_messages" => self.oracle.nacked(id, None, now),
                _ => self.oracle.released(id, now),
            }
        }
    }
}
