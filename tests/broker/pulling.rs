//! Pulling from queues.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{KEY, door, door_with, nothing, places_of};

#[tokio::test]
async fn a_pull_needs_no_body_and_no_content_type() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!({"a": 1})]).await;
        let request = place
            .request("POST", &format!("/api/v1{}", place.queue("/pull")))
            .bearer_auth(KEY)
            .header("content-type", "text/plain");
        let pulled = place.answer(request).await.expect(200).json();
        let tag = pulled["delivery_tag"].as_str().unwrap();
        assert!(tag.starts_with("dtag-"), "{tag}");
        assert!(
            tag.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        );
        assert_eq!(
            (&pulled["message"], &pulled["retry"]),
            (&json!({"a": 1}), &json!(0))
        );
        assert!(pulled["message_id"].is_string());
        assert_eq!(pulled.as_object().unwrap().len(), 4);
        assert_eq!(place.pull(&place.queue("")).await, nothing());
    }
}

#[tokio::test]
async fn what_a_pull_asks_for_may_stand_in_the_body_or_the_query() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1), json!(2), json!(3)]).await;
        let by_body = place
            .post(&place.queue("/pull"), json!({"auto_ack": true}))
            .await;
        let by_query = place
            .post(&place.queue("/pull?auto_ack=true"), json!({}))
            .await;
        for (answer, message) in [(by_body, 1), (by_query, 2)] {
            let taken = answer.expect(200).json();
            assert_eq!(
                (&taken["delivery_tag"], &taken["message"]),
                (&json!(null), &json!(message))
            );
        }
        // the body wins
        let path = place.queue("/pull?auto_ack=true");
        let held = place
            .post(&path, json!({"auto_ack": false}))
            .await
            .expect(200)
            .json();
        assert_eq!(place.settle("/ack", &held, json!({})).await, "acked");
        let stats = place.get(&place.queue("/stats")).await.expect(200).json();
        assert_eq!(
            (&stats["acked"], &stats["delivered"]),
            (&json!(3), &json!(3))
        );
        for (path, body, at) in [
            (
                "/pull",
                json!({"wait_seconds": 31}),
                json!(["body", "wait_seconds"]),
            ),
            (
                "/pull",
                json!({"wait_seconds": -1}),
                json!(["body", "wait_seconds"]),
            ),
            (
                "/pull?wait_seconds=x",
                json!({}),
                json!(["query", "wait_seconds"]),
            ),
            (
                "/pull",
                json!({"auto_ack": "perhaps"}),
                json!(["body", "auto_ack"]),
            ),
            ("/pull", json!({"max": 5}), json!(["body", "max"])),
            ("/pull", json!([]), json!(["body"])),
        ] {
            let refused = place
                .post(&place.queue(path), body.clone())
                .await
                .expect(422)
                .json();
            assert_eq!(places_of(&refused), [at], "{path} {body}");
        }
    }
}

#[tokio::test]
async fn a_waiting_pull_is_answered_when_something_comes() {
    let door = door().await;
    for place in door.places() {
        place.put(&place.queue("")).await;
        let begun = Instant::now();
        let path = place.queue("/pull");
        let waiting = place.post(&path, json!({"wait_seconds": 30}));
        let publishing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            place.publish(&[json!("now")]).await;
        };
        let (pulled, ()) = tokio::join!(waiting, publishing);
        assert_eq!(pulled.expect(200).json()["message"], "now");
        assert!(begun.elapsed() < Duration::from_secs(10));

        let begun = Instant::now();
        let nothing_there = place
            .post(&path, json!({"wait_seconds": 0.3}))
            .await
            .expect(200);
        assert_eq!(nothing_there.json(), nothing());
        assert!(begun.elapsed() >= Duration::from_millis(300));
        // taken while it waits
        let waiting = place.post(&path, json!({"wait_seconds": 30, "auto_ack": true}));
        let (taken, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            place.publish(&[json!("taken")]).await;
        });
        let taken = taken.expect(200).json();
        assert_eq!(
            (&taken["message"], &taken["delivery_tag"]),
            (&json!("taken"), &json!(null))
        );
    }
}

#[tokio::test]
async fn no_two_consumers_hold_one_message() {
    let door = door().await;
    for place in door.places() {
        let all: Vec<_> = (0..40).map(|number| json!(number)).collect();
        place.publish(&all).await;
        let consumer = async || {
            let mut mine = Vec::new();
            loop {
                let pulled = place.pull(&place.queue("")).await;
                if pulled["delivery_tag"].is_null() {
                    return mine;
                }
                mine.push(pulled["message"].as_i64().unwrap());
            }
        };
        let mut pulled: Vec<i64> = join_all((0..8).map(|_| consumer())).await.concat();
        pulled.sort_unstable();
        assert_eq!(pulled, (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_not_settled_in_time_comes_again_with_a_new_tag() {
    let door = door_with(&["--broker-visibility-timeout-sec", "10"]).await;
    for place in door.places() {
        place.publish(&[json!("a"), json!("b")]).await;
        let first = place.pull(&place.queue("")).await;
        let late = place.pull(&place.queue("")).await;
        door.app.pass_seconds(9.0).await;
        assert_eq!(place.pull(&place.queue("")).await, nothing());
        door.app.pass_seconds(2.0).await;

        // a tag is good until the message is delivered again
        assert_eq!(place.settle("/ack", &late, json!({})).await, "acked");
        let again = place.pull(&place.queue("")).await;
        assert_eq!(
            (&again["message"], &again["retry"]),
            (&json!("a"), &json!(1))
        );
        assert_eq!(again["message_id"], first["message_id"]);
        assert_ne!(again["delivery_tag"], first["delivery_tag"]);
        let old = json!({"delivery_tag": first["delivery_tag"]});
        for how in ["/ack", "/nack"] {
            place.post(&place.queue(how), old.clone()).await.expect(404);
        }
        assert_eq!(place.settle("/ack", &again, json!({})).await, "acked");
    }
}

#[tokio::test]
async fn a_key_that_ends_while_its_pull_waits_gets_nothing() {
    let auth = [
        "--broker-auth-mode",
        "bearer",
        "--auth-secret-key",
        crate::support::SECRET_KEY,
    ];
    let door = super::door_showing(&auth, &[]).await;
    let (client, secret) = door.app.client_with("broker:consume broker:manage").await;
    let body = json!({"client_id": client, "client_secret": secret});
    let token = door.app.post("/oauth/token", body).await.expect(201).json();
    let token = token["access_token"].as_str().unwrap();
    for place in door.places() {
        place
            .send(token, "PUT", &place.queue(""), None)
            .await
            .expect(201);
    }
    let [place, _] = door.places();
    let body = Some(json!({"wait_seconds": 30}));
    let path = place.queue("/pull");
    let waiting = place.send(token, "POST", &path, body);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let path = format!("/clients/{client}");
        door.app.delete(&path).await.expect(204);
    };
    let (refused, ()) = tokio::join!(waiting, ending);
    refused.expect(401);
}
