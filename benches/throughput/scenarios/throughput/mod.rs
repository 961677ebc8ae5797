//! How many messages a second, beside a plain INSERT of the same payloads, and beside pgmq.

mod loads;
mod one_round;
mod over_sql;

use std::collections::HashMap;

use loads::{Bar, Comparison, INSERT_HUNDRED, INSERT_ONE, runs};
pub(super) use loads::{Door, Kind, Load, all, chosen, wanted};
pub(super) use one_round::{one, prepare};

use crate::cluster::Bench;
use crate::crowd::{Sample, median, median_sample};
use crate::meter::Meter;
use crate::report::{Row, Target};
use crate::server::Server;

/// Of each load that was measured, by its name.
type Samples = HashMap<&'static str, Vec<Sample>>;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let flags = &bench.flags;
    let mut loads: Vec<&Load> = all().filter(|load| runs(flags, load)).collect();
    let pgmq = match loads.iter().any(|load| load.door == Door::Pgmq) {
        true => bench.pgmq().await,
        false => None,
    };
    loads.retain(|load| load.door != Door::Pgmq || pgmq.is_some());

    let mut samples = Samples::new();
    for round in 1..=flags.rounds {
        let database = bench.cluster.database().await;
        prepare(&database, pgmq).await;
        let server = Server::start(bench, &database).await;
        let mut meter = Meter::new(&bench.cluster, &[&server]).await;
        for load in &loads {
            let sample = one(bench, load, &database, &server, &mut meter).await;
            eprintln!(
                "         round {round}: {:>8.0} messages/s  {}",
                sample.rate, load.name
            );
            samples.entry(load.name).or_default().push(sample);
        }
        server.stop().await;
        bench.cluster.drop(database).await;
    }
    loads.iter().flat_map(|load| rows(load, &samples)).collect()
}

/// One, and one more for each further reference that was measured.
fn rows(load: &Load, samples: &Samples) -> Vec<Row> {
    let row = |(at, comparison): (usize, &Comparison)| {
        let reference = samples.get(comparison.reference);
        let row = row(load, &samples[load.name], comparison, reference);
        match at {
            0 => Some(row),
            _ => reference.map(|_| Row {
                scenario: format!("{}, beside {}", load.name, comparison.reference),
                note: String::new(),
                cost: None,
                ..row
            }),
        }
    };
    load.comparisons
        .iter()
        .enumerate()
        .filter_map(row)
        .collect()
}

fn row(
    load: &Load,
    samples: &[Sample],
    comparison: &Comparison,
    reference: Option<&Vec<Sample>>,
) -> Row {
    let sample = median_sample(samples);
    let ratio =
        reference.map(|reference| sample.rate / median(reference.iter().map(|sample| sample.rate)));
    let target = match comparison.bar {
        Some(Bar::Times(limit)) => ratio.map(|ratio| Target::at_least(ratio, limit, "x")),
        Some(Bar::Rate(limit)) => Some(Target::at_least(sample.rate, limit, "/s")),
        None => None,
    };
    let (least, most) = samples.iter().fold((f64::MAX, 0.0), |(least, most), one| {
        (one.rate.min(least), one.rate.max(most))
    });
    let of = match comparison.reference {
        INSERT_ONE | INSERT_HUNDRED => String::new(),
        _ if reference.is_none() => "; its reference was not measured".to_owned(),
        peer => format!("; reference: {peer}"),
    };
    Row {
        of_reference: ratio,
        target,
        note: format!("{least:.0} to {most:.0}{of}"),
        cost: Some(sample.cost),
        ..Row::new(load.name, sample.rate, "msg/s")
    }
}
