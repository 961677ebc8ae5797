//! One file for each question that is asked.

mod against;
mod authentication;
mod features;
mod first_calls;
mod growth;
mod horizon;
mod memory;
mod push;
mod scaling;
mod steady;
mod streams;
mod throughput;
mod waiting;

use std::sync::Arc;

use crate::cluster::Bench;
use crate::flags::Flags;
use crate::report::Row;

/// In the order in which they run.
pub(crate) const NAMES: [&str; 19] = [
    "throughput",
    "against another build",
    "first calls of a connection over SQL",
    "cost of features",
    "steady 1,000/s",
    "growth of subscriptions",
    "growth of in flight",
    "growth of waiting",
    "growth of dead rows",
    "growth of backlog, and its metrics",
    "metrics of 1,000 subscriptions",
    "memory",
    "scaling over connections",
    "scaling over servers",
    "authentication",
    "waiting pull",
    "streams",
    "push",
    "pinned horizon",
];

/// Whether a scenario, or one of its rows, is wanted.
pub(crate) fn wanted(flags: &Flags, name: &str) -> bool {
    flags.want(name) || name == "throughput" && throughput::wanted(flags)
}

/// The rows of a scenario.
pub(crate) async fn measure(name: &str, bench: Arc<Bench>) -> Vec<Row> {
    let bench = &bench;
    match name {
        "throughput" => throughput::measure(bench).await,
        "against another build" => against::measure(bench).await,
        "first calls of a connection over SQL" => first_calls::measure(bench).await,
        "cost of features" => features::measure(bench).await,
        "steady 1,000/s" => steady::measure(bench).await,
        "growth of subscriptions" => growth::subscriptions::measure(bench).await,
        "growth of in flight" => growth::in_flight(bench).await,
        "growth of waiting" => growth::waiting(bench).await,
        "growth of dead rows" => growth::dead_rows(bench).await,
        "growth of backlog, and its metrics" => growth::backlog::measure(bench).await,
        "metrics of 1,000 subscriptions" => growth::subscriptions::metrics(bench).await,
        "memory" => memory::measure(bench).await,
        "scaling over connections" => scaling::connections(bench).await,
        "scaling over servers" => scaling::servers(bench).await,
        "authentication" => authentication::measure(bench).await,
        "waiting pull" => waiting::measure(bench).await,
        "streams" => streams::measure(bench).await,
        "push" => push::measure(bench).await,
        "pinned horizon" => horizon::measure(bench).await,
        _ => unreachable!("no scenario {name}"),
    }
}
