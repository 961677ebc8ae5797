//! Pushes: a receiver hears nothing of what became of its answer.

use super::history::{Kind, Outcome, State, Verb};
use super::script::{SECOND, Script};
use super::takes::published;

const PUSHED: &str = "alerts-pushed";
const AGAIN: &str = "never again after an ack";

/// A push, and what its receiver answered.
fn push(script: &mut Script, attempts: u32, verb: Verb) {
    let receipt = script.deliver(PUSHED, 0, attempts);
    script.settled((verb, false), PUSHED, 0, &receipt, Outcome::Told);
}

#[test]
fn what_was_taken_is_settled_and_what_was_not_is_lost() {
    for (verb, broken) in [
        (Verb::Ack, vec![]),
        (Verb::Nack, vec!["zero lost"]),
        (Verb::GiveBack, vec!["zero lost"]),
    ] {
        let mut script = published(1, PUSHED);
        push(&mut script, 1, verb);
        script.book(PUSHED, 0, State::Acked, 1);
        assert_eq!(script.broken(), broken, "{verb:?}");
    }
}

#[test]
fn what_was_not_taken_comes_again_or_is_dead() {
    let mut script = published(1, PUSHED);
    for attempts in 1..=5 {
        push(&mut script, attempts, Verb::Nack);
    }
    script.book(PUSHED, 0, State::Dead, 5);
    assert!(script.broken().is_empty());
}

#[test]
fn what_was_taken_and_comes_again_is_found_unless_something_disturbed_it() {
    for kind in [
        None,
        Some(Kind::PinHorizon),
        Some(Kind::KillServer),
        Some(Kind::StopPostgresFast),
    ] {
        let mut script = published(1, PUSHED);
        script.at += 10 * SECOND;
        if let Some(kind) = kind {
            let fault = script.fault(kind, SECOND);
            fault.from -= SECOND;
        }
        push(&mut script, 1, Verb::Ack);
        script.at += 12 * SECOND;
        push(&mut script, 2, Verb::Ack);
        script.book(PUSHED, 0, State::Acked, 2);
        let disturbs = matches!(kind, Some(Kind::KillServer | Kind::StopPostgresFast));
        let found: Vec<_> = script
            .broken()
            .into_iter()
            .filter(|found| *found == AGAIN)
            .collect();
        assert_eq!(found.is_empty(), disturbs, "{kind:?}");
    }
}

#[test]
fn what_was_taken_late_or_may_have_been_given_back_may_come_again() {
    for (late, given_back) in [(true, false), (false, true)] {
        let mut script = published(1, PUSHED);
        let receipt = script.deliver(PUSHED, 0, 1);
        if given_back {
            script.settled((Verb::GiveBack, false), PUSHED, 0, &receipt, Outcome::Told);
        }
        if late {
            script.at += SECOND;
        }
        script.settled((Verb::Ack, false), PUSHED, 0, &receipt, Outcome::Told);
        script.at += 12 * SECOND;
        push(&mut script, 2, Verb::Ack);
        script.book(PUSHED, 0, State::Acked, 2);
        assert!(script.broken().is_empty(), "{late} {given_back}");
    }
}
