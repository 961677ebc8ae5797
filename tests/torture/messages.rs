//! Messages and books: lost, doubled, invented, changed, half published.

use serde_json::json;
use uuid::Uuid;

use super::history::{Outcome, State, Verb, What};
use super::script::{SECOND, Script, UNAVAILABLE, id, number_for};
use super::world::{PURGED, SUBSCRIPTIONS, Subscription, TOPICS, digest, payload};
use crate::support::database::TestDatabase;

const WHOLE: &str = "a publish is all or nothing";

#[test]
fn a_clean_run_breaks_nothing() {
    assert!(Script::clean().broken().is_empty());
}

#[test]
fn a_message_that_the_books_lack_is_lost() {
    let mut script = Script::clean();
    script.books.pop();
    assert_eq!(script.broken(), ["zero lost"]);
}

#[test]
fn a_message_that_nobody_acked_but_the_books_is_lost() {
    let mut script = Script::clean();
    script.publish("orders", 10..11, Outcome::Done);
    script.consume_all("orders", 10..11);
    let named =
        |what: &What| matches!(what, What::Settle { handles, .. } if handles[0].id == id(10));
    script.history.events.retain(|event| !named(&event.what));
    assert_eq!(script.broken(), ["zero lost"]);
}

#[test]
fn a_message_that_only_an_old_receipt_acked_is_lost() {
    for (acked_with, broken) in [(1, vec![]), (0, vec!["zero lost"])] {
        let number = number_for("orders-abroad", false);
        let mut script = Script::new();
        script.publish("orders", number..number + 1, Outcome::Done);
        let receipts = [1, 2].map(|attempts| {
            script.at += 3 * SECOND;
            script.deliver("orders-all", number, attempts)
        });
        let receipt = Some(&receipts[acked_with]);
        script.settle(Verb::Ack, "orders-all", number, receipt);
        script.book("orders-all", number, State::Acked, 2);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn a_message_that_is_twice_in_the_books_is_doubled() {
    let mut script = Script::clean();
    script.books.push(script.books[0].clone());
    assert_eq!(script.broken(), ["settled once"]);
}

#[test]
fn a_message_under_two_ids_is_stored_twice() {
    let mut script = Script::clean();
    script.publish("jobs", 10..11, Outcome::Done);
    script.consume_all("jobs", 10..11);
    let mut other = script.delivery(10, 1);
    other.id = id(11);
    script.consume("jobs-all", vec![other]);
    assert_eq!(script.broken(), ["stored once"]);
}

#[test]
fn a_message_that_is_left_over_is_not_settled() {
    let mut script = Script::clean();
    script.books[0].state = State::Unsettled;
    assert_eq!(script.broken(), ["everything is settled"]);
}

#[test]
fn a_message_is_dead_only_when_its_attempts_are_spent() {
    for (attempts, broken) in [(4, vec!["dead when spent"]), (5, vec![])] {
        let mut script = Script::new();
        let number = number_for("orders-abroad", false);
        script.publish("orders", number..number + 1, Outcome::Done);
        script.book("orders-all", number, State::Dead, attempts);
        assert_eq!(script.broken(), broken);
    }
}

#[test]
fn an_unanswered_publish_is_whole_or_not_at_all() {
    for (kept, broken) in [
        (0..0, vec![]),
        (0..4, vec![]),
        (1..4, vec![WHOLE]),
        (0..2, vec![WHOLE]),
    ] {
        for outcome in [Outcome::Broken, Outcome::CutInResponse, UNAVAILABLE] {
            let mut script = Script::new();
            script.fault(super::history::Kind::KillServer, 1);
            script.fault(super::history::Kind::KillPostgres, 1);
            script.publish("events", 0..4, outcome);
            script.consume_all("events", kept.clone());
            assert_eq!(script.broken(), broken, "{kept:?} {outcome:?}");
        }
    }
}

#[test]
fn a_publish_that_was_refused_or_cut_short_is_not_there() {
    let mut script = Script::clean();
    script.publish("jobs", 10..12, Outcome::CutInRequest);
    assert!(script.broken().is_empty());

    script.consume_all("jobs", 10..12);
    assert_eq!(script.broken(), [WHOLE, "nothing invented"]);
}

#[test]
fn a_publish_with_rubbish_must_be_refused_as_a_whole() {
    let mut script = Script::clean();
    script.publish("jobs", 10..12, Outcome::Refused(422));
    let What::Publish { rubbish, .. } = &mut script.history.events.last_mut().unwrap().what else {
        panic!("no publish")
    };
    *rubbish = true;
    assert!(script.broken().is_empty());

    script.consume_all("jobs", 10..12);
    assert_eq!(script.broken(), [WHOLE, "nothing invented"]);
}

#[test]
fn a_message_that_nobody_published_is_invented() {
    let mut script = Script::clean();
    script.deliver("orders-all", 99, 1);
    assert_eq!(script.broken(), ["nothing invented"]);

    let mut script = Script::clean();
    script.books[0].id = Uuid::max();
    script.books[0].number = None;
    assert!(script.broken().contains(&"nothing invented"));
}

#[test]
fn a_payload_that_is_not_as_it_was_sent_is_changed() {
    let mut script = Script::clean();
    let mut whats = script
        .history
        .events
        .iter_mut()
        .map(|event| &mut event.what);
    let changed = whats.find_map(|what| match what {
        What::Consume { deliveries, .. } => deliveries.first_mut(),
        _ => None,
    });
    changed.unwrap().digest ^= 1;
    assert_eq!(script.broken(), ["payload intact"]);
}

#[test]
fn a_message_must_not_come_through_a_filter_or_from_another_topic() {
    let number = number_for("orders-abroad", false);
    for subscription in ["orders-abroad", "jobs-all"] {
        let mut script = Script::new();
        script.publish("orders", number..number + 1, Outcome::Done);
        script.consume_all("orders", number..number + 1);
        script.deliver(subscription, number, 1);
        assert_eq!(script.broken(), ["filters"]);
    }
    let mut script = Script::new();
    script.publish("orders", number..number + 1, Outcome::Done);
    script.consume_all("orders", number..number + 1);
    script.book("orders-abroad", number, State::Dead, 3);
    assert_eq!(script.broken(), ["filters"]);
}

#[test]
fn every_topic_has_a_subscription_that_receives_everything_and_loses_nothing() {
    for topic in TOPICS {
        let mut of_topic = SUBSCRIPTIONS.iter().filter(|known| known.topic == topic);
        let shows_all = |known: &Subscription| {
            known.filter.is_empty() && known.id != PURGED && known.takers == 0
        };
        assert!(of_topic.any(shows_all), "{topic}");
    }
}

#[test]
fn equal_payloads_have_equal_digests_and_others_do_not() {
    let sent = r#"{"a": [1, "é"], "b": {"c": true, "d": null}}"#;
    let got = r#"{"b": {"d": null, "c": true}, "a": [1, "é"]}"#;
    let of = |text: &str| digest(&serde_json::from_str(text).unwrap());
    assert_eq!(of(sent), of(got));
    assert_ne!(of(sent), of(&got.replace("true", "false")));
}

/// The checker decides by code of its own what a filter lets pass.
#[tokio::test]
async fn the_checkers_filters_are_those_of_the_database() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    for subscription in &SUBSCRIPTIONS {
        let filter = &subscription.body()["filter"];
        let numbers = 0..300;
        let payloads: Vec<_> = numbers
            .clone()
            .map(|number| json!(payload(3, number)))
            .collect();
        let passed: Vec<bool> = sqlx::query_scalar(
            "select pubsub.matches_filter(p.payload, $2) \
             from unnest($1::jsonb[]) with ordinality as p (payload, place) order by p.place",
        )
        .bind(payloads)
        .bind(filter)
        .fetch_all(&mut connection)
        .await
        .unwrap();

        let expected: Vec<bool> = numbers.map(|n| subscription.receives(3, n)).collect();
        assert_eq!(passed, expected, "{}", subscription.id);
        let is_filter = !subscription.filter.is_empty();
        assert!(expected.contains(&true) && expected.contains(&false) == is_filter);
    }
}
