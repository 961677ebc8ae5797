//! A backlog of 10,000 and one of ten million.

use std::time::Instant;

use crate::cluster::Bench;
use crate::compare::{Side, compare};
use crate::crowd::{median, millis};
use crate::fill;
use crate::http::Client;
use crate::report::{Row, Target};

const SMALL: u64 = 10_000;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let large = bench.flags.size(10_000_000, 1_000_000);
    bench.cluster.set_autovacuum(false).await;
    let mut sides = Vec::new();
    for backlog in [SMALL, large] {
        let database = Side::prepare(bench).await;
        fill::publish(&database, "main", backlog).await;
        fill::settle(&database).await;
        sides.push(Side::start(bench, database).await);
    }
    eprintln!("         filled");
    let [mut small, mut grown] = <[Side; 2]>::try_from(sides).ok().unwrap();
    let scenario = format!("consume, backlog of {large} against {SMALL}");
    let row = compare(bench, &scenario, &mut small, &mut grown).await;

    let mut client = Client::connect(grown.server.address).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        client.get("/subscriptions/main/metrics").await;
        took.push(millis(started));
    }
    let p50 = median(took.iter().copied());
    let metrics = Row {
        target: Some(Target::at_most(p50, 50.0, "ms")),
        note: format!("first {:.1} ms", took[0]),
        ..Row::new(
            format!("GET /subscriptions/{{id}}/metrics, backlog of {large}"),
            p50,
            "ms p50",
        )
    };
    drop(client);
    small.end(bench).await;
    grown.end(bench).await;
    vec![row, metrics]
}
