//! More connections, and more servers on one Postgres, must not make it slower.

use crate::cluster::Bench;
use crate::crowd::{Crowd, Sample, median_sample};
use crate::meter::Meter;
use crate::report::{Row, Target};
use crate::server::Server;
use crate::{fill, loads};

/// Below this share of the best of fewer, it falls.
const FALLS: f64 = 0.9;
const CONNECTIONS: [usize; 5] = [1, 4, 16, 64, 256];
const SERVERS: [usize; 3] = [1, 2, 4];

/// Publish, consume and ack over a growing number of connections.
pub(crate) async fn connections(bench: &Bench) -> Vec<Row> {
    let clients = CONNECTIONS.map(|connections| (1, connections));
    let samples = measure(bench, &clients).await;
    let name = |(_, connections)| match connections {
        1 => "publish + consume + ack, 1 connection".to_owned(),
        _ => format!("publish + consume + ack, {connections} connections"),
    };
    rows(&clients, &samples, name)
}

/// The same over 64 connections and a growing number of servers.
pub(crate) async fn servers(bench: &Bench) -> Vec<Row> {
    let clients = SERVERS.map(|servers| (servers, 64));
    let samples = measure(bench, &clients).await;
    rows(&clients, &samples, |(servers, connections)| {
        let servers = if servers == 1 {
            "1 server".to_owned()
        } else {
            format!("{servers} servers")
        };
        format!("publish + consume + ack, {connections} connections, {servers}")
    })
}

/// Samples for each number of servers and connections.
async fn measure(bench: &Bench, clients: &[(usize, usize)]) -> Vec<Vec<Sample>> {
    let mut samples = vec![Vec::new(); clients.len()];
    for round in 1..=bench.flags.rounds {
        for ((servers, connections), samples) in clients.iter().zip(&mut samples) {
            let sample = one(bench, *servers, *connections).await;
            eprintln!(
                "         round {round}: {:>8.0} messages/s  {connections} connections, \
                 {servers} servers",
                sample.rate
            );
            samples.push(sample);
        }
    }
    samples
}

async fn one(bench: &Bench, servers: usize, connections: usize) -> Sample {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    let mut running = Vec::new();
    for _ in 0..servers {
        running.push(Server::start(bench, &database).await);
    }
    let mut meter = Meter::new(&bench.cluster, &running.iter().collect::<Vec<_>>()).await;
    let mut crowd = Crowd::default();
    for number in 0..connections {
        let address = running[number % servers].address;
        crowd.spawn(|progress| loads::cycle(address, "main", None, progress));
    }
    let (warm_up, length) = (bench.flags.warm_up(), bench.flags.round() / 2);
    let sample = crowd.measure(&mut meter, warm_up, length).await;
    for server in running {
        server.stop().await;
    }
    bench.cluster.drop(database).await;
    sample
}

fn rows(
    clients: &[(usize, usize)],
    samples: &[Vec<Sample>],
    name: impl Fn((usize, usize)) -> String,
) -> Vec<Row> {
    let mut best = None;
    let mut rows = Vec::new();
    for (clients, samples) in clients.iter().zip(samples) {
        let sample = median_sample(samples);
        let ratio = best.map(|best| sample.rate / best);
        best = Some(sample.rate.max(best.unwrap_or_default()));
        rows.push(Row {
            of_reference: ratio,
            target: ratio.map(|ratio| Target::at_least(ratio, FALLS, "x the best of fewer")),
            cost: Some(sample.cost),
            ..Row::new(name(*clients), sample.rate, "msg/s")
        });
    }
    rows
}
