//! The order of a key, and limits.

use super::history::{Outcome, State, Verb};
use super::script::{SECOND, SEED, Script};
use super::world::{KEYED_TOPIC, Manner, key, subscription};

const ORDERED: &str = "accounts-ordered";
const LIMITED: &str = "accounts-limited";
const PROMISE: &str = "order of a key";

/// Two numbers of one key, or of two.
fn pair(same: bool) -> (u64, u64) {
    let fits = |number: &u64| (key(SEED, *number) == key(SEED, 0)) == same;
    (0, (1..1000).find(fits).unwrap())
}

/// Both are published, one after the other.
fn published((first, second): (u64, u64)) -> Script {
    let mut script = Script::new();
    script.publish(KEYED_TOPIC, first..first + 1, Outcome::Done);
    script.publish(KEYED_TOPIC, second..second + 1, Outcome::Done);
    script
}

/// Violations of order only: what others should have received is not told here.
fn is_broken(script: &Script) -> bool {
    script.broken().contains(&PROMISE)
}

#[test]
fn a_message_before_an_earlier_one_of_its_key_is_found() {
    for same in [true, false] {
        let (first, second) = pair(same);
        let mut script = published((first, second));
        for number in [second, first] {
            let receipt = script.deliver(ORDERED, number, 1);
            script.settle(Verb::Ack, ORDERED, number, Some(&receipt));
        }
        assert_eq!(is_broken(&script), same);
    }
}

#[test]
fn a_message_that_was_not_surely_there_may_come_later() {
    let (first, second) = pair(true);
    for outcome in [Outcome::Done, Outcome::Broken] {
        let mut script = published((first, second));
        // its answer came late, or not at all
        let publish = &mut script.history.events[0].call;
        publish.done += 10 * SECOND;
        publish.outcome = outcome;
        for number in [second, first] {
            let receipt = script.deliver(ORDERED, number, 1);
            script.settle(Verb::Ack, ORDERED, number, Some(&receipt));
        }
        assert!(!is_broken(&script));
    }
}

#[test]
fn a_message_while_another_one_of_its_key_is_in_flight_is_found() {
    for (same, nacked) in [(true, false), (false, false), (true, true)] {
        let (first, second) = pair(same);
        let mut script = published((first, second));
        let receipt = script.deliver(ORDERED, first, 1);
        if nacked {
            script.settle(Verb::Nack, ORDERED, first, Some(&receipt));
        }
        script.deliver(ORDERED, second, 1);
        assert_eq!(is_broken(&script), same && !nacked);
    }
}

#[test]
fn a_later_message_alone_before_the_earlier_one_is_tried_again_is_found() {
    let (first, second) = pair(true);
    let mut script = published((first, second));
    let receipt = script.deliver(ORDERED, first, 1);
    script.settle(Verb::Nack, ORDERED, first, Some(&receipt));
    script.deliver(ORDERED, second, 1);
    script.at += 3 * SECOND;
    script.deliver(ORDERED, first, 2);
    assert!(is_broken(&script));
}

#[test]
fn one_claim_may_have_both_of_which_the_first_comes_again() {
    let (first, second) = pair(true);
    let mut script = published((first, second));
    let both = vec![script.delivery(first, 1), script.delivery(second, 1)];
    script.consume(ORDERED, both);
    script.at += 3 * SECOND;
    script.deliver(ORDERED, first, 2);
    assert!(!is_broken(&script));
}

#[test]
fn a_reprocessed_message_comes_when_it_comes() {
    let (first, second) = pair(true);
    let mut script = published((first, second));
    let receipt = script.deliver(ORDERED, first, 5);
    script.settle(Verb::Nack, ORDERED, first, Some(&receipt));
    let receipt = script.deliver(ORDERED, second, 1);
    script.settle(Verb::Ack, ORDERED, second, Some(&receipt));
    script.reprocess(ORDERED, first);
    script.deliver(ORDERED, first, 1);
    assert!(!is_broken(&script));
}

#[test]
fn more_in_flight_than_allowed_is_found() {
    let Manner::Limited(most) = subscription(LIMITED).manner else {
        panic!("{LIMITED} has no limit")
    };
    let most = u64::try_from(most).unwrap();
    for (count, expected) in [(most, false), (most + 1, true)] {
        let mut script = Script::new();
        script.publish(KEYED_TOPIC, 0..count, Outcome::Done);
        let deliveries = (0..count)
            .map(|number| script.delivery(number, 1))
            .collect();
        script.consume(LIMITED, deliveries);
        for number in 0..count {
            script.book(LIMITED, number, State::Unsettled, 1);
        }
        let broken = script.broken();
        let found = broken.contains(&"never more in flight than allowed");
        assert_eq!(found, expected);
    }
}

#[test]
fn what_was_settled_or_ran_out_is_in_flight_no_more() {
    let mut script = Script::new();
    script.publish(KEYED_TOPIC, 0..60, Outcome::Done);
    for number in 0..20 {
        let receipt = script.deliver(LIMITED, number, 1);
        script.settle(Verb::Ack, LIMITED, number, Some(&receipt));
    }
    let deliveries = (20..40).map(|number| script.delivery(number, 1)).collect();
    script.consume(LIMITED, deliveries);
    script.at += 2 * SECOND;
    let deliveries = (40..60).map(|number| script.delivery(number, 1)).collect();
    script.consume(LIMITED, deliveries);
    let broken = script.broken();
    assert!(!broken.contains(&"never more in flight than allowed"));
}
