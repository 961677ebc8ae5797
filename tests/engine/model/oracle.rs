//! What must be true of every message, kept in memory: its state in each subscription, and what the
//! engine may do with it now. Where a time is too near to tell, the oracle allows both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use uuid::Uuid;

pub(super) const MAX_ATTEMPTS: i32 = 3;
pub(super) const BACKOFF: (f64, f64) = (10.0, 40.0);
/// The oracle's clock and the database's differ by what a statement takes.
const SLACK: f64 = 2.0;

/// What becomes of a message whose attempts are spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Spent {
    DeadLetter,
    Park,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// From `due` on.
    Ready {
        due: f64,
    },
    Leased {
        lease: i64,
        since: f64,
        until: f64,
    },
    Parked,
    Acked,
    Dead,
    Skipped,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) attempts: i32,
    pub(super) key: Option<usize>,
    pub(super) priority: i16,
    pub(super) expires: Option<f64>,
}

/// A delivery as the engine handed it out.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Delivery {
    pub(super) message_id: Uuid,
    pub(super) attempts: i32,
    pub(super) lease: i64,
}

/// The messages of one subscription.
pub(super) struct Oracle {
    pub(super) name: &'static str,
    ordered: bool,
    spent: Spent,
    pub(super) entries: BTreeMap<Uuid, Entry>,
    /// Neither acked nor dead nor skipped, as far as is known.
    live: BTreeSet<Uuid>,
    /// The live ones of each key.
    keys: BTreeMap<usize, BTreeSet<Uuid>>,
}

/// Real time and what was added to it.
pub(super) struct Clock {
    started: Instant,
    pub(super) advanced: f64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            advanced: 0.0,
        }
    }

    pub(super) fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64() + self.advanced
    }
}

impl Entry {
    /// Its attempts are spent and its lease is over, or its time is: the engine may have put it away.
    fn may_be_gone(&self, now: f64) -> bool {
        let spent = matches!(self.state, State::Leased { until, .. }
            if until <= now + SLACK && self.attempts >= MAX_ATTEMPTS);
        spent || self.may_have_expired(now)
    }

    fn may_have_expired(&self, now: f64) -> bool {
        let held = matches!(self.state, State::Leased { until, .. } if until > now + SLACK);
        !held && self.expires.is_some_and(|expires| expires <= now + SLACK)
    }

    fn may_be_claimed(&self, now: f64) -> bool {
        match self.state {
            State::Ready { due } => due <= now + SLACK,
            State::Leased { until, .. } => until <= now + SLACK && self.attempts < MAX_ATTEMPTS,
            _ => false,
        }
    }

    fn must_be_claimed(&self, now: f64) -> bool {
        let due = match self.state {
            State::Ready { due } => due < now - SLACK,
            State::Leased { until, .. } => until < now - SLACK && self.attempts < MAX_ATTEMPTS,
            _ => false,
        };
        due && self.expires.is_none_or(|expires| expires > now + SLACK)
    }

    fn is_held(&self, now: f64) -> bool {
        matches!(self.state, State::Leased { until, .. } if until > now + SLACK)
    }
}

impl Oracle {
    pub(super) fn new(name: &'static str, ordered: bool, spent: Spent) -> Self {
        Self {
            name,
            ordered,
            spent,
            entries: BTreeMap::new(),
            live: BTreeSet::new(),
            keys: BTreeMap::new(),
        }
    }

    pub(super) fn published(&mut self, id: Uuid, entry: Entry) {
        self.set_live(id, entry.key);
        self.entries.insert(id, entry);
    }

    fn set_live(&mut self, id: Uuid, key: Option<usize>) {
        self.live.insert(id);
        if let Some(key) = key {
            self.keys.entry(key).or_default().insert(id);
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Those whose lease surely lasts.
    pub(super) fn held(&self, now: f64) -> Vec<(Uuid, i64)> {
        let held = self.live.iter().filter_map(|id| {
            let entry = &self.entries[id];
            match entry.state {
                State::Leased { lease, .. } if entry.is_held(now) => Some((*id, lease)),
                _ => None,
            }
        });
        held.collect()
    }

    /// Check what was handed out, in its order, and note it.
    pub(super) fn delivered(&mut self, deliveries: &[Delivery], now: f64, deadline: f64) {
        let batch: Vec<Uuid> = deliveries.iter().map(|one| one.message_id).collect();
        self.check_priorities(&batch, now);
        for (position, delivery) in deliveries.iter().enumerate() {
            let id = delivery.message_id;
            let entry = &self.entries[&id];
            assert!(
                entry.may_be_claimed(now),
                "{}: {id} was handed out although {entry:?} at {now}",
                self.name
            );
            assert!(
                entry.expires.is_none_or(|expires| expires > now - SLACK),
                "{}: {id} was handed out after its time",
                self.name
            );
            assert_eq!(delivery.attempts, entry.attempts + 1, "{}", self.name);
            if let Some(key) = entry.key.filter(|_| self.ordered) {
                self.check_order(id, key, &batch[..position], &batch, now);
            }
            let entry = self.entries.get_mut(&id).unwrap();
            entry.attempts += 1;
            entry.state = State::Leased {
                lease: delivery.lease,
                since: now,
                until: now + deadline,
            };
        }
    }

    /// No earlier message of the key is left, and no other is in flight elsewhere.
    fn check_order(&self, id: Uuid, key: usize, before: &[Uuid], batch: &[Uuid], now: f64) {
        for other in &self.keys[&key] {
            let entry = &self.entries[other];
            if *other < id {
                assert!(
                    before.contains(other) || entry.may_be_gone(now),
                    "{}: {id} was handed out before {other} of its key: {entry:?}",
                    self.name
                );
            } else if *other > id {
                assert!(
                    batch.contains(other) || !entry.is_held(now),
                    "{}: {id} was handed out while {other} of its key is in flight",
                    self.name
                );
            }
        }
    }

    /// Fresh messages of a low priority come before those of a higher one at most once in ten.
    fn check_priorities(&self, batch: &[Uuid], now: f64) {
        if self.ordered {
            return;
        }
        let fresh = |entry: &Entry| entry.attempts == 0;
        let waiting = self.live.iter().filter_map(|id| {
            let entry = &self.entries[id];
            // a delay that ends comes by its wake-up, like a retry
            let surely = matches!(entry.state, State::Ready { due } if due == 0.0)
                && entry.must_be_claimed(now);
            (surely && fresh(entry) && !batch.contains(id)).then_some(entry.priority)
        });
        let Some(highest) = waiting.max() else { return };
        let lower = batch.iter().filter(|id| {
            let entry = &self.entries[*id];
            fresh(entry)
                && entry.priority < highest
                && matches!(entry.state, State::Ready { due } if due == 0.0)
        });
        let allowed = batch.len() / 10 + 1;
        assert!(
            lower.count() <= allowed,
            "{}: priority {highest} waits behind lower ones",
            self.name
        );
    }

    /// One that the engine must find when it is asked.
    pub(super) fn overdue(&self, now: f64) -> Option<Uuid> {
        let blocked = |id: &Uuid, entry: &Entry| {
            let key = entry.key.filter(|_| self.ordered);
            key.is_some_and(|key| {
                self.keys[&key].iter().any(|other| {
                    other != id
                        && (other < id || !matches!(self.entries[other].state, State::Ready { .. }))
                })
            })
        };
        self.live
            .iter()
            .find(|id| {
                let entry = &self.entries[*id];
                entry.must_be_claimed(now) && !blocked(id, entry)
            })
            .copied()
    }

    pub(super) fn acked(&mut self, id: Uuid) {
        self.end(id, State::Acked);
    }

    pub(super) fn rejected(&mut self, id: Uuid) {
        self.end(id, State::Dead);
    }

    /// What the engine answers to a nack, which is noted.
    pub(super) fn nacked(&mut self, id: Uuid, delay: Option<i32>, now: f64) -> &'static str {
        let entry = self.entries.get_mut(&id).unwrap();
        if entry.attempts < MAX_ATTEMPTS {
            let doubled = BACKOFF.0 * f64::from(1 << (entry.attempts - 1));
            let wait = delay.map_or(doubled.min(BACKOFF.1), f64::from);
            entry.state = State::Ready { due: now + wait };
            return "nacked";
        }
        match self.fate(id) {
            Spent::DeadLetter => {
                self.end(id, State::Dead);
                "dead_lettered"
            }
            Spent::Park => {
                self.park(id);
                "parked"
            }
            Spent::Skip => {
                self.end(id, State::Skipped);
                "skipped"
            }
        }
    }

    /// It waits for an operator, for ever.
    fn park(&mut self, id: Uuid) {
        let entry = self.entries.get_mut(&id).unwrap();
        entry.state = State::Parked;
        entry.expires = None;
    }

    /// Only keyed messages are parked or skipped.
    fn fate(&self, id: Uuid) -> Spent {
        if self.entries[&id].key.is_some() {
            self.spent
        } else {
            Spent::DeadLetter
        }
    }

    /// The lease now ends then.
    pub(super) fn extended(&mut self, id: Uuid, now: f64, seconds: f64) {
        let entry = self.entries.get_mut(&id).unwrap();
        if let State::Leased { lease, since, .. } = entry.state {
            let until = (now + seconds).min(since + 43_200.0);
            entry.state = State::Leased {
                lease,
                since,
                until,
            };
        }
    }

    /// A dead letter, or a parked message, that starts anew.
    pub(super) fn restarted(&mut self, id: Uuid, now: f64) {
        let entry = self.entries.get_mut(&id).unwrap();
        entry.state = State::Ready { due: now };
        entry.attempts = 0;
        // whoever restarts it wants it delivered
        entry.expires = None;
        let key = entry.key;
        self.set_live(id, key);
    }

    pub(super) fn end(&mut self, id: Uuid, state: State) {
        let entry = self.entries.get_mut(&id).unwrap();
        entry.state = state;
        self.live.remove(&id);
        if let Some(live) = entry.key.and_then(|key| self.keys.get_mut(&key)) {
            live.remove(&id);
        }
    }

    /// What the engine put away by itself must have been due to go.
    pub(super) fn found(&mut self, id: Uuid, state: State, now: f64) {
        let entry = &self.entries[&id];
        if entry.state == state {
            return;
        }
        let spent = matches!(entry.state, State::Leased { until, .. }
            if until <= now + SLACK && entry.attempts >= MAX_ATTEMPTS);
        assert!(
            spent,
            "{}: {id} became {state:?} although {entry:?}",
            self.name
        );
        if state == State::Parked {
            self.park(id);
        } else {
            self.end(id, state);
        }
    }

    /// What expired must have been due to.
    pub(super) fn expired(&mut self, id: Uuid, now: f64) {
        let entry = &self.entries[&id];
        if !self.live.contains(&id) {
            return;
        }
        assert!(
            entry.may_have_expired(now),
            "{}: {id} expired although {entry:?}",
            self.name
        );
        self.end(id, State::Skipped);
    }

    pub(super) fn leftovers(&self) -> Vec<(Uuid, &Entry)> {
        self.live
            .iter()
            .map(|id| (*id, &self.entries[id]))
            .collect()
    }
}
