//! Long polling.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Place, door, faults};

async fn poll(place: &Place<'_>, query: &str) -> Value {
    let path = format!("/api/v1/messages/poll?{query}");
    place.get(&path).await.expect(200).json()
}

fn numbers(polled: &Value) -> Vec<i64> {
    let messages = polled["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["payload"]["n"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_poll_waits_for_the_next_message() {
    let door = door().await;
    for place in door.places() {
        let topics = format!("topics={},other", place.topic);
        place.send(&place.topic, json!({"n": 0})).await;
        let publishing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let body = json!({"topic": place.topic, "payload": {"n": 1}, "metadata": {"a": "b"}});
            place
                .post("/api/v1/messages", &body)
                .await
                .expect(201)
                .json()
        };
        let query = format!("{topics}&timeout=30&client_id=c");
        let (polled, sent) = tokio::join!(poll(&place, &query), publishing);
        let expected = json!({
            "messages": [{
                "message_id": sent["message_id"], "topic": place.topic, "payload": {"n": 1},
                "timestamp": sent["timestamp"], "metadata": {"a": "b"},
            }],
            "next": sent["message_id"],
        });
        assert_eq!(polled, expected);

        // what was accepted between two polls is there at once
        place.send("other", json!({"n": 2})).await;
        place.send("third", json!({"n": 3})).await;
        place.send(&place.topic, json!({"n": 4})).await;
        let after = polled["next"].as_str().unwrap();
        let polled = poll(&place, &format!("{topics}&after={after}&limit=1")).await;
        assert_eq!(numbers(&polled), [2]);
        let after = polled["next"].as_str().unwrap();
        let polled = poll(&place, &format!("{topics}&after={after}")).await;
        assert_eq!(numbers(&polled), [4]);
        assert_eq!(polled["messages"][0]["metadata"], Value::Null);
    }
}

#[tokio::test]
async fn a_poll_without_messages_is_empty_and_can_be_gone_on_from() {
    let door = door().await;
    for place in door.places() {
        let mut query = format!("topics={}&timeout=1", place.topic);
        let begun = Instant::now();
        let polled = poll(&place, &query).await;
        assert_eq!(polled["messages"], json!([]));
        assert!(begun.elapsed() >= Duration::from_secs(1));
        query = format!("topics={}&timeout=0", place.topic);
        for n in 0..3 {
            place.send(&place.topic, json!({"n": n})).await;
            let after = polled["next"].as_str().unwrap();
            let polled = poll(&place, &format!("{query}&after={after}")).await;
            assert!(numbers(&polled).into_iter().eq(0..=n));
            let after = polled["next"].as_str().unwrap();
            let nothing = poll(&place, &format!("{query}&after={after}")).await;
            assert_eq!(nothing, json!({"messages": [], "next": after}));
        }
    }
}

#[tokio::test]
async fn polls_one_after_the_other_get_everything_once_and_in_order() {
    let door = door().await;
    let [place, _] = door.places();
    let publishing = async {
        for n in 0..150 {
            place.send(&place.topic, json!({"n": n})).await;
        }
    };
    let polling = async {
        let mut all = Vec::new();
        let mut query = format!("topics={}&timeout=1", place.topic);
        let mut after = format!("msg_{}", "0".repeat(32));
        query += "&limit=7&after=";
        while all.len() < 150 {
            let polled = poll(&place, &format!("{query}{after}")).await;
            all.extend(numbers(&polled));
            after = polled["next"].as_str().unwrap().to_owned();
        }
        assert!(all.iter().copied().eq(0..150), "{all:?}");
    };
    tokio::join!(publishing, polling);
}

#[tokio::test]
async fn what_a_poll_must_not_ask_for_is_told() {
    let door = door().await;
    for place in door.places() {
        let many = vec!["a"; 51].join(",");
        for (query, name) in [
            ("timeout=1", "topics"),
            ("topics=", "topics"),
            ("topics=a,,b", "topics"),
            ("topics=a%20b", "topics"),
            (&format!("topics={many}"), "topics"),
            ("topics=a&after=x", "after"),
            ("topics=a&timeout=31", "timeout"),
            ("topics=a&timeout=-1", "timeout"),
            ("topics=a&limit=0", "limit"),
            ("topics=a&limit=1001", "limit"),
            ("topics=a&client_id=", "client_id"),
        ] {
            let path = format!("/api/v1/messages/poll?{query}");
            let refused = place.get(&path).await.expect(422);
            let places = faults(&refused);
            assert_eq!(places[0].0, format!("query.{name}"), "{query}: {places:?}");
        }
    }
}
