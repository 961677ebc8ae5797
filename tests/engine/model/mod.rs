//! Seeded random runs of publishers, consumers and operators, held against an oracle in memory. Each seed
//! tries one way of handing messages out (`modes`): plain, by priority, by key with each policy for
//! spent messages, fair, limited. In all of them messages wait, expire, are retried, rejected, extended,
//! released, sought back and replayed, deleted, changed and purged, publishers commit late, use idempotency
//! keys or roll back, claims and takes stay open while others claim, and roll back. Nothing is lost, nothing is
//! held by two, nothing comes before its turn, what was taken never comes again.

mod calls;
mod claiming;
mod keys;
mod mending;
mod modes;
mod operating;
mod oracle;
mod pausing;
mod publishing;
mod rules;
mod settling;

use std::collections::{BTreeSet, VecDeque};

use keys::Keys;
use modes::{MAX_IN_FLIGHT_PER_CONSUMER, Mode};
use oracle::{BACKOFF, Clock, Entry, MAX_ATTEMPTS, Oracle, State};
use publishing::New;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rules::{Tally, Terms};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{advance, advance_hints, execute, forget_hints};
use crate::support::database::TestDatabase;

const CONSUMERS: usize = 3;
/// Messages published, delivered and settled, and other steps, of a seed.
const OPERATIONS: usize = 5_000;
/// More than this are consumed before new ones are published.
const MAX_LIVE: usize = 150;
/// So many of the last messages published are sought back or redriven.
const WINDOW_OF_MESSAGES: usize = 60;
const KEYS: usize = 4;
const ACK_DEADLINE: f64 = 60.0;

/// A claim or take that is neither committed nor rolled back.
struct Open {
    /// What it changed: the entries as they were.
    before: Vec<(Uuid, Entry)>,
    takes: bool,
}

struct World {
    random: StdRng,
    clock: Clock,
    oracle: Oracle,
    tally: Tally,
    /// Idempotency keys.
    used: Keys,
    fingerprints: u64,
    /// The last messages published.
    recent: VecDeque<Uuid>,
    consumers: Vec<PgConnection>,
    open: [Option<Open>; CONSUMERS],
    /// How far the last claim has read, with the rewinds that it saw.
    head: Option<(Uuid, i32)>,
    slow: PgConnection,
    /// What the open transaction of the slow publisher has, and since when.
    late: Option<(Vec<(Uuid, New)>, f64)>,
    /// What was settled at the last snapshot, of which id is its first that was not.
    snapshot: Option<(BTreeSet<Uuid>, Uuid)>,
    admin: PgConnection,
    operations: usize,
    advances: usize,
    /// Dropped with the rest.
    _database: TestDatabase,
}

async fn world(seed: u64) -> World {
    let mode = Mode::of(seed);
    println!("seed {seed}: {mode:?}");
    let database = TestDatabase::create().await;
    let mut admin = database.connect().await;
    let (shortest, longest) = BACKOFF;
    let setup = format!(
        "select pubsub.create_topic('t'); \
         select pubsub.create_subscription('s', 't', json_build_object( \
             'max_delivery_attempts', {MAX_ATTEMPTS}, 'backoff_min_seconds', {shortest}, \
             'backoff_max_seconds', {longest}{}))",
        mode.settings()
    );
    sqlx::raw_sql(AssertSqlSafe(setup))
        .execute(&mut admin)
        .await
        .unwrap();
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        let mut consumer = database.connect().await;
        // what another one has locked is left alone
        execute(&mut consumer, "set lock_timeout = '10ms'").await;
        consumers.push(consumer);
    }
    World {
        random: StdRng::seed_from_u64(seed),
        clock: Clock::start(),
        oracle: Oracle::new(mode),
        tally: Tally::default(),
        used: Keys::default(),
        fingerprints: 0,
        recent: VecDeque::new(),
        consumers,
        open: [const { None }; CONSUMERS],
        head: None,
        slow: database.connect().await,
        late: None,
        snapshot: None,
        admin,
        operations: 0,
        advances: 0,
        _database: database,
    }
}

async fn run(seed: u64) {
    let operations = match std::env::var("FASTPUBSUB_TEST_OPERATIONS") {
        Ok(operations) => operations.parse().unwrap(),
        Err(_) => OPERATIONS,
    };
    let mut world = world(seed).await;
    world.publish_one_of_each().await;
    while world.operations < operations {
        world.step().await;
    }
    world.drain().await;
    world.check_the_books().await;
}

impl World {
    async fn step(&mut self) {
        let crowded = self.oracle.live.len() > MAX_LIVE;
        match self.random.random_range(0..1000) {
            0..130 if !crowded => self.publish().await,
            130..160 => self.publish_late().await,
            0..530 => self.claim().await,
            530..885 => self.settle().await,
            885..900 => self.mend().await,
            900..915 => self.redrive().await,
            915..930 => self.resume().await,
            930..940 => self.go_elsewhere().await,
            940..955 => {
                let consumer = self.random.random_range(0..CONSUMERS);
                self.end_claim(consumer).await;
                forget_hints(&mut self.consumers[consumer]).await;
                self.operations += 1;
            }
            955..960 => self.pause().await,
            _ => {
                // counters tell tenths of a second apart
                let seconds = f64::from(self.random.random_range(1..30));
                self.advance(seconds).await;
            }
        }
    }

    async fn advance(&mut self, seconds: f64) {
        // rows of open transactions could not be moved
        self.end_claims().await;
        if self.late.is_some() {
            self.publish_late().await;
        }
        advance(&mut self.admin, seconds).await;
        for connection in &mut self.consumers {
            advance_hints(connection, seconds).await;
        }
        let first = self.recent.iter().min().copied();
        let unsettled = self.snapshot.as_ref().map(|(_, first)| *first);
        let first = [first, unsettled, self.oracle.live.first().copied()];
        let first = first.into_iter().flatten().min().unwrap_or_default();
        // a seek goes to a millisecond, and others of it may be older than the last messages
        let first = Uuid::from_u128(first.as_u128() >> 80 << 80);
        calls::advance_messages(&mut self.admin, first, seconds).await;
        self.clock.advanced += seconds;
        self.operations += 1;
        self.advances += 1;
        // as the server does; and moving time rewrites all rows, which no real run does
        if self.advances.is_multiple_of(10) {
            self.check_the_counts().await;
            execute(
                &mut self.admin,
                "select pubsub.fold_counters(10); select pubsub.cleanup_handed_out()",
            )
            .await;
            for table in ["deliveries", "wakeups", "counters", "idempotency_keys"] {
                let vacuum = format!("vacuum pubsub_data.{table}");
                sqlx::raw_sql(AssertSqlSafe(vacuum))
                    .execute(&mut self.admin)
                    .await
                    .unwrap();
            }
        }
    }

    /// Consume and ack until every message is settled, expired or put away.
    async fn drain(&mut self) {
        for turn in 0..400 {
            self.advance(61.0).await;
            self.reconcile().await;
            self.resume_all().await;
            self.claim_and_ack(turn % CONSUMERS).await;
            if self.oracle.live.is_empty() {
                return;
            }
        }
        for (id, entry) in self.oracle.live_entries() {
            println!("{id}: {entry:?}");
        }
        panic!("messages were never delivered");
    }

    async fn claim_and_ack(&mut self, consumer: usize) {
        let most = if self.oracle.mode.limited {
            i32::try_from(MAX_IN_FLIGHT_PER_CONSUMER).unwrap()
        } else {
            100
        };
        let terms = Terms {
            takes: self.random.random_bool(0.3),
            ..Terms::default()
        };
        let claimed = self.claim_for(&[consumer], &[most], terms, false).await;
        if terms.takes {
            return;
        }
        let items: Vec<_> = claimed
            .iter()
            .map(|one| (one.message_id, one.lease, "ack", None))
            .collect();
        let statuses = calls::settle(&mut self.admin, &items).await.unwrap();
        assert!(statuses.iter().all(|status| status == "acked"));
        for delivery in claimed {
            self.oracle.acked(delivery.message_id);
        }
    }

    /// What the counters say is what the messages say.
    async fn check_the_counts(&mut self) {
        let off: i64 = sqlx::query_scalar("select pubsub.recount_messages('s')")
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        assert_eq!(off, 0, "the counters are off");
    }

    async fn check_the_books(&mut self) {
        let counts: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
            "select available, delivered, scheduled, acked, dlq, expired \
             from pubsub.subscription_metrics('s')",
        )
        .fetch_one(&mut self.admin)
        .await
        .unwrap();
        let entries = self.oracle.entries.values();
        let dead = entries.filter(|entry| entry.state == State::Dead).count();
        let dead = i64::try_from(dead).unwrap();
        let expected = (0, 0, 0, self.oracle.acks, dead, self.oracle.expired);
        assert_eq!(counts, expected);
        self.check_the_counts().await;
        self.oracle.check_shares(&self.tally);
    }
}

macro_rules! seeds {
    ($($(#[$attribute:meta])? $name:ident = $seed:literal),+) => {$(
        $(#[$attribute])?
        #[tokio::test]
        async fn $name() {
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
    the_engine_agrees_with_its_model_seed_6 = 6,
    the_engine_agrees_with_its_model_seed_7 = 7,
    the_engine_agrees_with_its_model_seed_8 = 8,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_9 = 9,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_10 = 10,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_11 = 11,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_12 = 12,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_13 = 13,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_14 = 14,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_15 = 15,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_16 = 16,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_17 = 17,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_18 = 18,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_19 = 19,
    #[ignore = "make test-full"]
    the_engine_agrees_with_its_model_seed_20 = 20
}

/// Another one every time: what it finds, FASTPUBSUB_TEST_SEED finds again.
#[tokio::test]
async fn the_engine_agrees_with_its_model_at_a_seed_of_the_clock() {
    let seed = match std::env::var("FASTPUBSUB_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    };
    run(seed).await;
}
