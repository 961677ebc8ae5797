//! Streams: how long after a publish a message is there, and what streams cost that nothing comes on, or much.

use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use crate::cluster::{Bench, Database};
use crate::fill;
use crate::meter::{micros_of, resident_mib};
use crate::open_loop::{Plan, listen, millis};
use crate::report::{Row, Target};
use crate::server::Server;
use crate::streams::Stream;

/// Messages a second.
const RATE: u32 = 200;
/// Streams on which nothing comes.
const SILENT_EVENTS: usize = 1000;
const SILENT_SOCKETS: usize = 5000;
/// Past a comment or a ping.
const SILENCE: Duration = Duration::from_secs(17);
/// WebSockets of one subscription on which something comes, and how much.
const BUSY_SOCKETS: usize = 1000;
const BUSY_RATE: u32 = 1000;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    fill::create(&database, "others").await;
    let rows = vec![
        latency(bench, &database, false).await,
        latency(bench, &database, true).await,
        silent(bench, &database, false, SILENT_EVENTS).await,
        silent(bench, &database, true, SILENT_SOCKETS).await,
        busy(bench, &database).await,
    ];
    bench.cluster.drop(database).await;
    rows
}

fn plan(bench: &Bench, server: &Server, rate: u32) -> Plan {
    Plan {
        address: server.address,
        rate,
        length: bench.flags.round() * 2,
        publishers: 16,
        consumers: 0,
        pause: Duration::ZERO,
        leave_every: 0,
    }
}

async fn latency(bench: &Bench, database: &Database, is_socket: bool) -> Row {
    let server = Server::start(bench, database).await;
    let (arrived, mut arrivals) = unbounded_channel();
    let mut streams = JoinSet::new();
    let kind = if is_socket {
        let stream = Stream::socket(server.address, "main").await;
        streams.spawn(stream.hear_frames(arrived));
        "WebSocket, from publish to frame"
    } else {
        let stream = Stream::events(server.address, "main", "?auto_ack=true").await;
        streams.spawn(stream.hear_events(arrived));
        "Server-Sent Events, from publish to event"
    };
    let plan = plan(bench, &server, RATE);
    let warm_up = Plan {
        length: bench.flags.warm_up(),
        ..plan
    };
    listen(warm_up, &mut arrivals).await;
    let latencies = listen(plan, &mut arrivals).await;
    streams.shutdown().await;
    server.stop().await;
    let median = millis(&latencies, 0.5);
    Row {
        target: Some(Target::at_most(median, 3.0, "ms")),
        note: format!(
            "p99 {:.1} ms, {} messages, one stream",
            millis(&latencies, 0.99),
            latencies.len()
        ),
        ..Row::new(format!("{kind} at {RATE}/s"), median, "ms p50")
    }
}

async fn silent(bench: &Bench, database: &Database, is_socket: bool, number: usize) -> Row {
    let server = Server::start(bench, database).await;
    // past its first maintenance
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resident_mib(server.pid);
    let mut streams = Vec::new();
    for _ in 0..number {
        let stream = match is_socket {
            true => Stream::socket(server.address, "others").await,
            false => Stream::events(server.address, "others", "").await,
        };
        streams.push(stream);
    }
    let spent = micros_of(server.pid);
    tokio::time::sleep(SILENCE).await;
    let spent = (micros_of(server.pid) - spent) / SILENCE.as_micros() as f64;
    let after = resident_mib(server.pid);
    drop(streams);
    server.stop().await;
    let kib = (after - before) * 1024.0 / number as f64;
    let kind = if is_socket {
        "WebSocket"
    } else {
        "Server-Sent Events"
    };
    Row {
        target: Some(Target::at_most(kib, 50.0, "KiB")),
        note: format!(
            "{number} of them, of one subscription; the server has {after:.0} MiB and spends \
             {:.1} % of a processor on them",
            spent * 100.0
        ),
        ..Row::new(format!("memory of a silent stream, {kind}"), kib, "KiB")
    }
}

async fn busy(bench: &Bench, database: &Database) -> Row {
    let server = Server::start(bench, database).await;
    let (arrived, mut arrivals) = unbounded_channel();
    let mut streams = JoinSet::new();
    for _ in 0..BUSY_SOCKETS {
        let stream = Stream::socket(server.address, "main").await;
        streams.spawn(stream.hear_frames(arrived.clone()));
    }
    let latencies = listen(plan(bench, &server, BUSY_RATE), &mut arrivals).await;
    let memory = resident_mib(server.pid);
    streams.shutdown().await;
    server.stop().await;
    Row {
        note: format!(
            "{BUSY_RATE} messages/s, each acked with a frame: from publish to frame p50 {:.1} ms, p99 {:.1} ms",
            millis(&latencies, 0.5),
            millis(&latencies, 0.99)
        ),
        ..Row::new(
            format!("memory of a server, {BUSY_SOCKETS} WebSockets that work on one subscription"),
            memory,
            "MiB",
        )
    }
}
