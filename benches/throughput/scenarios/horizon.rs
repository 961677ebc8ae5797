//! A transaction that stays open keeps vacuum from removing any dead row. Consumers must not notice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sqlx::postgres::PgConnection;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Bench;
use crate::fill::{backlog, create, create_subscription_with};
use crate::http::Client;
use crate::loads::Consumer;
use crate::message::{attempts, times};
use crate::open_loop::{self, Outcome, Plan};
use crate::report::{Row, Target};
use crate::server::Server;

const RATE: u32 = 2000;
/// Each so manieth message also goes to subscription `leaving`, which acks its second delivery only.
const LEAVE_EVERY: u64 = 200;
const ACK_DEADLINE: Duration = Duration::from_secs(1);
/// Longest wait for what is left at the end.
const GRACE: Duration = Duration::from_secs(15);

struct Run {
    outcome: Outcome,
    /// Messages of both subscriptions that are left at the end.
    left: i64,
    /// Microseconds after the ack deadline at which messages came again.
    late: Histogram<u64>,
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let clean = run(bench, false).await;
    eprintln!("         clean: {}", summary(&clean));
    let pinned = run(bench, true).await;
    eprintln!("         pinned: {}", summary(&pinned));

    let rate = pinned.outcome.rate;
    let rate_ratio = rate / clean.outcome.rate;
    let p99 = pinned.outcome.millis(0.99);
    let p99_ratio = p99 / clean.outcome.millis(0.99);
    let left = pinned.left as f64;
    let late = pinned.late.max() as f64 / 1e6;
    let minutes = bench.flags.horizon().as_secs_f64() / 60.0;
    let name = |what: &str| format!("pinned horizon, 2,000/s for {minutes:.1} min: {what}");
    vec![
        Row {
            of_reference: Some(rate_ratio),
            target: Some(Target::at_least(rate_ratio, 0.95, "x")),
            note: "of a clean run".to_owned(),
            ..Row::new(name("delivered"), rate, "msg/s")
        },
        Row {
            of_reference: Some(p99_ratio),
            target: Some(Target::at_most(p99_ratio, 3.0, "x")),
            note: format!("{}; clean: {}", summary(&pinned), summary(&clean)),
            ..Row::new(name("publish to receipt"), p99, "ms p99")
        },
        Row {
            target: Some(Target::at_most(left, 0.0, "messages")),
            note: format!("clean: {}", clean.left),
            ..Row::new(name("backlog at the end"), left, "messages")
        },
        Row {
            target: Some(Target::at_most(late, 2.0, "s")),
            note: format!(
                "most of {}; p50 {:.3} s; clean: at most {:.3} s",
                pinned.late.len(),
                pinned.late.value_at_quantile(0.5) as f64 / 1e6,
                clean.late.max() as f64 / 1e6
            ),
            ..Row::new(name("redelivery after the deadline"), late, "s late")
        },
    ]
}

fn summary(run: &Run) -> String {
    let outcome = &run.outcome;
    let (first, last) = outcome.ends(0.99);
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, first tenth {first:.2}, last tenth {last:.2}",
        outcome.millis(0.5),
        outcome.millis(0.99)
    )
}

async fn run(bench: &Bench, pinned: bool) -> Run {
    let database = bench.cluster.database().await;
    create(&database, "main").await;
    let settings = "\"filter\": {\"leave\": [1]}, \"ack_deadline_seconds\": 1";
    create_subscription_with(&database, "leaving", "main", settings).await;
    let server = Server::start(bench, &database).await;
    let mut snapshot = database.connect().await;
    if pinned {
        sqlx::raw_sql("begin isolation level repeatable read; select * from pubsub.topics")
            .execute(&mut snapshot)
            .await
            .unwrap();
    }
    let length = bench.flags.horizon();
    let leaving = AbortOnDropHandle::new(tokio::spawn(leave(server.address, length)));
    let outcome = open_loop::run(Plan {
        address: server.address,
        rate: RATE,
        length,
        publishers: 32,
        consumers: 4,
        pause: Duration::from_millis(2),
        leave_every: LEAVE_EVERY,
    })
    .await;
    let late = leaving.await.expect("the leaving consumer failed");
    let left = left(&mut database.connect().await).await;
    drop(snapshot);
    server.stop().await;
    bench.cluster.drop(database).await;
    Run {
        outcome,
        left,
        late,
    }
}

async fn left(connection: &mut PgConnection) -> i64 {
    backlog(connection, "main").await + backlog(connection, "leaving").await
}

/// A consumer that dies with each message once. Returns how late the messages came again.
async fn leave(address: SocketAddr, length: Duration) -> Histogram<u64> {
    let mut consumer = Consumer::new(Client::connect(address).await, "leaving", 10);
    let mut left = HashMap::new();
    let mut late = open_loop::histogram();
    let end = Instant::now() + length + Duration::from_secs(1);
    while Instant::now() < end || !left.is_empty() && Instant::now() < end + GRACE {
        let answer = consumer.consume().await;
        let now = Instant::now();
        let again: Vec<bool> = times(answer)
            .zip(attempts(answer))
            .map(|(message, attempt)| {
                if attempt == 1 {
                    left.insert(message, now);
                } else if let Some(since) = left.remove(&message) {
                    let after = now.duration_since(since).saturating_sub(ACK_DEADLINE);
                    late.record(after.as_micros() as u64).unwrap();
                }
                attempt > 1
            })
            .collect();
        consumer.ack_only(&again).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // what never came again
    for since in left.values() {
        let after = since.elapsed().saturating_sub(ACK_DEADLINE);
        late.record(after.as_micros() as u64).unwrap();
    }
    late
}
