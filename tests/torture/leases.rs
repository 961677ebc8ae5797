//! Leases, acks and attempts of one message in one subscription.

use super::history::{Kind, Outcome, State, Verb, What};
use super::script::{SECOND, SEED, Script, id};
use super::world::subscription;

/// Leased for 2 s, at most 5 times.
const TIMED: &str = "orders-all";
/// Leased for the default 3 s.
const UNTIMED: &str = "events-all";
const HOLDER: &str = "one holder";
const AGAIN: &str = "never again after an ack";
const ATTEMPTS: &str = "attempts count up";

/// One message, which only the subscription without a filter receives.
pub(super) fn published(topic: &'static str) -> Script {
    let mut script = Script::new();
    script.publish(topic, number()..number() + 1, Outcome::Done);
    script
}

pub(super) fn number() -> u64 {
    let numbers = 0..1000;
    let mut fit = numbers.filter(|number| {
        let receives = |id: &str| subscription(id).receives(SEED, *number);
        !receives("orders-abroad") && !receives("events-tagged")
    });
    fit.next().unwrap()
}

/// The ack that the books tell of, without a word about when it came.
pub(super) fn acked_somehow(script: &mut Script, subscription: &'static str, attempts: u32) {
    script.at += 100 * SECOND;
    script.settle(Verb::Ack, subscription, number(), None);
    script.book(subscription, number(), State::Acked, attempts);
}

#[test]
fn two_live_leases_of_one_message_are_found() {
    let mut script = published("orders");
    script.deliver(TIMED, number(), 1);
    script.deliver(TIMED, number(), 2);
    acked_somehow(&mut script, TIMED, 2);
    assert_eq!(script.broken(), [HOLDER]);
}

#[test]
fn a_lease_ends_at_its_deadline_or_when_it_is_settled() {
    let mut after_deadline = published("orders");
    after_deadline.deliver(TIMED, number(), 1);
    after_deadline.at += 2 * SECOND;
    after_deadline.deliver(TIMED, number(), 2);
    acked_somehow(&mut after_deadline, TIMED, 2);
    assert!(after_deadline.broken().is_empty());

    for by_id in [true, false] {
        let mut after_nack = published("orders");
        let receipt = after_nack.deliver(TIMED, number(), 1);
        let receipt = (!by_id).then_some(&receipt);
        after_nack.settle(Verb::Nack, TIMED, number(), receipt);
        after_nack.deliver(TIMED, number(), 2);
        acked_somehow(&mut after_nack, TIMED, 2);
        assert!(after_nack.broken().is_empty());
    }
}

#[test]
fn an_old_receipt_ends_no_lease() {
    let mut script = published("orders");
    let old = script.deliver(TIMED, number(), 1);
    script.at += 3 * SECOND;
    script.deliver(TIMED, number(), 2);
    script.settle(Verb::Nack, TIMED, number(), Some(&old));
    script.deliver(TIMED, number(), 3);
    acked_somehow(&mut script, TIMED, 3);
    assert_eq!(script.broken(), [HOLDER]);
}

#[test]
fn a_slow_answer_makes_a_lease_short() {
    let mut script = published("orders");
    script.deliver(TIMED, number(), 1);
    let claim = &mut script.history.events.last_mut().unwrap().call;
    claim.done += 2 * SECOND;
    script.at = claim.sent + SECOND;
    // perhaps the first claim ran only after this one's lease had ended
    script.deliver(TIMED, number(), 2);
    script.history.events.last_mut().unwrap().call.done += 3 * SECOND;
    acked_somehow(&mut script, TIMED, 2);
    assert!(script.broken().is_empty());
}

#[test]
fn a_clean_up_of_stuck_messages_ends_leases_without_a_deadline_of_their_own() {
    for (topic, subscription, broken) in
        [("events", UNTIMED, vec![]), ("orders", TIMED, vec![HOLDER])]
    {
        let mut script = published(topic);
        script.deliver(subscription, number(), 1);
        script.fault(Kind::CleanUpStuck, 1000);
        script.deliver(subscription, number(), 2);
        acked_somehow(&mut script, subscription, 2);
        assert_eq!(script.broken(), broken, "{subscription}");
    }
}

#[test]
fn a_delivery_after_an_ack_is_found() {
    let mut script = published("orders");
    let receipt = script.deliver(TIMED, number(), 1);
    script.settle(Verb::Ack, TIMED, number(), Some(&receipt));
    script.book(TIMED, number(), State::Acked, 1);
    assert!(script.broken().is_empty());

    script.at += 10 * SECOND;
    script.deliver(TIMED, number(), 2);
    assert_eq!(script.broken(), [AGAIN]);
}

#[test]
fn an_ack_that_came_late_or_was_not_answered_promises_nothing() {
    let mut late = published("orders");
    let receipt = late.deliver(TIMED, number(), 1);
    late.at += 2 * SECOND;
    late.settle(Verb::Ack, TIMED, number(), Some(&receipt));
    late.deliver(TIMED, number(), 2);
    acked_somehow(&mut late, TIMED, 2);
    assert!(late.broken().is_empty());

    let mut unanswered = published("orders");
    let receipt = unanswered.deliver(TIMED, number(), 1);
    unanswered.settle(Verb::Ack, TIMED, number(), Some(&receipt));
    unanswered.history.events.last_mut().unwrap().call.outcome = Outcome::CutInResponse;
    unanswered.at += 2 * SECOND;
    unanswered.deliver(TIMED, number(), 2);
    acked_somehow(&mut unanswered, TIMED, 2);
    assert!(unanswered.broken().is_empty());
}

#[test]
fn a_message_that_is_dead_after_its_ack_is_found() {
    let mut script = published("orders");
    let receipt = script.deliver(TIMED, number(), 5);
    script.settle(Verb::Ack, TIMED, number(), Some(&receipt));
    script.book(TIMED, number(), State::Dead, 5);
    assert_eq!(script.broken(), [AGAIN]);
}

#[test]
fn attempts_above_the_most_are_found() {
    let mut script = published("orders");
    script.deliver(TIMED, number(), 6);
    acked_somehow(&mut script, TIMED, 6);
    assert_eq!(script.broken(), ["at most max attempts"]);
}

#[test]
fn attempts_that_do_not_count_up_are_found() {
    for (attempts, broken) in [
        ([1, 3], vec![]),
        ([2, 2], vec![ATTEMPTS]),
        ([3, 2], vec![ATTEMPTS]),
    ] {
        let mut script = published("orders");
        for attempts in attempts {
            script.deliver(TIMED, number(), attempts);
            script.at += 3 * SECOND;
        }
        acked_somehow(&mut script, TIMED, 3);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn attempts_start_anew_after_a_reprocess() {
    let mut script = published("orders");
    let receipt = script.deliver(TIMED, number(), 5);
    script.settle(Verb::Nack, TIMED, number(), Some(&receipt));
    script.reprocess(TIMED, number());
    script.deliver(TIMED, number(), 1);
    acked_somehow(&mut script, TIMED, 1);
    assert!(script.broken().is_empty());

    let reprocess =
        |what: &What| matches!(what, What::Reprocess { ids, .. } if ids[0] == id(number()));
    let events = &mut script.history.events;
    let event = events.iter_mut().find(|event| reprocess(&event.what));
    event.unwrap().call.outcome = Outcome::CutInRequest;
    assert_eq!(script.broken(), [ATTEMPTS]);
}
