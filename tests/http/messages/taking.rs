//! Pulls with `auto_ack` and `only`, and the engine's claims of several subscriptions.

use std::time::Duration;

use fastpubsub::budget::Budget;
use fastpubsub::db::messages::{Claim, Only};
use fastpubsub::engine::{Claimed, Engine};
use fastpubsub::error::Error;
use serde_json::{Value, json};

use super::{app_with, counts, fault_place, number, numbered, payloads, publish};
use crate::support::{Answer, TestApp, settings};

/// No wait of these tests ends by itself within it.
const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(15);

async fn pull(app: &TestApp, body: Value) -> Vec<Value> {
    let pulled = app.post("/subscriptions/s/pull", body).await.expect(200);
    pulled.json()["messages"].as_array().unwrap().clone()
}

/// A pull that waits, in a task of its own.
fn waiting(app: &TestApp, body: &Value) -> tokio::task::JoinHandle<Answer> {
    let request = app.request("POST", "/subscriptions/s/pull").json(body);
    tokio::spawn(async move { crate::support::answer(request).await })
}

async fn waited(waiting: tokio::task::JoinHandle<Answer>) -> Vec<Value> {
    let answer = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    answer.expect(200).json()["messages"]
        .as_array()
        .unwrap()
        .clone()
}

async fn nack(app: &TestApp, message: &Value) {
    let nacks = json!({"nacks": [{"receipt": message["receipt"], "delay_seconds": 0}]});
    app.post("/subscriptions/s/settle", nacks).await.expect(200);
}

#[tokio::test]
async fn what_is_pulled_with_auto_ack_is_acked_and_has_no_receipt() {
    let app = app_with(json!({})).await;
    publish(&app, numbered(0..3)).await;

    let taken = pull(
        &app,
        json!({"consumer_id": "c", "max_messages": 2, "auto_ack": true}),
    )
    .await;

    assert_eq!(payloads(&taken), [json!({"n": 0}), json!({"n": 1})]);
    for message in &taken {
        assert_eq!(message["delivery_attempts"], 1);
        assert_eq!(message.get("receipt"), None);
        assert_eq!(message.get("ack_deadline"), None);
    }
    assert_eq!(counts(&app).await, [1, 0, 0, 2, 0]);
    let rest = pull(&app, json!({"consumer_id": "c", "auto_ack": false})).await;
    assert!(rest[0]["receipt"].is_string() && rest[0]["ack_deadline"].is_string());
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}

#[tokio::test]
async fn a_pull_with_auto_ack_waits_for_a_message() {
    let app = app_with(json!({})).await;
    let body = json!({"consumer_id": "c", "auto_ack": true, "wait_seconds": 30});
    let waits = waiting(&app, &body);

    publish(&app, numbered(0..1)).await;

    assert_eq!(payloads(&waited(waits).await), [json!({"n": 0})]);
    assert_eq!(counts(&app).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn takes_make_room_for_those_who_wait_for_the_next_message_of_a_key() {
    let app = app_with(json!({"enable_ordering": true})).await;
    let messages = json!({"messages": [
        {"payload": {"n": 0}, "ordering_key": "k"}, {"payload": {"n": 1}, "ordering_key": "k"}]});
    app.post("/topics/t/publish", messages).await.expect(201);
    let body = json!({"consumer_id": "c", "max_messages": 1, "auto_ack": true, "wait_seconds": 30});

    let (first, second) = (waiting(&app, &body), waiting(&app, &body));

    let mut taken = payloads(&waited(first).await);
    taken.extend(payloads(&waited(second).await));
    taken.sort_by_key(|payload| payload["n"].as_u64());
    assert_eq!(taken, [json!({"n": 0}), json!({"n": 1})]);
}

#[tokio::test]
async fn a_message_that_a_consumer_nacked_goes_to_another_one() {
    let app = app_with(json!({"max_delivery_attempts": 9})).await;
    publish(&app, numbered(0..2)).await;
    let unseen =
        |consumer: &str| json!({"consumer_id": consumer, "max_messages": 1, "only": "unseen"});
    let first = pull(&app, unseen("ann")).await;
    nack(&app, &first[0]).await;

    assert_eq!(
        payloads(&pull(&app, unseen("ann")).await),
        [json!({"n": 1})]
    );
    assert_eq!(pull(&app, unseen("ann")).await, Vec::<Value>::new());
    let new = pull(&app, json!({"consumer_id": "bob", "only": "new"})).await;
    assert_eq!(new, Vec::<Value>::new());
    assert_eq!(
        payloads(&pull(&app, unseen("bob")).await),
        [json!({"n": 0})]
    );
    let null = pull(&app, json!({"consumer_id": "bob", "only": null})).await;
    assert_eq!(null, Vec::<Value>::new(), "both are held");
}

#[tokio::test]
async fn auto_ack_and_only_go_together() {
    let app = app_with(json!({"max_delivery_attempts": 9})).await;
    publish(&app, numbered(0..2)).await;
    let first = pull(&app, json!({"consumer_id": "ann", "max_messages": 1})).await;
    nack(&app, &first[0]).await;

    let taken = pull(
        &app,
        json!({"consumer_id": "ann", "only": "unseen", "auto_ack": true}),
    )
    .await;
    assert_eq!(payloads(&taken), [json!({"n": 1})]);
    let taken = pull(
        &app,
        json!({"consumer_id": "bob", "only": "new", "auto_ack": true}),
    )
    .await;
    assert_eq!(taken, Vec::<Value>::new());
    let taken = pull(
        &app,
        json!({"consumer_id": "bob", "only": "unseen", "auto_ack": true}),
    )
    .await;
    assert_eq!(payloads(&taken), [json!({"n": 0})]);
    assert_eq!(counts(&app).await, [0, 0, 0, 2, 0]);
}

#[tokio::test]
async fn whoever_waits_for_what_is_unseen_gets_what_another_nacks_and_holds_up_nobody() {
    let app = app_with(json!({"max_delivery_attempts": 9})).await;
    publish(&app, numbered(0..1)).await;
    let held = pull(&app, json!({"consumer_id": "ann"})).await;
    let ann = waiting(
        &app,
        &json!({"consumer_id": "ann", "only": "unseen", "wait_seconds": 30}),
    );
    let bob = waiting(
        &app,
        &json!({"consumer_id": "bob", "only": "unseen", "wait_seconds": 30}),
    );

    nack(&app, &held[0]).await;
    let of_bob = waited(bob).await;
    assert_eq!(payloads(&of_bob), [json!({"n": 0})]);

    // what ann passes over is there for whoever takes anything
    nack(&app, &of_bob[0]).await;
    let cem = pull(&app, json!({"consumer_id": "cem", "wait_seconds": 30})).await;
    assert_eq!(payloads(&cem), [json!({"n": 0})]);
    publish(&app, numbered(1..2)).await;
    assert_eq!(payloads(&waited(ann).await), [json!({"n": 1})]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_naming_the_field() {
    let app = app_with(json!({"enable_ordering": true})).await;
    for (field, body) in [
        ("only", json!({"consumer_id": "c", "only": "old"})),
        ("only", json!({"consumer_id": "c", "only": 1})),
        ("only", json!({"consumer_id": "c", "only": "new"})),
        ("auto_ack", json!({"consumer_id": "c", "auto_ack": "maybe"})),
        (
            "ack_deadline_seconds",
            json!({"consumer_id": "c", "auto_ack": true, "ack_deadline_seconds": 9}),
        ),
    ] {
        let answer = app.post("/subscriptions/s/pull", body.clone()).await;
        assert_eq!(fault_place(&answer), json!(["body", field]), "{body}");
    }
}

fn engine(app: &TestApp) -> Engine {
    let settings = settings(&[]);
    Engine::new(&app.pool(), &settings, Budget::new(&settings))
}

fn claim(consumer_id: &str, batch_size: i32) -> Claim {
    Claim {
        consumer_id: consumer_id.to_owned(),
        batch_size,
        ack_deadline_seconds: None,
        only: None,
        auto_ack: false,
    }
}

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn from(claimed: &Claimed) -> Vec<&str> {
    let deliveries = claimed.deliveries.iter();
    let mut ids: Vec<_> = deliveries
        .map(|one| one.subscription_id.as_deref().unwrap())
        .collect();
    ids.sort_unstable();
    ids
}

async fn of_two() -> TestApp {
    let app = app_with(json!({"max_delivery_attempts": 9})).await;
    app.topic_with_subscription("t2", "s2", json!({})).await;
    app
}

#[tokio::test]
async fn several_subscriptions_are_claimed_and_taken_from() {
    let app = of_two().await;
    let engine = engine(&app);
    publish(&app, numbered(0..2)).await;
    app.post("/topics/t2/messages", numbered(0..2))
        .await
        .expect(204);

    let claimed = engine
        .consume_from(names(&["s", "s2"]), claim("c", 3))
        .await
        .unwrap();
    assert_eq!(claimed.deliveries.len(), 3);
    assert!(claimed.deliveries.iter().all(|one| one.lease.is_some()));
    let taking = Claim {
        auto_ack: true,
        ..claim("c", 9)
    };
    let taken = engine
        .consume_from(names(&["s", "s2"]), taking)
        .await
        .unwrap();
    assert_eq!(taken.deliveries.len(), 1);
    assert!(taken.deliveries[0].lease.is_none());
    let all = [from(&claimed), from(&taken)].concat();
    assert_eq!(all.iter().filter(|id| **id == "s").count(), 2, "{all:?}");

    let unknown = engine
        .consume_from(names(&["s", "s3"]), claim("c", 3))
        .await;
    assert!(matches!(unknown, Err(Error::Refused { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_wait_for_several_ends_with_the_first_that_has_something() {
    let app = of_two().await;
    let engine = engine(&app);
    let wait = |ids: &[&str], claim: Claim| {
        let (engine, ids) = (engine.clone(), names(ids));
        tokio::spawn(async move {
            let allowed = || std::future::ready(Ok(()));
            tokio::time::timeout(SOON, engine.pull_from(ids, claim, LONG, allowed)).await
        })
    };
    let waits = wait(&["s", "s2"], claim("c", 2));
    app.post("/topics/t2/messages", numbered(0..1))
        .await
        .expect(204);
    assert_eq!(from(&waits.await.unwrap().unwrap().unwrap()), ["s2"]);

    let waits = wait(
        &["s", "s2"],
        Claim {
            auto_ack: true,
            ..claim("c", 2)
        },
    );
    publish(&app, numbered(0..1)).await;
    assert_eq!(from(&waits.await.unwrap().unwrap().unwrap()), ["s"]);
    assert_eq!(counts(&app).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn whoever_is_gone_leaves_no_lease_behind() {
    let app = of_two().await;
    let engine = engine(&app);
    for round in 0..40 {
        publish(&app, numbered(round..round + 1)).await;
        let asked = engine.consume_from(names(&["s", "s2"]), claim("gone", 9));
        // at another point of the call each time
        let wait = Duration::from_micros(u64::from(round) * 100);
        if let Ok(claimed) = tokio::time::timeout(wait, asked).await {
            for one in claimed.unwrap().deliveries {
                let handle = fastpubsub::db::messages::Handle {
                    message_id: one.message_id,
                    lease: one.lease,
                };
                engine.nack("s", &[handle]).await.unwrap();
            }
        }
    }
    // what is under way is given back
    let given_back = async {
        while counts(&app).await[1] > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, given_back).await.unwrap();
    assert_eq!(number(&app, "select pubsub.recount_messages('s')").await, 0);
}

#[tokio::test]
async fn claims_that_pass_over_something_are_not_merged_with_others() {
    let app = of_two().await;
    let engine = engine(&app);
    publish(&app, numbered(0..12)).await;
    let seen = engine
        .consume("s".to_owned(), claim("ann", 4))
        .await
        .unwrap();
    let handles: Vec<_> = seen
        .deliveries
        .iter()
        .map(|one| fastpubsub::db::messages::Handle {
            message_id: one.message_id,
            lease: one.lease,
        })
        .collect();
    engine.nack("s", &handles).await.unwrap();
    app.pass_seconds(999.0).await;

    let unseen = Claim {
        only: Some(Only::Unseen),
        ..claim("ann", 2)
    };
    let new = Claim {
        only: Some(Only::New),
        auto_ack: true,
        ..claim("bob", 2)
    };
    let asked = [unseen.clone(), new, unseen, claim("cem", 2)]
        .map(|claim| engine.consume("s".to_owned(), claim));
    let claimed = futures_util::future::try_join_all(asked).await.unwrap();

    let attempts = |claimed: &Claimed| -> Vec<_> {
        claimed
            .deliveries
            .iter()
            .map(|one| (one.attempts, one.lease.is_some()))
            .collect()
    };
    assert!(attempts(&claimed[0]).iter().all(|one| *one == (1, true)));
    assert!(attempts(&claimed[1]).iter().all(|one| *one == (1, false)));
    assert!(attempts(&claimed[2]).iter().all(|one| *one == (1, true)));
    assert_eq!(
        claimed
            .iter()
            .map(|one| one.deliveries.len())
            .sum::<usize>(),
        8
    );
}
