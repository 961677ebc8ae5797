//! From publish to delivery when the service is far from its limit.

use std::time::Duration;

use crate::cluster::Bench;
use crate::crowd::median;
use crate::fill;
use crate::open_loop::{self, Plan};
use crate::report::{Row, Target};
use crate::server::Server;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    let server = Server::start(bench, &database).await;
    let plan = Plan {
        address: server.address,
        rate: 1000,
        length: bench.flags.round() * 2,
        publishers: 16,
        consumers: 3,
        pause: Duration::from_millis(2),
        leave_every: 0,
    };
    // connections, plans, pages
    let warm_up = bench.flags.warm_up() * 2;
    open_loop::run(Plan {
        length: warm_up,
        ..plan
    })
    .await;
    let mut rounds = Vec::new();
    for round in 1..=bench.flags.rounds {
        let outcome = open_loop::run(plan).await;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| outcome.millis(quantile));
        let rate = outcome.rate;
        eprintln!("         round {round}: p50 {p50:.2} ms, p99 {p99:.2} ms, {rate:.0}/s");
        rounds.push((p50, p99, p999));
    }
    server.stop().await;
    bench.cluster.drop(database).await;

    let p50 = median(rounds.iter().map(|round| round.0));
    let p99 = median(rounds.iter().map(|round| round.1));
    let p999 = median(rounds.iter().map(|round| round.2));
    let note = "publish to receipt, 3 consumers that poll each 2 ms";
    vec![
        Row {
            target: Some(Target::at_most(p50, 3.0, "ms")),
            note: note.to_owned(),
            ..Row::new("steady 1,000/s, p50", p50, "ms")
        },
        Row {
            target: Some(Target::at_most(p99, 15.0, "ms")),
            note: format!("p99.9 {p999:.1} ms"),
            ..Row::new("steady 1,000/s, p99", p99, "ms")
        },
    ]
}
