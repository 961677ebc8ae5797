//! What must be true of every message, kept in memory: its state, and what the engine may do with it
//! now. Where a time is too near to tell, the oracle allows both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use uuid::Uuid;

use super::modes::{Manner, Mode};

pub(super) const MAX_ATTEMPTS: i32 = 3;
pub(super) const BACKOFF: (f64, f64) = (10.0, 40.0);
/// The oracle's clock and the database's differ by what a statement takes.
pub(super) const SLACK: f64 = 2.0;

/// What becomes of a message of a key whose attempts are spent.
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
        consumer: usize,
    },
    Parked,
    Acked,
    Dead,
    Skipped,
    Expired,
    /// By a seek.
    Settled,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) attempts: i32,
    pub(super) key: Option<usize>,
    pub(super) priority: i16,
    /// When the delivery is over.
    pub(super) expires: Option<f64>,
    /// What the message says, which holds again when a seek brings it back.
    pub(super) deliver_at: f64,
    pub(super) message_expires: Option<f64>,
    /// Committed in its turn and touched by nobody since: it is handed out in its turn.
    pub(super) fresh: bool,
    /// One that is over.
    pub(super) old_lease: Option<i64>,
    /// To whom it was delivered, the last last.
    pub(super) seen: Vec<usize>,
}

/// The messages of the subscription.
pub(super) struct Oracle {
    pub(super) mode: Mode,
    pub(super) entries: BTreeMap<Uuid, Entry>,
    /// Neither settled nor dead, as far as is known.
    pub(super) live: BTreeSet<Uuid>,
    /// The live ones of each key.
    pub(super) keys: BTreeMap<usize, BTreeSet<Uuid>>,
    pub(super) acks: i64,
    pub(super) expired: i64,
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
    fn is_spent(&self) -> bool {
        self.attempts >= MAX_ATTEMPTS
    }

    /// Its attempts are spent and its lease is over, or its time is: the engine may have put it away.
    pub(super) fn may_be_gone(&self, now: f64) -> bool {
        self.may_be_spent(now) || self.may_have_expired(now)
    }

    pub(super) fn may_be_spent(&self, now: f64) -> bool {
        self.is_spent() && !self.is_held(now) && matches!(self.state, State::Leased { .. })
    }

    pub(super) fn may_have_expired(&self, now: f64) -> bool {
        !self.is_held(now) && self.expires.is_some_and(|expires| expires <= now + SLACK)
    }

    pub(super) fn may_be_claimed(&self, now: f64) -> bool {
        match self.state {
            State::Ready { due } => due <= now + SLACK,
            State::Leased { until, .. } => until <= now + SLACK && !self.is_spent(),
            _ => false,
        }
    }

    pub(super) fn must_be_claimed(&self, now: f64) -> bool {
        let due = match self.state {
            State::Ready { due } => due < now - SLACK,
            State::Leased { until, .. } => until < now - SLACK && !self.is_spent(),
            _ => false,
        };
        due && self.expires.is_none_or(|expires| expires > now + SLACK)
    }

    /// Whether it was delivered to a consumer since its attempts began.
    pub(super) fn was_seen_by(&self, consumer: usize) -> bool {
        let attempts = usize::try_from(self.attempts).unwrap();
        let lately = self.seen.iter().rev().take(attempts);
        lately.into_iter().any(|seen| *seen == consumer)
    }

    pub(super) fn is_held(&self, now: f64) -> bool {
        matches!(self.state, State::Leased { until, .. } if until > now + SLACK)
    }

    /// The consumer that holds it, or did until a moment ago.
    pub(super) fn may_be_held_by(&self, now: f64) -> Option<usize> {
        match self.state {
            State::Leased {
                until, consumer, ..
            } if until > now - SLACK => Some(consumer),
            _ => None,
        }
    }
}

impl Oracle {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            entries: BTreeMap::new(),
            live: BTreeSet::new(),
            keys: BTreeMap::new(),
            acks: 0,
            expired: 0,
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

    fn entry(&mut self, id: Uuid) -> &mut Entry {
        self.entries.get_mut(&id).unwrap()
    }

    pub(super) fn live_entries(&self) -> impl Iterator<Item = (Uuid, &Entry)> {
        self.live.iter().map(|id| (*id, &self.entries[id]))
    }

    /// Those that their consumers may settle: the lease lasts, or is over and nobody else had a reason to
    /// take the message.
    pub(super) fn held(&self, now: f64) -> Vec<(Uuid, i64)> {
        let held = self
            .live_entries()
            .filter_map(|(id, entry)| match entry.state {
                State::Leased { lease, .. } if entry.is_held(now) || !entry.may_be_gone(now) => {
                    Some((id, lease))
                }
                _ => None,
            });
        held.collect()
    }

    /// A consumer has it now.
    pub(super) fn leased(&mut self, id: Uuid, lease: i64, consumer: usize, now: f64, until: f64) {
        let entry = self.entry(id);
        if let State::Leased { lease, .. } = entry.state {
            entry.old_lease = Some(lease);
        }
        entry.attempts += 1;
        entry.seen.push(consumer);
        entry.state = State::Leased {
            lease,
            since: now,
            until,
            consumer,
        };
    }

    /// One that the engine must find when it is asked.
    pub(super) fn overdue(&self, now: f64) -> Option<Uuid> {
        let blocked = |id: Uuid, entry: &Entry| {
            let key = entry.key.filter(|_| self.mode.orders());
            key.is_some_and(|key| {
                self.keys[&key].iter().any(|other| {
                    *other != id
                        && (*other < id
                            || !matches!(self.entries[other].state, State::Ready { .. }))
                })
            })
        };
        self.live_entries()
            .find(|(id, entry)| entry.must_be_claimed(now) && !blocked(*id, entry))
            .map(|(id, _)| id)
    }

    pub(super) fn acked(&mut self, id: Uuid) {
        self.acks += 1;
        self.end(id, State::Acked);
    }

    /// What the engine answers to a nack.
    pub(super) fn fate_of_nack(&self, id: Uuid) -> &'static str {
        let entry = &self.entries[&id];
        match self.mode.manner {
            _ if !entry.is_spent() => "nacked",
            // only keyed messages are parked or skipped
            Manner::Ordered(Spent::Park) if entry.key.is_some() => "parked",
            Manner::Ordered(Spent::Skip) if entry.key.is_some() => "skipped",
            _ => "dead_lettered",
        }
    }

    pub(super) fn nacked(&mut self, id: Uuid, delay: Option<i32>, now: f64) {
        match self.fate_of_nack(id) {
            "nacked" => {
                let entry = self.entry(id);
                let doubled = BACKOFF.0 * f64::from(1 << (entry.attempts - 1));
                let wait = delay.map_or(doubled.min(BACKOFF.1), f64::from);
                self.free(id, now + wait);
            }
            "parked" => self.park(id),
            "skipped" => self.end(id, State::Skipped),
            _ => self.end(id, State::Dead),
        }
    }

    /// Nobody has seen it: the attempt does not count.
    pub(super) fn released(&mut self, id: Uuid, now: f64) {
        self.free(id, now);
        let entry = self.entry(id);
        entry.attempts -= 1;
        entry.seen.pop();
    }

    fn free(&mut self, id: Uuid, due: f64) {
        let entry = self.entry(id);
        if let State::Leased { lease, .. } = entry.state {
            entry.old_lease = Some(lease);
        }
        entry.state = State::Ready { due };
        entry.fresh = false;
    }

    /// It waits for an operator, for ever.
    pub(super) fn park(&mut self, id: Uuid) {
        self.free(id, f64::INFINITY);
        let entry = self.entry(id);
        entry.state = State::Parked;
        entry.expires = None;
    }

    /// The lease now ends then.
    pub(super) fn extended(&mut self, id: Uuid, now: f64, seconds: f64) {
        if let State::Leased { since, until, .. } = &mut self.entry(id).state {
            *until = (now + seconds).min(*since + 43_200.0);
        }
    }

    /// A dead letter, or a parked message, that starts anew.
    pub(super) fn restarted(&mut self, id: Uuid, now: f64) {
        // whoever restarts it wants it delivered
        self.back(id, now, None);
    }

    fn back(&mut self, id: Uuid, due: f64, expires: Option<f64>) {
        self.free(id, due);
        let entry = self.entry(id);
        entry.attempts = 0;
        entry.expires = expires;
        let key = entry.key;
        self.set_live(id, key);
    }

    pub(super) fn end(&mut self, id: Uuid, state: State) {
        let entry = self.entry(id);
        entry.state = state;
        let key = entry.key;
        self.live.remove(&id);
        if let Some(live) = key.and_then(|key| self.keys.get_mut(&key)) {
            live.remove(&id);
        }
    }

    /// The engine put it away by itself, and says how; it must have been due to go.
    pub(super) fn gone(&mut self, id: Uuid, outcomes: &[&str], now: f64) {
        let entry = &self.entries[&id];
        let said = |outcome: &str| outcomes.contains(&outcome);
        let spent = entry.may_be_spent(now);
        let fate = self.fate_of_nack(id);
        let state = if said("dead") && spent && fate == "dead_lettered" {
            State::Dead
        } else if said("skipped") && spent && fate == "skipped" {
            State::Skipped
        } else if said("expired") && entry.may_have_expired(now) {
            self.expired += 1;
            State::Expired
        } else {
            panic!("{id} is gone, {outcomes:?}, although {entry:?} at {now}");
        };
        self.end(id, state);
    }

    /// The engine parked it by itself; it must have been due to.
    pub(super) fn found_parked(&mut self, id: Uuid, now: f64) {
        let entry = &self.entries[&id];
        if entry.state == State::Parked {
            return;
        }
        assert!(
            entry.may_be_spent(now) && self.fate_of_nack(id) == "parked",
            "{id} is parked although {entry:?} at {now}"
        );
        self.park(id);
    }

    /// After a seek or replay that wanted this of each message: hold it against what is live now.
    pub(super) fn sought(
        &mut self,
        wanted: impl Fn(Uuid, &Entry) -> Wanted,
        live: &BTreeSet<Uuid>,
        now: f64,
    ) {
        let ids: Vec<Uuid> = self.entries.keys().copied().collect();
        for id in ids {
            let entry = &self.entries[&id];
            let was_live = self.live.contains(&id);
            let expires = entry.message_expires;
            let due = if entry.deliver_at > now - SLACK {
                entry.deliver_at
            } else {
                0.0
            };
            let may_come = entry.state != State::Dead && expires.is_none_or(|at| at > now - SLACK);
            let must_come = may_come && expires.is_none_or(|at| at > now + SLACK);
            let (may_live, must_live) = match wanted(id, entry) {
                Wanted::Settled => (false, false),
                Wanted::Back if !was_live => (may_come, must_come),
                Wanted::Back | Wanted::AsItIs => (was_live, was_live),
            };
            let lives = live.contains(&id);
            assert!(
                if lives { may_live } else { !must_live },
                "{id} is live: {lives} after a seek, {entry:?} at {now}"
            );
            match (was_live, lives) {
                (true, false) => self.end(id, State::Settled),
                (false, true) => self.back(id, due, expires),
                _ => {}
            }
        }
    }
}

/// What a seek wants of a message.
pub(super) enum Wanted {
    Settled,
    Back,
    AsItIs,
}
