//! Operators: dead letters redriven, parked messages resumed, seeks, snapshots and replays. They first
//! look at what the engine has put away by itself.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::IndexedRandom;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::calls::{live, outcomes, seek};
use super::oracle::{State, Wanted};
use super::{KEYS, World};

const SEEK: &str = "select state from pubsub.seek_subscription('s', pubsub.id_time($1)) \
    where $2 is not null";
const SEEK_END: &str = "select state from pubsub.seek_subscription_to_end('s') \
    where $1 is not null and $2 is not null";
const REPLAY: &str = "select state from pubsub.replay_messages('s', $2::json, pubsub.id_time($1))";
const SEEK_SNAPSHOT: &str = "select state from pubsub.seek_subscription_to_snapshot('s', 'n') \
    where $1 is not null and $2 is not null";

/// The millisecond in which a message was published.
fn millisecond(id: Uuid) -> u128 {
    id.as_u128() >> 80
}

impl World {
    /// Learn what the engine put away by itself; the oracle and the engine know of the same messages then.
    pub(super) async fn reconcile(&mut self) {
        self.end_claims().await;
        let now = self.clock.now();
        let live: BTreeMap<Uuid, bool> = live(&mut self.admin).await.into_iter().collect();
        let mut gone = self.oracle.live.clone();
        gone.retain(|id| !live.contains_key(id));
        let gone: Vec<Uuid> = gone.into_iter().collect();
        let known = outcomes(&mut self.admin, &gone).await;
        for id in gone {
            let of_id = known.iter().filter(|(of, _)| *of == id);
            let outcomes: Vec<&str> = of_id.map(|(_, outcome)| outcome.as_str()).collect();
            self.oracle.gone(id, &outcomes, now);
        }
        for (id, is_parked) in &live {
            assert!(self.oracle.live.contains(id), "{id} is live");
            if *is_parked {
                self.oracle.found_parked(*id, now);
            }
        }
    }

    /// A dead letter is made available again.
    pub(super) async fn redrive(&mut self) {
        self.reconcile().await;
        let is_dead = |id: &&Uuid| self.oracle.entries[*id].state == State::Dead;
        let dead: Vec<Uuid> = self.recent.iter().filter(is_dead).copied().collect();
        let Some(id) = dead.choose(&mut self.random).copied() else {
            return;
        };
        let moved = self
            .count("select pubsub.reprocess_dlq_messages('s', $1)", &[id])
            .await;
        assert_eq!(moved, 1);
        self.oracle.restarted(id, self.clock.now());
        self.operations += 1;
    }

    fn parked(&self) -> Vec<Uuid> {
        let entries = self.oracle.live_entries();
        let parked = entries.filter(|(_, entry)| entry.state == State::Parked);
        parked.map(|(id, _)| id).collect()
    }

    /// An operator acts on a parked message.
    pub(super) async fn resume(&mut self) {
        self.reconcile().await;
        let Some(id) = self.parked().choose(&mut self.random).copied() else {
            return;
        };
        let action = ["retry", "dead_letter", "skip"][self.random.random_range(0..3)];
        let sql = format!("select pubsub.resume_messages('s', $1, '{action}')");
        assert_eq!(self.count(&sql, &[id]).await, 1);
        match action {
            "retry" => self.oracle.restarted(id, self.clock.now()),
            "dead_letter" => self.oracle.end(id, State::Dead),
            _ => self.oracle.end(id, State::Skipped),
        }
        self.operations += 1;
    }

    pub(super) async fn resume_all(&mut self) {
        let parked = self.parked();
        let sql = "select pubsub.resume_messages('s', $1, 'retry')";
        assert_eq!(
            usize::try_from(self.count(sql, &parked).await).unwrap(),
            parked.len()
        );
        for id in parked {
            self.oracle.restarted(id, self.clock.now());
        }
    }

    async fn count(&mut self, sql: &str, ids: &[Uuid]) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .bind(ids)
            .fetch_one(&mut self.admin)
            .await
            .unwrap()
    }

    /// Seek to a time, the end or a snapshot, or replay the messages of a key.
    pub(super) async fn go_elsewhere(&mut self) {
        self.reconcile().await;
        let Some(target) = self
            .recent
            .iter()
            .copied()
            .collect::<Vec<_>>()
            .choose(&mut self.random)
            .copied()
        else {
            return;
        };
        let key = self.random.random_range(0..KEYS);
        let from = millisecond(target);
        let after = |id: Uuid| millisecond(id) >= from;
        let snapshot = self.snapshot.take();
        let admin = &mut self.admin;
        let now = self.clock.now();
        match (self.random.random_range(0..10), snapshot) {
            (0..4, snapshot) => {
                let live = seek(admin, SEEK, target, key).await;
                let wanted = |id, _: &_| {
                    if after(id) {
                        Wanted::Back
                    } else {
                        Wanted::Settled
                    }
                };
                self.oracle.sought(wanted, &live, now);
                self.snapshot = snapshot;
            }
            (4..7, snapshot) => {
                let live = seek(admin, REPLAY, target, key).await;
                self.oracle.sought(
                    |id, entry| match entry.key == Some(key) && after(id) {
                        true => Wanted::Back,
                        false => Wanted::AsItIs,
                    },
                    &live,
                    now,
                );
                self.snapshot = snapshot;
            }
            (7, snapshot) => {
                let live = seek(admin, SEEK_END, target, key).await;
                self.oracle.sought(|_, _| Wanted::Settled, &live, now);
                self.snapshot = snapshot;
            }
            (_, Some((settled, _))) => {
                let live = seek(admin, SEEK_SNAPSHOT, target, key).await;
                let wanted = |id, _: &_| match settled.contains(&id) {
                    true => Wanted::Settled,
                    false => Wanted::Back,
                };
                self.oracle.sought(wanted, &live, now);
                super::execute(admin, "select pubsub.delete_snapshot('n')").await;
            }
            (_, None) => {
                super::execute(admin, "select pubsub.create_snapshot('n', 's')").await;
                let entries = self.oracle.entries.keys();
                let settled = entries.filter(|id| !self.oracle.live.contains(id)).copied();
                // a late publisher's are not settled, and may be older than all of them
                let late = self
                    .late
                    .iter()
                    .flat_map(|(late, _)| late)
                    .map(|(id, _)| *id);
                let live = self.oracle.live.first().copied();
                let first = late.chain(live).chain([target]).min().unwrap_or(target);
                self.snapshot = Some((settled.collect(), first));
            }
        }
        self.operations += 1;
    }
}
