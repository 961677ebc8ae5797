//! Takes: what was taken never comes again, and only what takes without an answer got is acked unseen.

use super::history::{Kind, Outcome, State, Verb, What};
use super::script::{SECOND, Script, id};
use super::world::{MENDED_TOPIC, SUBSCRIPTIONS, subscription};

const ALL: &str = "parcels-all";
const LOST: &str = "zero lost";
const AGAIN: &str = "never again after an ack";
const HOLDER: &str = "one holder";

/// Messages of one request, which all subscriptions of its topic but one have settled.
pub(super) fn published(count: u64, but: &str) -> Script {
    let topic = subscription(but).topic;
    let mut script = Script::new();
    script.publish(topic, 0..count, Outcome::Done);
    let others = SUBSCRIPTIONS
        .iter()
        .filter(|known| known.topic == topic && known.id != but);
    for subscription in others {
        for number in 0..count {
            let receipt = script.deliver(subscription.id, number, 1);
            script.settle(Verb::Ack, subscription.id, number, Some(&receipt));
            script.book(subscription.id, number, State::Acked, 1);
        }
    }
    script
}

fn take(script: &mut Script, number: u64, attempts: u32) {
    let mut delivery = script.delivery(number, attempts);
    delivery.taken = true;
    let what = What::Consume {
        subscription: ALL,
        deliveries: vec![delivery],
        takes: Some(10),
    };
    script.event("taker", Outcome::Done, what);
}

/// A take of so many that was not answered.
fn lose_take(script: &mut Script, most: usize, outcome: Outcome) {
    let what = What::Consume {
        subscription: ALL,
        deliveries: Vec::new(),
        takes: Some(most),
    };
    script.event("taker", outcome, what);
}

#[test]
fn what_was_taken_is_settled() {
    let mut script = published(1, ALL);
    take(&mut script, 0, 1);
    script.book(ALL, 0, State::Acked, 1);
    assert!(script.broken().is_empty());

    for state in [State::Unsettled, State::Dead] {
        script.books.last_mut().unwrap().state = state;
        assert!(!script.broken().is_empty(), "{state:?}");
    }
    script.books.pop();
    assert_eq!(script.broken(), [LOST]);
}

#[test]
fn what_was_taken_and_comes_again_is_found_also_after_a_crash() {
    for crashes in [false, true] {
        for taken_again in [false, true] {
            let mut script = published(1, ALL);
            take(&mut script, 0, 1);
            if crashes {
                script.crash();
            }
            if taken_again {
                take(&mut script, 0, 2);
            } else {
                script.deliver(ALL, 0, 2);
            }
            script.book(ALL, 0, State::Acked, 2);
            assert_eq!(script.broken(), [AGAIN]);
        }
    }
}

#[test]
fn two_takes_at_one_time_of_one_message_are_found() {
    let mut script = published(1, ALL);
    let at = script.at;
    take(&mut script, 0, 1);
    script.at = at;
    take(&mut script, 0, 1);
    script.book(ALL, 0, State::Acked, 1);
    assert_eq!(script.broken(), ["attempts count up"]);
}

#[test]
fn a_message_that_is_taken_from_its_holder_is_found() {
    for (later, broken) in [(0, vec![HOLDER]), (2 * SECOND, vec![])] {
        let mut script = published(1, ALL);
        script.deliver(ALL, 0, 1);
        script.at += later;
        take(&mut script, 0, 2);
        script.book(ALL, 0, State::Acked, 2);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn what_a_take_without_an_answer_got_may_be_lost_but_no_more() {
    for (asked, broken) in [(2, vec![]), (1, vec![LOST])] {
        let mut script = published(2, ALL);
        lose_take(&mut script, asked, Outcome::CutInResponse);
        for number in 0..2 {
            script.book(ALL, number, State::Acked, 1);
        }
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn what_no_take_got_without_an_answer_is_lost() {
    for outcome in [Outcome::Done, Outcome::CutInRequest] {
        let mut script = published(1, ALL);
        lose_take(&mut script, 10, outcome);
        script.book(ALL, 0, State::Acked, 1);
        assert_eq!(script.broken(), [LOST], "{outcome:?}");
    }
}

#[test]
fn a_take_without_an_answer_explains_nothing_that_was_seen_long_after_it() {
    for (later, broken) in [(SECOND, vec![]), (30 * SECOND, vec![LOST])] {
        let mut script = published(1, ALL);
        lose_take(&mut script, 10, Outcome::CutInResponse);
        script.at += later;
        script.deliver(ALL, 0, 1);
        script.book(ALL, 0, State::Acked, 2);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn late_takes_explain_what_came_late_and_early_ones_what_came_early() {
    let mut script = published(1, ALL);
    lose_take(&mut script, 1, Outcome::CutInResponse);
    script.at += 30 * SECOND;
    script.publish(MENDED_TOPIC, 1..2, Outcome::Done);
    for name in ["parcels-paused", "parcels-purged"] {
        let receipt = script.deliver(name, 1, 1);
        script.settle(Verb::Ack, name, 1, Some(&receipt));
        script.book(name, 1, State::Acked, 1);
    }
    script.book(ALL, 1, State::Acked, 1);
    script.book(ALL, 0, State::Acked, 1);
    assert_eq!(script.broken(), [LOST]);

    lose_take(&mut script, 1, Outcome::CutInResponse);
    assert!(script.broken().is_empty());
}

#[test]
fn a_take_that_broke_without_a_fault_is_found() {
    let mut script = published(1, ALL);
    lose_take(&mut script, 10, Outcome::Broken);
    script.book(ALL, 0, State::Acked, 1);
    assert_eq!(script.broken(), ["alive all along"]);

    script.history.faults.clear();
    script.at -= SECOND;
    script.fault(Kind::KillServer, 2 * SECOND);
    assert!(script.broken().is_empty());
}

/// Acked by a take without an answer, and since then forgotten: the books know no more than its id.
#[test]
fn what_a_lost_take_got_and_the_books_forgot_is_known_from_other_subscriptions() {
    for (known_to_others, broken) in [(true, vec![]), (false, vec!["nothing invented", LOST])] {
        let mut script = published(1, ALL);
        lose_take(&mut script, 10, Outcome::CutInResponse);
        script.book(ALL, 0, State::Acked, 1);
        let forgotten = script.books.last_mut().unwrap();
        forgotten.number = None;
        if !known_to_others {
            forgotten.id = id(1);
        }
        assert_eq!(script.broken(), broken);
    }
}
