//! `make bench`: the release binary and its SQL under load, beside a plain INSERT of the same payload and
//! beside pgmq (`peers`), through the same Postgres in the same run. docs/benchmarks.md tells how to read it.
//!
//! `cluster` and `server` start what is measured. `crowd` (as fast as possible, with `loads` over HTTP and
//! `sql`) and `open_loop` (at a fixed rate) are the loads, `streams` and `receivers` what messages come to unasked,
//! `meter` reads what they cost, `compare` measures two states side by side, and each file of `scenarios` makes the
//! rows of one question.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a program for developers, whose figures are far from the limits of their types"
)]

#[path = "../chunked.rs"]
mod chunked;
mod cluster;
mod compare;
mod crowd;
mod fill;
mod flags;
mod http;
mod loads;
mod machine;
mod message;
mod meter;
mod open_loop;
mod peers;
mod receivers;
mod report;
mod scenarios;
mod server;
mod sql;
mod streams;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use cluster::{Bench, Cluster};
use flags::Flags;
use peers::Peer;
use report::Report;

fn main() -> ExitCode {
    let flags = Flags::parse();
    // half of the processors are Postgres' and the servers'
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .unwrap()
        .block_on(measure(flags))
}

/// Whatever happens, the Postgres is stopped and its directory removed.
async fn measure(flags: Flags) -> ExitCode {
    let (embedded, cluster) = Cluster::start(flags.against.clone()).await;
    let directory = cluster.directory.clone();
    let json = flags.json.clone();
    let bench = Arc::new(Bench {
        flags,
        cluster,
        peer: Peer::default(),
    });

    let mut run = tokio::spawn(run(bench));
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let ended = tokio::select! {
        ended = &mut run => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
    };
    // its servers end with it
    run.abort();
    let stopped = embedded.stop().await;
    std::fs::remove_dir_all(directory).unwrap();
    stopped.unwrap();

    let Some(Ok(report)) = ended else {
        eprintln!("error: the run was broken off");
        return ExitCode::FAILURE;
    };
    report.print();
    if let Some(file) = json {
        std::fs::write(file, format!("{:#}\n", report.json())).unwrap();
    }
    if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One scenario after the other. One that fails does not take the others with it.
async fn run(bench: Arc<Bench>) -> Report {
    let mut report = Report {
        facts: machine::facts(&bench).await,
        rows: Vec::new(),
        failed: Vec::new(),
    };
    let started = Instant::now();
    for name in scenarios::NAMES {
        if !scenarios::wanted(&bench.flags, name) {
            continue;
        }
        eprintln!("{:5.0} s  {name}", started.elapsed().as_secs_f64());
        bench.cluster.set_autovacuum(true).await;
        match tokio::spawn(scenarios::measure(name, Arc::clone(&bench))).await {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => report.failed.push(format!("{name}: {error}")),
        }
    }
    report.facts.extend(bench.peer.fact());
    eprintln!("{:5.0} s  done", started.elapsed().as_secs_f64());
    report
}
