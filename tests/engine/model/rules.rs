//! What a claim must keep to: nothing is held by two, nothing comes before its turn, no limit is
//! exceeded, no key has more than its share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::modes::{MAX_IN_FLIGHT, MAX_IN_FLIGHT_PER_CONSUMER, MAX_RATE, Manner};
use super::oracle::{Entry, Oracle, SLACK, State};

/// A claim looks past so many messages of a key at least for one in flight (docs/ordering.md).
const LOOK_AHEAD: usize = 100;

/// A delivery as the engine handed it out, to the first or second consumer of the call.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Delivery {
    pub(super) consumer: i32,
    pub(super) message_id: Uuid,
    pub(super) attempts: i32,
    pub(super) lease: i64,
    pub(super) head: Option<Uuid>,
    pub(super) rewinds: Option<i32>,
}

/// What a claim passes over: what was delivered before, to anybody or to the same consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Only {
    New,
    Unseen,
}

impl Only {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unseen => "unseen",
        }
    }
}

/// What a claim asks for beside how much.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// In seconds, if not that of the subscription.
    pub(super) deadline: Option<i32>,
    /// What it gets is acked in the same commit.
    pub(super) takes: bool,
    pub(super) only: Option<Only>,
}

/// A claim that was answered.
pub(super) struct Claim<'a> {
    pub(super) consumers: &'a [usize],
    pub(super) limits: &'a [i32],
    pub(super) terms: Terms,
    pub(super) deliveries: &'a [Delivery],
    /// When it was sent.
    pub(super) sent: f64,
    pub(super) deadline: f64,
}

/// What is noted of claims beside what they leased.
#[derive(Default)]
pub(super) struct Tally {
    /// When claims were sent, and how much they got.
    handed_out: VecDeque<(f64, usize)>,
    /// Claims whose shares could be judged, and those that were uneven.
    judged: usize,
    uneven: usize,
}

impl Entry {
    /// It comes in its turn: neither a retry nor a straggler, and not waiting for its time.
    fn is_in_turn(&self) -> bool {
        self.fresh && self.attempts == 0 && self.state == State::Ready { due: 0.0 }
    }
}

impl Oracle {
    /// Check what was handed out, in its order, and note it; what it was before is returned.
    pub(super) fn delivered(
        &mut self,
        claim: &Claim<'_>,
        tally: &mut Tally,
        now: f64,
    ) -> Vec<(Uuid, Entry)> {
        let batch: BTreeSet<Uuid> = claim.deliveries.iter().map(|one| one.message_id).collect();
        assert_eq!(batch.len(), claim.deliveries.len(), "a message came twice");
        match self.mode.manner {
            Manner::Plain => self.check_turns(&batch, now),
            Manner::Priorities => self.check_priorities(claim, &batch, now),
            Manner::Ordered(_) => self.check_keys(claim, &batch, now),
            Manner::Fair => self.judge_shares(&batch, tally, now),
        }
        if self.mode.manner != Manner::Priorities {
            let place = |one: &Delivery| (one.consumer, one.message_id);
            let sorted = claim.deliveries.is_sorted_by_key(place);
            assert!(sorted, "not in publish order: {:?}", claim.deliveries);
        }
        let mut before = Vec::new();
        for delivery in claim.deliveries {
            let id = delivery.message_id;
            let entry = &self.entries[&id];
            assert!(
                entry.may_be_claimed(now),
                "{id} was handed out although {entry:?} at {now}"
            );
            assert!(
                entry.expires.is_none_or(|expires| expires > now - SLACK),
                "{id} was handed out after its time"
            );
            assert_eq!(delivery.attempts, entry.attempts + 1, "{id}");
            before.push((id, entry.clone()));
            let consumer = claim.consumers[usize::try_from(delivery.consumer - 1).unwrap()];
            let passed_over = match claim.terms.only {
                Some(Only::New) => entry.attempts > 0,
                Some(Only::Unseen) => entry.was_seen_by(consumer),
                None => false,
            };
            assert!(!passed_over, "{id} was seen before: {entry:?} {consumer}");
            self.leased(id, delivery.lease, consumer, now, now + claim.deadline);
        }
        if self.mode.limited {
            self.check_limits(claim, tally, now);
        }
        before
    }

    /// What passes over something misses nothing else: whoever got fewer than asked for has got all there is.
    pub(super) fn check_found(&self, claim: &Claim<'_>, now: f64) {
        let Some(only) = claim.terms.only.filter(|_| !self.mode.limited) else {
            return;
        };
        for (place, (consumer, limit)) in (1..).zip(claim.consumers.iter().zip(claim.limits)) {
            let got = claim.deliveries.iter().filter(|one| one.consumer == place);
            if got.count() >= usize::try_from(*limit).unwrap() {
                continue;
            }
            let missed = self.live_entries().find(|(_, entry)| {
                entry.must_be_claimed(now)
                    && match only {
                        Only::New => entry.attempts == 0,
                        // of before its attempts began anew, some may count
                        Only::Unseen => !entry.seen.contains(consumer),
                    }
            });
            assert!(missed.is_none(), "{only:?} by {consumer} missed {missed:?}");
        }
    }

    /// What a take got is settled with its commit.
    pub(super) fn taken(&mut self, before: &[(Uuid, Entry)]) {
        for (id, _) in before {
            self.acked(*id);
        }
    }

    /// A claim is open: of the publish calls whose messages it got, others may get none meanwhile, and read
    /// past them.
    pub(super) fn hide_runs(&mut self, claimed: &[(Uuid, Entry)]) {
        if !matches!(self.mode.manner, Manner::Plain | Manner::Priorities) {
            return;
        }
        let call = |id: Uuid| id.as_u128() >> 17;
        let calls: BTreeSet<u128> = claimed.iter().map(|(id, _)| call(*id)).collect();
        for id in &self.live {
            if calls.contains(&call(*id))
                && let Some(entry) = self.entries.get_mut(id)
            {
                entry.fresh = false;
            }
        }
    }

    /// A claim was rolled back.
    pub(super) fn undone(&mut self, before: Vec<(Uuid, Entry)>, tally: &mut Tally) {
        tally.handed_out.pop_back();
        for (id, mut entry) in before {
            // others may have read past it meanwhile
            entry.fresh = false;
            self.entries.insert(id, entry);
        }
    }

    /// Messages come in publish order.
    fn check_turns(&self, batch: &BTreeSet<Uuid>, now: f64) {
        let in_turn = |id: &&Uuid| self.entries[*id].is_in_turn();
        let last = batch.iter().filter(in_turn).max();
        let next = self
            .live
            .iter()
            .filter(in_turn)
            .find(|id| !batch.contains(id) && self.entries[*id].must_be_claimed(now));
        if let (Some(last), Some(next)) = (last, next) {
            assert!(last < next, "{last} was handed out before {next}");
        }
    }

    /// Fresh messages of a low priority come before those of a higher one at most once in ten.
    fn check_priorities(&self, claim: &Claim<'_>, batch: &BTreeSet<Uuid>, now: f64) {
        let waiting = self.live_entries().filter(|(id, entry)| {
            entry.is_in_turn() && entry.must_be_claimed(now) && !batch.contains(id)
        });
        let Some(highest) = waiting.map(|(_, entry)| entry.priority).max() else {
            return;
        };
        let lower = batch.iter().filter(|id| {
            let entry = &self.entries[*id];
            entry.is_in_turn() && entry.priority < highest
        });
        // what passes over something is chosen for one consumer after the other
        let consumers = claim.terms.only.map_or(1, |_| claim.consumers.len());
        assert!(
            lower.count() <= batch.len() / 10 + consumers,
            "priority {highest} waits behind lower ones"
        );
    }

    /// No earlier message of a key is left, and no other of it is in flight elsewhere.
    fn check_keys(&self, claim: &Claim<'_>, batch: &BTreeSet<Uuid>, now: f64) {
        let mut holders: BTreeMap<usize, i32> = BTreeMap::new();
        for delivery in claim.deliveries {
            let id = delivery.message_id;
            let Some(key) = self.entries[&id].key else {
                continue;
            };
            let holder = *holders.entry(key).or_insert(delivery.consumer);
            assert_eq!(delivery.consumer, holder, "key {key} goes to two at once");
            for other in self.keys[&key]
                .iter()
                .filter(|other| !batch.contains(other))
            {
                let entry = &self.entries[other];
                assert!(
                    *other > id || entry.may_be_gone(now),
                    "{id} was handed out before {other} of its key: {entry:?}"
                );
                let before = self.keys[&key].range(..other).count();
                assert!(
                    !entry.is_held(now) || before > LOOK_AHEAD,
                    "{id} was handed out while {other} of its key, behind {before}, is in flight"
                );
            }
        }
    }

    /// Of fresh messages no key gets more than another one that has more to give. Stragglers are looked
    /// for in publish order, for a small part of the time; so it is counted, and judged in the end.
    fn judge_shares(&self, batch: &BTreeSet<Uuid>, tally: &mut Tally, now: f64) {
        let mut got: BTreeMap<Option<usize>, usize> = BTreeMap::new();
        for id in batch.iter().filter(|id| self.entries[*id].is_in_turn()) {
            *got.entry(self.entries[id].key).or_default() += 1;
        }
        let waiting = self.live_entries().filter(|(id, entry)| {
            entry.is_in_turn() && entry.must_be_claimed(now) && !batch.contains(id)
        });
        let waiting: BTreeSet<Option<usize>> = waiting.map(|(_, entry)| entry.key).collect();
        let most = got.values().max().copied().unwrap_or_default();
        if most < 2 || waiting.is_empty() {
            return;
        }
        tally.judged += 1;
        let is_behind = |key: &Option<usize>| got.get(key).copied().unwrap_or_default() + 1 < most;
        tally.uneven += usize::from(waiting.iter().any(is_behind));
    }

    pub(super) fn check_shares(&self, tally: &Tally) {
        if self.mode.manner != Manner::Fair {
            return;
        }
        let Tally { judged, uneven, .. } = tally;
        println!("{uneven} of {judged} claims were uneven");
        assert!(
            uneven * 3 <= *judged + 30,
            "{uneven} of {judged} claims were uneven"
        );
    }

    fn check_limits(&self, claim: &Claim<'_>, tally: &mut Tally, now: f64) {
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, entry) in self.live_entries().filter(|(_, entry)| entry.is_held(now)) {
            *held.entry(entry.may_be_held_by(now).unwrap()).or_default() += 1;
        }
        let sum: usize = held.values().sum();
        assert!(sum <= MAX_IN_FLIGHT, "{sum} in flight");
        let most = held.values().max().copied().unwrap_or_default();
        assert!(most <= MAX_IN_FLIGHT_PER_CONSUMER, "{held:?} in flight");
        tally
            .handed_out
            .push_back((claim.sent, claim.deliveries.len()));
        while tally
            .handed_out
            .front()
            .is_some_and(|(sent, _)| *sent < now - 1.0 - SLACK)
        {
            tally.handed_out.pop_front();
        }
        // surely within a second
        let lately = tally
            .handed_out
            .iter()
            .filter(|(sent, _)| *sent > now - 1.0);
        let rate: usize = lately.map(|(_, messages)| messages).sum();
        assert!(rate <= MAX_RATE, "{rate} in a second");
    }

    /// Whether the limits surely leave something to a consumer.
    pub(super) fn has_room(&self, consumer: usize, tally: &Tally, now: f64) -> bool {
        if !self.mode.limited {
            return true;
        }
        let holders = || {
            self.live_entries()
                .filter_map(|(_, entry)| entry.may_be_held_by(now))
        };
        let lately = tally
            .handed_out
            .iter()
            .filter(|(sent, _)| *sent > now - 1.0 - SLACK);
        let rate: usize = lately.map(|(_, messages)| messages).sum();
        holders().count() < MAX_IN_FLIGHT
            && holders().filter(|holder| *holder == consumer).count() < MAX_IN_FLIGHT_PER_CONSUMER
            && rate < MAX_RATE
    }
}
