//! Topics, patterns and subscriptions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{KEY, door, messages, nothing, places_of};

#[tokio::test]
async fn a_topic_is_made_once_and_comes_with_what_is_done_to_it() {
    let door = door().await;
    for place in door.places() {
        let made = place.put(&place.topic("")).await.expect(201).json();
        assert_eq!(made, json!({"name": place.name, "created": true}));
        let there = place.put(&place.topic("")).await.expect(200).json();
        assert_eq!(there["created"], false);
        let published = place
            .post(&place.topic("-b/publish"), json!({"message": 1}))
            .await;
        let published = published.expect(201).json();
        assert_eq!(published["topic"], format!("{}-b", place.name));
        assert_eq!(published["duplicate"], false);
        place.put(&place.topic("-b")).await.expect(200);
        let body = json!({"mode": "pull"});
        place
            .post(&place.topic("-c/subscriptions"), body)
            .await
            .expect(201);
        place.put(&place.topic("-c")).await.expect(200);
    }
}

#[tokio::test]
async fn the_same_subscription_again_is_the_same() {
    let door = door().await;
    for place in door.places() {
        let body = json!({"mode": "pull", "routing_key": "order.*"});
        let path = place.topic("/subscriptions");
        let made = place.post(&path, body.clone()).await.expect(201).json();
        let id = made["subscription_id"].as_str().unwrap().to_owned();
        assert!(id.starts_with("sub-") && id.len() == 16, "{id}");
        let expected = json!({
            "subscription_id": id, "topic": place.name, "routing_key": "order.*", "mode": "pull",
            "endpoint": null, "secret": null,
        });
        assert_eq!(made, expected);
        assert_eq!(place.post(&path, body).await.expect(200).json(), expected);
        let everything = place.subscribe("#").await;
        assert_ne!(everything, id);
        let all = place
            .post(&path, json!({"mode": "pull"}))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&all["subscription_id"], &all["routing_key"]),
            (&json!(everything), &json!("#"))
        );

        let listed = place.get(&path).await.expect(200).json();
        let mut listed = listed["subscriptions"].as_array().unwrap().clone();
        listed.sort_by_key(|subscription| subscription["routing_key"].as_str().map(str::len));
        assert_eq!(listed.len(), 2);
        assert!(
            listed
                .iter()
                .all(|subscription| subscription.get("secret").is_none())
        );
        assert_eq!(listed[1]["subscription_id"], id);
        let path = format!("{path}/{id}");
        let deleted = place.delete(&path).await.expect(200).json();
        assert_eq!(deleted, json!({"deleted": true}));
        place.delete(&path).await.expect(404);
        place
            .get(&place.topic("-none/subscriptions"))
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn what_no_subscription_can_be_is_refused() {
    let door = door().await;
    for place in door.places() {
        for (body, at) in [
            (json!({}), "mode"),
            (json!({"mode": "push"}), "endpoint"),
            (json!({"mode": "pull", "endpoint": "http://c/"}), "endpoint"),
            (json!({"mode": "poll"}), "mode"),
            (json!({"endpoint": "ftp://c/"}), "endpoint"),
            (json!({"endpoint": "http://"}), "endpoint"),
            (json!({"endpoint": "http://user:x@c/"}), "endpoint"),
            (json!({"endpoint": "http://c/#part"}), "endpoint"),
            (
                json!({"endpoint": "http://c/", "max_in_flight": 101}),
                "max_in_flight",
            ),
            (json!({"mode": "pull", "routing_key": ""}), "routing_key"),
            (
                json!({"mode": "pull", "routing_key": "a..b"}),
                "routing_key",
            ),
            (json!({"mode": "pull", "routing_key": "a."}), "routing_key"),
            (
                json!({"mode": "pull", "routing_key": "x".repeat(1025)}),
                "routing_key",
            ),
            (json!({"mode": "pull", "max_in_flight": 0}), "max_in_flight"),
            (json!({"mode": "pull", "queue": 1}), "queue"),
        ] {
            let refused = place
                .post(&place.topic("/subscriptions"), body.clone())
                .await;
            let refused = refused.expect(422).json();
            assert_eq!(places_of(&refused), [json!(["body", at])], "{body}");
        }
    }
}

/// The contract's own examples.
#[tokio::test]
async fn patterns_take_the_words_that_they_say() {
    let door = door().await;
    let keys = [
        "",
        "order",
        "order.created",
        "order.created.eu",
        "created",
        "a.b.created",
        "payment",
        "payment.ok",
        "payment.card.ok",
        "payments.ok",
        "a.z",
        "a.b.c.z",
    ];
    for place in door.places() {
        let expected = [
            ("order.*", vec!["order.created"]),
            ("*.created", vec!["order.created"]),
            (
                "payment.#",
                vec!["payment", "payment.ok", "payment.card.ok"],
            ),
            ("a.#.z", vec!["a.z", "a.b.c.z"]),
            ("#", keys.to_vec()),
            ("order.created", vec!["order.created"]),
            ("#.created", vec!["order.created", "created", "a.b.created"]),
        ];
        let mut ids = Vec::new();
        for (pattern, _) in &expected {
            ids.push(place.subscribe(pattern).await);
        }
        for key in keys {
            place.tell(key, json!(key)).await;
        }
        for ((pattern, taken), id) in expected.iter().zip(&ids) {
            let mut got = Vec::new();
            loop {
                let body = json!({"subscription_id": id, "auto_ack": true});
                let pulled = place
                    .post(&place.topic("/pull"), body)
                    .await
                    .expect(200)
                    .json();
                if pulled["message_id"].is_null() {
                    break;
                }
                assert_eq!(pulled["routing_key"], pulled["message"]);
                assert_eq!(pulled["subscription_id"], json!(id));
                got.push(pulled["message"].as_str().unwrap().to_owned());
            }
            assert_eq!(&got, taken, "{pattern}");
        }
    }
}

#[tokio::test]
async fn a_routing_key_may_stand_in_the_query_and_that_of_the_body_wins() {
    let door = door().await;
    for place in door.places() {
        place.subscribe("#").await;
        for (query, body) in [
            ("?routing_key=order.created", json!({"message": 1})),
            (
                "?routing_key=order.created",
                json!({"message": 2, "routing_key": "order.paid"}),
            ),
            ("", json!({"message": 3})),
            ("", json!({"message": 4, "routing_key": null})),
        ] {
            let path = place.topic(&format!("/publish{query}"));
            place.post(&path, body).await.expect(201);
        }
        let keys: Vec<Value> = place
            .drain(&place.topic(""))
            .await
            .iter()
            .map(|pulled| pulled["routing_key"].clone())
            .collect();
        assert_eq!(keys, ["order.created", "order.paid", "", ""]);
        for (path, body, at) in [
            (
                "/publish",
                json!({"message": 1, "routing_key": 5}),
                json!(["body", "routing_key"]),
            ),
            (
                "/publish",
                json!({"message": 1, "routing_key": "x".repeat(1025)}),
                json!(["body", "routing_key"]),
            ),
            (
                &format!("/publish?routing_key={}", "x".repeat(1025)),
                json!({"message": 1}),
                json!(["query", "routing_key"]),
            ),
        ] {
            let refused = place
                .post(&place.topic(path), body)
                .await
                .expect(422)
                .json();
            assert_eq!(places_of(&refused), [at]);
        }
    }
}

#[tokio::test]
async fn every_subscription_has_its_own_copy_from_its_creation_on() {
    let door = door().await;
    for place in door.places() {
        place.tell("order.created", json!("before")).await;
        let (one, two) = (place.subscribe("order.*").await, place.subscribe("#").await);
        place.tell("order.created", json!("after")).await;
        let pull = async |id: &str| {
            let body = json!({ "subscription_id": id });
            place
                .post(&place.topic("/pull"), body)
                .await
                .expect(200)
                .json()
        };
        let (first, second) = (pull(&one).await, pull(&two).await);
        assert_eq!(
            (&first["message"], &second["message"]),
            (&json!("after"), &json!("after"))
        );
        assert_eq!(first["message_id"], second["message_id"]);
        assert_ne!(first["delivery_tag"], second["delivery_tag"]);
        let body = json!({"delivery_tag": first["delivery_tag"]});
        place
            .post(&place.topic("/ack"), body.clone())
            .await
            .expect(200);
        place.post(&place.topic("/ack"), body).await.expect(404);
        // of either path
        let body = json!({"delivery_tag": second["delivery_tag"]});
        let requeued = place
            .post(&place.queue("/nack"), body)
            .await
            .expect(200)
            .json();
        assert_eq!(requeued["status"], "requeued");
        assert_eq!(pull(&one).await, nothing());
        assert_eq!(pull(&two).await["retry"], 1);
        let body = json!({"subscription_id": "sub-none"});
        place.post(&place.topic("/pull"), body).await.expect(404);
        let by_query = place.topic(&format!("/pull?subscription_id={one}"));
        assert_eq!(
            place.post(&by_query, json!({})).await.expect(200).json(),
            nothing()
        );
    }
}

#[tokio::test]
async fn a_pull_of_a_topic_asks_its_subscriptions_in_turn() {
    let door = door().await;
    for place in door.places() {
        place
            .post(&place.topic("/pull"), json!({}))
            .await
            .expect(404);
        place.put(&place.topic("")).await;
        assert_eq!(place.pull(&place.topic("")).await, nothing());
        place.subscribe("a").await;
        place.subscribe("b").await;
        for key in ["a", "b", "a", "c"] {
            place.tell(key, json!(key)).await;
        }
        let mut pulled = messages(&place.drain(&place.topic("")).await);
        pulled.sort_by_key(ToString::to_string);
        assert_eq!(pulled, ["a", "a", "b"]);

        let path = place.topic("/pull");
        let waiting = place.post(&path, json!({"wait_seconds": 30}));
        let publishing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            place.tell("b", json!("at last")).await;
        };
        let (pulled, ()) = tokio::join!(waiting, publishing);
        assert_eq!(pulled.expect(200).json()["message"], "at last");
    }
}

#[tokio::test]
async fn a_pull_waits_for_the_first_subscription_of_a_topic() {
    let door = door().await;
    for place in door.places() {
        place.put(&place.topic("")).await;
        let path = place.topic("/pull");
        let waiting = place.post(&path, json!({"wait_seconds": 20}));
        let subscribing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            place.subscribe("#").await;
            place.tell("x", json!(1)).await;
        };
        let (pulled, ()) = tokio::join!(waiting, subscribing);
        assert_eq!(pulled.expect(200).json()["message"], 1);
    }
}

#[tokio::test]
async fn a_key_that_was_used_for_a_topic_publishes_nothing() {
    let door = door().await;
    for place in door.places() {
        place.subscribe("#").await;
        let body = json!({"routing_key": "a", "message": 1, "idempotency_key": "k"});
        let first = place
            .post(&place.topic("/publish"), body.clone())
            .await
            .expect(201)
            .json();
        let again = place
            .post(&place.topic("/publish"), body)
            .await
            .expect(200)
            .json();
        assert_eq!(again["message_id"], first["message_id"]);
        assert_eq!(again["duplicate"], true);
        assert_eq!(place.drain(&place.topic("")).await.len(), 1);
    }
}

#[tokio::test]
async fn counts_of_a_topic_are_those_of_its_subscriptions() {
    let door = door().await;
    for place in door.places() {
        let (orders, all) = (place.subscribe("order.*").await, place.subscribe("#").await);
        place.tell("order.created", json!(1)).await;
        place.tell("other", json!(2)).await;
        let body = json!({ "subscription_id": orders });
        place.post(&place.topic("/pull"), body).await.expect(200);

        let stats = place.get(&place.topic("/stats")).await.expect(200).json();
        assert_eq!(stats["topic"], place.name);
        let of = |id: &str| {
            let subscriptions = stats["subscriptions"].as_array().unwrap();
            let found = subscriptions
                .iter()
                .find(|one| one["subscription_id"] == id);
            found.unwrap().clone()
        };
        assert_eq!(
            of(&orders),
            json!({
                "subscription_id": orders, "ready": 0, "in_flight": 1, "scheduled": 0, "dlq": 0,
                "published": 1, "delivered": 1, "acked": 0, "nacked": 0, "retries": 0,
            })
        );
        assert_eq!(
            (&of(&all)["ready"], &of(&all)["published"]),
            (&json!(2), &json!(2))
        );
        let request = place.request("GET", "/api/v1/stats");
        let summary = place.answer(request).await.expect(200).json();
        let expected = json!({"subscriptions": 2, "ready": 2, "in_flight": 1});
        assert_eq!(summary["topics"][&place.name], expected);
        place
            .send(KEY, "GET", &place.topic("-none/stats"), None)
            .await
            .expect(404);
    }
}
