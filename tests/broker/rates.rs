//! How many requests a client may make.

use serde_json::json;

use super::{KEY, door, door_with};

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let door = door_with(&["--broker-rate-limit", "5"]).await;
    for place in door.places() {
        for _ in 0..5 {
            let answered = place.put(&place.queue("")).await;
            assert!([200, 201].contains(&answered.status), "{answered:?}");
        }
        let refused = place.put(&place.queue("")).await.expect(429);
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=12).contains(&seconds), "{seconds}");
        assert!(
            refused.json()["error"]
                .as_str()
                .unwrap()
                .contains("RATE_LIMIT")
        );
        // nor can keys be guessed
        place
            .send("wrong", "PUT", &place.queue(""), None)
            .await
            .expect(429);
        for path in ["/health", "/metrics", "/stats"] {
            place.answer(place.request("GET", path)).await.expect(200);
        }
        // another client has its own
        let key = door.app.api_key_for("broker:manage").await;
        place
            .send(&key, "PUT", &place.queue(""), None)
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn without_a_limit_there_is_none() {
    let door = door().await;
    let [place, _] = door.places();
    for _ in 0..50 {
        place.publish(&[json!(1)]).await;
    }
    assert_eq!(
        place
            .send(KEY, "GET", &place.queue("/stats"), None)
            .await
            .json()["ready"],
        50
    );
}
