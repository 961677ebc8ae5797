//! Claims that a crash of Postgres may undo, and those that it may not.

use super::history::{Kind, Outcome, State, Verb};
use super::leases::{acked_somehow, number, published};
use super::script::{SECOND, Script};

/// Leased for the default 3 s, so that a lease of 2 s before a crash outlives it.
const LONG: &str = "events-all";
const HOLDER: &str = "one holder";
const AGAIN: &str = "never again after an ack";
const ATTEMPTS: &str = "attempts count up";
const LOST: &str = "zero lost";

/// A claim, a crash some time later, and the same claim again.
fn claimed_twice(before_crash: u64, crash: impl FnOnce(&mut Script)) -> Script {
    let mut script = published("events");
    script.deliver(LONG, number(), 1);
    script.at += before_crash;
    crash(&mut script);
    script.deliver(LONG, number(), 1);
    acked_somehow(&mut script, LONG, 1);
    script
}

#[test]
fn a_claim_that_a_crash_undid_is_no_violation() {
    assert!(claimed_twice(0, Script::crash).broken().is_empty());
}

#[test]
fn the_same_without_a_crash_is_found() {
    let nothing = |_: &mut Script| {};
    assert_eq!(claimed_twice(0, nothing).broken(), [ATTEMPTS, HOLDER]);
    let stop = |script: &mut Script| {
        script.fault(Kind::StopPostgresFast, 1);
    };
    assert_eq!(claimed_twice(0, stop).broken(), [ATTEMPTS, HOLDER]);
}

#[test]
fn the_same_long_before_the_crash_is_found() {
    let script = claimed_twice(2 * SECOND, Script::crash);
    assert_eq!(script.broken(), [ATTEMPTS, HOLDER]);
}

#[test]
fn the_same_before_a_later_crash_is_found() {
    let mut script = published("events");
    script.deliver(LONG, number(), 1);
    script.deliver(LONG, number(), 1);
    script.at += SECOND / 2;
    script.crash();
    acked_somehow(&mut script, LONG, 1);
    assert_eq!(script.broken(), [ATTEMPTS, HOLDER]);
}

#[test]
fn the_same_after_the_crash_is_found() {
    let mut script = published("events");
    script.crash();
    script.deliver(LONG, number(), 1);
    script.deliver(LONG, number(), 1);
    acked_somehow(&mut script, LONG, 1);
    assert_eq!(script.broken(), [ATTEMPTS, HOLDER]);
}

#[test]
fn a_claim_from_before_a_crash_may_be_answered_after_it() {
    let mut script = published("events");
    script.deliver(LONG, number(), 1);
    script.crash();
    // by a server that was frozen
    script.history.events.last_mut().unwrap().call.done += SECOND / 10;
    script.deliver(LONG, number(), 1);
    acked_somehow(&mut script, LONG, 1);
    assert!(script.broken().is_empty());
}

#[test]
fn attempts_that_a_crash_set_back_by_more_than_a_claim_are_found() {
    let mut script = published("events");
    script.deliver(LONG, number(), 2);
    script.crash();
    script.deliver(LONG, number(), 1);
    acked_somehow(&mut script, LONG, 1);
    assert_eq!(script.broken(), [ATTEMPTS]);
}

#[test]
fn an_ack_of_a_claim_that_a_crash_undid_promises_nothing() {
    for (before_crash, broken) in [(0, vec![]), (2 * SECOND, vec![AGAIN])] {
        let mut script = published("events");
        let receipt = script.deliver(LONG, number(), 1);
        script.at += before_crash;
        script.crash();
        script.settle(Verb::Ack, LONG, number(), Some(&receipt));
        script.deliver(LONG, number(), 2);
        acked_somehow(&mut script, LONG, 2);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn an_ack_that_was_answered_before_a_crash_holds() {
    let mut script = published("events");
    let receipt = script.deliver(LONG, number(), 1);
    script.settle(Verb::Ack, LONG, number(), Some(&receipt));
    script.crash();
    script.deliver(LONG, number(), 2);
    acked_somehow(&mut script, LONG, 2);
    assert_eq!(script.broken(), [AGAIN]);
}

#[test]
fn a_claim_that_a_crash_undid_makes_no_receipt_old() {
    for (before_crash, counted, broken) in [(0, 1, vec![]), (2 * SECOND, 2, vec![LOST])] {
        let mut script = published("events");
        let receipt = script.deliver(LONG, number(), 1);
        script.at += 3 * SECOND;
        script.deliver(LONG, number(), 2);
        script.at += before_crash;
        script.crash();
        script.settle(Verb::Ack, LONG, number(), Some(&receipt));
        script.book(LONG, number(), State::Acked, counted);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn an_old_receipt_is_old_until_the_crash() {
    for outcome in [Outcome::Done, Outcome::Broken] {
        let mut script = published("events");
        let receipt = script.deliver(LONG, number(), 1);
        script.at += 3 * SECOND;
        script.deliver(LONG, number(), 2);
        script.settle(Verb::Ack, LONG, number(), Some(&receipt));
        script.history.events.last_mut().unwrap().call.outcome = outcome;
        script.crash();
        script.book(LONG, number(), State::Acked, 1);
        let broken = script.broken();
        assert_eq!(
            broken.contains(&LOST),
            outcome == Outcome::Done,
            "{broken:?}"
        );
    }
}
