//! Claims of several subscriptions at once. They are not merged, only made in a task of their own: a client
//! that goes away meanwhile leaves no lease behind.

use std::collections::BTreeMap;

use super::group::Calls;
use super::merged::{ClaimKey, give_back};
use super::waiting::Waiting;
use crate::db::database::Database;
use crate::db::messages::{self, Claim, Delivery};
use crate::error::Error;

/// Of each claim: so much that none waits for another one.
const WEIGHT: usize = 200;

pub(super) struct ClaimsFrom {
    pub(super) database: Database,
    pub(super) waiting: Waiting,
    pub(super) default_ack_deadline_seconds: i32,
}

impl Calls for ClaimsFrom {
    type Key = ClaimKey<Vec<String>>;
    type Request = Claim;
    type Answer = Vec<Delivery>;

    fn weight(&self, _: &Claim) -> usize {
        WEIGHT
    }

    async fn call(&self, key: &Self::Key, claims: &[Claim]) -> Result<Vec<Vec<Delivery>>, Error> {
        // the others go into calls after it
        let Some(claim) = claims.first() else {
            return Ok(Vec::new());
        };
        let terms = key.terms(self.default_ack_deadline_seconds);
        let deliveries = messages::consume_from(&self.database, &key.source, claim, terms).await?;
        if key.auto_ack {
            for id in deliveries
                .iter()
                .filter_map(|delivery| delivery.subscription_id.as_deref())
            {
                self.waiting.announce_room(id, 1);
            }
        }
        Ok(vec![deliveries])
    }

    async fn undelivered(&self, _: &Self::Key, deliveries: Vec<Delivery>) {
        let mut by_subscription = BTreeMap::<String, Vec<Delivery>>::new();
        for delivery in deliveries {
            if let Some(id) = delivery.subscription_id.clone() {
                by_subscription.entry(id).or_default().push(delivery);
            }
        }
        for (id, deliveries) in by_subscription {
            give_back(&self.database, &self.waiting, &id, &deliveries).await;
        }
    }
}
