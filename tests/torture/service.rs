//! The service around faults.

use super::checker::longest_recovery;
use super::history::{Door, Kind, Outcome, What};
use super::script::{SECOND, Script, UNAVAILABLE};

const ALIVE: &str = "alive all along";
const AWAY: &str = "503 while away";
const RECOVERY: &str = "back within 5 s";

/// What a read that ended so breaks, at a time when there is no fault.
fn broken_by(outcome: Outcome) -> Vec<&'static str> {
    let mut script = Script::clean();
    script.event("reader", outcome, What::Read);
    script.broken()
}

/// A database that is gone for a second, and probes that find it back after some time.
fn outage(back_after: u64) -> Script {
    let mut script = Script::clean();
    let (gone, back) = (script.at, script.at + SECOND);
    script.fault(Kind::KillPostgres, SECOND).gone = Some((gone, back));
    script.probe(Door::Topics, UNAVAILABLE);
    script.at = back + back_after;
    script.probe(Door::Topics, Outcome::Done);
    script
}

#[test]
fn answers_that_no_fault_explains_are_found() {
    assert_eq!(broken_by(UNAVAILABLE), ["503 while away only"]);
    for status in [500, 504] {
        let retry_after = true;
        let outcome = Outcome::Failed {
            status,
            retry_after,
        };
        assert_eq!(broken_by(outcome), ["expected statuses only"]);
    }
    assert_eq!(broken_by(Outcome::Refused(404)), ["expected statuses only"]);
    for outcome in [Outcome::Broken, Outcome::NoConnection, Outcome::TimedOut] {
        assert_eq!(broken_by(outcome), [ALIVE], "{outcome:?}");
    }
    assert!(broken_by(Outcome::CutInResponse).is_empty());
}

#[test]
fn only_a_fault_that_hits_the_database_or_the_server_explains_a_503() {
    for kind in Kind::ALL {
        let mut script = Script::clean();
        script.fault(kind, SECOND);
        script.event("reader", UNAVAILABLE, What::Read);
        script.at += SECOND;
        script.probe(Door::Topics, Outcome::Done);
        let explains = matches!(
            kind,
            Kind::KillServer
                | Kind::FreezeServer
                | Kind::KillPostgres
                | Kind::StopPostgresFast
                | Kind::StopPostgresImmediately
                | Kind::ExhaustConnections
                | Kind::FillDisk
        );
        assert_eq!(script.broken().is_empty(), explains, "{kind:?}");
    }
}

#[test]
fn a_killed_server_explains_its_own_silence_only() {
    for (server, broken) in [(0, vec![]), (1, vec![ALIVE])] {
        let mut script = Script::clean();
        script.fault(Kind::KillServer, SECOND);
        script.event("reader", Outcome::NoConnection, What::Read);
        script.history.events.last_mut().unwrap().call.server = server;
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn a_service_that_recovers_is_fine_and_a_slow_one_is_found() {
    let quick = outage(SECOND);
    assert!(quick.broken().is_empty());
    assert_eq!(longest_recovery(&quick.history), SECOND + 10_000);

    assert_eq!(outage(5 * SECOND).broken(), [RECOVERY]);

    let mut never = outage(SECOND);
    never.history.probes.pop();
    assert_eq!(never.broken(), [RECOVERY]);
}

#[test]
fn a_recovery_that_another_fault_disturbs_is_not_judged() {
    for kind in [Kind::StopPostgresFast, Kind::FreezeServer] {
        let mut script = outage(5 * SECOND);
        script.at -= 3 * SECOND;
        script.fault(kind, SECOND);
        script.at += 4 * SECOND;
        script.probe(Door::Topics, Outcome::Done);
        assert!(script.broken().is_empty(), "{kind:?}");
    }
}

#[test]
fn without_a_database_every_answer_is_503_with_retry_after() {
    let no_header = Outcome::Failed {
        status: 503,
        retry_after: false,
    };
    for (door, outcome, broken) in [
        (Door::Topics, UNAVAILABLE, vec![]),
        (Door::Topics, no_header, vec![AWAY]),
        (Door::Topics, Outcome::Done, vec![AWAY]),
        (Door::Readiness, no_header, vec![]),
        (Door::Readiness, Outcome::Done, vec![AWAY]),
        (Door::Liveness, Outcome::Done, vec![]),
        (Door::Liveness, UNAVAILABLE, vec![ALIVE]),
        (Door::Liveness, Outcome::Broken, vec![ALIVE]),
    ] {
        let mut script = outage(SECOND);
        script.at = script.history.faults[0].from;
        script.probe(door, outcome);
        assert_eq!(script.broken(), broken, "{door:?} {outcome:?}");
    }
}

#[test]
fn a_slow_sign_of_life_is_found() {
    let mut script = Script::clean();
    script.probe(Door::Liveness, Outcome::Done).call.done += 6 * SECOND;
    assert_eq!(script.broken(), [ALIVE]);
}

#[test]
fn mishaps_are_violations() {
    let mut script = Script::clean();
    let text = "server 0 ended by itself".to_owned();
    script.history.mishaps.push(text);
    assert_eq!(script.broken(), ["no mishaps"]);
}
