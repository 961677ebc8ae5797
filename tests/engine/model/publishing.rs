//! Publishers: in one call or late, rolled back, once under a key.

use rand::RngExt;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use super::calls::{RequestKey, publish};
use super::modes::Manner;
use super::oracle::{Entry, State};
use super::{KEYS, WINDOW_OF_MESSAGES, World};
use crate::engine::execute;

/// How many idempotency keys there are.
const ONCE: usize = 12;

/// A message to publish; times are seconds from now.
#[derive(Clone)]
pub(super) struct New {
    pub(super) key: Option<usize>,
    pub(super) priority: i16,
    pub(super) delay: Option<f64>,
    pub(super) ttl: Option<f64>,
    /// Its idempotency key.
    pub(super) once: Option<usize>,
}

impl New {
    pub(super) fn plain(key: usize, priority: i16) -> Self {
        Self {
            key: Some(key),
            ..Self::bare(priority)
        }
    }

    /// Its payload, and perhaps a priority.
    fn bare(priority: i16) -> Self {
        Self {
            key: None,
            priority,
            delay: None,
            ttl: None,
            once: None,
        }
    }

    pub(super) fn is_bare(&self) -> bool {
        self.key.is_none()
            && self.priority == 0
            && self.delay.is_none()
            && self.ttl.is_none()
            && self.once.is_none()
    }
}

impl World {
    /// The first key has most messages, so that others need their share.
    fn new_message(&mut self) -> New {
        let has_priorities = self.oracle.mode.manner == Manner::Priorities;
        let random = &mut self.random;
        let delay = random
            .random_bool(0.1)
            .then(|| random.random_range(5.0..50.0));
        let key = if random.random_bool(0.5) {
            0
        } else {
            random.random_range(0..KEYS)
        };
        New {
            key: random.random_bool(0.8).then_some(key),
            priority: if has_priorities && random.random_bool(0.3) {
                random.random_range(0..10)
            } else {
                0
            },
            delay,
            ttl: random
                .random_bool(0.1)
                .then(|| delay.unwrap_or(0.0) + random.random_range(10.0..200.0)),
            once: None,
        }
    }

    fn new_messages(&mut self) -> Vec<New> {
        let count = self.random.random_range(1..12);
        (0..count).map(|_| self.new_message()).collect()
    }

    pub(super) async fn publish(&mut self) {
        if self.random.random_bool(0.3) {
            let count = self.random.random_range(2..60);
            // whatever consumers ask for
            let size = self.random.random_range(1..40);
            let sql = format!(
                "update pubsub_data.run_sizes set run_size = {size} where ctid in ( \
                     select ctid from pubsub_data.run_sizes for update skip locked)"
            );
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut self.admin)
                .await
                .unwrap();
            let messages = (0..count).map(|_| New::bare(0)).collect();
            self.publish_these(messages, None).await;
            return;
        }
        let mut messages = self.new_messages();
        let mut request = None;
        match self.random.random_range(0..10) {
            0 => request = self.request_key(&mut messages),
            1 | 2 => {
                for message in &mut messages {
                    let once = self.random.random_range(0..2 * ONCE);
                    let is_sure = self.used.message(once, self.clock.now()).is_ok();
                    message.once = (once < ONCE && is_sure).then_some(once);
                }
            }
            _ => {}
        }
        self.publish_these(messages, request).await;
    }

    /// A free key, or one of an earlier request, which comes again.
    fn request_key(&mut self, messages: &mut Vec<New>) -> Option<RequestKey> {
        let key = self.random.random_range(0..ONCE);
        let first = self.used.request(key, self.clock.now()).ok()?;
        let Some(first) = first else {
            self.fingerprints += 1;
            return Some((key, self.fingerprints));
        };
        messages.resize(first.ids.len(), New::plain(0, 0));
        // or another request comes under it
        let same = self.random.random_bool(0.7);
        Some((key, if same { first.fingerprint } else { 0 }))
    }

    async fn publish_these(&mut self, messages: Vec<New>, request: Option<RequestKey>) {
        let now = self.clock.now();
        let mut transaction = self.admin.begin().await.unwrap();
        let answer = publish(&mut transaction, &messages, request).await;
        let known = request.map(|(key, _)| self.used.request(key, now).ok().unwrap());
        if let (Some((_, fingerprint)), Some(Some(first))) = (request, known) {
            if fingerprint == first.fingerprint {
                let again: Vec<_> = first.ids.iter().map(|id| (*id, true)).collect();
                assert_eq!(answer.unwrap(), again);
            } else {
                let error = answer.unwrap_err();
                let error = error.as_database_error().unwrap();
                assert_eq!(error.code().as_deref(), Some("PS422"), "{error}");
            }
            transaction.rollback().await.unwrap();
            self.operations += 1;
            return;
        }
        let answer = answer.unwrap();
        if self.random.random_bool(0.05) {
            transaction.rollback().await.unwrap();
            return;
        }
        transaction.commit().await.unwrap();
        assert_eq!(answer.len(), messages.len());
        let ids: Vec<Uuid> = answer.iter().map(|(id, _)| *id).collect();
        let mut stored = Vec::new();
        for ((id, is_duplicate), message) in answer.into_iter().zip(messages) {
            if let Some(key) = message.once {
                let first = self.used.message(key, now).ok().unwrap();
                assert_eq!(is_duplicate, first.is_some(), "under key {key}");
                match first {
                    Some(first) => assert_eq!(first, id, "under key {key}"),
                    None => self.used.took_message(key, id, now),
                }
            } else {
                assert!(!is_duplicate);
            }
            if !is_duplicate {
                stored.push((id, message));
            }
        }
        if let Some((key, fingerprint)) = request {
            self.used.took_request(key, ids, fingerprint, now);
        }
        self.store(stored, true, now);
    }

    /// Begin a publish that is committed later, or end it.
    pub(super) async fn publish_late(&mut self) {
        let Some((stored, begun)) = self.late.take() else {
            let messages = self.new_messages();
            let now = self.clock.now();
            execute(&mut self.slow, "begin").await;
            let answer = publish(&mut self.slow, &messages, None).await.unwrap();
            let ids = answer.into_iter().map(|(id, _)| id);
            self.late = Some((ids.zip(messages).collect(), now));
            return;
        };
        if self.random.random_bool(0.1) {
            execute(&mut self.slow, "rollback").await;
        } else {
            execute(&mut self.slow, "commit").await;
            self.store(stored, false, begun);
        }
    }

    fn store(&mut self, messages: Vec<(Uuid, New)>, fresh: bool, now: f64) {
        self.operations += messages.len();
        for (id, new) in messages {
            let deliver_at = new.delay.map_or(0.0, |delay| now + delay);
            let expires = new.ttl.map(|ttl| now + ttl);
            let entry = Entry {
                state: State::Ready { due: deliver_at },
                attempts: 0,
                key: new.key,
                priority: new.priority,
                expires,
                deliver_at,
                message_expires: expires,
                // what waits or expires is looked at at its time, and locked then
                fresh: fresh && new.delay.is_none() && new.ttl.is_none(),
                old_lease: None,
                seen: Vec::new(),
            };
            self.oracle.published(id, entry);
            self.recent.push_back(id);
        }
        while self.recent.len() > WINDOW_OF_MESSAGES {
            self.recent.pop_front();
        }
    }

    /// A message of every key and priority: the first of each takes locks that an open transaction would
    /// keep.
    pub(super) async fn publish_one_of_each(&mut self) {
        let has_priorities = self.oracle.mode.manner == Manner::Priorities;
        let mut messages: Vec<New> = (0..KEYS).map(|key| New::plain(key, 0)).collect();
        if has_priorities {
            messages.extend((1..10).map(|priority| New::plain(0, priority)));
        }
        let mut keyless = New::plain(0, 0);
        keyless.key = None;
        messages.push(keyless);
        let now = self.clock.now();
        let answer = publish(&mut self.admin, &messages, None).await.unwrap();
        let ids = answer.into_iter().map(|(id, _)| id);
        self.store(ids.zip(messages).collect(), true, now);
    }
}
