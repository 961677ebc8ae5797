//! What one client of a stream holds: messages that it was sent and has not settled. They are given back when
//! it leaves, at once and as if it had never had them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::messages::{Delivery, Handle};
use crate::error::{Error, found};

/// Most deliveries of a claim.
const BATCH: usize = 1000;

/// Deliveries, by subscription.
#[derive(Debug, Default)]
pub struct Held(BTreeMap<String, BTreeSet<Handle>>);

impl Held {
    /// One more.
    pub fn add(&mut self, subscription_id: &str, handle: Handle) {
        if let Some(held) = self.0.get_mut(subscription_id) {
            held.insert(handle);
        } else {
            let held = BTreeSet::from([handle]);
            self.0.insert(subscription_id.to_owned(), held);
        }
    }

    /// Without these; another lease of the same message stays.
    fn remove(&mut self, subscription_id: &str, handles: &[Handle]) {
        if let Some(held) = self.0.get_mut(subscription_id) {
            for handle in handles {
                held.remove(handle);
            }
            if held.is_empty() {
                self.0.remove(subscription_id);
            }
        }
    }
}

/// What a client holds, and how much it may.
pub struct Feed {
    app: App,
    max_in_flight: usize,
    auto_ack: bool,
    /// How many more it may be sent; none where it need not say so.
    credit: Option<usize>,
    held: Held,
}

impl Feed {
    /// Of a new client. With `auto_ack`, what it was handed is done.
    #[must_use]
    pub fn new(app: App, max_in_flight: usize, auto_ack: bool) -> Self {
        Self {
            app,
            max_in_flight,
            auto_ack,
            credit: None,
            held: Held::default(),
        }
    }

    /// It may be sent only so many, until it says how many more.
    #[must_use]
    pub fn with_credit(mut self, credit: Option<usize>) -> Self {
        self.credit = credit;
        self
    }

    /// It may be sent so many more.
    pub fn credit(&mut self, more: usize) {
        self.credit = self.credit.map(|credit| credit.saturating_add(more));
    }

    fn held(&self) -> usize {
        self.held.0.values().map(BTreeSet::len).sum()
    }

    /// Whether it holds all it may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held() >= self.max_in_flight
    }

    /// How many more it may be sent; none if there is no room.
    #[must_use]
    pub fn room(&self) -> Option<i32> {
        let room = self.max_in_flight.saturating_sub(self.held());
        let room = room.min(self.credit.unwrap_or(room)).min(BATCH);
        i32::try_from(room).ok().filter(|room| *room > 0)
    }

    /// It is sent these, of a subscription, or of those that they name.
    pub fn hold(&mut self, subscription_id: &str, deliveries: &[Delivery]) {
        let credit = self.credit;
        self.credit = credit.map(|credit| credit.saturating_sub(deliveries.len()));
        for delivery in deliveries {
            let id = delivery
                .subscription_id
                .as_deref()
                .unwrap_or(subscription_id);
            self.held.add(id, delivery.handle());
        }
    }

    /// It was handed these of what it was sent.
    ///
    /// # Errors
    /// When that cannot be noted: they are given back then.
    pub async fn handed(&mut self, group: Held) -> Result<(), Error> {
        if !self.auto_ack {
            return Ok(());
        }
        for (id, handles) in group.0 {
            let handles: Vec<Handle> = handles.into_iter().collect();
            match self.app.engine.ack(id.clone(), handles.clone()).await {
                // deleted meanwhile
                Err(Error::Refused { .. }) | Ok(()) => self.held.remove(&id, &handles),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One of them is settled.
    pub fn settled(&mut self, subscription_id: &str, handle: Handle) {
        self.held.remove(subscription_id, &[handle]);
    }

    /// Look which were settled in another way, or have run out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&mut self) -> Result<(), Error> {
        for (id, held) in &mut self.held.0 {
            let ids: Vec<Uuid> = held.iter().map(|handle| handle.message_id).collect();
            let leases = db::browse::leases(&self.app.database, id, &ids).await;
            // none where it was deleted meanwhile
            let leases = found(leases)?.unwrap_or_default();
            let leases: HashSet<(Uuid, Option<i64>)> = leases.into_iter().collect();
            held.retain(|handle| leases.contains(&(handle.message_id, handle.lease)));
        }
        self.held.0.retain(|_, held| !held.is_empty());
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
            && !held.0.is_empty()
        {
            let app = self.app.clone();
            runtime.spawn(async move { give_back(&app, held).await });
        }
    }
}

async fn give_back(app: &App, held: Held) {
    for (id, handles) in held.0 {
        let handles: Vec<Handle> = handles.into_iter().collect();
        app.engine.give_back(&id, &handles).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_lease_of_a_message_stays_when_one_is_settled() {
        let message_id = Uuid::now_v7();
        let of = |lease| Handle {
            message_id,
            lease: Some(lease),
        };
        let mut held = Held::default();
        held.add("s", of(2));

        held.remove("s", &[of(1)]);
        held.remove("other", &[of(2)]);
        assert_eq!(held.0["s"], BTreeSet::from([of(2)]));

        held.remove("s", &[of(2)]);
        assert!(held.0.is_empty());
    }
}
