//! Transactions: their acks and publishes are all there or none.

use std::ops::Range;
use std::sync::Arc;

use super::history::{Handle, Outcome, State, Verb, What};
use super::script::{SECOND, Script, id};
use super::world::{KEYED_TOPIC, MOVED, SUBSCRIPTIONS, TRANSFERS};

const PROMISE: &str = "a transaction is all or nothing";

/// A message of accounts that everybody has acked but those who move it on.
fn published() -> (Script, Arc<str>) {
    let mut script = Script::new();
    script.publish(KEYED_TOPIC, 0..1, Outcome::Done);
    let others = SUBSCRIPTIONS
        .iter()
        .filter(|known| known.topic == KEYED_TOPIC && known.id != MOVED);
    for subscription in others {
        let receipt = script.deliver(subscription.id, 0, 1);
        script.settle(Verb::Ack, subscription.id, 0, Some(&receipt));
        script.book(subscription.id, 0, State::Acked, 1);
    }
    let receipt = script.deliver(MOVED, 0, 1);
    (script, receipt)
}

fn transact(script: &mut Script, receipt: &Arc<str>, numbers: Range<u64>, outcome: Outcome) {
    let handles = vec![Handle {
        id: id(0),
        receipt: Some(Arc::clone(receipt)),
    }];
    let what = What::Transact {
        subscription: MOVED,
        handles,
        topic: TRANSFERS,
        numbers,
    };
    script.event("transactor", outcome, what);
}

/// After a transaction of this outcome: what of it is in the books.
fn broken(outcome: Outcome, published: &[u64], acked: bool) -> Vec<&'static str> {
    let (mut script, receipt) = self::published();
    transact(&mut script, &receipt, 100..102, outcome);
    for number in published {
        let receipt = script.deliver(TRANSFERS_ALL, *number, 1);
        script.settle(Verb::Ack, TRANSFERS_ALL, *number, Some(&receipt));
        script.book(TRANSFERS_ALL, *number, State::Acked, 1);
    }
    if acked {
        script.book(MOVED, 0, State::Acked, 1);
    } else {
        script.at += 2 * SECOND;
        script.deliver(MOVED, 0, 5);
        script.book(MOVED, 0, State::Dead, 5);
    }
    script.broken()
}

const TRANSFERS_ALL: &str = "transfers-all";

#[test]
fn a_transaction_that_is_whole_or_not_there_is_fine() {
    assert!(broken(Outcome::Done, &[100, 101], true).is_empty());
    assert!(broken(Outcome::CutInResponse, &[100, 101], true).is_empty());
    assert!(broken(Outcome::CutInResponse, &[], false).is_empty());
    assert!(broken(Outcome::Refused(409), &[], false).is_empty());
}

#[test]
fn acks_without_the_messages_are_found() {
    assert!(broken(Outcome::CutInResponse, &[], true).contains(&PROMISE));
    assert!(broken(Outcome::Refused(409), &[], true).contains(&PROMISE));
    assert!(broken(Outcome::Done, &[], true).contains(&"zero lost"));
}

#[test]
fn messages_without_the_acks_are_found() {
    for outcome in [Outcome::Done, Outcome::CutInResponse, Outcome::Refused(409)] {
        let broken = broken(outcome, &[100, 101], false);
        assert!(broken.contains(&PROMISE), "{outcome:?}: {broken:?}");
    }
}

#[test]
fn half_of_the_messages_are_found() {
    let broken = broken(Outcome::CutInResponse, &[100], true);
    assert_eq!(broken, ["a publish is all or nothing"]);
}

#[test]
fn an_ack_by_somebody_else_explains_itself() {
    let (mut script, receipt) = published();
    transact(&mut script, &receipt, 100..101, Outcome::CutInResponse);
    script.settle(Verb::Ack, MOVED, 0, Some(&receipt));
    script.book(MOVED, 0, State::Acked, 1);
    assert!(script.broken().is_empty());
}

#[test]
fn what_was_acked_by_a_transaction_must_not_come_again() {
    let (mut script, receipt) = published();
    transact(&mut script, &receipt, 100..101, Outcome::CutInResponse);
    let transferred = script.deliver(TRANSFERS_ALL, 100, 1);
    script.settle(Verb::Ack, TRANSFERS_ALL, 100, Some(&transferred));
    script.book(TRANSFERS_ALL, 100, State::Acked, 1);
    script.at += 2 * SECOND;
    let again = script.deliver(MOVED, 0, 2);
    script.settle(Verb::Ack, MOVED, 0, Some(&again));
    script.book(MOVED, 0, State::Acked, 2);
    assert_eq!(script.broken(), [PROMISE]);
}
