//! Queues: making, looking at, emptying and deleting them.

use serde_json::json;

use super::{KEY, door, messages, nothing, places_of};

#[tokio::test]
async fn a_queue_is_made_once_and_with_its_dead_letter_queue() {
    let door = door().await;
    for place in door.places() {
        let path = place.queue("");
        let made = place.put(&path).await.expect(201).json();
        assert_eq!(made, json!({"name": place.name, "created": true}));
        let there = place.put(&path).await.expect(200).json();
        assert_eq!(there, json!({"name": place.name, "created": false}));
        let dead = place.put(&place.queue(".DLQ")).await.expect(200).json();
        assert_eq!(dead["created"], false);
        // a dead-letter queue has none of its own
        place.get(&place.queue(".DLQ.DLQ/stats")).await.expect(404);
        assert_eq!(place.pull(&path).await, nothing());
    }
}

#[tokio::test]
async fn a_queue_that_never_was_is_404_but_for_publishing() {
    let door = door().await;
    for place in door.places() {
        let tag = json!({"delivery_tag": "dtag-x"});
        for (method, rest, body) in [
            ("POST", "/pull", None),
            ("POST", "/ack", Some(tag.clone())),
            ("POST", "/nack", Some(tag)),
            ("GET", "/peek", None),
            ("GET", "/stats", None),
            ("DELETE", "", None),
            ("DELETE", "/messages", None),
        ] {
            let path = place.queue(rest);
            let refused = place
                .send(KEY, method, &path, body)
                .await
                .expect(404)
                .json();
            assert!(refused["error"].is_string(), "{refused}");
            assert_eq!(refused.as_object().unwrap().len(), 1);
        }
        place.publish(&[json!(1)]).await;
        assert_eq!(place.pull(&place.queue("")).await["message"], 1);
    }
}

/// The subscription may be deleted natively, and the topic be there.
#[tokio::test]
async fn what_is_published_is_in_the_queue_whatever_was_deleted_natively() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1)]).await;
        for path in ["subscriptions", "topics"] {
            let path = format!("/{path}/broker%2Fqueues%2F{}", place.name);
            door.app.delete(&path).await.expect(204);
            let body = json!({"message": 2, "idempotency_key": path});
            for duplicate in [false, true] {
                let path = place.queue("/publish");
                let published = place.send(KEY, "POST", &path, Some(body.clone())).await;
                assert_eq!(published.json()["duplicate"], duplicate);
            }

            assert_eq!(place.pull(&place.queue("")).await["message"], 2, "{path}");
            assert_eq!(place.pull(&place.queue("")).await, nothing());
        }
    }
}

#[tokio::test]
async fn names_have_an_end_and_no_space() {
    let door = door().await;
    for place in door.places() {
        for name in ["a%20b", "a%2Fb", "a%00", "%C2%A0", &"x".repeat(201)] {
            for path in [format!("/queues/{name}"), format!("/topics/{name}")] {
                let refused = place.put(&path).await.expect(422).json();
                assert_eq!(places_of(&refused), [json!(["path", "name"])], "{path}");
                assert!(
                    refused["error"]
                        .as_str()
                        .unwrap()
                        .starts_with("path.name: ")
                );
            }
        }
        for name in ["%C3%A4.-_~%F0%9F%98%80", &"x".repeat(200), "a%3Fb%23%25"] {
            let path = format!("/queues/{name}");
            let body = json!({"message": name});
            place
                .post(&format!("{path}/publish"), body)
                .await
                .expect(201);
            let pulled = place.pull(&path).await;
            assert_eq!(pulled["message"], name);
            let tag = json!({"delivery_tag": pulled["delivery_tag"]});
            place.post(&format!("{path}/ack"), tag).await.expect(200);
            place.get(&format!("{path}.DLQ/peek")).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_queue_and_a_topic_of_one_name_are_two_things() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!("queue")]).await;
        place.subscribe("#").await;
        place.tell("", json!("topic")).await;

        assert_eq!(place.pull(&place.queue("")).await["message"], "queue");
        assert_eq!(place.pull(&place.topic("")).await["message"], "topic");
    }
}

#[tokio::test]
async fn a_peek_shows_what_is_there_and_takes_nothing() {
    let door = door().await;
    for place in door.places() {
        place
            .publish(&[json!("a"), json!({"b": [1]}), json!(null)])
            .await;
        let body = json!({"message": "late", "delay_seconds": 3600});
        place.post(&place.queue("/publish"), body).await.expect(201);
        let held = place.pull(&place.queue("")).await;

        for _ in 0..2 {
            let seen = place.get(&place.queue("/peek")).await.expect(200).json();
            let shown: Vec<_> = seen["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|seen| {
                    (
                        seen["message"].clone(),
                        seen["retry"].clone(),
                        seen["state"].clone(),
                    )
                })
                .collect();
            assert_eq!(
                shown,
                [
                    (json!("a"), json!(0), json!("in_flight")),
                    (json!({"b": [1]}), json!(0), json!("ready")),
                    (json!(null), json!(0), json!("ready")),
                    (json!("late"), json!(0), json!("scheduled")),
                ]
            );
            assert_eq!(seen["count"], 4);
            assert_eq!(seen["messages"][0]["message_id"], held["message_id"]);
            assert!(seen["messages"][0].get("delivery_tag").is_none());
        }
        let two = place
            .get(&place.queue("/peek?limit=2"))
            .await
            .expect(200)
            .json();
        assert_eq!(
            messages(two["messages"].as_array().unwrap()),
            [json!("a"), json!({"b": [1]})]
        );
        assert_eq!(place.settle("/ack", &held, json!({})).await, "acked");
        for limit in ["0", "101", "x"] {
            let path = place.queue(&format!("/peek?limit={limit}"));
            let refused = place.get(&path).await.expect(422).json();
            assert_eq!(places_of(&refused), [json!(["query", "limit"])]);
        }
    }
}

#[tokio::test]
async fn what_was_nacked_is_seen_with_its_retry() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!("a")]).await;
        let retry = async |expected: i64, state: &str| {
            let seen = place.get(&place.queue("/peek")).await.expect(200).json();
            let first = &seen["messages"][0];
            assert_eq!(
                (&first["retry"], &first["state"]),
                (&json!(expected), &json!(state))
            );
        };
        retry(0, "ready").await;
        let first = place.pull(&place.queue("")).await;
        retry(0, "in_flight").await;
        place.settle("/nack", &first, json!({})).await;
        retry(1, "ready").await;
        let second = place.pull(&place.queue("")).await;
        assert_eq!(second["retry"], 1);
        retry(1, "in_flight").await;
        place
            .settle("/nack", &second, json!({"requeue": false}))
            .await;
        retry(2, "scheduled").await;
    }
}

#[tokio::test]
async fn counts_of_a_queue_are_those_of_its_messages() {
    let door = door_with_one_retry().await;
    for place in door.places() {
        place
            .publish(&["a", "b", "c", "d"].map(|text| json!(text)))
            .await;
        let late = json!({"message": "late", "delay_seconds": 3600});
        place.post(&place.queue("/publish"), late).await.expect(201);
        let [a, b, _c] = [
            place.pull(&place.queue("")).await,
            place.pull(&place.queue("")).await,
            place.pull(&place.queue("")).await,
        ];
        place.settle("/ack", &a, json!({})).await;
        place.settle("/nack", &b, json!({})).await;
        let again = place.pull(&place.queue("")).await;
        assert_eq!(
            (&again["message"], &again["retry"]),
            (&json!("b"), &json!(1))
        );
        assert_eq!(
            place.settle("/nack", &again, json!({})).await,
            "dead_lettered"
        );

        let stats = place.get(&place.queue("/stats")).await.expect(200).json();
        let expected = json!({
            "queue": place.name, "ready": 1, "in_flight": 1, "scheduled": 1, "dlq": 1,
            "published": 5, "delivered": 4, "acked": 1, "nacked": 2, "retries": 1,
        });
        assert_eq!(stats, expected);
        let dead = place
            .get(&place.queue(".DLQ/stats"))
            .await
            .expect(200)
            .json();
        assert_eq!((&dead["ready"], &dead["dlq"]), (&json!(1), &json!(0)));
        let all = place.request("GET", "/stats");
        let all = place.answer(all).await.expect(200).json();
        let expected = json!({"ready": 1, "in_flight": 1, "dlq": 1});
        assert_eq!(all["queues"][&place.name], expected, "{all}");
    }
}

async fn door_with_one_retry() -> super::Door {
    super::door_with(&["--broker-max-retries", "1"]).await
}

#[tokio::test]
async fn a_purge_takes_everything_and_old_tags_are_nothing_then() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1), json!(2), json!(3)]).await;
        let held = place.pull(&place.queue("")).await;

        let purged = place
            .delete(&place.queue("/messages"))
            .await
            .expect(200)
            .json();

        assert_eq!(purged, json!({"purged": true}));
        assert_eq!(place.pull(&place.queue("")).await, nothing());
        let tag = json!({"delivery_tag": held["delivery_tag"]});
        place.post(&place.queue("/ack"), tag).await.expect(404);
        place.publish(&[json!(4)]).await;
        assert_eq!(place.pull(&place.queue("")).await["message"], 4);
    }
}

#[tokio::test]
async fn a_deleted_queue_is_gone_and_its_dead_letters_stay() {
    let door = door_with_one_retry().await;
    for place in door.places() {
        place.publish(&[json!(1), json!(2)]).await;
        for _ in 0..2 {
            let pulled = place.pull(&place.queue("")).await;
            place.settle("/nack", &pulled, json!({})).await;
        }

        let deleted = place.delete(&place.queue("")).await.expect(200).json();

        assert_eq!(deleted, json!({"deleted": true}));
        place.delete(&place.queue("")).await.expect(404);
        place.get(&place.queue("/stats")).await.expect(404);
        assert_eq!(place.pull(&place.queue(".DLQ")).await["message"], 1);
        place.put(&place.queue("")).await.expect(201);
        assert_eq!(place.pull(&place.queue("")).await, nothing());
    }
}
