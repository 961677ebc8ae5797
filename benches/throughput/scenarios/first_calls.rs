//! What the first calls of a new connection take over SQL, in a database that others use: everything that
//! Postgres keeps for each connection is read and planned anew.

use std::time::Instant;

use crate::cluster::{Bench, Database};
use crate::crowd::{median, millis};
use crate::fill;
use crate::report::{Row, Target};
use crate::sql::{Payloads, Queue};

/// New connections for each kind of call.
const CONNECTIONS: usize = 20;
/// Messages of a claim, as where nobody says how many.
const CLAIM: usize = 10;
const BACKLOG: u64 = 10_000;
/// Calls of an older connection before.
const WARM_UP: usize = 100;
/// Milliseconds, at most.
const LIMIT: f64 = 4.0;
/// Of a topic, its subscription and a queue.
const NAME: &str = "main";

/// Milliseconds of each connection.
#[derive(Default)]
struct FirstCalls {
    publishes: Vec<f64>,
    claims: Vec<f64>,
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, NAME).await;
    fill::publish(&database, NAME, BACKLOG).await;
    warm_up(&database, Queue::Fastpubsub).await;
    let pgmq = bench.pgmq().await;
    if let Some(pgmq) = pgmq {
        pgmq.install(&database).await;
        fill::create_queue(&database, NAME).await;
        fill::send(&database, NAME, BACKLOG).await;
        warm_up(&database, Queue::Pgmq).await;
    }
    fill::settle(&database).await;

    let (mut ours, mut theirs) = (FirstCalls::default(), FirstCalls::default());
    for _ in 0..CONNECTIONS {
        ours.add(&database, Queue::Fastpubsub).await;
        if pgmq.is_some() {
            theirs.add(&database, Queue::Pgmq).await;
        }
    }
    bench.cluster.drop(database).await;
    vec![
        row("publish", &ours.publishes, &theirs.publishes),
        row("claim", &ours.claims, &theirs.claims),
    ]
}

async fn warm_up(database: &Database, queue: Queue) {
    let mut connection = database.connect().await;
    let payloads = Payloads::new(1);
    for _ in 0..WARM_UP {
        payloads
            .publish(&mut connection, queue.publish(1), NAME)
            .await;
        let messages = queue.consume(&mut connection, NAME, CLAIM).await;
        queue.ack(&mut connection, NAME, &messages).await;
    }
}

impl FirstCalls {
    /// One more of each, each of a connection of its own.
    async fn add(&mut self, database: &Database, queue: Queue) {
        let payloads = Payloads::new(1);
        let mut connection = database.connect().await;
        let started = Instant::now();
        payloads
            .publish(&mut connection, queue.publish(1), NAME)
            .await;
        self.publishes.push(millis(started));

        let mut connection = database.connect().await;
        let started = Instant::now();
        let messages = queue.consume(&mut connection, NAME, CLAIM).await;
        self.claims.push(millis(started));
        assert_eq!(messages.len(), CLAIM, "a claim was not full");
    }
}

fn row(call: &str, ours: &[f64], theirs: &[f64]) -> Row {
    let took = median(ours.iter().copied());
    let reference = (!theirs.is_empty()).then(|| median(theirs.iter().copied()));
    let most = ours.iter().copied().fold(0.0, f64::max);
    let beside = reference.map(|reference| format!("; pgmq: {reference:.2} ms"));
    Row {
        of_reference: reference.map(|reference| took / reference),
        target: Some(Target::at_most(took, LIMIT, "ms")),
        note: format!(
            "of {CONNECTIONS} connections; at most {most:.2} ms{}",
            beside.unwrap_or_default()
        ),
        ..Row::new(
            format!("first {call} of a connection over SQL"),
            took,
            "ms p50",
        )
    }
}
