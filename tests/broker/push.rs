//! Endpoints of topics.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Place, door, door_with};
use crate::push::{Receiver, eventually, status};

impl Place<'_> {
    /// Subscribe a receiver to the topic; the answer.
    async fn subscribe_receiver(&self, receiver: &Receiver, pattern: &str, expected: u16) -> Value {
        let body = json!({"endpoint": receiver.url, "routing_key": pattern});
        let path = self.topic("/subscriptions");
        self.post(&path, body).await.expect(expected).json()
    }
}

#[tokio::test]
async fn what_is_published_is_pushed_to_the_endpoints_whose_patterns_match() {
    let door = door().await;
    for place in door.places() {
        let (orders, all) = (Receiver::start().await, Receiver::start().await);
        let subscribed = place.subscribe_receiver(&orders, "order.*", 201).await;
        place.subscribe_receiver(&all, "#", 201).await;

        place.tell("order.paid", json!({"n": 1})).await;
        place.tell("refund", json!([2])).await;
        let pushes = all.arrived(2).await;

        let [push] = &orders.arrived(1).await[..] else {
            panic!("one push");
        };
        let mut body = push.body.clone();
        let body = body.as_object_mut().unwrap();
        assert!(body.remove("published_at").unwrap().is_string());
        let id = body.remove("message_id").unwrap();
        assert_eq!(push.header("webhook-id"), id);
        assert!(push.header("webhook-signature").starts_with("v1,"));
        assert_eq!(
            Value::Object(body.clone()),
            json!({"topic": place.name, "routing_key": "order.paid", "attempt": 1,
                "subscription_id": subscribed["subscription_id"], "message": {"n": 1},
                "attributes": {"routing_key": "order.paid"}})
        );
        assert!(pushes.iter().any(|push| push.body["message"] == json!([2])));
    }
}

#[tokio::test]
async fn the_same_endpoint_again_is_the_same_subscription_and_only_its_maker_sees_the_secret() {
    let door = door().await;
    for place in door.places() {
        let receiver = Receiver::start().await;

        let first = place.subscribe_receiver(&receiver, "a.#", 201).await;
        let again = place.subscribe_receiver(&receiver, "a.#", 200).await;
        let other = place.subscribe_receiver(&receiver, "b.#", 201).await;
        let explicit = json!({"endpoint": receiver.url, "routing_key": "a.#", "mode": "push"});
        let path = place.topic("/subscriptions");
        let explicit = place.post(&path, explicit).await.expect(200).json();

        assert!(first["secret"].as_str().unwrap().starts_with("whsec_"));
        assert_eq!((&first, &first), (&again, &explicit));
        assert_ne!(first["subscription_id"], other["subscription_id"]);
        let mut shown = first.clone();
        shown.as_object_mut().unwrap().remove("secret");
        assert_eq!(
            (&shown["mode"], &shown["endpoint"]),
            (&json!("push"), &json!(receiver.url))
        );
        let listed = place.get(&path).await.expect(200);
        assert!(!listed.body.contains("whsec_"), "{}", listed.body);
        let listed = listed.json()["subscriptions"].as_array().unwrap().clone();
        assert!(listed.len() == 2 && listed.contains(&shown), "{listed:?}");

        // who pulls of all of them gets nothing of what is pushed
        place.tell("a.b", json!(1)).await;
        receiver.arrived(1).await;
        assert_eq!(place.pull(&place.topic("")).await["message"], Value::Null);
    }
}

#[tokio::test]
async fn what_an_endpoint_does_not_take_is_in_the_dead_letters_after_its_retries() {
    let door = door_with(&["--broker-max-retries", "2", "--broker-backoff-base-ms", "1"]).await;
    let [place, _] = door.places();
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| status(500));
    place.subscribe_receiver(&receiver, "#", 201).await;

    place.tell("order.paid", json!({"n": 1})).await;
    let dead = eventually("a dead letter", async || {
        let dead = place.drain(&format!("/queues/{}.DLQ", place.name)).await;
        dead.into_iter().next()
    })
    .await;

    assert_eq!(dead["message"], json!({"n": 1}));
    let attempts: Vec<Value> = receiver
        .pushes()
        .iter()
        .map(|push| push.body["attempt"].clone())
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
}

#[tokio::test]
async fn no_more_than_max_in_flight_are_on_their_way_and_a_deleted_endpoint_gets_nothing() {
    let door = door().await;
    for place in door.places() {
        let receiver = Receiver::held().await;
        let path = place.topic("/subscriptions");
        let body = json!({"endpoint": receiver.url, "max_in_flight": 2});
        let subscribed = place.post(&path, body).await.expect(201).json();
        for n in 0..6 {
            place.tell("k", json!(n)).await;
        }
        receiver.arrived(2).await;
        receiver.answer(4);
        let pushes = receiver.arrived(6).await;
        receiver.answer(2);

        let messages: HashSet<_> = pushes
            .iter()
            .map(|push| push.body["message"].as_i64())
            .collect();
        assert_eq!((messages.len(), receiver.most()), (6, 2));
        let id = subscribed["subscription_id"].as_str().unwrap();
        place.delete(&format!("{path}/{id}")).await.expect(200);
        place.tell("k", json!(7)).await;
        assert_eq!(receiver.pushes().len(), 6);
    }
}
