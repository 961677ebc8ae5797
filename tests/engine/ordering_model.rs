//! A seeded random run over an ordered subscription: late commits, claims that stay open, roll back or
//! race, acks, nacks and leases that run out, in any order. Each key is handed out in order, to one
//! consumer at a time, and all of it in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::ordering::{ORDERED, claim, ordered_database, publish_keys};
use super::{Delivery, advance, advance_hints, execute, forget_hints};

const CONSUMERS: usize = 3;
const OPERATIONS: usize = 500;
const KEYS: [char; 5] = ['a', 'b', 'c', 'd', '.'];
const ACK_DEADLINE: f64 = 600.0;
/// Some of these make a lease run out, and none comes near its end.
const STEP: f64 = 250.0;

#[derive(Debug)]
struct Flight {
    consumer: usize,
    lease: i64,
    until: f64,
}

#[derive(Default)]
struct Model {
    /// What is committed and not acked, with its key.
    live: BTreeMap<Uuid, char>,
    in_flight: BTreeMap<Uuid, Flight>,
    /// What the open claim of each consumer has.
    open: [Option<Vec<Delivery>>; CONSUMERS],
    /// What the open transaction of the slow publisher has.
    late: Option<Vec<(Uuid, char)>>,
    now: f64,
    handed_out: usize,
}

impl Model {
    /// A claim got this; `before` is what was live when it began.
    fn check(&self, consumer: usize, claimed: &[Delivery], before: &BTreeMap<Uuid, char>) {
        let got: BTreeSet<Uuid> = claimed.iter().map(|delivery| delivery.message_id).collect();
        assert!(claimed.is_sorted_by_key(|delivery| delivery.message_id));
        for delivery in claimed {
            let id = delivery.message_id;
            let key = self.live[&id];
            let flight = self.in_flight.get(&id);
            assert!(
                flight.is_none_or(|flight| flight.until < self.now),
                "{id} is held: {flight:?}"
            );
            if key == '.' {
                continue;
            }
            for (earlier, _) in before.range(..id).filter(|(_, of)| **of == key) {
                assert!(got.contains(earlier), "{key}: {id} goes before {earlier}");
            }
            for (other, flight) in &self.in_flight {
                assert!(
                    self.live[other] != key || flight.until < self.now,
                    "{key}: {id} goes to {consumer} while {other} is in flight: {flight:?}"
                );
            }
            for open in self.open.iter().flatten().flatten() {
                let other = open.message_id;
                assert!(
                    self.live[&other] != key,
                    "{key}: {id} goes while {other} is being claimed"
                );
            }
        }
    }

    fn leased(&mut self, consumer: usize, claimed: Vec<Delivery>) {
        self.handed_out += claimed.len();
        for delivery in claimed {
            let flight = Flight {
                consumer,
                lease: delivery.lease,
                until: self.now + ACK_DEADLINE,
            };
            self.in_flight.insert(delivery.message_id, flight);
        }
    }
}

struct Run {
    rng: StdRng,
    model: Model,
    publisher: PgConnection,
    slow: PgConnection,
    consumers: Vec<PgConnection>,
}

impl Run {
    fn keys(&mut self) -> Vec<char> {
        let count = self.rng.random_range(1..=8);
        (0..count)
            .map(|_| KEYS[self.rng.random_range(0..KEYS.len())])
            .collect()
    }

    async fn publish(&mut self) {
        let keys = self.keys();
        let ids = publish_keys(&mut self.publisher, &keys.iter().collect::<String>()).await;
        self.model.live.extend(ids.into_iter().zip(keys));
    }

    async fn publish_late(&mut self) {
        if let Some(late) = self.model.late.take() {
            execute(&mut self.slow, "commit").await;
            self.model.live.extend(late);
        } else {
            execute(&mut self.slow, "begin").await;
            let keys = self.keys();
            let ids = publish_keys(&mut self.slow, &keys.iter().collect::<String>()).await;
            self.model.late = Some(ids.into_iter().zip(keys).collect());
        }
    }

    async fn claim(&mut self, consumer: usize) {
        if let Some(claimed) = self.model.open[consumer].take() {
            let commits = self.rng.random_bool(0.7);
            let end = if commits { "commit" } else { "rollback" };
            execute(&mut self.consumers[consumer], end).await;
            if commits {
                self.model.leased(consumer, claimed);
            }
            return;
        }
        let stays_open = self.rng.random_bool(0.3);
        let limit = [1, 2, 5, 20][self.rng.random_range(0..4)];
        let before = self.model.live.clone();
        let connection = &mut self.consumers[consumer];
        if stays_open {
            execute(connection, "begin").await;
        }
        let claimed = claim(connection, limit).await;
        self.model.check(consumer, &claimed, &before);
        if stays_open {
            self.model.open[consumer] = Some(claimed);
        } else {
            self.model.leased(consumer, claimed);
        }
    }

    /// Ack or nack some of what a consumer had, also when its lease has run out.
    async fn settle(&mut self, consumer: usize, function: &str) {
        let share = self.rng.random_range(0.3..=1.0);
        let held = self.model.in_flight.iter();
        let settled: Vec<(Uuid, i64)> = held
            .filter(|(_, flight)| flight.consumer == consumer && self.rng.random_bool(share))
            .map(|(id, flight)| (*id, flight.lease))
            .collect();
        for (id, lease) in settled {
            let sql = format!("select pubsub.{function}($1, $2, $3)");
            let count: Result<i64, sqlx::Error> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .bind(ORDERED)
                .bind([id])
                .bind([lease])
                .fetch_one(&mut self.publisher)
                .await;
            match count {
                Ok(count) => assert_eq!(count, 1, "{id}"),
                // an open claim has looked at it; lock_timeout
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            self.model.in_flight.remove(&id);
            if function == "ack_messages" {
                self.model.live.remove(&id);
            }
        }
    }

    /// Let time pass. Rows of open transactions could not be moved.
    async fn wait(&mut self) {
        self.end_open().await;
        let seconds = STEP * f64::from(self.rng.random_range(1..=3));
        advance(&mut self.publisher, seconds).await;
        for consumer in &mut self.consumers {
            advance_hints(consumer, seconds).await;
        }
        self.model.now += seconds;
    }

    async fn end_open(&mut self) {
        for consumer in 0..CONSUMERS {
            if self.model.open[consumer].is_some() {
                self.claim(consumer).await;
            }
        }
        if self.model.late.is_some() {
            self.publish_late().await;
        }
    }

    async fn step(&mut self) {
        let consumer = self.rng.random_range(0..CONSUMERS);
        match self.rng.random_range(0..100) {
            0..20 => self.publish().await,
            20..30 => self.publish_late().await,
            30..65 => self.claim(consumer).await,
            65..83 => self.settle(consumer, "ack_messages").await,
            83..92 => self.settle(consumer, "nack_messages").await,
            92..97 => self.wait().await,
            _ if self.model.open[consumer].is_none() => {
                forget_hints(&mut self.consumers[consumer]).await;
            }
            _ => {}
        }
    }

    /// Everything comes in the end.
    async fn drain(&mut self) {
        self.end_open().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.model.live.is_empty() {
            assert!(
                Instant::now() < deadline,
                "never delivered: {:?}",
                self.model.live
            );
            for consumer in 0..CONSUMERS {
                let before = self.model.live.clone();
                let claimed = claim(&mut self.consumers[consumer], 20).await;
                self.model.check(consumer, &claimed, &before);
                self.model.leased(consumer, claimed);
                self.settle(consumer, "ack_messages").await;
            }
            if self.rng.random_bool(0.1) {
                self.wait().await;
            }
        }
    }
}

async fn run(seed: u64) {
    let (database, mut publisher) = ordered_database().await;
    execute(&mut publisher, "set lock_timeout = '20ms'").await;
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        consumers.push(database.connect().await);
    }
    let mut run = Run {
        rng: StdRng::seed_from_u64(seed),
        model: Model::default(),
        publisher,
        slow: database.connect().await,
        consumers,
    };
    for _ in 0..OPERATIONS {
        run.step().await;
    }
    run.drain().await;
    assert!(
        run.model.handed_out > OPERATIONS / 4,
        "{}",
        run.model.handed_out
    );
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
    keys_keep_their_order_seed_1 = 1,
    keys_keep_their_order_seed_2 = 2,
    keys_keep_their_order_seed_3 = 3,
    keys_keep_their_order_seed_4 = 4,
    keys_keep_their_order_seed_5 = 5
}
