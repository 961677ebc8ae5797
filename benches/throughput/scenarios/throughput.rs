//! How many messages a second, beside a plain INSERT of the same payloads.

use crate::cluster::{Bench, Database};
use crate::crowd::{Crowd, Sample, median, median_sample};
use crate::flags::Flags;
use crate::meter::Meter;
use crate::report::{Row, Target};
use crate::server::Server;
use crate::{fill, loads};

/// Consume + ack one by one of the Python original, in messages a second on two cores.
const ORIGINAL: f64 = 213.0;

/// What the clients do.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Insert,
    /// To this topic.
    Publish(&'static str),
    /// From a backlog that does not run out.
    Consume,
    /// A backlog, to its end.
    Drain,
    /// The same with one request a batch, which settles the one before.
    SettleAndPull,
}

pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    batch: usize,
    clients: usize,
    /// Place of the load it is compared to.
    reference: usize,
    /// Times the reference, at least.
    target: Option<f64>,
}

const ONE: usize = 0;
const HUNDRED: usize = 3;

pub(super) const LOADS: [Load; 8] = [
    Load {
        name: "plain INSERT, 1 a statement, 8 clients",
        kind: Kind::Insert,
        batch: 1,
        clients: 8,
        reference: ONE,
        target: None,
    },
    Load {
        name: "publish, 1 a request, 64 connections",
        kind: Kind::Publish("single"),
        batch: 1,
        clients: 64,
        reference: ONE,
        target: Some(1.0),
    },
    Load {
        name: "consume + ack, 1 a request, 32 consumers",
        kind: Kind::Consume,
        batch: 1,
        clients: 32,
        reference: ONE,
        target: None,
    },
    Load {
        name: "plain INSERT, 100 a statement, 4 clients",
        kind: Kind::Insert,
        batch: 100,
        clients: 4,
        reference: HUNDRED,
        target: None,
    },
    Load {
        name: "publish, 100 a request, 8 connections",
        kind: Kind::Publish("hundred"),
        batch: 100,
        clients: 8,
        reference: HUNDRED,
        target: Some(0.45),
    },
    Load {
        name: "publish, 100 a request, 10 subscriptions",
        kind: Kind::Publish("fan-out"),
        batch: 100,
        clients: 8,
        reference: HUNDRED,
        target: Some(0.2),
    },
    Load {
        name: "consume + ack, 100 a request, 4 consumers",
        kind: Kind::Drain,
        batch: 100,
        clients: 4,
        reference: HUNDRED,
        target: Some(0.3),
    },
    Load {
        name: "settle + pull at once, 100 a request, 4 consumers",
        kind: Kind::SettleAndPull,
        batch: 100,
        clients: 4,
        reference: HUNDRED,
        target: Some(0.35),
    },
];

/// Whether one of the loads is wanted.
pub(crate) fn wanted(flags: &Flags) -> bool {
    LOADS.iter().any(|load| flags.want(load.name))
}

/// Whether a load of a scenario is: all of them, unless some are named.
pub(crate) fn chosen(flags: &Flags, load: &Load) -> bool {
    !wanted(flags) || flags.want(load.name)
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let flags = &bench.flags;
    let chosen = |load: &Load| chosen(flags, load);
    let runs = |at: usize| {
        let needs = |load: &Load| chosen(load) && load.reference == at;
        chosen(&LOADS[at]) || LOADS.iter().any(needs)
    };
    let mut samples: Vec<Vec<Sample>> = LOADS.iter().map(|_| Vec::new()).collect();
    for round in 1..=flags.rounds {
        let database = bench.cluster.database().await;
        prepare(&database).await;
        let server = Server::start(bench, &database).await;
        let mut meter = Meter::new(&bench.cluster, &[&server]).await;
        for at in (0..LOADS.len()).filter(|at| runs(*at)) {
            let load = &LOADS[at];
            let sample = one(bench, load, &database, &server, &mut meter).await;
            eprintln!(
                "         round {round}: {:>8.0} messages/s  {}",
                sample.rate, load.name
            );
            samples[at].push(sample);
        }
        server.stop().await;
        bench.cluster.drop(database).await;
    }
    (0..LOADS.len())
        .filter(|at| runs(*at))
        .map(|at| row(&LOADS[at], &samples[at], &samples[LOADS[at].reference]))
        .collect()
}

fn row(load: &Load, samples: &[Sample], reference: &[Sample]) -> Row {
    let sample = median_sample(samples);
    let ratio = sample.rate / median(reference.iter().map(|sample| sample.rate));
    let target = match load.kind {
        Kind::Consume => Some(Target::at_least(sample.rate, 25.0 * ORIGINAL, "/s")),
        _ => load
            .target
            .map(|target| Target::at_least(ratio, target, "x")),
    };
    let (least, most) = samples.iter().fold((f64::MAX, 0.0), |(least, most), one| {
        (one.rate.min(least), one.rate.max(most))
    });
    Row {
        of_reference: Some(ratio),
        target,
        note: format!("{least:.0} to {most:.0}"),
        cost: Some(sample.cost),
        ..Row::new(load.name, sample.rate, "msg/s")
    }
}

/// The topics of a new database: no round meets what another left behind.
pub(super) async fn prepare(database: &Database) {
    for name in ["single", "hundred", "drain"] {
        fill::create(database, name).await;
    }
    fill::create_topic(database, "fan-out").await;
    for number in 0..10 {
        // messages come from BR and US by turns
        let country = if number % 4 == 0 { "BR" } else { "US" };
        let filter = format!(r#"{{"country": ["{country}", "JP"]}}"#);
        let filter = (number % 2 == 0).then_some(filter.as_str());
        fill::create_subscription(database, &format!("fan-{number}"), "fan-out", filter).await;
    }
}

pub(super) async fn one(
    bench: &Bench,
    load: &Load,
    database: &Database,
    server: &Server,
    meter: &mut Meter,
) -> Sample {
    let flags = &bench.flags;
    let drained = flags.size(500_000, 200_000);
    // more than any machine consumes one by one
    let enough = (flags.round() + flags.warm_up()).as_secs_f64() * 40_000.0;
    match load.kind {
        Kind::Consume => fill::publish(database, "single", enough as u64).await,
        Kind::Drain | Kind::SettleAndPull => fill::publish(database, "drain", drained).await,
        Kind::Insert | Kind::Publish(_) => {}
    }
    let mut crowd = Crowd::default();
    let (address, batch) = (server.address, load.batch);
    for _ in 0..load.clients {
        match load.kind {
            Kind::Insert => {
                crowd.spawn(|progress| loads::insert(database.clone(), batch, progress))
            }
            Kind::Publish(topic) => {
                crowd.spawn(|progress| loads::publish(address, topic, batch, progress));
            }
            Kind::Consume => {
                crowd.spawn(|progress| loads::consume(address, "single", batch, progress));
            }
            Kind::Drain => {
                crowd.spawn(|progress| loads::consume(address, "drain", batch, progress));
            }
            Kind::SettleAndPull => {
                crowd.spawn(|progress| loads::settle_and_pull(address, "drain", batch, progress));
            }
        }
    }
    if matches!(load.kind, Kind::Drain | Kind::SettleAndPull) {
        return crowd.finish(meter, drained).await;
    }
    let sample = crowd.measure(meter, flags.warm_up(), flags.round()).await;
    assert!(
        load.kind != Kind::Consume || sample.rate < 40_000.0,
        "the backlog ran out"
    );
    sample
}
