use std::pin::pin;

use super::*;

fn look(subscription_id: &str, is_ready: bool, newest: u128) -> Look {
    Look {
        subscription_id: subscription_id.to_owned(),
        topic_id: Some("t".to_owned()),
        is_ready,
        next_after: Some(Uuid::from_u128(newest)),
        newest: Some(Uuid::from_u128(newest)),
        rewinds: Some(0),
        due_at: None,
        due_in_seconds: None,
        frees: false,
        by_consumer: false,
        expires_after_seconds: None,
    }
}

/// How many of those who wait heard the bell.
macro_rules! heard {
    ($($waiter:ident),*) => {
        [$($waiter.as_mut().enable()),*].iter().filter(|heard| **heard).count()
    };
}

#[test]
fn as_many_as_there_are_messages_hear_it_the_first_ones_first() {
    let mut places = Places::default();
    let bell = places.enter("s", false).bell;
    for _ in 0..2 {
        assert!(!places.enter("s", false).is_new);
    }
    let (mut a, mut b, mut c) = (
        pin!(bell.notified()),
        pin!(bell.notified()),
        pin!(bell.notified()),
    );
    assert_eq!(heard!(a, b, c), 0);

    places.ring("s", 2);

    assert!(a.as_mut().enable() && b.as_mut().enable() && !c.as_mut().enable());
    places.ring("other", 1);
    assert_eq!(heard!(c), 0);
}

#[test]
fn a_topic_rings_for_its_subscriptions_and_for_those_it_does_not_know_yet() {
    let mut places = Places::default();
    let of_topic = places.enter("a", false).bell;
    let of_other = places.enter("b", false).bell;
    let unknown = places.enter("c", false).bell;
    let other = Look {
        topic_id: Some("other".to_owned()),
        ..look("b", false, 1)
    };
    places.update(vec![look("a", false, 1), other]);
    let (mut a, mut b, mut c) = (
        pin!(of_topic.notified()),
        pin!(of_other.notified()),
        pin!(unknown.notified()),
    );
    assert_eq!(heard!(a, b, c), 0);

    places.ring_topic("t", 1);

    assert!(a.as_mut().enable() && !b.as_mut().enable() && c.as_mut().enable());
}

#[test]
fn nobody_claims_while_there_is_nothing_new() {
    let mut places = Places::default();
    places.enter("s", false);
    assert!(!places.nothing_new("s"));

    let news = places.news("s");
    places.found_nothing("s", news, false);
    assert!(places.nothing_new("s"));

    let news = places.news("s");
    places.ring("s", 1);
    assert!(!places.nothing_new("s"));
    places.found_nothing("s", news, false);
    assert!(!places.nothing_new("s"), "the news came while it claimed");
}

#[test]
fn what_nobody_gets_is_not_tried_at_each_look_but_something_else_is() {
    let mut places = Places::default();
    let bell = places.enter("s", false).bell;
    let mut waits = pin!(bell.notified());
    assert_eq!(heard!(waits), 0);
    places.update(vec![look("s", true, 1)]);
    assert_eq!(heard!(waits), 1);
    let news = places.news("s");
    places.found_nothing("s", news, false);

    let mut again = pin!(bell.notified());
    assert_eq!(heard!(again), 0);
    places.update(vec![look("s", true, 1)]);
    assert_eq!(heard!(again), 0);
    assert!(places.next_at().is_some(), "it is tried later");
    assert_eq!(places.watched().after, [None], "and from there");

    places.update(vec![look("s", true, 2)]);
    assert_eq!(heard!(again), 1);
}

#[test]
fn what_one_consumer_is_refused_is_offered_to_all() {
    let mut places = Places::default();
    let bell = places.enter("s", false).bell;
    places.enter("s", false);
    let limited = Look {
        by_consumer: true,
        frees: true,
        ..look("s", false, 1)
    };
    let (mut a, mut b) = (pin!(bell.notified()), pin!(bell.notified()));
    assert_eq!(heard!(a, b), 0);
    places.ring_for_room("s", 1);
    assert_eq!(
        heard!(a, b),
        0,
        "an ack makes room only where there is a limit"
    );

    places.update(vec![limited]);
    places.ring_for_room("s", 1);

    assert_eq!(heard!(a, b), 2);
}

#[test]
fn one_watch_runs_until_nobody_has_waited_for_a_while() {
    let mut places = Places::default();
    assert!(places.enter("s", false).starts_watch);
    assert!(!places.enter("t", false).starts_watch);
    places.leave("s", false);
    places.leave("t", false);
    assert!(!places.ends_watch(), "most come back at once");
    assert!(!places.enter("s", false).starts_watch);
    places.leave("s", false);

    for place in places.places.values_mut() {
        place.left_at -= KEPT_FOR;
    }

    assert!(places.ends_watch());
    assert!(places.enter("s", false).starts_watch);
}

#[test]
fn what_one_who_is_choosy_passes_over_is_offered_to_all_and_not_taken_for_nothing() {
    let mut places = Places::default();
    let bell = places.enter("s", false).bell;
    places.enter("s", true);
    let (mut a, mut b) = (pin!(bell.notified()), pin!(bell.notified()));
    assert_eq!(heard!(a, b), 0);

    places.update(vec![look("s", true, 1)]);
    assert_eq!(heard!(a, b), 2);

    let news = places.news("s");
    places.found_nothing("s", news, true);
    assert!(!places.nothing_new("s"), "others may find something");
    let mut again = pin!(bell.notified());
    assert_eq!(heard!(again), 0);
    places.update(vec![look("s", true, 1)]);
    assert_eq!(heard!(again), 0, "it is not tried at each look");

    places.leave("s", true);
    let mut last = pin!(bell.notified());
    assert_eq!(heard!(last), 0);
    places.ring("s", 1);
    assert_eq!(heard!(again, last), 1, "one for each, as before");
}

#[tokio::test]
async fn whoever_asks_only_whether_somebody_waits_forgets_no_time() {
    let mut places = Places::default();
    let _entered = places.enter("s", false);
    let due = Look {
        due_in_seconds: Some(8.0),
        ..look("s", false, 1)
    };
    places.update(vec![due]);
    let next_at = places.next_at();
    assert!(next_at.is_some());

    assert!(!places.ends_watch());

    assert_eq!(places.next_at(), next_at);
    places.watched();
    assert_eq!(places.next_at(), None, "until the look tells another");
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_kept_four_times_in_its_time_while_somebody_waits() {
    let mut places = Places::default();
    places.enter("s", false);
    places.enter("everlasting", false);
    let expiring = |seconds| Look {
        expires_after_seconds: Some(seconds),
        ..look("s", false, 1)
    };
    places.update(vec![expiring(40), look("everlasting", false, 1)]);
    assert!(places.take_due().is_empty());
    tokio::time::advance(Duration::from_secs(9)).await;
    places.update(vec![expiring(40)]);
    tokio::time::advance(Duration::from_secs(1)).await;

    assert_eq!(places.take_due(), ["s"]);
    assert!(places.take_due().is_empty());
    places.update(vec![expiring(12)]);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(places.take_due(), ["s"]);

    places.leave("s", false);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(places.take_due().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_there_without_waiting_keeps_what_expires_and_hears_no_bell() {
    let mut places = Places::default();
    let expiring = || Look {
        expires_after_seconds: Some(40),
        ..look("s", false, 1)
    };
    assert!(places.attend("s").starts_watch);
    assert!(!places.attend("s").is_new);
    places.update(vec![expiring()]);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(places.take_due(), ["s"]);
    assert!(!places.ends_watch());

    let bell = places.enter("s", false).bell;
    let mut waits = pin!(bell.notified());
    assert_eq!(heard!(waits), 0);
    places.ring("s", 3);
    assert_eq!(heard!(waits), 1);
    let mut again = pin!(bell.notified());
    assert_eq!(heard!(again), 0, "one for who waits, none for who does not");
    places.leave("s", false);

    places.depart("s");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(places.take_due(), ["s"], "one is there yet");
    places.depart("s");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(places.take_due().is_empty());
    assert!(places.ends_watch());
}
