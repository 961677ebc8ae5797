//! Who is connected to this process, and to which topics. One [taker](super::taker) has the messages of all of
//! them, from the first connection to the last.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{TimeDelta, Utc};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::listener::{End, Listener};
use super::message::{Message, Topic};
use super::names;
use super::taker;
use crate::app::App;
use crate::db::messages::Delivery;
use crate::doors::connection::Guest;
use crate::error::Error;
use crate::telemetry::proxy;

const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(2);

/// The connections of this process.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Somebody came or left.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    listeners: HashMap<u64, Arc<Listener>>,
    topics: HashMap<String, Place>,
    /// Whether a taker is at work, and which one.
    taker: Option<watch::Receiver<Began>>,
    takers: u64,
    /// The newest message that was taken.
    taken: Uuid,
}

/// A topic that somebody is subscribed to.
#[derive(Debug)]
struct Place {
    topic: Arc<Topic>,
    listeners: HashMap<u64, Arc<Listener>>,
}

/// How far a taker came.
#[derive(Clone, Debug)]
pub(super) enum Began {
    /// It is about to begin.
    Not,
    /// What is accepted from now on comes.
    Yes,
    /// It could not.
    Failed(Error),
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection comes, which gets what is accepted from now on of the topics that it names.
    ///
    /// # Errors
    /// When messages cannot be had: the database fails.
    pub(super) async fn attach(
        self: &Arc<Self>,
        app: &App,
        guest: &Guest,
    ) -> Result<Attached, Error> {
        let (attached, mut began) = self.enter(app, guest);
        let began = began.wait_for(|began| !matches!(began, Began::Not)).await;
        match began.as_deref() {
            Ok(Began::Yes) => Ok(attached),
            Ok(Began::Failed(error)) => Err(error.clone()),
            Ok(Began::Not) | Err(_) => Err(Error::refused(503, "the server ends")),
        }
    }

    fn enter(self: &Arc<Self>, app: &App, guest: &Guest) -> (Attached, watch::Receiver<Began>) {
        let listener = Arc::new(Listener::default());
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.listeners.insert(id, Arc::clone(&listener));
        let attached = Attached {
            hub: Arc::clone(self),
            id,
            listener,
            topics: HashSet::new(),
        };
        let began = if let Some(began) = &state.taker {
            began.clone()
        } else {
            let (sender, began) = watch::channel(Began::Not);
            state.taker = Some(began.clone());
            state.takers += 1;
            // nothing of before comes; the clock of the database may differ
            state.taken = state.taken.max(names::id_at(Utc::now() - CLOCKS_DIFFER));
            let taker = taker::Taker {
                app: app.clone(),
                hub: Arc::clone(self),
                number: state.takers,
                began: sender,
                guest: guest.worker(),
            };
            tokio::spawn(taker.run());
            began
        };
        drop(state);
        self.moved.notify_one();
        (attached, began)
    }

    /// Hand messages to those who are subscribed to their topics.
    pub(super) fn deliver(&self, mut deliveries: Vec<Delivery>) {
        deliveries.sort_unstable_by_key(|delivery| delivery.message_id);
        for delivery in deliveries {
            let Some(name) = &delivery.ordering_key else {
                // published natively, to no topic of the door
                continue;
            };
            proxy::taken(name);
            let mut state = self.state();
            state.taken = state.taken.max(delivery.message_id);
            let Some(place) = state.topics.get(name) else {
                continue;
            };
            let message = Arc::new(Message::new(
                delivery.message_id,
                Arc::clone(&place.topic),
                &delivery.payload,
                delivery.attributes.as_ref(),
                true,
            ));
            for listener in place.listeners.values() {
                listener.push(&message);
            }
        }
    }

    /// Wait until somebody comes or leaves; whether nobody is there.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.state().listeners.is_empty()
    }

    /// A taker ends, unless `only_if_empty` and somebody is there again; whether it does. Whoever is there may
    /// have missed messages, and is told so.
    pub(super) fn end(&self, number: u64, only_if_empty: bool) -> bool {
        let mut state = self.state();
        if only_if_empty && !state.listeners.is_empty() {
            return false;
        }
        if state.takers == number {
            state.taker = None;
            for listener in state.listeners.values() {
                listener.end(End::Lost);
            }
        }
        true
    }
}

/// A connection's place in the hub, until it is dropped.
#[derive(Debug)]
pub(super) struct Attached {
    hub: Arc<Hub>,
    id: u64,
    pub(super) listener: Arc<Listener>,
    topics: HashSet<String>,
}

impl Attached {
    /// What is accepted of these topics from now on comes; those that are new, and the newest message that was
    /// taken before. What comes may have been accepted before, too, after that one.
    pub(super) fn add(&mut self, topics: &[String]) -> (Vec<String>, Uuid) {
        let mut state = self.hub.state();
        let mut new = Vec::new();
        for name in topics {
            if !self.topics.insert(name.clone()) {
                continue;
            }
            new.push(name.clone());
            let place = state.topics.entry(name.clone()).or_insert_with(|| Place {
                topic: Arc::new(Topic::new(name)),
                listeners: HashMap::new(),
            });
            place.listeners.insert(self.id, Arc::clone(&self.listener));
        }
        (new, state.taken)
    }

    /// Nothing more comes of these topics, but for what waits already.
    pub(super) fn remove(&mut self, topics: &[String]) {
        let mut state = self.hub.state();
        for name in topics {
            if self.topics.remove(name) {
                leave(&mut state, self.id, name);
            }
        }
    }

    /// Whether it is subscribed to a topic.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// What it is subscribed to.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    /// To how many topics it is subscribed.
    pub(super) fn count(&self) -> usize {
        self.topics.len()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        for name in &self.topics {
            leave(&mut state, self.id, name);
        }
        state.listeners.remove(&self.id);
        let is_last = state.listeners.is_empty();
        drop(state);
        if is_last {
            self.hub.moved.notify_one();
        }
    }
}

fn leave(state: &mut State, id: u64, topic: &str) {
    if let Some(place) = state.topics.get_mut(topic) {
        place.listeners.remove(&id);
        if place.listeners.is_empty() {
            state.topics.remove(topic);
        }
    }
}

/// What the engine's subscription of a taker is called.
pub(super) fn subscription_id() -> String {
    format!("{}/{}", names::TOPIC, Uuid::now_v7().simple())
}
