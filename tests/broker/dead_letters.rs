//! Where messages go that were delivered too often.

use serde_json::json;

use super::{KEY, door_with, nothing};

#[tokio::test]
async fn a_message_is_delivered_so_often_and_then_it_is_in_the_dead_letter_queue() {
    let door = door_with(&["--broker-max-retries", "2"]).await;
    for place in door.places() {
        let message = json!({"order": 17});
        place.publish(std::slice::from_ref(&message)).await;
        for (retry, requeue) in [(0, true), (1, true), (2, true)] {
            let pulled = place.pull(&place.queue("")).await;
            assert_eq!(
                (&pulled["message"], &pulled["retry"]),
                (&message, &json!(retry))
            );
            let status = place
                .settle("/nack", &pulled, json!({ "requeue": requeue }))
                .await;
            assert_eq!(
                status,
                if retry < 2 {
                    "requeued"
                } else {
                    "dead_lettered"
                }
            );
        }
        assert_eq!(place.pull(&place.queue("")).await, nothing());

        let dead = place.pull(&place.queue(".DLQ")).await;

        assert_eq!((&dead["message"], &dead["retry"]), (&message, &json!(0)));
        let peeked = place
            .get(&place.queue(".DLQ/peek"))
            .await
            .expect(200)
            .json();
        assert_eq!(peeked["messages"][0]["message"], message);
        let tag = json!({"delivery_tag": dead["delivery_tag"]});
        place.post(&place.queue(".DLQ/ack"), tag).await.expect(200);
        assert_eq!(place.pull(&place.queue(".DLQ")).await, nothing());
    }
}

#[tokio::test]
async fn a_last_delivery_that_is_not_settled_in_time_is_a_dead_letter() {
    let door = door_with(&["--broker-max-retries", "0"]).await;
    for place in door.places() {
        place.publish(&[json!("m")]).await;
        place.pull(&place.queue("")).await;
        door.app.pass_seconds(31.0).await;
        assert_eq!(place.pull(&place.queue("")).await, nothing());
        assert_eq!(place.pull(&place.queue(".DLQ")).await["message"], "m");
    }
}

#[tokio::test]
async fn a_dead_letter_comes_back_for_ever_until_it_is_acked() {
    let door = door_with(&["--broker-max-retries", "0"]).await;
    for place in door.places() {
        place.publish(&[json!("m")]).await;
        let pulled = place.pull(&place.queue("")).await;
        place.settle("/nack", &pulled, json!({})).await;
        for retry in 0..10 {
            let dead = place.pull(&place.queue(".DLQ")).await;
            assert_eq!(
                (&dead["message"], &dead["retry"]),
                (&json!("m"), &json!(retry))
            );
            let body = json!({"delivery_tag": dead["delivery_tag"]});
            let status = place
                .post(&place.queue(".DLQ/nack"), body)
                .await
                .expect(200)
                .json();
            assert_eq!(status["status"], "requeued");
        }
        // published to by hand, and made by that, it is the same
        let path = "/queues/by-hand.DLQ";
        let body = Some(json!({"message": 1}));
        place
            .send(KEY, "POST", &format!("{path}/publish"), body)
            .await;
        for _ in 0..5 {
            let pulled = place.pull(path).await;
            assert_eq!(pulled["message"], 1);
            let body = json!({"delivery_tag": pulled["delivery_tag"]});
            place.post(&format!("{path}/nack"), body).await.expect(200);
        }
        let pulled = place.pull(path).await;
        let body = json!({"delivery_tag": pulled["delivery_tag"]});
        place.post(&format!("{path}/ack"), body).await.expect(200);
        place.get(&format!("{path}.DLQ/peek")).await.expect(404);
    }
}

#[tokio::test]
async fn dead_letters_of_topics_are_in_a_queue_too() {
    let door = door_with(&["--broker-max-retries", "0", "--broker-dlq-suffix=-dead"]).await;
    for place in door.places() {
        place.subscribe("order.*").await;
        place.tell("order.created", json!("m")).await;
        let pulled = place.pull(&place.topic("")).await;
        let body = json!({"delivery_tag": pulled["delivery_tag"]});
        let nacked = place
            .post(&place.topic("/nack"), body)
            .await
            .expect(200)
            .json();
        assert_eq!(nacked["status"], "dead_lettered");
        assert_eq!(place.pull(&place.queue("-dead")).await["message"], "m");
        let stats = place.get(&place.topic("/stats")).await.expect(200).json();
        assert_eq!(stats["subscriptions"][0]["dlq"], 1);
    }
}
