//! Acks and nacks of what was pulled from queues.

use serde_json::{Value, json};

use super::{Place, door, door_with, nothing, places_of};

#[tokio::test]
async fn an_ack_ends_a_message_and_its_tag() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1)]).await;
        let pulled = place.pull(&place.queue("")).await;
        let tag = json!({"delivery_tag": pulled["delivery_tag"]});
        let acked = place
            .post(&place.queue("/ack"), tag.clone())
            .await
            .expect(200)
            .json();
        assert_eq!(acked, json!({"status": "acked"}));
        for how in ["/ack", "/nack"] {
            let refused = place
                .post(&place.queue(how), tag.clone())
                .await
                .expect(404)
                .json();
            assert!(refused["error"].as_str().unwrap().contains("delivery_tag"));
        }
        door.app.pass_seconds(100_000.0).await;
        assert_eq!(place.pull(&place.queue("")).await, nothing());
    }
}

#[tokio::test]
async fn what_is_no_tag_is_told_so() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1)]).await;
        let pulled = place.pull(&place.queue("")).await;
        let tag = pulled["delivery_tag"].as_str().unwrap();
        for how in ["/ack", "/nack"] {
            let path = place.queue(how);
            for body in [
                json!({}),
                json!({"delivery_tag": null}),
                json!({"delivery_tag": 5}),
                json!({"delivery_tag": ["a"]}),
            ] {
                let refused = place.post(&path, body).await.expect(422).json();
                assert_eq!(places_of(&refused), [json!(["body", "delivery_tag"])]);
            }
            for unknown in [
                "",
                "dtag-",
                "unknown",
                &tag["dtag-".len()..],
                &tag[..tag.len() - 4],
                &format!("{tag}x"),
                &tag.to_uppercase(),
            ] {
                let body = json!({"delivery_tag": unknown});
                place.post(&path, body).await.expect(404);
            }
        }
        for body in [
            json!({"delivery_tag": tag, "requeue": "perhaps"}),
            json!({"delivery_tag": tag, "reason": "x".repeat(1025)}),
            json!({"delivery_tag": tag, "reason": 5}),
            json!({"delivery_tag": tag, "delay": 5}),
        ] {
            place.post(&place.queue("/nack"), body).await.expect(422);
        }
        assert_eq!(place.settle("/ack", &pulled, json!({})).await, "acked");
    }
}

#[tokio::test]
async fn a_tag_is_good_where_it_was_pulled_and_nowhere_else() {
    let door = door().await;
    for place in door.places() {
        place.publish(&[json!(1)]).await;
        place.put(&place.queue("-other")).await;
        let pulled = place.pull(&place.queue("")).await;
        let tag = json!({"delivery_tag": pulled["delivery_tag"]});
        place
            .post(&place.queue("-other/ack"), tag.clone())
            .await
            .expect(404);
        place
            .post(&place.queue(".DLQ/ack"), tag.clone())
            .await
            .expect(404);
        // receipts of the native door are no tags
        let native = json!({"consumer_id": "c"});
        let id = format!("/subscriptions/broker%2Fqueues%2F{}/pull", place.name);
        place.publish(&[json!({"n": 2})]).await;
        let native = door.app.post(&id, native).await.expect(200).json();
        let receipt = json!({"delivery_tag": native["messages"][0]["receipt"]});
        place.post(&place.queue("/ack"), receipt).await.expect(404);
        // on either path
        place.post(&place.topic("/ack"), tag).await.expect(200);
    }
}

async fn waits(place: &Place<'_>, milliseconds: f64) {
    let path = place.queue("");
    let app = &place.door.app;
    app.pass_seconds(milliseconds / 1000.0 - 10.0).await;
    assert_eq!(
        place.pull(&path).await,
        nothing(),
        "after {milliseconds} ms less 10 s"
    );
    app.pass_seconds(10.5).await;
}

#[tokio::test]
async fn a_nack_is_back_at_once_or_after_its_backoff() {
    for (strategy, expected) in [
        ("fixed", [60_000.0, 60_000.0, 60_000.0]),
        ("linear", [60_000.0, 120_000.0, 180_000.0]),
        ("EXPONENTIAL", [60_000.0, 120_000.0, 240_000.0]),
    ] {
        let flags = [
            "--broker-backoff-strategy",
            strategy,
            "--broker-backoff-base-ms",
            "60000",
            "--broker-max-retries",
            "9",
        ];
        let door = door_with(&flags).await;
        let [place, _] = door.places();
        place.publish(&[json!("m")]).await;
        for (retry, milliseconds) in expected.into_iter().enumerate() {
            let pulled = place.pull(&place.queue("")).await;
            assert_eq!(
                (&pulled["message"], &pulled["retry"]),
                (&json!("m"), &json!(retry))
            );
            let more = json!({"requeue": false, "reason": "no"});
            assert_eq!(place.settle("/nack", &pulled, more).await, "retry");
            waits(&place, milliseconds).await;
        }
        let pulled = place.pull(&place.queue("")).await;
        assert_eq!(pulled["retry"], 3);
        assert_eq!(place.settle("/nack", &pulled, json!({})).await, "requeued");
        let again = place.pull(&place.queue("")).await;
        assert_eq!(
            (&again["message"], &again["retry"]),
            (&json!("m"), &json!(4))
        );
    }
}

#[tokio::test]
async fn a_backoff_of_milliseconds_is_one() {
    let door = door_with(&["--broker-backoff-base-ms", "1"]).await;
    let [place, _] = door.places();
    place.publish(&[json!("m")]).await;
    let pulled = place.pull(&place.queue("")).await;
    let begun = std::time::Instant::now();
    place
        .settle("/nack", &pulled, json!({"requeue": false}))
        .await;
    let body = json!({"wait_seconds": 10});
    let again = place
        .post(&place.queue("/pull"), body)
        .await
        .expect(200)
        .json();
    assert_eq!(again["retry"], 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn the_reason_of_a_nack_is_kept_with_the_dead_letter() {
    let door = door_with(&["--broker-max-retries", "0"]).await;
    let [place, _] = door.places();
    place.publish(&[json!("m")]).await;
    let pulled = place.pull(&place.queue("")).await;
    let more = json!({"requeue": false, "reason": "card declined"});
    assert_eq!(place.settle("/nack", &pulled, more).await, "dead_lettered");
    let id = pulled["message_id"].as_str().unwrap();
    let path = format!("/messages/{id}");
    let timeline: Value = door.app.get(&path).await.expect(200).json();
    assert!(timeline.to_string().contains("card declined"), "{timeline}");
}
