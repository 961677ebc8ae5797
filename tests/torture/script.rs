//! Histories made by hand. Each step takes a hundredth of a second, unless a test says more.

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::checker::check;
use super::history::{
    Call, Delivery, Door, Entry, Event, Fault, Handle, History, Kind, Micros, Outcome, Probe,
    State, Verb, What,
};
use super::world::{SUBSCRIPTIONS, digest, payload};

pub const SECOND: Micros = 1_000_000;
const STEP: Micros = 10_000;
pub const SEED: u64 = 7;
pub const UNAVAILABLE: Outcome = Outcome::Failed {
    status: 503,
    retry_after: true,
};

pub struct Script {
    pub history: History,
    pub books: Vec<Entry>,
    pub at: Micros,
}

/// The id of the message of a number.
pub fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

/// A number whose message a subscription receives, or one whose message it does not.
pub fn number_for(subscription: &str, receives: bool) -> u64 {
    let subscription = super::world::subscription(subscription);
    let mut numbers = 0..1000;
    numbers
        .find(|number| subscription.receives(SEED, *number) == receives)
        .unwrap()
}

impl Script {
    pub fn new() -> Self {
        let history = History {
            seed: SEED,
            ..History::default()
        };
        Self {
            history,
            books: Vec::new(),
            at: SECOND,
        }
    }

    /// Some messages of one request to topic orders, each consumed and acked where it belongs.
    pub fn clean() -> Self {
        let mut script = Self::new();
        script.publish("orders", 0..4, Outcome::Done);
        script.consume_all("orders", 0..4);
        script
    }

    pub fn consume_all(&mut self, topic: &str, numbers: Range<u64>) {
        for subscription in SUBSCRIPTIONS.iter().filter(|known| known.topic == topic) {
            for number in numbers.clone() {
                if subscription.receives(SEED, number) {
                    let receipt = self.deliver(subscription.id, number, 1);
                    self.settle(Verb::Ack, subscription.id, number, Some(&receipt));
                    self.book(subscription.id, number, State::Acked, 1);
                }
            }
        }
    }

    /// The promises that are broken, each once.
    pub fn broken(&self) -> Vec<&'static str> {
        let violations = check(&self.history, &self.books);
        let mut promises: Vec<_> = violations.iter().map(|found| found.promise).collect();
        promises.sort_unstable();
        promises.dedup();
        promises
    }

    pub fn call(&mut self, client: &str, outcome: Outcome) -> Call {
        let sent = self.at;
        self.at += STEP;
        Call {
            client: client.into(),
            server: 0,
            sent,
            done: self.at,
            outcome,
        }
    }

    pub fn event(&mut self, client: &str, outcome: Outcome, what: What) -> &mut Event {
        let call = self.call(client, outcome);
        self.history.events.push(Event { call, what });
        self.history.events.last_mut().unwrap()
    }

    pub fn publish(&mut self, topic: &'static str, numbers: Range<u64>, outcome: Outcome) {
        let rubbish = false;
        let what = What::Publish {
            topic,
            numbers,
            rubbish,
        };
        self.event("publisher", outcome, what);
    }

    /// Deliver a message, and return its receipt.
    pub fn deliver(&mut self, subscription: &'static str, number: u64, attempts: u32) -> Arc<str> {
        let delivery = self.delivery(number, attempts);
        let receipt = Arc::clone(&delivery.receipt);
        self.consume(subscription, vec![delivery]);
        receipt
    }

    pub fn delivery(&self, number: u64, attempts: u32) -> Delivery {
        Delivery {
            id: id(number),
            number: Some(number),
            revision: 0,
            digest: digest(&payload(SEED, number)),
            attempts,
            receipt: format!("r{number}-{}", self.at).into(),
            taken: false,
        }
    }

    pub fn consume(&mut self, subscription: &'static str, deliveries: Vec<Delivery>) {
        let what = What::Consume {
            subscription,
            deliveries,
            takes: None,
        };
        self.event("consumer", Outcome::Done, what);
    }

    /// By receipt, or by id.
    pub fn settle(
        &mut self,
        verb: Verb,
        subscription: &'static str,
        number: u64,
        receipt: Option<&Arc<str>>,
    ) {
        let handles = vec![Handle {
            id: id(number),
            receipt: receipt.cloned(),
        }];
        let what = What::Settle {
            subscription,
            verb,
            handles,
            confirmed: false,
        };
        self.event("consumer", Outcome::Done, what);
    }

    /// By receipt, of what happened or may have.
    pub fn settled(
        &mut self,
        (verb, confirmed): (Verb, bool),
        subscription: &'static str,
        number: u64,
        receipt: &Arc<str>,
        outcome: Outcome,
    ) {
        let handles = vec![Handle {
            id: id(number),
            receipt: Some(Arc::clone(receipt)),
        }];
        let what = What::Settle {
            subscription,
            verb,
            handles,
            confirmed,
        };
        self.event("consumer", outcome, what);
    }

    pub fn reprocess(&mut self, subscription: &'static str, number: u64) {
        let ids = vec![id(number)];
        let what = What::Reprocess { subscription, ids };
        self.event("reprocessor", Outcome::Done, what);
    }

    pub fn book(&mut self, subscription: &'static str, number: u64, state: State, attempts: u32) {
        self.books.push(Entry {
            subscription,
            id: id(number),
            number: Some(number),
            state,
            attempts,
        });
    }

    pub fn probe(&mut self, door: Door, outcome: Outcome) -> &mut Probe {
        let call = self.call("probe", outcome);
        self.history.probes.push(Probe { door, call });
        self.history.probes.last_mut().unwrap()
    }

    /// A fault that lasts from now on for so long; time does not pass.
    pub fn fault(&mut self, kind: Kind, lasts: Micros) -> &mut Fault {
        let is_of_server = matches!(kind, Kind::KillServer | Kind::FreezeServer);
        self.history.faults.push(Fault {
            kind,
            server: is_of_server.then_some(0),
            from: self.at,
            until: self.at + lasts,
            gone: None,
            crashed: None,
        });
        self.history.faults.last_mut().unwrap()
    }
    /// Kill Postgres after a step, which takes a step.
    pub fn crash(&mut self) {
        let from = self.at + STEP;
        self.at = from + STEP;
        self.fault(Kind::KillPostgres, 0).from = from;
        let fault = self.history.faults.last_mut().unwrap();
        fault.crashed = Some((from, self.at));
    }
}
