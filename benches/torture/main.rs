//! `make torture`: two servers over one Postgres under load and under faults of every kind, and a proof
//! from the histories of all clients that nothing was lost, doubled or invented. See
//! docs/reliability.md.
//!
//! `world` says what there is, `clients` work, `faults` disturb them, `history` is what happened,
//! `books` what the database says, `checker` compares, `report` tells.
#![expect(clippy::unwrap_used, reason = "a program for developers")]
#![expect(clippy::indexing_slicing, reason = "a program for developers")]
#![expect(unreachable_pub, reason = "the tests include some of it")]

mod books;
mod checker;
#[path = "../chunked.rs"]
mod chunked;
mod clients;
mod clock;
mod cluster;
mod disk;
mod faults;
mod history;
mod report;
mod servers;
mod stage;
mod story;
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;

use clients::Session;
use clients::consumers::{Manner, consume};
use clients::dead_letters;
use clients::events::listen;
use clients::operators;
use clients::probes::{DOORS, probe};
use clients::publishers::publish;
use clients::receivers::{Endpoint, receive};
use clients::sockets::talk;
use clients::transactors::transact;
use clock::Clock;
use cluster::Cluster;
use disk::Disk;
use faults::Faults;
use history::{Entry, Event, History, Outcome, Probe, State, What};
use servers::{COUNT, Servers};
use stage::{Phase, Stage};
use world::{By, PUSH_TIMEOUT_SECONDS, SUBSCRIPTIONS, TOPICS, TRANSFERS};

const PUBLISHERS: u64 = 4;
const TRANSACTORS: u64 = 2;
/// Of each subscription that is streamed.
const STREAMS: usize = 2;
/// How long the backlog may take to drain when the faults are over.
const DRAIN: Duration = Duration::from_secs(60);
/// What a run may take beside its faults, which may last somewhat longer than asked for.
const HANGING: Duration = Duration::from_secs(120);

/// Torture fastpubsub and prove that it kept its promises
#[derive(Parser)]
struct Flags {
    /// How long faults go on
    #[arg(long, default_value = "60")]
    seconds: u64,
    /// Of everything random; taken from the clock if not given
    #[arg(long)]
    seed: Option<u64>,
    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let clock_seed = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = flags.seed.unwrap_or_else(clock_seed);
    let directory = std::env::temp_dir().join(format!("fastpubsub-torture-{}", std::process::id()));
    println!(
        "{} s with seed {seed} in {}",
        flags.seconds,
        directory.display()
    );
    let endpoint = Endpoint::open().await;
    let faults = set_up(&directory, seed, flags.seconds, &endpoint).await;
    let duration = Duration::from_secs(flags.seconds);
    let mut run = tokio::spawn(run(Arc::clone(&faults), duration, endpoint));
    let passed = tokio::select! {
        ran = &mut run => ran.is_ok_and(|passed| passed),
        () = tokio::time::sleep(duration * 2 + HANGING) => {
            eprintln!("hangs");
            false
        }
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.unwrap();
            eprintln!("interrupted");
            false
        }
    };
    // with it end all tasks that might start something again
    run.abort();
    let unclean = faults.stage.servers.stop().await;
    for text in &unclean {
        println!("VIOLATED: {text}");
    }
    faults.cluster.stop(nix::sys::signal::Signal::SIGINT).await;
    if !passed || !unclean.is_empty() {
        println!("FAILED with seed {seed}; kept: {}", directory.display());
        if faults.disk.refused.is_none() {
            println!("to remove it: umount {} first", faults.disk.place.display());
        }
        return ExitCode::FAILURE;
    }
    faults.disk.unmount();
    std::fs::remove_dir_all(directory).unwrap();
    println!("passed with seed {seed}");
    ExitCode::SUCCESS
}

/// A new Postgres with the schema, servers over it, topics and subscriptions.
async fn set_up(directory: &Path, seed: u64, seconds: u64, endpoint: &Endpoint) -> Arc<Faults> {
    std::fs::create_dir(directory).unwrap();
    let disk = Disk::mount(directory.join("disk"), 512 + seconds / 2);
    if let Some(reason) = &disk.refused {
        println!("a full disk is left out, since mounting one is not allowed: {reason}");
    }
    let place: PathBuf = disk.place.join("postgres");
    let cluster = Cluster::create(place).await;
    let clock = Clock::start();
    let servers = Servers::new(directory, &cluster.url());
    let migrated = servers.command(&["db-migrate"]).output().await.unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    for server in 0..COUNT {
        servers.start(server, clock).await;
    }
    let stage = Stage::new(seed, clock, servers);
    // a client that is in no hurry, and never cuts its calls
    stage.enter(Phase::Draining);
    let mut session = Session::new(&stage, "setup");
    for topic in TOPICS.into_iter().chain([TRANSFERS]) {
        create(&mut session, "/topics", &serde_json::json!({ "id": topic })).await;
    }
    for subscription in &SUBSCRIPTIONS {
        let mut body = subscription.body();
        if subscription.by == By::Pushes {
            body["push"] = serde_json::json!({
                "endpoint": endpoint.url(),
                "timeout_seconds": PUSH_TIMEOUT_SECONDS,
            });
        }
        create(&mut session, "/subscriptions", &body).await;
    }
    stage.enter(Phase::Running);
    Faults::new(&stage, cluster, disk)
}

async fn create(session: &mut Session, path: &str, body: &serde_json::Value) {
    let body = body.to_string();
    let (outcome, _) = session.call(("POST", path, &body), |_| What::Read).await;
    assert_eq!(outcome, Outcome::Done, "{body}");
}

fn start_consumers(stage: &Arc<Stage>, endpoint: Endpoint) -> JoinSet<Vec<Event>> {
    let mut consumers: JoinSet<Vec<Event>> = JoinSet::new();
    let mut endpoint = Some(endpoint);
    for subscription in &SUBSCRIPTIONS {
        match subscription.by {
            By::Pulls => {
                let manners = [
                    Manner::Steady,
                    Manner::Steady,
                    Manner::Nacker,
                    Manner::Sloth,
                ];
                let takers = std::iter::repeat_n(Manner::Taker, subscription.takers);
                for (number, manner) in manners.into_iter().chain(takers).enumerate() {
                    consumers.spawn(consume(Arc::clone(stage), subscription, manner, number));
                }
            }
            By::Events => {
                for number in 0..STREAMS {
                    consumers.spawn(listen(Arc::clone(stage), subscription, number));
                }
            }
            By::Sockets => {
                for number in 0..STREAMS {
                    consumers.spawn(talk(Arc::clone(stage), subscription, number));
                }
            }
            By::Pushes => {
                let endpoint = endpoint.take().unwrap();
                consumers.spawn(receive(Arc::clone(stage), subscription, endpoint));
            }
        }
    }
    consumers
}

/// Whether all promises were kept.
async fn run(faults: Arc<Faults>, duration: Duration, endpoint: Endpoint) -> bool {
    let stage = Arc::clone(&faults.stage);
    let mut clients = start_consumers(&stage, endpoint);
    for publisher in 1..=PUBLISHERS {
        clients.spawn(publish(Arc::clone(&stage), publisher));
    }
    for transactor in 1..=TRANSACTORS {
        clients.spawn(transact(Arc::clone(&stage), transactor));
    }
    clients.spawn(dead_letters::reprocess(Arc::clone(&stage)));
    clients.spawn(operators::pause(Arc::clone(&stage)));
    clients.spawn(operators::purge(Arc::clone(&faults)));
    clients.spawn(operators::update(Arc::clone(&faults)));
    let mut probes: JoinSet<Vec<Probe>> = JoinSet::new();
    for server in 0..COUNT {
        for door in DOORS {
            probes.spawn(probe(Arc::clone(&stage), server, door));
        }
    }
    let watch = tokio::spawn({
        let (stage, faults) = (Arc::clone(&stage), Arc::clone(&faults));
        async move { report::progress(&stage, &faults).await }
    });

    let rounds = u32::try_from(duration.as_secs() / 60).unwrap().max(1);
    faults.run(duration, rounds).await;
    stage.enter(Phase::Draining);
    let mut inspector = Session::new(&stage, "inspector");
    drain(&mut inspector).await;
    stage.enter(Phase::Over);

    let mut history = History {
        seed: stage.seed,
        events: clients.join_all().await.concat(),
        probes: probes.join_all().await.concat(),
        ..History::default()
    };
    watch.await.unwrap();
    let mut books = faults.archive.take().await;
    let mut connection = faults.cluster.connect().await.unwrap();
    books.extend(books::read(&mut connection, false).await.unwrap());
    (history.faults, history.mishaps) = faults.take().await;
    history.mishaps.extend(stage.servers.ended().await);
    let miscounts = books::miscounts(&mut connection).await.unwrap();
    history.mishaps.extend(miscounts);
    history
        .mishaps
        .extend(compare_dead_letters(&mut inspector, &books).await);
    history.events.extend(inspector.finish());
    history.events.sort_by_key(|event| event.call.sent);

    let mut violations = checker::check(&history, &books);
    for (kind, count) in report::counts(&history) {
        let wanted = usize::try_from(rounds).unwrap();
        let left_out = kind == history::Kind::FillDisk && faults.disk.refused.is_some();
        if count < wanted && !left_out {
            violations.push(checker::Violation {
                promise: "every fault happens",
                text: format!("{kind:?} happened {count} times, not {wanted}"),
                about: story::About::default(),
            });
        }
    }
    for (what, count) in report::operations(&history) {
        if count == 0 {
            violations.push(checker::Violation {
                promise: "every client works",
                text: format!("no {what}"),
                about: story::About::default(),
            });
        }
    }
    report::summary(&history, &books);
    report::violations(&history, &violations);
    violations.is_empty()
}

/// Wait until nothing is left to deliver; what is after that is a violation in the books.
async fn drain(session: &mut Session) {
    let end = tokio::time::Instant::now() + DRAIN;
    for subscription in &SUBSCRIPTIONS {
        let path = format!("/subscriptions/{}/metrics", subscription.id);
        let mut backlog = 1;
        while backlog > 0 && tokio::time::Instant::now() < end {
            session.pause(100..200).await;
            let what = |body: Option<&serde_json::Value>| {
                let states = ["available", "delivered", "scheduled"];
                let count = |body: &serde_json::Value| {
                    states.iter().filter_map(|state| body[state].as_u64()).sum()
                };
                backlog = body.map_or(1, count);
                What::Read
            };
            session.call(("GET", &path, ""), what).await;
        }
    }
}

/// The API must list the dead letters that the books have.
async fn compare_dead_letters(session: &mut Session, books: &[Entry]) -> Vec<String> {
    let mut mishaps = Vec::new();
    for subscription in &SUBSCRIPTIONS {
        let mut listed = dead_letters::list(session, subscription.id).await;
        let mut dead: Vec<_> = books
            .iter()
            .filter(|entry| entry.subscription == subscription.id && entry.state == State::Dead)
            .map(|entry| entry.id)
            .collect();
        listed.sort_unstable();
        dead.sort_unstable();
        if listed != dead {
            mishaps.push(format!(
                "the API lists other dead letters of {}",
                subscription.id
            ));
        }
    }
    mishaps
}
