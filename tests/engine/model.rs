//! A seeded random run of publishers and consumers, held against a small model in memory: nothing is
//! lost, nothing is held by two, attempts are counted, spent messages are dead-lettered once.

use std::collections::BTreeMap;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{advance, advance_hints, consume, database, forget_hints, publish, settle};

const CONSUMERS: usize = 3;
const OPERATIONS: usize = 600;
const SUBSCRIPTIONS: [&str; 2] = ["s", "even"];
const MAX_ATTEMPTS: i32 = 3;
const ACK_DEADLINE: f64 = 60.0;
/// The model's clock and the database's differ by what a statement takes.
const SLACK: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready { due: f64 },
    Leased { lease: i64, until: f64 },
    Dead,
    Acked,
}

#[derive(Debug)]
struct Entry {
    state: State,
    attempts: i32,
}

struct Model {
    /// Messages of each subscription.
    entries: [BTreeMap<Uuid, Entry>; 2],
    started: Instant,
    advanced: f64,
}

impl Model {
    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64() + self.advanced
    }

    fn held(&self, subscription: usize) -> Vec<(Uuid, i64)> {
        let held = self.entries[subscription]
            .iter()
            .filter_map(|(id, entry)| match entry.state {
                State::Leased { lease, until } if until > self.now() + SLACK => Some((*id, lease)),
                _ => None,
            });
        held.collect()
    }

    fn in_state(&self, subscription: usize, state: State) -> Vec<Uuid> {
        let entries = self.entries[subscription].iter();
        entries
            .filter(|(_, entry)| entry.state == state)
            .map(|(id, _)| *id)
            .collect()
    }

    /// A message that can surely be consumed now.
    fn surely_ready(&self, subscription: usize) -> bool {
        self.entries[subscription]
            .values()
            .any(|entry| match entry.state {
                State::Ready { due } => due < self.now() - SLACK,
                State::Leased { until, .. } => {
                    until < self.now() - SLACK && entry.attempts < MAX_ATTEMPTS
                }
                _ => false,
            })
    }

    fn delivered(&mut self, subscription: usize, deliveries: &[super::Delivery]) {
        let now = self.now();
        for delivery in deliveries {
            let entry = self.entries[subscription].get_mut(&delivery.message_id);
            let entry = entry.expect("a message of this subscription");
            match entry.state {
                State::Ready { due } => assert!(due <= now + SLACK, "delivered before its time"),
                State::Leased { until, .. } => {
                    assert!(until <= now + SLACK, "handed to two consumers");
                    assert!(
                        entry.attempts < MAX_ATTEMPTS,
                        "delivered after its last attempt"
                    );
                }
                state => panic!("delivered although {state:?}"),
            }
            entry.attempts += 1;
            assert_eq!(delivery.attempts, entry.attempts);
            entry.state = State::Leased {
                lease: delivery.lease,
                until: now + ACK_DEADLINE,
            };
        }
    }

    fn nacked(&mut self, subscription: usize, id: Uuid) {
        let now = self.now();
        let entry = self.entries[subscription].get_mut(&id).unwrap();
        entry.state = if entry.attempts >= MAX_ATTEMPTS {
            State::Dead
        } else {
            let doubled = 10.0 * f64::from(1 << (entry.attempts - 1));
            State::Ready {
                due: now + doubled.min(40.0),
            }
        };
    }
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (database, mut admin) = database().await;
    sqlx::query("select pubsub.create_subscription('even', 't', '{\"even\": [true]}', 3, 10, 40)")
        .execute(&mut admin)
        .await
        .unwrap();
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        consumers.push(database.connect().await);
    }
    let mut model = Model {
        entries: [BTreeMap::new(), BTreeMap::new()],
        started: Instant::now(),
        advanced: 0.0,
    };

    for _ in 0..OPERATIONS {
        let subscription = random.random_range(0..2);
        let consumer = random.random_range(0..CONSUMERS);
        let connection = &mut consumers[consumer];
        step(
            &mut random,
            &mut model,
            subscription,
            connection,
            &mut admin,
        )
        .await;
        if random.random_bool(0.15) {
            let seconds = random.random_range(1.0..45.0);
            advance(&mut admin, seconds).await;
            for connection in &mut consumers {
                advance_hints(connection, seconds).await;
            }
            model.advanced += seconds;
        }
    }
    drain(&mut model, &mut consumers, &mut admin).await;
    check_the_books(&model, &mut admin).await;
}

async fn step(
    random: &mut StdRng,
    model: &mut Model,
    subscription: usize,
    connection: &mut PgConnection,
    admin: &mut PgConnection,
) {
    let name = SUBSCRIPTIONS[subscription];
    match random.random_range(0..100) {
        0..20 => {
            let evens: Vec<bool> = (0..random.random_range(1..6))
                .map(|_| random.random_bool(0.5))
                .collect();
            let payloads: Vec<_> = evens.iter().map(|even| json!({"even": even})).collect();
            if random.random_bool(0.1) {
                let mut transaction = admin.begin().await.unwrap();
                publish(&mut transaction, &payloads).await;
                transaction.rollback().await.unwrap();
                return;
            }
            for (id, even) in publish(admin, &payloads).await.into_iter().zip(evens) {
                let due = model.now();
                let entry = || Entry {
                    state: State::Ready { due },
                    attempts: 0,
                };
                model.entries[0].insert(id, entry());
                if even {
                    model.entries[1].insert(id, entry());
                }
            }
        }
        20..55 => {
            let limit = random.random_range(1..8);
            if random.random_bool(0.1) {
                let mut transaction = connection.begin().await.unwrap();
                consume(&mut transaction, name, limit).await;
                transaction.rollback().await.unwrap();
                return;
            }
            let deliveries = consume(connection, name, limit).await;
            if deliveries.is_empty() {
                // one claim processes a bounded number of wake-ups
                let found = consume(connection, name, 7).await;
                assert!(
                    !found.is_empty() || !model.surely_ready(subscription),
                    "not delivered"
                );
                model.delivered(subscription, &found);
            } else {
                model.delivered(subscription, &deliveries);
            }
        }
        55..75 => {
            let held = model.held(subscription);
            if let Some((id, lease)) = held.choose(random).copied() {
                assert_eq!(
                    settle(connection, "ack_messages", name, &[id], Some(&[lease - 1])).await,
                    0
                );
                let leases = [lease];
                let leases = random.random_bool(0.5).then_some(leases.as_slice());
                assert_eq!(
                    settle(connection, "ack_messages", name, &[id], leases).await,
                    1
                );
                model.entries[subscription].get_mut(&id).unwrap().state = State::Acked;
            }
        }
        75..92 => {
            let held = model.held(subscription);
            if let Some((id, lease)) = held.choose(random).copied() {
                assert_eq!(
                    settle(connection, "nack_messages", name, &[id], Some(&[lease])).await,
                    1
                );
                model.nacked(subscription, id);
            }
        }
        92..96 => {
            let dead = model.in_state(subscription, State::Dead);
            if let Some(id) = dead.choose(random) {
                let sql = "select pubsub.reprocess_dlq_messages($1, $2)";
                let moved: i64 = sqlx::query_scalar(sql)
                    .bind(name)
                    .bind([*id])
                    .fetch_one(&mut *connection)
                    .await
                    .unwrap();
                assert_eq!(moved, 1);
                let due = model.now();
                let entry = model.entries[subscription].get_mut(id).unwrap();
                *entry = Entry {
                    state: State::Ready { due },
                    attempts: 0,
                };
            }
        }
        _ => forget_hints(connection).await,
    }
    notice_the_dead(model, admin).await;
}

/// The engine dead-letters spent leases when it comes across them; the model follows, and checks
/// that their time had come.
async fn notice_the_dead(model: &mut Model, admin: &mut PgConnection) {
    let sql = "select s.subscription_id, l.message_id from pubsub_data.dead_letters l \
        join pubsub_data.subscriptions s using (topic_key, subscription_key)";
    let dead: Vec<(String, Uuid)> = sqlx::query_as(sql).fetch_all(admin).await.unwrap();
    let now = model.now();
    for (name, id) in dead {
        let subscription = usize::from(name == SUBSCRIPTIONS[1]);
        let entry = model.entries[subscription].get_mut(&id).unwrap();
        match entry.state {
            State::Dead => {}
            State::Leased { until, .. } => {
                assert!(
                    until <= now + SLACK && entry.attempts == MAX_ATTEMPTS,
                    "dead too early"
                );
                entry.state = State::Dead;
            }
            state => panic!("dead-lettered although {state:?}"),
        }
    }
}

/// Consume and ack until every message is settled.
async fn drain(model: &mut Model, consumers: &mut [PgConnection], admin: &mut PgConnection) {
    for _ in 0..200 {
        advance(admin, 61.0).await;
        model.advanced += 61.0;
        for connection in consumers.iter_mut() {
            advance_hints(connection, 61.0).await;
        }
        for (subscription, name) in SUBSCRIPTIONS.iter().enumerate() {
            let connection = &mut consumers[subscription];
            let deliveries = consume(connection, name, 100).await;
            model.delivered(subscription, &deliveries);
            let ids: Vec<_> = deliveries
                .iter()
                .map(|delivery| delivery.message_id)
                .collect();
            settle(connection, "ack_messages", name, &ids, None).await;
            for id in ids {
                model.entries[subscription].get_mut(&id).unwrap().state = State::Acked;
            }
        }
        notice_the_dead(model, admin).await;
        let open = model.entries.iter().flat_map(BTreeMap::values);
        if open
            .into_iter()
            .all(|entry| matches!(entry.state, State::Acked | State::Dead))
        {
            return;
        }
    }
    panic!("messages were never delivered: {:?}", model.entries);
}

async fn check_the_books(model: &Model, admin: &mut PgConnection) {
    for (subscription, name) in SUBSCRIPTIONS.iter().enumerate() {
        let counts: (i64, i64, i64, i64, i64) = sqlx::query_as(
            "select available, delivered, scheduled, acked, dlq from pubsub.subscription_metrics($1)",
        )
        .bind(name)
        .fetch_one(&mut *admin)
        .await
        .unwrap();
        let acked = model.in_state(subscription, State::Acked).len();
        let dead = model.in_state(subscription, State::Dead).len();
        let expected = (
            0,
            0,
            0,
            i64::try_from(acked).unwrap(),
            i64::try_from(dead).unwrap(),
        );
        assert_eq!(counts, expected, "{name}");
        let off: i64 = sqlx::query_scalar("select pubsub.recount_messages($1)")
            .bind(name)
            .fetch_one(&mut *admin)
            .await
            .unwrap();
        assert_eq!(off, 0, "{name} counts its messages");
    }
}

macro_rules! seeds {
    ($($name:ident = $seed:literal),+) => {$(
        #[tokio::test]
        async fn $name() {
            println!("seed {}", $seed);
            run($seed).await;
        }
    )+};
}

seeds! {
    the_engine_agrees_with_its_model_seed_1 = 1,
    the_engine_agrees_with_its_model_seed_2 = 2,
    the_engine_agrees_with_its_model_seed_3 = 3,
    the_engine_agrees_with_its_model_seed_4 = 4,
    the_engine_agrees_with_its_model_seed_5 = 5,
    the_engine_agrees_with_its_model_seed_6 = 6
}
