//! How much a client may send.

use serde_json::json;

use super::{door_with, subscribe};

const ONE: &str = "/api/v1/messages";

#[tokio::test]
async fn who_sends_too_much_has_to_wait() {
    let door = door_with(&["--pulsar-rate-limit-per-client", "10"]).await;
    let [mounted, alone] = door.places();
    let message = json!({"topic": "a", "payload": {}});
    let bulk = |count| json!({"messages": vec![&message; count]});
    // refused ones do not count
    mounted.post(ONE, &json!({})).await.expect(422);
    mounted
        .post(&format!("{ONE}/bulk"), &bulk(7))
        .await
        .expect(207);
    let refused = alone
        .post(&format!("{ONE}/bulk"), &bulk(5))
        .await
        .expect(429);
    assert_eq!(refused.header("x-ratelimit-limit"), Some("10"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("3"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert!(refused.json()["detail"].is_string());
    mounted
        .post(&format!("{ONE}/bulk"), &bulk(3))
        .await
        .expect(207);
    let refused = mounted.post(ONE, &message).await.expect(429);
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    mounted
        .post(&format!("{ONE}/bulk"), &bulk(11))
        .await
        .expect(429);
}

#[tokio::test]
async fn frames_count_but_pings_do_not() {
    let door = door_with(&["--pulsar-rate-limit-per-client", "5"]).await;
    let [place, _] = door.places();
    let mut socket = place.subscribe(&["a"], "last").await;
    for _ in 0..20 {
        socket.hears_nothing().await;
    }
    let ack = json!({"type": "ack", "message_id": "m"});
    for _ in 0..3 {
        socket.say(&ack).await;
    }
    socket.ask(&subscribe(&["b"], "last")).await;

    let told = socket.ask(&subscribe(&["c"], "last")).await;

    assert_eq!(told["code"], "RATE_LIMIT_EXCEEDED", "{told}");
    // dropped, and the connection stays
    socket.hears_nothing().await;
}
