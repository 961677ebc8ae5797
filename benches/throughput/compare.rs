//! What a consume costs in one state, beside what it costs in another: rounds are interleaved and
//! nothing else runs.

use std::time::Instant;

use crate::cluster::{Bench, Database};
use crate::crowd::{median, millis};
use crate::fill;
use crate::http::Client;
use crate::loads::Consumer;
use crate::open_loop;
use crate::report::{Row, Target};
use crate::server::Server;

/// Consumes a round.
const CONSUMES: u64 = 200;
/// Messages of a consume.
const BATCH: usize = 10;
/// Not measured, after the first one.
const WARM_UP: u64 = 20;

/// A database in some state, with subscription `main`, and a server that has seen nothing of it yet.
pub(crate) struct Side {
    pub(crate) database: Database,
    pub(crate) server: Server,
    consumer: Consumer,
}

/// Milliseconds of a consume.
struct Latency {
    first: f64,
    p50: f64,
    p99: f64,
}

impl Side {
    pub(crate) async fn start(bench: &Bench, database: Database) -> Self {
        let server = Server::start(bench, &database).await;
        let consumer = Consumer::new(Client::connect(server.address).await, "main", BATCH);
        Self {
            database,
            server,
            consumer,
        }
    }

    /// A database with an empty topic and subscription `main`.
    pub(crate) async fn prepare(bench: &Bench) -> Database {
        let database = bench.cluster.database().await;
        fill::create(&database, "main").await;
        database
    }

    pub(crate) async fn end(self, bench: &Bench) {
        drop(self.consumer);
        self.server.stop().await;
        bench.cluster.drop(self.database).await;
    }

    /// The milliseconds of one consume; what it holds is acked afterwards.
    async fn consume(&mut self) -> f64 {
        let started = Instant::now();
        self.consumer.consume().await;
        let took = millis(started);
        let messages = self.consumer.ack().await;
        assert_eq!(messages, BATCH, "a consume was not full");
        took
    }

    /// Median and 99th percentile of a round.
    async fn round(&mut self) -> (f64, f64) {
        for _ in 0..WARM_UP {
            self.consume().await;
        }
        let mut histogram = open_loop::histogram();
        for _ in 0..CONSUMES {
            let micros = self.consume().await * 1000.0;
            histogram.record(micros as u64).unwrap();
        }
        (
            open_loop::millis(&histogram, 0.5),
            open_loop::millis(&histogram, 0.99),
        )
    }
}

/// The row of a grown state, beside a plain one.
pub(crate) async fn compare(
    bench: &Bench,
    scenario: &str,
    plain: &mut Side,
    grown: &mut Side,
) -> Row {
    let needed = u64::from(bench.flags.rounds) * (CONSUMES + WARM_UP) + 1;
    for side in [&*plain, &*grown] {
        fill::publish(&side.database, "main", needed * BATCH as u64).await;
        side.database.execute("checkpoint").await;
    }
    let sides = [plain, grown];
    let first = [sides[0].consume().await, sides[1].consume().await];
    let mut rounds = [Vec::new(), Vec::new()];
    for round in 0..bench.flags.rounds {
        // by turns the first
        for turn in 0..2 {
            let at = ((round + turn) % 2) as usize;
            rounds[at].push(sides[at].round().await);
        }
    }
    let latency = |at: usize| Latency {
        first: first[at],
        p50: median(rounds[at].iter().map(|round| round.0)),
        p99: median(rounds[at].iter().map(|round| round.1)),
    };
    let (plain, grown) = (latency(0), latency(1));
    let ratio = grown.p50 / plain.p50;
    Row {
        of_reference: Some(ratio),
        target: Some(Target::at_most(ratio, 1.5, "x")),
        note: format!(
            "p99 {:.2} ms, first after a restart {:.1} ms; reference: p50 {:.2}, p99 {:.2}, \
             first {:.1}",
            grown.p99, grown.first, plain.p50, plain.p99, plain.first
        ),
        ..Row::new(scenario, grown.p50, "ms p50")
    }
}
