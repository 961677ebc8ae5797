//! One connection that is subscribed: what is sent on it next.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::Door;
use super::history;
use super::hub::Attached;
use super::listener::End;
use super::message::{Message, Topic};
use super::protocol::Offset;
use super::replay::{Page, Replay};
use crate::app::App;
use crate::db::log::LoggedMessage;
use crate::error::Error;

/// For how long a replayed message may still be handed over as a live one: its subscription would be gone then.
const REPEATED_WITHIN: Duration = Duration::from_secs(60);

/// Why a connection gets nothing more.
#[derive(Debug)]
pub(super) enum Ended {
    /// By the hub.
    Hub(End),
    /// History could not be read.
    Failed(Error),
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self::Hub(end)
    }
}

/// What is sent together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Arc<Message>>,
    _place: Option<OwnedSemaphorePermit>,
}

/// What a connection is subscribed to, and its replays.
pub(super) struct Session {
    app: App,
    door: Arc<Door>,
    pub(super) attached: Attached,
    replays: VecDeque<Replay>,
    /// What replays had, until when it matters.
    replayed: HashSet<Uuid>,
    replayed_until: Instant,
}

impl Session {
    pub(super) fn new(app: App, door: Arc<Door>, attached: Attached) -> Self {
        Self {
            app,
            door,
            attached,
            replays: VecDeque::new(),
            replayed: HashSet::new(),
            replayed_until: Instant::now(),
        }
    }

    /// What is accepted of topics from now on comes; of those that are new, with what was accepted before.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn subscribe(
        &mut self,
        topics: &[String],
        offset: Offset,
    ) -> Result<(), Error> {
        let (new, taken) = self.attached.add(topics);
        if new.is_empty() {
            return Ok(());
        }
        // what was accepted and not taken yet is not new, though it is about to come
        let there = history::there(&self.app, &new, taken).await?;
        self.replayed.extend(there);
        self.replayed_until = Instant::now() + REPEATED_WITHIN;
        let after = match offset {
            Offset::Last => return Ok(()),
            Offset::Earliest => None,
            Offset::After(id) => Some(id),
        };
        self.replays.push_back(Replay::new(&new, after));
        Ok(())
    }

    /// What comes next; what was not returned is not lost when this is dropped.
    pub(super) async fn next(&mut self) -> Result<Batch, Ended> {
        loop {
            let Some(replay) = self.replays.front_mut() else {
                let live = self.attached.listener.next().await?;
                let messages = self.sort_out(live)?;
                if messages.is_empty() {
                    continue;
                }
                return Ok(Batch {
                    messages,
                    _place: None,
                });
            };
            let batch = tokio::select! {
                live = self.attached.listener.next() => {
                    let messages = self.sort_out(live?)?;
                    Batch { messages, _place: None }
                }
                page = replay.page(&self.app, &self.door) => {
                    let page = page.map_err(Ended::Failed)?;
                    self.replayed(page)
                }
            };
            if !batch.messages.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// Of what was accepted just now, what is sent at once.
    fn sort_out(&mut self, live: Vec<Arc<Message>>) -> Result<Vec<Arc<Message>>, End> {
        let mut messages = Vec::with_capacity(live.len());
        for message in live {
            let topic = &message.topic.name;
            // what waited when it was unsubscribed
            if !self.attached.has(topic) {
                continue;
            }
            match self.replays.iter_mut().find(|replay| replay.is_of(topic)) {
                Some(replay) => {
                    if !replay.hold(message) {
                        return Err(End::Behind);
                    }
                }
                None if self.replayed.contains(&message.id) => {}
                None => messages.push(message),
            }
        }
        // those that wait for their turn have read nothing yet
        for replay in self.replays.iter_mut().skip(1) {
            messages.extend(replay.shorten());
        }
        Ok(messages)
    }

    /// What a page of the first replay brings: nothing is its end.
    fn replayed(&mut self, page: Page) -> Batch {
        let Page {
            messages, place, ..
        } = page;
        let is_end = messages.is_empty();
        let mut sent: Vec<Arc<Message>> = Vec::with_capacity(messages.len());
        for logged in messages {
            let topic = logged.ordering_key.as_deref().unwrap_or_default();
            if self.attached.has(topic) {
                self.replayed.insert(logged.message_id);
                let topic = match sent.last() {
                    Some(last) if last.topic.name == topic => Arc::clone(&last.topic),
                    _ => Arc::new(Topic::new(topic)),
                };
                sent.push(Arc::new(shown(&logged, topic, false)));
            }
        }
        let held = if is_end {
            let held = self.replays.pop_front().map(Replay::finish);
            self.replayed_until = Instant::now() + REPEATED_WITHIN;
            held.unwrap_or_default().into()
        } else {
            self.replays
                .front_mut()
                .map(Replay::shorten)
                .unwrap_or_default()
        };
        let is_wanted = |message: &Arc<Message>| {
            !self.replayed.contains(&message.id) && self.attached.has(&message.topic.name)
        };
        sent.extend(held.into_iter().filter(is_wanted));
        Batch {
            messages: sent,
            _place: Some(place),
        }
    }

    /// Forget what does not matter any more.
    pub(super) fn tidy(&mut self) {
        if self.replays.is_empty() && self.replayed_until < Instant::now() {
            self.replayed = HashSet::new();
        }
    }
}

/// A message that the engine keeps.
pub(super) fn shown(logged: &LoggedMessage, topic: Arc<Topic>, is_live: bool) -> Message {
    let attributes = logged.attributes.as_ref();
    Message::new(
        logged.message_id,
        topic,
        &logged.payload,
        attributes,
        is_live,
    )
}
