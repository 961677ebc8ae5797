//! What must not cost more when something grows.

pub(crate) mod backlog;
pub(crate) mod subscriptions;

use crate::cluster::{Bench, Database};
use crate::compare::{Side, compare};
use crate::crowd::Crowd;
use crate::meter::Meter;
use crate::report::Row;
use crate::server::Server;
use crate::{fill, loads};

pub(crate) async fn in_flight(bench: &Bench) -> Vec<Row> {
    let leased = bench.flags.size(100_000, 100_000);
    bench.cluster.set_autovacuum(false).await;
    let grown = Side::prepare(bench).await;
    fill::publish(&grown, "main", leased).await;
    fill::lease(&grown, "main", leased).await;
    vec![beside_fresh(bench, &format!("consume, {leased} in flight"), grown).await]
}

pub(crate) async fn waiting(bench: &Bench) -> Vec<Row> {
    let waiting = bench.flags.size(1_000_000, 200_000);
    bench.cluster.set_autovacuum(false).await;
    let grown = Side::prepare(bench).await;
    fill::publish_later(&grown, "main", waiting).await;
    vec![
        beside_fresh(
            bench,
            &format!("consume, {waiting} waiting for their time"),
            grown,
        )
        .await,
    ]
}

/// Drained by consumers, and nothing is vacuumed.
pub(crate) async fn dead_rows(bench: &Bench) -> Vec<Row> {
    let drained = bench.flags.size(1_000_000, 200_000);
    bench.cluster.set_autovacuum(false).await;
    let grown = Side::prepare(bench).await;
    fill::publish(&grown, "main", drained).await;
    let server = Server::start(bench, &grown).await;
    let mut meter = Meter::new(&bench.cluster, &[&server]).await;
    let mut crowd = Crowd::default();
    for _ in 0..4 {
        let address = server.address;
        crowd.spawn(|progress| loads::consume(address, "main", 100, progress));
    }
    crowd.finish(&mut meter, drained).await;
    server.stop().await;
    vec![
        beside_fresh(
            bench,
            &format!("consume, {drained} drained before, no vacuum"),
            grown,
        )
        .await,
    ]
}

/// A consume beside one in a database where nothing has happened yet.
async fn beside_fresh(bench: &Bench, scenario: &str, grown: Database) -> Row {
    let fresh = Side::prepare(bench).await;
    let mut fresh = Side::start(bench, fresh).await;
    let mut grown = Side::start(bench, grown).await;
    let row = compare(bench, scenario, &mut fresh, &mut grown).await;
    fresh.end(bench).await;
    grown.end(bench).await;
    row
}
