//! Pauses, purges and updates of messages.

use super::history::{Entry, Outcome, State, Verb, What};
use super::script::{SECOND, Script, id};
use super::takes::published;
use super::world::{MENDED_TOPIC, PAUSED, PURGED, digest, revised};

const ALL: &str = "parcels-all";
const SEED: u64 = super::script::SEED;
const HOLDS_BACK: &str = "a pause holds back";
const TAKES_ALL: &str = "a purge takes all there is";
const HOLDS: &str = "an update holds";
const LOST: &str = "zero lost";

fn pause(script: &mut Script, paused: bool, outcome: Outcome) {
    let what = What::Pause {
        subscription: PAUSED,
        paused,
    };
    script.event("pauser", outcome, what);
}

/// The only message, delivered and acked.
fn deliver_and_ack(script: &mut Script, name: &'static str) {
    let receipt = script.deliver(name, 0, 1);
    script.settle(Verb::Ack, name, 0, Some(&receipt));
    script.book(name, 0, State::Acked, 1);
}

#[test]
fn what_is_handed_out_during_a_pause_is_found() {
    let mut script = published(1, PAUSED);
    pause(&mut script, true, Outcome::Done);
    deliver_and_ack(&mut script, PAUSED);
    pause(&mut script, false, Outcome::Done);
    assert_eq!(script.broken(), [HOLDS_BACK]);
}

#[test]
fn what_is_handed_out_before_a_pause_or_after_it_is_fine() {
    for paused_before in [true, false] {
        let mut script = published(1, PAUSED);
        for paused in [true, false] {
            if paused_before {
                pause(&mut script, paused, Outcome::Done);
            }
        }
        deliver_and_ack(&mut script, PAUSED);
        pause(&mut script, true, Outcome::Done);
        assert!(script.broken().is_empty());
    }
}

#[test]
fn a_claim_that_began_before_the_answer_of_a_pause_may_get_something() {
    let mut script = published(1, PAUSED);
    pause(&mut script, true, Outcome::Done);
    script.history.events.last_mut().unwrap().call.done += 1;
    deliver_and_ack(&mut script, PAUSED);
    assert!(script.broken().is_empty());
}

#[test]
fn a_pause_that_was_not_answered_or_whose_end_was_asked_for_promises_nothing() {
    for (asked, outcome) in [
        (vec![true], Outcome::CutInResponse),
        (vec![true, false], Outcome::CutInResponse),
        // the end of before may come after it
        (vec![false, true], Outcome::CutInResponse),
    ] {
        let mut script = published(1, PAUSED);
        for paused in &asked {
            let outcome = if asked.len() > 1 && *paused {
                Outcome::Done
            } else {
                outcome
            };
            pause(&mut script, *paused, outcome);
        }
        deliver_and_ack(&mut script, PAUSED);
        assert!(script.broken().is_empty(), "{asked:?}");
    }
}

#[test]
fn an_end_of_before_that_is_long_over_ends_no_pause() {
    let mut script = published(1, PAUSED);
    pause(&mut script, false, Outcome::CutInResponse);
    script.at += 30 * SECOND;
    pause(&mut script, true, Outcome::Done);
    deliver_and_ack(&mut script, PAUSED);
    assert_eq!(script.broken(), [HOLDS_BACK]);
}

fn purge(script: &mut Script, outcome: Outcome) {
    let what = What::Purge {
        subscription: PURGED,
    };
    script.event("purger", outcome, what);
}

fn inspect(script: &mut Script, numbers: &[u64]) {
    let entry = |number: &u64| Entry {
        subscription: PURGED,
        id: id(*number),
        number: Some(*number),
        state: State::Unsettled,
        attempts: 0,
    };
    let what = What::Inspect {
        subscription: PURGED,
        found: numbers.iter().map(entry).collect(),
    };
    script.event("purger", Outcome::Done, what);
}

#[test]
fn what_was_published_before_a_purge_was_answered_may_be_gone() {
    let mut script = published(1, PURGED);
    assert_eq!(script.broken(), [LOST]);
    purge(&mut script, Outcome::Done);
    assert!(script.broken().is_empty());

    let purge = script.history.events.last().unwrap().call.done;
    script.history.events[0].call.sent = purge;
    assert!(script.broken().is_empty());
    script.history.events[0].call.sent = purge + 1;
    assert_eq!(script.broken(), [LOST]);
}

#[test]
fn a_purge_that_did_not_happen_takes_nothing() {
    for (outcome, broken) in [
        (Outcome::CutInResponse, vec![]),
        (Outcome::CutInRequest, vec![LOST]),
    ] {
        let mut script = published(1, PURGED);
        purge(&mut script, outcome);
        assert_eq!(script.broken(), broken, "{outcome:?}");
    }
}

#[test]
fn a_purge_without_an_answer_takes_nothing_of_long_after_it() {
    for (later, broken) in [(SECOND, vec![]), (30 * SECOND, vec![LOST])] {
        let mut script = Script::new();
        purge(&mut script, Outcome::CutInResponse);
        script.at += later;
        script.publish(MENDED_TOPIC, 0..1, Outcome::Done);
        deliver_and_ack(&mut script, ALL);
        deliver_and_ack(&mut script, PAUSED);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn what_was_purged_and_is_delivered_is_found() {
    for (outcome, reprocessed, broken) in [
        (Outcome::Done, false, vec![TAKES_ALL]),
        (Outcome::Done, true, vec![]),
        (Outcome::CutInResponse, false, vec![]),
    ] {
        let mut script = published(1, PURGED);
        purge(&mut script, outcome);
        if reprocessed {
            script.reprocess(PURGED, 0);
        }
        deliver_and_ack(&mut script, PURGED);
        assert_eq!(script.broken(), broken, "{outcome:?} {reprocessed}");
    }
}

#[test]
fn what_arrived_twice_around_a_purge_is_found() {
    let mut script = published(1, PURGED);
    deliver_and_ack(&mut script, PURGED);
    purge(&mut script, Outcome::Done);
    script.books.pop();
    assert!(script.broken().is_empty());
    script.deliver(PURGED, 0, 2);
    assert_eq!(
        script.broken(),
        ["a purge takes all there is", "never again after an ack"]
    );
}

#[test]
fn what_came_after_a_purge_and_is_gone_before_the_next_is_found() {
    for (found, broken) in [(vec![0], vec![]), (vec![], vec![LOST])] {
        let mut script = Script::new();
        purge(&mut script, Outcome::Done);
        script.at += SECOND;
        script.publish(MENDED_TOPIC, 0..1, Outcome::Done);
        deliver_and_ack(&mut script, ALL);
        deliver_and_ack(&mut script, PAUSED);
        inspect(&mut script, &found);
        purge(&mut script, Outcome::Done);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn what_was_acked_need_not_be_there_any_more() {
    let mut script = published(1, PURGED);
    deliver_and_ack(&mut script, PURGED);
    inspect(&mut script, &[]);
    assert!(script.broken().is_empty());

    // by a take that was not answered
    let mut script = published(1, PURGED);
    let what = What::Consume {
        subscription: PURGED,
        deliveries: Vec::new(),
        takes: Some(3),
    };
    script.event("taker", Outcome::CutInResponse, what);
    inspect(&mut script, &[]);
    script.book(PURGED, 0, State::Acked, 1);
    assert!(script.broken().is_empty());
}

fn update(script: &mut Script, revision: u64, outcome: Outcome) {
    let what = What::Update {
        id: id(0),
        revision,
    };
    script.event("updater", outcome, what);
}

fn deliver_revision(script: &mut Script, revision: u64) {
    let mut delivery = script.delivery(0, 1);
    delivery.revision = revision;
    delivery.digest = digest(&revised(SEED, 0, revision));
    let handle = delivery.receipt.clone();
    script.consume(ALL, vec![delivery]);
    script.settle(Verb::Ack, ALL, 0, Some(&handle));
    script.book(ALL, 0, State::Acked, 1);
}

#[test]
fn what_an_update_wrote_is_what_comes_after_it() {
    for (updates, comes, broken) in [
        (vec![1], 1, vec![]),
        (vec![1], 0, vec![HOLDS]),
        (vec![1, 4], 4, vec![]),
        (vec![1, 4], 1, vec![HOLDS]),
        (vec![1], 2, vec!["nothing invented"]),
        (vec![], 1, vec!["nothing invented"]),
    ] {
        let mut script = published(1, ALL);
        for revision in &updates {
            update(&mut script, *revision, Outcome::Done);
        }
        deliver_revision(&mut script, comes);
        assert_eq!(script.broken(), broken, "{updates:?} {comes}");
    }
}

#[test]
fn before_the_answer_of_an_update_either_may_come() {
    for outcome in [Outcome::Done, Outcome::CutInResponse] {
        for comes in [0, 1] {
            let mut script = published(1, ALL);
            update(&mut script, 1, outcome);
            script.history.events.last_mut().unwrap().call.done += 1;
            deliver_revision(&mut script, comes);
            assert!(script.broken().is_empty(), "{outcome:?} {comes}");
        }
    }
}

#[test]
fn an_update_without_an_answer_may_come_after_the_next() {
    for (later, broken) in [(0, vec![]), (30 * SECOND, vec![HOLDS])] {
        let mut script = published(1, ALL);
        update(&mut script, 1, Outcome::CutInResponse);
        script.at += later;
        update(&mut script, 2, Outcome::Done);
        deliver_revision(&mut script, 1);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn a_payload_of_half_an_update_is_changed() {
    let mut script = published(1, ALL);
    update(&mut script, 1, Outcome::Done);
    deliver_revision(&mut script, 1);
    let consumed = script
        .history
        .events
        .iter_mut()
        .rev()
        .find_map(|event| match &mut event.what {
            What::Consume { deliveries, .. } => deliveries.first_mut(),
            _ => None,
        });
    consumed.unwrap().digest = digest(&revised(SEED, 0, 2));
    assert_eq!(script.broken(), ["payload intact"]);
}

#[test]
fn a_dead_letter_that_is_reprocessed_may_say_what_it_said_when_it_died() {
    let mut script = published(1, ALL);
    update(&mut script, 1, Outcome::Done);
    script.reprocess(ALL, 0);
    deliver_revision(&mut script, 0);
    assert!(script.broken().is_empty());
}
