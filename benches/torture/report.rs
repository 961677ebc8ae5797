//! What people see: progress, the summary, and the smallest history that shows a violation.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::checker::{Violation, longest_recovery};
use super::faults::Faults;
use super::history::{Door, Entry, Fault, History, Kind, Outcome, State, Verb, What};
use super::stage::{Phase, Stage};
use super::story::tell;
use super::world::{By, subscription};

const INTERVAL: Duration = Duration::from_secs(5);
/// How many violations of a promise are listed.
const LISTED: usize = 5;

/// Print counts every few seconds until the run is over.
pub async fn progress(stage: &Stage, faults: &Faults) {
    while stage.phase() != Phase::Over {
        tokio::time::sleep(INTERVAL).await;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &stage.tally;
        eprintln!(
            "{:>5} s  {:?}: {} published, {} delivered, {} acked, {} answers 503, {} faults",
            stage.clock.now() / 1_000_000,
            stage.phase(),
            count(&tally.published),
            count(&tally.delivered),
            count(&tally.acked),
            count(&tally.unavailable),
            faults.count().await,
        );
    }
}

/// How often each kind of fault happened; cuts are the clients'.
pub fn counts(history: &History) -> Vec<(Kind, usize)> {
    let cuts = |outcome| {
        let events = history.events.iter();
        events.filter(|event| event.call.outcome == outcome).count()
    };
    let count = |kind| match kind {
        Kind::CutInRequest => cuts(Outcome::CutInRequest),
        Kind::CutInResponse => cuts(Outcome::CutInResponse),
        _ => history
            .faults
            .iter()
            .filter(|fault| fault.kind == kind)
            .count(),
    };
    Kind::ALL
        .into_iter()
        .map(|kind| (kind, count(kind)))
        .collect()
}

/// How often what only a few clients do was done.
pub fn operations(history: &History) -> [(&'static str, usize); 12] {
    let mut counts = [
        ("messages taken", 0),
        ("takes that were not answered", 0),
        ("pauses", 0),
        ("purges", 0),
        ("updates of messages", 0),
        ("messages as streamed events", 0),
        ("acks of streamed events", 0),
        ("messages on WebSockets", 0),
        ("acks in frames", 0),
        ("pushes", 0),
        ("pushes that were taken", 0),
        ("streams that ended without their clients", 0),
    ];
    for event in &history.events {
        let outcome = event.call.outcome;
        let (place, count) = match &event.what {
            What::Consume {
                takes: Some(_),
                deliveries,
                ..
            } if outcome == Outcome::Done => (0, deliveries.len()),
            What::Consume { takes: Some(_), .. } => (1, usize::from(outcome.may_have_happened())),
            What::Pause { paused: true, .. } if outcome == Outcome::Done => (2, 1),
            What::Purge { .. } if outcome == Outcome::Done => (3, 1),
            What::Update { .. } if outcome == Outcome::Done => (4, 1),
            What::Consume {
                subscription: name,
                deliveries,
                ..
            } => match (subscription(name).by, outcome) {
                (By::Events, Outcome::Done) => (5, deliveries.len()),
                (By::Sockets, Outcome::Done) => (7, deliveries.len()),
                (By::Pushes, _) => (9, deliveries.len()),
                (By::Pulls, _) | (_, Outcome::CutInResponse) => continue,
                _ => (11, 1),
            },
            What::Settle {
                subscription: name,
                verb: Verb::Ack,
                handles,
                confirmed,
            } => match subscription(name).by {
                By::Events if *confirmed => (6, handles.len()),
                By::Sockets if *confirmed => (8, handles.len()),
                By::Pushes => (10, handles.len()),
                _ => continue,
            },
            _ => continue,
        };
        counts[place].1 += count;
    }
    counts
}

pub fn summary(history: &History, books: &[Entry]) {
    let mut rows: Vec<(String, usize)> = Vec::new();
    let mut row = |name: &str, count| rows.push((name.to_owned(), count));
    let (mut requests, mut unanswered, mut messages) = (0, 0, 0);
    let (mut deliveries, mut redeliveries, mut acks, mut nacks) = (0, 0, 0, 0);
    let (mut transactions, mut refused, mut reprocessed) = (0, 0, 0);
    for event in &history.events {
        let done = event.call.outcome == Outcome::Done;
        requests += 1;
        let is_open = event.call.outcome.may_have_happened() && event.call.outcome != Outcome::Told;
        unanswered += usize::from(!done && is_open);
        match &event.what {
            What::Publish { numbers, .. } if done => messages += numbers.clone().count(),
            What::Consume {
                deliveries: got, ..
            } => {
                deliveries += got.len();
                redeliveries += got.iter().filter(|delivery| delivery.attempts > 1).count();
            }
            What::Settle { verb, handles, .. } if done => match verb {
                Verb::Ack => acks += handles.len(),
                Verb::Nack => nacks += handles.len(),
                Verb::GiveBack => {}
            },
            What::Transact { .. } if done => transactions += 1,
            What::Transact { .. } if event.call.outcome == Outcome::Refused(409) => refused += 1,
            What::Reprocess { ids, .. } if done => reprocessed += ids.len(),
            _ => {}
        }
    }
    let settled = |state| books.iter().filter(|entry| entry.state == state).count();
    let probes = |door| {
        history
            .probes
            .iter()
            .filter(|probe| probe.door == door)
            .count()
    };
    row("requests of clients", requests);
    row("of them unanswered or failed", unanswered);
    row("messages published", messages);
    row("deliveries", deliveries);
    row("redeliveries", redeliveries);
    row("acks", acks);
    row("nacks", nacks);
    for (what, count) in operations(history) {
        row(what, count);
    }
    row("transactions", transactions);
    row("transactions refused, a lease was over", refused);
    row("dead letters reprocessed", reprocessed);
    row("acked in the end", settled(State::Acked));
    row("dead letters in the end", settled(State::Dead));
    row("unsettled in the end", settled(State::Unsettled));
    row("probes of /liveness", probes(Door::Liveness));
    for (kind, count) in counts(history) {
        row(&format!("fault {kind:?}"), count);
    }
    let crashed = |fault: &&Fault| fault.crashed.is_some();
    let crashes = history.faults.iter().filter(crashed).count();
    rows.push(("crashes of Postgres among them".to_owned(), crashes));
    println!("\n| what | count |\n|---|---|");
    for (name, count) in rows {
        println!("| {name} | {count} |");
    }
    let milliseconds = longest_recovery(history) / 1000;
    println!("| longest recovery after the database was back | {milliseconds} ms |\n");
}

/// List what was violated, and tell the shortest story of it.
pub fn violations(history: &History, violations: &[Violation]) {
    let mut promises: Vec<&str> = violations.iter().map(|found| found.promise).collect();
    promises.sort_unstable();
    promises.dedup();
    for promise in promises {
        let found: Vec<&Violation> = violations
            .iter()
            .filter(|found| found.promise == promise)
            .collect();
        println!("VIOLATED: {promise}, {} times", found.len());
        let mut stories: Vec<(Vec<String>, &Violation)> = found
            .iter()
            .take(100)
            .map(|violation| (tell(history, &violation.about), *violation))
            .collect();
        stories.sort_by_key(|(story, _)| story.len());
        for (_, violation) in stories.iter().take(LISTED) {
            println!("  {} {:?}", violation.text, violation.about);
        }
        if let Some((story, _)) = stories.first() {
            println!("  the shortest history of it:");
            for line in story {
                println!("    {line}");
            }
        }
    }
}
