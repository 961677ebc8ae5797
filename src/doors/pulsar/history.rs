//! What was accepted before: read page by page, up to the newest message that was there when the reading began.
//! Whoever was attached to the hub before gets everything else from there.

use std::collections::{HashMap, HashSet};

use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::names::TOPIC;
use crate::app::App;
use crate::db::log::{self, LoggedMessage, Read};
use crate::error::{Error, found};

/// Most messages, and about how many bytes, of a page.
const PAGE: i32 = 500;
const PAGE_BYTES: usize = 1024 * 1024;

/// Where a reader is.
#[derive(Clone, Debug)]
pub(super) struct History {
    topics: Vec<String>,
    /// What was read up to here.
    after: Uuid,
    /// The newest message when it was looked; none where there was none, or nobody has looked.
    upto: Option<Uuid>,
    /// Where the messages of a topic that count begin, of those that have too many.
    from: Option<HashMap<String, Uuid>>,
}

impl History {
    /// From the message after one on, or from the earliest on.
    pub(super) fn new(topics: Vec<String>, after: Option<Uuid>) -> Self {
        Self {
            topics,
            after: after.unwrap_or_default(),
            upto: None,
            from: None,
        }
    }

    /// What was read up to here.
    pub(super) fn after(&self) -> Uuid {
        self.after
    }

    /// Go on up to the newest message of now.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn look(&mut self, app: &App) -> Result<Option<Uuid>, Error> {
        let newest = newest(app, &self.topics, 1).await?;
        self.upto = newest.into_values().max();
        Ok(self.upto)
    }

    /// The next ones; none where that was all.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn page(&mut self, app: &App) -> Result<Vec<LoggedMessage>, Error> {
        self.page_of(app, PAGE).await
    }

    /// The next ones, at most so many.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn page_of(
        &mut self,
        app: &App,
        most: i32,
    ) -> Result<Vec<LoggedMessage>, Error> {
        let upto = self.upto.unwrap_or_default();
        while self.after < upto {
            let page = Read {
                after: Some(self.after),
                since: Some(since(app)),
                ordering_keys: Some(&self.topics),
                limit: most,
                max_bytes: PAGE_BYTES.min(app.settings.api_max_answer_bytes),
                complete: false,
            };
            let read = found(log::read(&app.database, TOPIC, &page).await)?.unwrap_or_default();
            self.after = read.last().map_or(upto, |last| last.message_id);
            let read = self.those_that_count(app, read, upto).await?;
            if !read.is_empty() {
                return Ok(read);
            }
        }
        Ok(Vec::new())
    }

    /// The newest of each topic, of what was read up to `upto`.
    async fn those_that_count(
        &mut self,
        app: &App,
        mut read: Vec<LoggedMessage>,
        upto: Uuid,
    ) -> Result<Vec<LoggedMessage>, Error> {
        read.retain(|message| message.message_id <= upto);
        let most = app.settings.pulsar.max_messages_per_topic;
        let is_all = self.after >= upto && self.from.is_none();
        if is_all && i32::try_from(read.len()).is_ok_and(|messages| messages <= most) {
            return Ok(read);
        }
        let from = match &self.from {
            Some(from) => from,
            None => self.from.insert(newest(app, &self.topics, most).await?),
        };
        if from.len() == self.topics.len()
            && let Some(first) = from.values().min()
        {
            // nothing before it counts
            self.after = self.after.max(before(*first));
        }
        let counts = |message: &LoggedMessage| {
            let topic = message.ordering_key.as_ref();
            let from = topic.and_then(|topic| from.get(topic));
            from.is_none_or(|from| message.message_id >= *from)
        };
        read.retain(counts);
        Ok(read)
    }
}

/// Most of what was accepted and not taken yet that is looked at at a time.
const MOST_UNTAKEN: i32 = 1000;
const MOST_UNTAKEN_BYTES: usize = 4 * 1024 * 1024;

/// Which messages of topics there are after one.
///
/// # Errors
/// When the database fails.
pub(super) async fn there(
    app: &App,
    topics: &[String],
    mut after: Uuid,
) -> Result<HashSet<Uuid>, Error> {
    let mut all = HashSet::new();
    loop {
        let page = Read {
            after: Some(after),
            since: None,
            ordering_keys: Some(topics),
            limit: MOST_UNTAKEN,
            max_bytes: MOST_UNTAKEN_BYTES,
            complete: false,
        };
        let read = found(log::read(&app.database, TOPIC, &page).await)?.unwrap_or_default();
        let bytes: usize = read.iter().map(|message| message.payload.size()).sum();
        all.extend(read.iter().map(|message| message.message_id));
        match read.last() {
            // a page that was cut
            Some(last) if read.len() > 500 || bytes > MOST_UNTAKEN_BYTES / 2 => {
                after = last.message_id;
            }
            _ => return Ok(all),
        }
    }
}

/// Messages from then on are kept.
fn since(app: &App) -> chrono::DateTime<Utc> {
    Utc::now() - TimeDelta::seconds(app.settings.pulsar.hot_tier_retention.into())
}

/// The so many newest messages of topics: the oldest of them, of topics that have so many.
async fn newest(app: &App, topics: &[String], n: i32) -> Result<HashMap<String, Uuid>, Error> {
    let nth = log::nth_newest(&app.database, TOPIC, n, topics, Some(since(app))).await;
    Ok(found(nth)?.unwrap_or_default().into_iter().collect())
}

fn before(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}
