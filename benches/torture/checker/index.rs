//! A history by message: who published it, and all that happened to it in each subscription.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use uuid::Uuid;

use super::super::history::{Call, Delivery, Entry, History, Kind, Micros, Outcome, Verb, What};
use super::super::world::subscription;

/// A request to publish.
pub(super) struct Publish<'a> {
    pub(super) call: &'a Call,
    pub(super) topic: &'static str,
    pub(super) numbers: Range<u64>,
    pub(super) rubbish: bool,
}

/// An ack or nack that named the message.
pub(super) struct Settle<'a> {
    pub(super) call: &'a Call,
    pub(super) verb: Verb,
    /// Whatever became of the lease.
    pub(super) confirmed: bool,
    /// None: by id.
    pub(super) receipt: Option<&'a str>,
}

/// A message in a subscription.
#[derive(Default)]
pub(super) struct Timeline<'a> {
    pub(super) deliveries: Vec<(&'a Call, &'a Delivery)>,
    pub(super) settles: Vec<Settle<'a>>,
    pub(super) reprocesses: Vec<&'a Call>,
}

pub(super) struct Index<'a> {
    /// By first number.
    publishes: BTreeMap<u64, Publish<'a>>,
    pub(super) timelines: HashMap<(&'static str, Uuid), Timeline<'a>>,
    /// The id of a number's message, where it was delivered, and the other way about.
    pub(super) ids: HashMap<u64, Uuid>,
    pub(super) numbers: HashMap<Uuid, u64>,
    /// Takes without an answer, of so many messages at most.
    pub(super) lost_takes: HashMap<&'static str, Vec<(&'a Call, usize)>>,
    /// Those that may have happened.
    pub(super) purges: HashMap<&'static str, Vec<&'a Call>>,
    /// Of each message, in their order, those that may have happened.
    pub(super) updates: HashMap<Uuid, Vec<(&'a Call, u64)>>,
    pub(super) inspections: Vec<(&'a Call, &'static str, &'a [Entry])>,
    /// When leases may have been ended by `cleanup_stuck_messages`.
    cleanups: Vec<(Micros, Micros)>,
    /// Between when Postgres crashed.
    crashes: Vec<(Micros, Micros)>,
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut publishes = BTreeMap::new();
        let mut timelines: HashMap<(&'static str, Uuid), Timeline<'a>> = HashMap::new();
        let mut ids = HashMap::new();
        let mut numbers_by_id = HashMap::new();
        let mut lost_takes: HashMap<&'static str, Vec<(&'a Call, usize)>> = HashMap::new();
        let mut purges: HashMap<&'static str, Vec<&'a Call>> = HashMap::new();
        let mut updates: HashMap<Uuid, Vec<(&'a Call, u64)>> = HashMap::new();
        let mut inspections = Vec::new();
        for event in &history.events {
            let call = &event.call;
            match &event.what {
                What::Publish {
                    topic,
                    numbers,
                    rubbish,
                } => {
                    let publish = Publish {
                        call,
                        topic,
                        numbers: numbers.clone(),
                        rubbish: *rubbish,
                    };
                    publishes.insert(numbers.start, publish);
                }
                What::Consume {
                    subscription,
                    deliveries,
                    takes,
                } => {
                    if let Some(most) = takes
                        && may_linger(call)
                    {
                        let lost = lost_takes.entry(subscription).or_default();
                        lost.push((call, *most));
                    }
                    for delivery in deliveries {
                        let timeline = timelines.entry((subscription, delivery.id)).or_default();
                        timeline.deliveries.push((call, delivery));
                        if delivery.taken {
                            timeline.settles.push(Settle {
                                call,
                                verb: Verb::Ack,
                                confirmed: false,
                                receipt: Some(&delivery.receipt),
                            });
                        }
                        if let Some(number) = delivery.number {
                            ids.insert(number, delivery.id);
                            numbers_by_id.insert(delivery.id, number);
                        }
                    }
                }
                What::Settle {
                    subscription,
                    verb,
                    handles,
                    confirmed,
                } => {
                    for handle in handles {
                        let timeline = timelines.entry((subscription, handle.id)).or_default();
                        timeline.settles.push(Settle {
                            call,
                            verb: *verb,
                            confirmed: *confirmed && call.outcome == Outcome::Done,
                            receipt: handle.receipt.as_deref(),
                        });
                    }
                }
                What::Transact {
                    subscription,
                    handles,
                    topic,
                    numbers,
                } => {
                    for handle in handles {
                        let timeline = timelines.entry((subscription, handle.id)).or_default();
                        timeline.settles.push(Settle {
                            call,
                            verb: Verb::Ack,
                            confirmed: false,
                            receipt: handle.receipt.as_deref(),
                        });
                    }
                    let publish = Publish {
                        call,
                        topic,
                        numbers: numbers.clone(),
                        rubbish: false,
                    };
                    publishes.insert(numbers.start, publish);
                }
                What::Reprocess { subscription, ids } => {
                    for id in ids {
                        let timeline = timelines.entry((subscription, *id)).or_default();
                        timeline.reprocesses.push(call);
                    }
                }
                What::Purge { subscription } if call.outcome.may_have_happened() => {
                    purges.entry(subscription).or_default().push(call);
                }
                What::Update { id, revision } if call.outcome.may_have_happened() => {
                    updates.entry(*id).or_default().push((call, *revision));
                }
                What::Inspect {
                    subscription,
                    found,
                } => inspections.push((call, *subscription, found.as_slice())),
                What::Purge { .. } | What::Update { .. } | What::Pause { .. } | What::Read => {}
            }
        }
        let cleanups = history
            .faults
            .iter()
            .filter(|fault| fault.kind == Kind::CleanUpStuck)
            .map(|fault| (fault.from, fault.until))
            .collect();
        Self {
            publishes,
            timelines,
            ids,
            numbers: numbers_by_id,
            lost_takes,
            purges,
            updates,
            inspections,
            cleanups,
            crashes: history
                .faults
                .iter()
                .filter_map(|fault| fault.crashed)
                .collect(),
        }
    }

    pub(super) fn publishes(&self) -> impl Iterator<Item = &Publish<'a>> {
        self.publishes.values()
    }

    /// The request that carried a number.
    pub(super) fn publish_of(&self, number: u64) -> Option<&Publish<'a>> {
        let (_, publish) = self.publishes.range(..=number).next_back()?;
        publish.numbers.contains(&number).then_some(publish)
    }

    /// From when on a claim may be undone: nobody waits until it is on disk, so that a crash of
    /// Postgres soon after it may undo it.
    pub(super) fn undone_from(&self, claim: &Call, delivery: &Delivery) -> Option<Micros> {
        // whoever takes waits
        if delivery.taken {
            return None;
        }
        // an answer may be late; but what was asked for after a crash was not undone by it
        let hit = self.crashes.iter().filter(|(from, until)| {
            claim.sent < *until && claim.done.saturating_add(UNSAVED) > *from
        });
        hit.map(|(from, _)| *from).min()
    }

    /// From when on a delivery may be as if it had never been: a crash undid its claim, or it was given
    /// back.
    pub(super) fn uncounted_from(
        &self,
        timeline: &Timeline<'_>,
        (claim, delivery): (&Call, &Delivery),
    ) -> Option<Micros> {
        let given_back = timeline.settles.iter().filter(|settle| {
            settle.verb == Verb::GiveBack && settle.receipt == Some(&*delivery.receipt)
        });
        given_back
            .map(|settle| settle.call.sent)
            .chain(self.undone_from(claim, delivery))
            .min()
    }

    /// Whether a purge, asked for before some time, may have taken what was published.
    pub(super) fn may_be_purged(
        &self,
        subscription: &str,
        publish: &Call,
        before: Option<Micros>,
    ) -> bool {
        let purges = self.purges.get(subscription).into_iter().flatten();
        let mut in_time = purges.filter(|purge| before.is_none_or(|before| purge.sent < before));
        in_time.any(|purge| over_by(purge) >= publish.sent)
    }

    /// Until when a delivery was surely leased, if no settle but `except` ended it. It is surely
    /// leased from its answer on.
    pub(super) fn leased_until(
        &self,
        name: &str,
        timeline: &Timeline<'_>,
        (call, delivery): (&Call, &Delivery),
        except: Option<&Call>,
    ) -> Micros {
        let subscription = subscription(name);
        let settled = timeline.settles.iter().filter(|settle| {
            let fits = settle
                .receipt
                .is_none_or(|receipt| receipt == &*delivery.receipt);
            let is_except = except.is_some_and(|except| std::ptr::eq(except, settle.call));
            fits && !is_except
                && settle.call.outcome.may_have_happened()
                && ends_at_or_after(settle.call, call.sent)
        });
        // what has a deadline of its own is not stuck before it
        let cleaned = self.cleanups.iter().filter(|(_, until)| {
            subscription.ack_deadline_seconds.is_none() && *until >= call.sent
        });
        settled
            .map(|settle| settle.call.sent)
            .chain(cleaned.map(|(from, _)| *from))
            .chain(self.undone_from(call, delivery))
            .chain([call.sent + subscription.lease_micros() - CLOCK_MARGIN])
            .min()
            .unwrap_or_default()
    }
}

/// A claim is on disk after thrice the `wal_writer_delay` of 0.2 s, and some slack.
const UNSAVED: Micros = 1_000_000;
/// Postgres has a clock of its own, which may be stepped a little.
const CLOCK_MARGIN: Micros = 20_000;

/// What nobody waits for ends within this time: longer than a server is frozen, or waits for the database.
const LINGER: Micros = 20_000_000;

/// Whether it may have happened, or happen yet, without an answer.
pub(super) fn may_linger(call: &Call) -> bool {
    call.outcome.may_have_happened() && call.outcome != Outcome::Done
}

/// When it had happened at the latest, if it did.
pub(super) fn over_by(call: &Call) -> Micros {
    call.done + if may_linger(call) { LINGER } else { 0 }
}

/// A call without an answer may take effect after its end: the server may still work on it.
pub(super) fn ends_at_or_after(call: &Call, at: Micros) -> bool {
    call.outcome != Outcome::Done || call.done >= at
}
