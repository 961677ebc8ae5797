//! Publishing to queues.

use serde_json::{Value, json};

use super::{KEY, door, door_with, messages, nothing, places_of};

#[tokio::test]
async fn any_json_value_is_a_message_and_comes_as_it_went() {
    let door = door().await;
    for place in door.places() {
        let all = [
            json!({"order": 17, "nested": {"a": [null, true, -1.5, "\u{e9}\u{1F600}"]}}),
            json!([1, [2], {}]),
            json!("text"),
            json!(""),
            json!(17),
            json!(-0.25),
            json!(true),
            json!(null),
            json!({}),
        ];
        for message in &all {
            let body = json!({ "message": message });
            let published = place.post(&place.queue("/publish"), body).await.expect(201);
            let published = published.json();
            assert_eq!(published["queue"], place.name);
            assert_eq!(published["duplicate"], false);
            assert!(published["message_id"].is_string());
        }
        assert_eq!(messages(&place.drain(&place.queue("")).await), all);
    }
}

#[tokio::test]
async fn what_a_message_must_not_be_is_told_with_its_place() {
    let door = door().await;
    for place in door.places() {
        for (body, at) in [
            (json!({}), vec!["message"]),
            (json!({"message": 1, "priority": 10}), vec!["priority"]),
            (json!({"message": 1, "priority": "high"}), vec!["priority"]),
            (
                json!({"message": 1, "delay_seconds": -1}),
                vec!["delay_seconds"],
            ),
            (
                json!({"message": 1, "delay_seconds": 31_536_001}),
                vec!["delay_seconds"],
            ),
            (json!({"message": 1, "ttl_seconds": 0}), vec!["ttl_seconds"]),
            (
                json!({"message": 1, "ttl_seconds": "soon"}),
                vec!["ttl_seconds"],
            ),
            (
                json!({"message": 1, "idempotency_key": ""}),
                vec!["idempotency_key"],
            ),
            (
                json!({"message": 1, "idempotency_key": "x".repeat(257)}),
                vec!["idempotency_key"],
            ),
            (
                json!({"message": 1, "idempotency_key": 5}),
                vec!["idempotency_key"],
            ),
            (json!({"message": "\u{0}"}), vec!["message"]),
            // a typo must not pass in silence
            (
                json!({"message": 1, "idempotencyKey": "k"}),
                vec!["idempotencyKey"],
            ),
            (
                json!({"message": 1, "routing_key": "k"}),
                vec!["routing_key"],
            ),
            (json!({"priority": 10}), vec!["message", "priority"]),
        ] {
            let refused = place.post(&place.queue("/publish"), body.clone()).await;
            let refused = refused.expect(422).json();
            let at: Vec<_> = at.iter().map(|name| json!(["body", name])).collect();
            assert_eq!(places_of(&refused), at, "{body}");
        }
        place.get(&place.queue("/stats")).await.expect(404);
        for body in ["", "{", "[1]", "5", "{\"message\": }"] {
            let request = place
                .request("POST", &format!("/api/v1{}", place.queue("/publish")))
                .bearer_auth(KEY)
                .header("content-type", "application/json")
                .body(body);
            let refused = place.answer(request).await.expect(422).json();
            assert!(refused["fields"][0]["msg"].is_string(), "{body}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_message_has_at_most_a_mebibyte() {
    let door = door().await;
    for place in door.places() {
        let most = 1_048_576 - 2;
        place.publish(&[json!("x".repeat(most))]).await;
        let body = json!({"message": "x".repeat(most + 1)});
        let refused = place
            .post(&place.queue("/publish"), body)
            .await
            .expect(413)
            .json();
        assert!(
            refused["error"].as_str().unwrap().contains("1048576"),
            "{refused}"
        );
        let pulled = place.pull(&place.queue("")).await;
        assert_eq!(pulled["message"].as_str().unwrap().len(), most);
        assert_eq!(place.settle("/ack", &pulled, json!({})).await, "acked");
    }
}

#[tokio::test]
async fn a_key_that_was_used_before_publishes_nothing() {
    let door = door().await;
    for place in door.places() {
        let publish = async |path: String, key: &str, message: i64| {
            let body = json!({"message": message, "idempotency_key": key});
            place.post(&path, body).await
        };
        let first = publish(place.queue("/publish"), "k", 1)
            .await
            .expect(201)
            .json();
        let again = publish(place.queue("/publish"), "k", 2)
            .await
            .expect(200)
            .json();
        assert_eq!(again["message_id"], first["message_id"]);
        assert_eq!(
            (&first["duplicate"], &again["duplicate"]),
            (&json!(false), &json!(true))
        );
        publish(place.queue("/publish"), "l", 3).await.expect(201);
        publish(place.queue("-other/publish"), "k", 4)
            .await
            .expect(201);

        let pulled = place.pull(&place.queue("")).await;
        assert_eq!(pulled["message"], 1);
        place.settle("/ack", &pulled, json!({})).await;
        // also once it is done
        publish(place.queue("/publish"), "k", 5).await.expect(200);
        assert_eq!(messages(&place.drain(&place.queue("")).await), [json!(3)]);
    }
}

#[tokio::test]
async fn higher_priorities_come_first_and_else_the_oldest() {
    let door = door().await;
    for place in door.places() {
        for (message, priority) in [("a", 0), ("b", 5), ("c", 9), ("d", 5), ("e", 0)] {
            let body = json!({"message": message, "priority": priority});
            place.post(&place.queue("/publish"), body).await.expect(201);
        }
        let drained = messages(&place.drain(&place.queue("")).await);
        // one of ten is the oldest, so that low ones are not starved
        let mut without_luck = drained.clone();
        without_luck.sort_by_key(|message| message.as_str().unwrap().to_owned());
        assert_eq!(without_luck.len(), 5);
        let place_of = |text: &str| drained.iter().position(|found| found == text).unwrap();
        assert!(
            place_of("b") < place_of("d") && place_of("a") < place_of("e"),
            "{drained:?}"
        );
    }
}

#[tokio::test]
async fn a_delay_hides_a_message_and_a_life_ends_it() {
    let door = door().await;
    for place in door.places() {
        let publish = async |body: Value| {
            place.post(&place.queue("/publish"), body).await.expect(201);
        };
        publish(json!({"message": "delayed", "delay_seconds": 60.5})).await;
        publish(json!({"message": "short", "ttl_seconds": 0.001})).await;
        publish(json!({"message": "long", "ttl_seconds": 3600})).await;
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;

        assert_eq!(
            messages(&place.drain(&place.queue("")).await),
            [json!("long")]
        );
        door.app.pass_seconds(61.0).await;
        assert_eq!(place.pull(&place.queue("")).await["message"], "delayed");
        assert_eq!(place.pull(&place.queue("")).await, nothing());
    }
}

#[tokio::test]
async fn what_was_published_comes_in_its_order() {
    let door = door_with(&["--broker-visibility-timeout-sec", "600"]).await;
    for place in door.places() {
        let all: Vec<_> = (0..50).map(|number| json!(number)).collect();
        place.publish(&all).await;
        let mut pulled = Vec::new();
        for _ in 0..50 {
            pulled.push(place.pull(&place.queue("")).await);
        }
        assert_eq!(messages(&pulled), all);
        let ids: std::collections::HashSet<_> = pulled
            .iter()
            .map(|pulled| pulled["delivery_tag"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 50);
    }
}
