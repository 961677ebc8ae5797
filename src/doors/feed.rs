//! What one client of a stream holds: messages that it was sent and has not settled. They are given back when
//! it leaves, at once and as if it had never had them.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::browse::Browse;
use crate::db::messages::{Delivery, Handle};
use crate::error::Error;

/// Most deliveries of a claim.
const BATCH: usize = 1000;

/// What a client holds, and how much it may.
pub struct Feed {
    app: App,
    max_in_flight: usize,
    auto_ack: bool,
    /// By subscription.
    held: BTreeMap<String, Vec<Handle>>,
}

impl Feed {
    /// Of a new client. With `auto_ack`, what it was handed is done.
    #[must_use]
    pub fn new(app: App, max_in_flight: usize, auto_ack: bool) -> Self {
        Self {
            app,
            max_in_flight,
            auto_ack,
            held: BTreeMap::new(),
        }
    }

    /// How many more it may be sent; none if there is no room.
    #[must_use]
    pub fn room(&self) -> Option<i32> {
        let held: usize = self.held.values().map(Vec::len).sum();
        let room = self.max_in_flight.saturating_sub(held).min(BATCH);
        i32::try_from(room).ok().filter(|room| *room > 0)
    }

    /// It is sent these, of a subscription, or of those that they name.
    pub fn hold(&mut self, subscription_id: &str, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let id = delivery
                .subscription_id
                .as_deref()
                .unwrap_or(subscription_id);
            let handle = delivery.handle();
            match self.held.get_mut(id) {
                Some(held) => held.push(handle),
                None => {
                    self.held.insert(id.to_owned(), vec![handle]);
                }
            }
        }
    }

    /// It was handed all that it was sent.
    ///
    /// # Errors
    /// When that cannot be noted: it is given back then.
    pub async fn handed(&mut self) -> Result<(), Error> {
        if !self.auto_ack {
            return Ok(());
        }
        while let Some((id, handles)) = self.held.pop_first() {
            match self.app.engine.ack(id.clone(), handles.clone()).await {
                // deleted meanwhile
                Err(Error::Refused { .. }) | Ok(()) => {}
                Err(error) => {
                    self.held.insert(id, handles);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One of them is settled.
    pub fn settled(&mut self, subscription_id: &str, message_id: Uuid) {
        if let Some(held) = self.held.get_mut(subscription_id) {
            held.retain(|handle| handle.message_id != message_id);
        }
    }

    /// Look which were settled in another way, or have run out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&mut self) -> Result<(), Error> {
        for (id, held) in &mut self.held {
            held.retain(|handle| handle.lease.is_some());
            held.sort_by_key(|handle| handle.message_id);
            let mut from = 0;
            while let Some(rest) = held.get(from..).filter(|rest| !rest.is_empty()) {
                let ids: Vec<Uuid> = rest.iter().map(|handle| handle.message_id).collect();
                let found = leases(&self.app, id, &ids).await?;
                let last = found.last().map(|(message_id, _)| *message_id);
                // an answer ends where it would have too many bytes
                let is_decided =
                    |handle: &Handle| last.is_none_or(|last| handle.message_id <= last);
                let decided = rest.iter().filter(|handle| is_decided(handle)).count();
                let still: Vec<Handle> = rest
                    .iter()
                    .filter(|handle| {
                        !is_decided(handle) || found.contains(&(handle.message_id, handle.lease))
                    })
                    .copied()
                    .collect();
                let gone = rest.len() - still.len();
                held.truncate(from);
                held.extend(still);
                from += decided - gone;
            }
        }
        Ok(())
    }

    /// It leaves.
    pub async fn give_back(mut self) {
        let held = std::mem::take(&mut self.held);
        give_back(&self.app, held).await;
    }
}

impl Drop for Feed {
    /// Its task was broken off.
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.held);
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !held.is_empty()
        {
            let app = self.app.clone();
            runtime.spawn(async move { give_back(&app, held).await });
        }
    }
}

async fn give_back(app: &App, held: BTreeMap<String, Vec<Handle>>) {
    for (id, handles) in held {
        if !handles.is_empty() {
            app.engine.give_back(&id, &handles).await;
        }
    }
}

/// Those of some messages that are leased, each with its lease, by their ids.
async fn leases(
    app: &App,
    subscription_id: &str,
    message_ids: &[Uuid],
) -> Result<Vec<(Uuid, Option<i64>)>, Error> {
    let _room = crate::doors::answers::share(app).await?;
    let page = Browse {
        state: Some("delivered"),
        after: None,
        offset: 0,
        limit: i32::try_from(message_ids.len()).unwrap_or(i32::MAX),
        message_ids: Some(message_ids),
        max_bytes: app.settings.api_max_answer_bytes,
    };
    match db::browse::browse(&app.database, subscription_id, &page).await {
        Ok(found) => Ok(found
            .into_iter()
            .map(|message| (message.message_id, message.lease))
            .collect()),
        Err(Error::Refused { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
