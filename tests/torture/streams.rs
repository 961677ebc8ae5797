//! Streams: an ack that a result confirms holds whatever became of the lease, and what is given back is not counted.

use super::history::{Outcome, State, Verb, What};
use super::script::SECOND;
use super::takes::published;

const EVENTS: &str = "alerts-events";
const AGAIN: &str = "never again after an ack";
const COUNTS: &str = "attempts count up";

#[test]
fn what_comes_after_a_confirmed_ack_is_found_also_when_its_lease_was_over() {
    for (confirmed, broken) in [(true, vec![AGAIN]), (false, vec![])] {
        let mut script = published(1, EVENTS);
        let receipt = script.deliver(EVENTS, 0, 1);
        script.at += 10 * SECOND;
        let ack = (Verb::Ack, confirmed);
        script.settled(ack, EVENTS, 0, &receipt, Outcome::Done);
        let again = script.deliver(EVENTS, 0, 2);
        script.settled(ack, EVENTS, 0, &again, Outcome::Done);
        script.book(EVENTS, 0, State::Acked, 2);
        assert_eq!(script.broken(), broken, "{confirmed}");
    }
}

#[test]
fn a_confirmed_ack_that_the_books_do_not_have_is_found() {
    let mut script = published(1, EVENTS);
    let receipt = script.deliver(EVENTS, 0, 4);
    script.at += 10 * SECOND;
    script.settled((Verb::Ack, true), EVENTS, 0, &receipt, Outcome::Done);
    script.book(EVENTS, 0, State::Dead, 5);
    assert_eq!(script.broken(), [AGAIN]);
}

#[test]
fn an_ack_that_was_said_and_not_answered_may_be_what_settled_it() {
    for (said, broken) in [(true, vec![]), (false, vec!["zero lost"])] {
        let mut script = published(1, EVENTS);
        let receipt = script.deliver(EVENTS, 0, 1);
        if said {
            script.settled((Verb::Ack, false), EVENTS, 0, &receipt, Outcome::Told);
        }
        script.book(EVENTS, 0, State::Acked, 1);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn what_is_given_back_comes_again_at_once_under_the_same_number_and_nothing_else_does() {
    for (verb, broken) in [
        (Some(Verb::GiveBack), vec![]),
        (Some(Verb::Nack), vec![COUNTS]),
        (None, vec![COUNTS, "one holder"]),
    ] {
        let mut script = published(1, EVENTS);
        let receipt = script.deliver(EVENTS, 0, 1);
        if let Some(verb) = verb {
            script.settled((verb, false), EVENTS, 0, &receipt, Outcome::Told);
        }
        let again = script.deliver(EVENTS, 0, 1);
        script.at += 1;
        script.settled((Verb::Ack, true), EVENTS, 0, &again, Outcome::Done);
        script.book(EVENTS, 0, State::Acked, 1);
        assert_eq!(script.broken(), broken, "{verb:?}");
    }
}

#[test]
fn what_was_given_back_is_not_settled() {
    let mut script = published(1, EVENTS);
    let receipt = script.deliver(EVENTS, 0, 1);
    script.settled((Verb::GiveBack, false), EVENTS, 0, &receipt, Outcome::Told);
    script.book(EVENTS, 0, State::Acked, 1);
    assert_eq!(script.broken(), ["zero lost"]);
}

#[test]
fn a_delivery_that_counts_after_the_one_that_was_acked_is_found() {
    for (verb, broken) in [(Verb::Nack, vec![AGAIN]), (Verb::GiveBack, vec![])] {
        let mut script = published(1, EVENTS);
        let first = script.deliver(EVENTS, 0, 1);
        script.settled((Verb::Ack, false), EVENTS, 0, &first, Outcome::Told);
        script.at += 10 * SECOND;
        let second = script.deliver(EVENTS, 0, 2);
        script.settled((verb, false), EVENTS, 0, &second, Outcome::Told);
        script.book(EVENTS, 0, State::Acked, 1);
        assert_eq!(script.broken(), broken, "{verb:?}");
    }
}

#[test]
fn a_stream_that_is_broken_off_without_a_fault_is_found() {
    for (outcome, broken) in [
        (Outcome::Broken, vec!["alive all along"]),
        (Outcome::TimedOut, vec!["alive all along"]),
        (Outcome::CutInResponse, vec![]),
    ] {
        let mut script = published(0, EVENTS);
        let what = What::Consume {
            subscription: EVENTS,
            deliveries: Vec::new(),
            takes: None,
        };
        script.event("listener", outcome, what);
        assert_eq!(script.broken(), broken, "{outcome:?}");
    }
}
