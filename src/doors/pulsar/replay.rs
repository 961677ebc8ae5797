//! A replay on its way to one connection, and what is accepted of its topics meanwhile: that comes afterwards,
//! without what the replay had already.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Door;
use super::history::History;
use super::listener::has_room;
use super::message::Message;
use crate::app::App;
use crate::db::log::LoggedMessage;
use crate::error::Error;

/// So much of what is accepted meanwhile is kept, before the replay goes on up to now instead.
const KEPT: usize = 500;
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Messages of a page, which has its place among all pages until they are on their way.
pub(super) struct Page {
    pub(super) history: History,
    pub(super) messages: Vec<LoggedMessage>,
    pub(super) place: OwnedSemaphorePermit,
}

type Reading = tokio::task::JoinHandle<Result<Page, Error>>;

/// A replay.
pub(super) struct Replay {
    topics: HashSet<String>,
    /// None while a page is read.
    history: Option<History>,
    reading: Option<Reading>,
    looks: bool,
    held: VecDeque<Arc<Message>>,
    held_bytes: usize,
}

impl Replay {
    /// Of topics that the connection was subscribed to just now, after a message or from the earliest on.
    pub(super) fn new(topics: &[String], after: Option<Uuid>) -> Self {
        Self {
            topics: topics.iter().cloned().collect(),
            history: Some(History::new(topics.to_vec(), after)),
            reading: None,
            looks: true,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Whether it is of a topic.
    pub(super) fn is_of(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// Something was accepted meanwhile; whether there is room for it.
    pub(super) fn hold(&mut self, message: Arc<Message>) -> bool {
        self.held_bytes += message.size();
        self.held.push_back(message);
        self.held.len() == 1 || has_room(self.held.len(), self.held_bytes)
    }

    /// The next page. What was begun goes on when this is dropped.
    pub(super) async fn page(&mut self, app: &App, door: &Arc<Door>) -> Result<Page, Error> {
        let (history, looks) = (&mut self.history, self.looks);
        let reading = self.reading.get_or_insert_with(|| {
            let (app, pages) = (app.clone(), Arc::clone(&door.pages));
            let history = history.take();
            tokio::spawn(async move { read(&app, pages, history, looks).await })
        });
        let read = reading.await;
        self.reading = None;
        let page = read.map_err(|error| Error::Internal(Arc::new(error)))??;
        self.looks = false;
        self.history = Some(page.history.clone());
        Ok(page)
    }

    /// Once a page was read: what is held, if it is much, is read from the history as well, but for what was
    /// committed late, below what was read. That is returned.
    pub(super) fn shorten(&mut self) -> Vec<Arc<Message>> {
        let Some(history) = &self.history else {
            return Vec::new();
        };
        if self.held.len() < KEPT && self.held_bytes < KEPT_BYTES {
            return Vec::new();
        }
        self.looks = true;
        self.held_bytes = 0;
        let after = history.after();
        let mut held: Vec<_> = self.held.drain(..).collect();
        held.retain(|message| message.id <= after);
        held
    }

    /// What was accepted meanwhile.
    pub(super) fn finish(self) -> VecDeque<Arc<Message>> {
        self.held
    }
}

async fn read(
    app: &App,
    pages: Arc<tokio::sync::Semaphore>,
    history: Option<History>,
    looks: bool,
) -> Result<Page, Error> {
    let closed = |_| Error::refused(503, "the server ends");
    let place = pages.acquire_owned().await.map_err(closed)?;
    let mut history = history.ok_or_else(|| Error::refused(500, "a page is read already"))?;
    if looks {
        history.look(app).await?;
    }
    let messages = history.page(app).await?;
    Ok(Page {
        history,
        messages,
        place,
    })
}
