//! Operators who mend a backlog: messages deleted and changed, everything purged.

use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::json;
use sqlx::types::Json;
use uuid::Uuid;

use super::World;
use super::oracle::State;

impl World {
    pub(super) async fn mend(&mut self) {
        match self.random.random_range(0..15) {
            0..7 => self.delete().await,
            7..14 => self.change().await,
            _ => self.purge().await,
        }
        self.operations += 1;
    }

    /// Some messages, in whatever state, and one that is not there.
    async fn delete(&mut self) {
        self.reconcile().await;
        let live: Vec<Uuid> = self.oracle.live.iter().copied().collect();
        let most = self.random.random_range(1..8);
        let mut ids: Vec<Uuid> = live.sample(&mut self.random, most).copied().collect();
        ids.push(Uuid::now_v7());
        let deleted: Vec<Uuid> = sqlx::query_scalar("select pubsub.delete_messages('s', $1)")
            .bind(&ids)
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        ids.pop();
        ids.sort_unstable();
        assert_eq!(deleted, ids);
        for id in ids {
            self.oracle.end(id, State::Settled);
        }
    }

    /// What a message says, but for what replays look for; it may get large.
    async fn change(&mut self) {
        // they hold what it marks
        self.end_claims().await;
        let recent: Vec<Uuid> = self.recent.iter().copied().collect();
        let Some(id) = recent.choose(&mut self.random).copied() else {
            return;
        };
        let key = self.oracle.entries[&id].key;
        let padding = "x".repeat([10, 1000][self.random.random_range(0..2)]);
        let changed: bool = sqlx::query_scalar("select pubsub.update_message('t', $1, $2)")
            .bind(id)
            .bind(Json(json!({"n": key, "padding": padding})))
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        assert!(changed, "{id}");
    }

    async fn purge(&mut self) {
        if self.late.is_some() {
            // what is open at a purge counts as before it
            self.publish_late().await;
        }
        self.reconcile().await;
        super::execute(&mut self.admin, "select pubsub.purge_subscription('s')").await;
        for id in self.oracle.live.clone() {
            self.oracle.end(id, State::Settled);
        }
        // their history is of before
        self.oracle.acks = 0;
        self.check_the_counts().await;
        super::execute(
            &mut self.admin,
            "select pubsub.purge_deleted_subscriptions(1000)",
        )
        .await;
        // a purge forgets the lanes, too
        self.publish_one_of_each().await;
    }
}
