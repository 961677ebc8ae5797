//! Publish order: in one answer, in one request, and of first deliveries.

use std::sync::Arc;

use super::history::{Kind, Outcome, State, Verb, What};
use super::script::{SECOND, Script, id};

const ORDER: [&str; 1] = ["publish order"];
const ALL: &str = "jobs-all";

/// Two messages of topic jobs, published one after the other.
fn published() -> Script {
    let mut script = Script::new();
    script.publish("jobs", 0..1, Outcome::Done);
    script.publish("jobs", 1..2, Outcome::Done);
    script
}

fn deliver_and_ack(script: &mut Script, numbers: &[u64]) {
    for number in numbers {
        let receipt = script.deliver(ALL, *number, 1);
        script.settle(Verb::Ack, ALL, *number, Some(&receipt));
    }
}

/// Violations of order only: what else the subscriptions should have received is not told here.
fn broken(script: &Script) -> Vec<&'static str> {
    let mut broken = script.broken();
    broken.retain(|promise| *promise == ORDER[0]);
    broken
}

#[test]
fn an_answer_that_is_not_in_id_order_is_found() {
    for (numbers, expected) in [
        ([0, 1], vec![]),
        ([1, 0], ORDER.to_vec()),
        ([0, 0], ORDER.to_vec()),
    ] {
        let mut script = published();
        let deliveries = numbers.map(|number| script.delivery(number, 1)).to_vec();
        script.consume(ALL, deliveries);
        assert_eq!(broken(&script), expected, "{numbers:?}");
    }
}

#[test]
fn ids_of_a_request_that_do_not_increase_are_found() {
    for swapped in [false, true] {
        let mut script = Script::new();
        script.publish("jobs", 0..2, Outcome::Done);
        let mut deliveries = vec![script.delivery(0, 1), script.delivery(1, 1)];
        if swapped {
            (deliveries[0].id, deliveries[1].id) = (id(1), id(0));
            deliveries.reverse();
        }
        script.consume(ALL, deliveries);
        assert_eq!(!broken(&script).is_empty(), swapped);
    }
}

#[test]
fn an_id_below_one_that_was_published_before_is_found() {
    for (outcome, expected) in [
        (Outcome::Done, ORDER.to_vec()),
        (Outcome::CutInResponse, vec![]),
    ] {
        let mut script = Script::new();
        // without an answer, it may have been stored later than the next
        script.publish("jobs", 0..1, outcome);
        script.publish("jobs", 1..2, Outcome::Done);
        for (number, id) in [(0, id(1)), (1, id(0))] {
            let mut delivery = script.delivery(number, 1);
            delivery.id = id;
            script.consume(ALL, vec![delivery]);
        }
        assert_eq!(broken(&script), expected, "{outcome:?}");
    }
}

#[test]
fn a_message_that_was_overtaken_is_found() {
    let mut in_order = published();
    deliver_and_ack(&mut in_order, &[0, 1]);
    assert!(broken(&in_order).is_empty());

    let mut overtaken = published();
    deliver_and_ack(&mut overtaken, &[1, 0]);
    assert_eq!(broken(&overtaken), ORDER);
}

#[test]
fn messages_of_different_publishers_have_no_order() {
    let mut script = published();
    script.history.events[1].call.client = "another publisher".into();
    deliver_and_ack(&mut script, &[1, 0]);
    assert!(broken(&script).is_empty());
}

#[test]
fn a_straggler_may_be_overtaken() {
    let mut script = Script::new();
    // it took long to be committed; meanwhile, a later id was claimed
    script.publish("jobs", 0..1, Outcome::Done);
    script.history.events[0].call.done += SECOND;
    script.publish("jobs", 2..3, Outcome::Done);
    script.history.events[1].call.client = "another publisher".into();
    deliver_and_ack(&mut script, &[2]);
    script.at += SECOND;
    script.publish("jobs", 1..2, Outcome::Done);
    let mut hurried = script.delivery(1, 1);
    hurried.id = id(7);
    script.consume(ALL, vec![hurried]);
    deliver_and_ack(&mut script, &[0]);
    assert!(broken(&script).is_empty());
}

#[test]
fn what_a_claim_under_way_left_of_a_publish_call_may_be_overtaken() {
    for (messages, at_once, expected) in [
        (3, true, vec![]),
        (3, false, ORDER.to_vec()),
        // of other calls nothing is hidden
        (1, true, ORDER.to_vec()),
    ] {
        let mut script = Script::new();
        for first in [0, messages, 2 * messages] {
            script.publish("jobs", first..first + messages, Outcome::Done);
        }
        let published = script.history.events.len();
        for number in [0, 2, 1] {
            let delivery = script.delivery(number, 1);
            script.consume(ALL, vec![delivery]);
            script.at += 1;
        }
        if at_once {
            let done = script.history.events[published + 1].call.done;
            script.history.events[published].call.done = done;
        }
        assert_eq!(
            broken(&script),
            expected,
            "{messages} a call, at once: {at_once}"
        );
    }
}

#[test]
fn what_a_lost_claim_or_a_fault_left_behind_may_be_overtaken() {
    let mut lost = published();
    let what = What::Consume {
        subscription: ALL,
        deliveries: Vec::new(),
        takes: None,
    };
    lost.event("consumer", Outcome::CutInResponse, what);
    deliver_and_ack(&mut lost, &[1, 0]);
    assert!(broken(&lost).is_empty());

    let mut faulty = published();
    faulty.fault(Kind::KillPostgres, 1);
    deliver_and_ack(&mut faulty, &[1, 0]);
    assert!(broken(&faulty).is_empty());
}

#[test]
fn a_retried_or_reprocessed_message_may_be_overtaken() {
    for reprocessed in [true, false] {
        let mut script = published();
        deliver_and_ack(&mut script, &[1]);
        if reprocessed {
            script.reprocess(ALL, 0);
        }
        let attempts = if reprocessed { 1 } else { 2 };
        let receipt: Arc<str> = script.deliver(ALL, 0, attempts);
        script.settle(Verb::Ack, ALL, 0, Some(&receipt));
        script.book(ALL, 0, State::Acked, attempts);
        assert!(broken(&script).is_empty());
    }
}
