//! The service around faults: alive all along, honest while the database is away, soon back.

use super::super::history::{Call, Door, Fault, History, Kind, Micros, Outcome, What};
use super::super::story::About;
use super::Violation;

/// How soon after its database a service answers again.
const RECOVERY: Micros = 5_000_000;
/// How long `/liveness` may take on a busy machine.
const LIVENESS: Micros = 5_000_000;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut violations: Vec<Violation> = history
        .mishaps
        .iter()
        .map(|text| Violation {
            promise: "no mishaps",
            text: text.clone(),
            about: About::default(),
        })
        .collect();
    for event in &history.events {
        let is_rubbish = matches!(event.what, What::Publish { rubbish: true, .. });
        if is_rubbish && event.call.outcome == Outcome::Refused(422) {
            continue;
        }
        // a lease was over
        let is_transaction = matches!(event.what, What::Transact { .. });
        if is_transaction && event.call.outcome == Outcome::Refused(409) {
            continue;
        }
        violations.extend(answer(history, &event.call, None));
    }
    for probe in &history.probes {
        violations.extend(answer(history, &probe.call, Some(probe.door)));
    }
    for fault in history
        .faults
        .iter()
        .filter(|fault| fault.kind.hits_database())
    {
        violations.extend(recovery(history, fault));
    }
    violations
}

fn violation(promise: &'static str, text: String, from: Micros, until: Micros) -> Violation {
    let about = About {
        around: Some((from, until)),
        ..About::default()
    };
    Violation {
        promise,
        text,
        about,
    }
}

/// Whether the server itself was killed or frozen then.
fn is_hit(history: &History, server: usize, from: Micros, until: Micros) -> bool {
    history.faults.iter().any(|fault| {
        matches!(fault.kind, Kind::KillServer | Kind::FreezeServer)
            && fault.server == Some(server)
            && fault.overlaps(from, until)
    })
}

fn answer(history: &History, call: &Call, door: Option<Door>) -> Option<Violation> {
    let (from, until) = (call.sent, call.done);
    let wrong = |promise, text: &str| {
        let who = format!("{} at server {}", call.client, call.server);
        Some(violation(promise, format!("{who}: {text}"), from, until))
    };
    let surely_away = history
        .faults
        .iter()
        .any(|fault| matches!(fault.gone, Some((gone, back)) if from >= gone && until <= back));
    let maybe_away = history.faults.iter().any(|fault| {
        fault.kind.hits_database() && fault.overlaps(from.saturating_sub(RECOVERY), until)
    });
    match call.outcome {
        Outcome::Done if door == Some(Door::Liveness) => {
            let took = until - from;
            if took > LIVENESS && !is_hit(history, call.server, from, until) {
                return wrong("alive all along", &format!("took {took} us"));
            }
            None
        }
        Outcome::Done if surely_away => wrong("503 while away", "answered without a database"),
        Outcome::Done | Outcome::CutInRequest | Outcome::CutInResponse | Outcome::Told => None,
        Outcome::Failed { status: 503, .. } if door == Some(Door::Liveness) => {
            wrong("alive all along", "/liveness said 503")
        }
        Outcome::Failed {
            status: 503,
            retry_after,
        } => {
            if !retry_after && door != Some(Door::Readiness) {
                return wrong("503 while away", "no Retry-After header");
            }
            if !maybe_away && !is_hit(history, call.server, from, until) {
                return wrong("503 while away only", "503 while the database was there");
            }
            None
        }
        Outcome::Failed { status, .. } | Outcome::Refused(status) => {
            wrong("expected statuses only", &format!("answered {status}"))
        }
        Outcome::NoConnection | Outcome::Broken | Outcome::TimedOut => {
            if is_hit(history, call.server, from, until) {
                return None;
            }
            wrong("alive all along", &format!("{:?}", call.outcome))
        }
    }
}

/// When a server first answered from its database after a fault, where nothing else disturbed it.
fn recovered_at(history: &History, fault: &Fault, server: usize) -> Option<Option<Micros>> {
    let back = fault.until;
    let disturbed = history.faults.iter().any(|other| {
        other.kind.hits_database()
            && !std::ptr::eq(other, fault)
            && other.overlaps(back, back + RECOVERY)
    });
    if disturbed || is_hit(history, server, back, back + RECOVERY) {
        return None;
    }
    let answers = history.probes.iter().filter(|probe| {
        probe.door == Door::Topics
            && probe.call.server == server
            && probe.call.outcome == Outcome::Done
            && probe.call.done >= back
    });
    Some(answers.map(|probe| probe.call.done - back).min())
}

fn servers(history: &History) -> Vec<usize> {
    let mut servers: Vec<usize> = history.probes.iter().map(|p| p.call.server).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

fn recovery(history: &History, fault: &Fault) -> Vec<Violation> {
    let mut violations = Vec::new();
    for server in servers(history) {
        let Some(took) = recovered_at(history, fault, server) else {
            continue;
        };
        if took.is_none_or(|took| took > RECOVERY) {
            let text = format!("server {server} after {:?}: {took:?} us", fault.kind);
            let until = fault.until + RECOVERY;
            violations.push(violation("back within 5 s", text, fault.from, until));
        }
    }
    violations
}

/// The longest time that a server needed to answer again after its database was back.
#[must_use]
pub fn longest_recovery(history: &History) -> Micros {
    let faults = history
        .faults
        .iter()
        .filter(|fault| fault.kind.hits_database());
    faults
        .flat_map(|fault| {
            let answers = servers(history).into_iter();
            answers.filter_map(|server| recovered_at(history, fault, server).flatten())
        })
        .max()
        .unwrap_or_default()
}
