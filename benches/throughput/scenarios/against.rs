//! Whether this build is slower than another: both do the same, round by round.

use super::throughput::{Door, Kind, Load, all, chosen, one, prepare};
use crate::cluster::{Bench, Build};
use crate::crowd::{Sample, median};
use crate::meter::Meter;
use crate::report::{Row, Target};
use crate::server::Server;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let Some(other) = &bench.flags.against else {
        return Vec::new();
    };
    let builds = [Build::Other(other.clone()), Build::This];
    let loads: Vec<&Load> = all()
        .filter(|load| load.door == Door::Http)
        // builds before 2026-11-29 do not settle in a pull
        .filter(|load| !matches!(load.kind, Kind::SettleAndPull(_)))
        .filter(|load| chosen(&bench.flags, load))
        .collect();
    // of each load, its samples of the other build and of this one
    let mut samples: Vec<[Vec<Sample>; 2]> = loads.iter().map(|_| Default::default()).collect();
    for round in 0..bench.flags.rounds {
        // by turns the first
        for turn in 0..2 {
            let at = ((round + turn) % 2) as usize;
            let database = bench.cluster.database_of(&builds[at]).await;
            prepare(&database, None).await;
            let server = Server::start(bench, &database).await;
            let mut meter = Meter::new(&bench.cluster, &[&server]).await;
            for (load, samples) in loads.iter().zip(&mut samples) {
                let sample = one(bench, load, &database, &server, &mut meter).await;
                samples[at].push(sample);
            }
            server.stop().await;
            bench.cluster.drop(database).await;
        }
    }
    loads
        .iter()
        .zip(&samples)
        .map(|(load, [other, this])| row(load, other, this))
        .collect()
}

fn row(load: &Load, other: &[Sample], this: &[Sample]) -> Row {
    let rate = |samples: &[Sample]| median(samples.iter().map(|sample| sample.rate));
    // of each round, since the machine may be slower in the next
    let pairs = this.iter().zip(other);
    let ratio = median(pairs.map(|(this, other)| this.rate / other.rate));
    Row {
        of_reference: Some(ratio),
        target: Some(Target::at_least(ratio, 0.97, "x")),
        note: format!("reference: the other build, {:.0}", rate(other)),
        ..Row::new(format!("{}, this build", load.name), rate(this), "msg/s")
    }
}
