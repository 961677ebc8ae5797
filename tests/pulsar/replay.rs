//! Offsets: what was accepted before, and then what is accepted, none twice and none missing.

use serde_json::json;

use super::{door, door_with, subscribe};

#[tokio::test]
async fn earliest_begins_with_everything_that_is_kept() {
    let door = door().await;
    for place in door.places() {
        let other = format!("{}-2", place.topic);
        let ids = place.send_numbers(0..5).await;
        let mut earliest = place.subscribe(&[&place.topic, &other], "earliest").await;
        let after = ids[2].as_str().unwrap();
        let mut after = place.subscribe(&[&place.topic], after).await;
        let mut last = place.subscribe(&[&place.topic], "last").await;
        place.send(&other, json!({"n": 5})).await;
        place.send_numbers(6..8).await;

        assert_eq!(earliest.numbers(8).await, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(after.numbers(4).await, [3, 4, 6, 7]);
        assert_eq!(last.numbers(2).await, [6, 7]);
        for socket in [&mut earliest, &mut after, &mut last] {
            socket.hears_nothing().await;
        }
        // as it was the first time
        let again = place
            .subscribe(&[&place.topic], "earliest")
            .await
            .hear()
            .await;
        assert_eq!(again["message_id"], ids[0]);
        let sent = again["timestamp"].as_str().unwrap();
        assert!(sent.ends_with('Z'), "{sent}");
    }
}

#[tokio::test]
async fn a_second_subscribe_replays_its_new_topics() {
    let door = door().await;
    for place in door.places() {
        place.send_numbers(0..2).await;
        let more = format!("{}-2", place.topic);
        place.send(&more, json!({"n": 2})).await;
        let mut socket = place.subscribe(&[&place.topic], "last").await;
        let all = [place.topic.as_str(), &more];
        socket.ask(&subscribe(&all, "earliest")).await;
        assert_eq!(socket.numbers(1).await, [2]);
        place.send_numbers(3..4).await;
        assert_eq!(socket.numbers(1).await, [3]);
        socket.hears_nothing().await;
    }
}

#[tokio::test]
async fn only_what_is_kept_and_not_over_is_replayed() {
    let flags = [
        "--pulsar-max-messages-per-topic",
        "3",
        "--pulsar-hot-tier-retention",
        "100",
    ];
    let door = door_with(&flags).await;
    for place in door.places() {
        let ids = place.send_numbers(0..5).await;
        let mut socket = place.subscribe(&[&place.topic], "earliest").await;
        assert_eq!(socket.numbers(3).await, [2, 3, 4]);
        let first = ids[0].as_str().unwrap();
        let mut socket = place.subscribe(&[&place.topic], first).await;
        assert_eq!(socket.numbers(3).await, [2, 3, 4]);
        socket.hears_nothing().await;

        let body = json!({"topic": "short", "payload": {"n": 5}, "ttl": 1});
        let mut live = place.subscribe(&["short"], "last").await;
        place.post("/api/v1/messages", &body).await.expect(201);
        assert_eq!(live.numbers(1).await, [5]);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let mut socket = place.subscribe(&["short"], "earliest").await;
        socket.hears_nothing().await;
    }
    let none = door_with(&["--pulsar-hot-tier-retention", "0"]).await;
    let [place, _] = none.places();
    place.send_numbers(0..1).await;
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let mut socket = place.subscribe(&[&place.topic], "earliest").await;
    socket.hears_nothing().await;
    place.send_numbers(1..2).await;
    assert_eq!(socket.numbers(1).await, [1]);
}

#[tokio::test]
async fn a_replay_beside_publishers_has_each_message_once_and_in_order() {
    let door = door().await;
    let [place, alone] = door.places();
    let body = |from: i64| {
        let message = |n| json!({"topic": "mounted", "payload": {"n": n}});
        json!({"messages": (from..from + 100).map(message).collect::<Vec<_>>()})
    };
    for from in 0..20 {
        let sent = place.post("/api/v1/messages/bulk", &body(from * 100)).await;
        sent.expect(207);
    }
    let publishing = async {
        for n in 2000..2200 {
            alone.send("mounted", json!({"n": n})).await;
        }
    };
    let reading = async {
        let mut sockets = Vec::new();
        for _ in 0..5 {
            sockets.push(place.subscribe(&["mounted"], "earliest").await);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for socket in &mut sockets {
            let numbers = socket.numbers(2200).await;
            assert!(numbers.iter().copied().eq(0..2200), "{numbers:?}");
            socket.hears_nothing().await;
        }
    };
    tokio::join!(publishing, reading);
}

#[tokio::test]
async fn what_is_committed_late_below_what_was_replayed_comes_all_the_same() {
    let door = door().await;
    let [place, _] = door.places();
    place.send_numbers(0..1).await;
    let mut before = place.subscribe(&[&place.topic], "last").await;
    let publish = "select pubsub.publish_messages('pulsar', array[$1::jsonb], \
                   p_ordering_keys => array['mounted'])";
    let pool = door.app.pool();
    let mut late = pool.pool().begin().await.unwrap();
    sqlx::query(publish)
        .bind(json!({"n": 1}))
        .execute(&mut *late)
        .await
        .unwrap();
    place.send_numbers(2..3).await;
    assert_eq!(before.numbers(1).await, [2]);
    let mut socket = place.subscribe(&[&place.topic], "earliest").await;
    assert_eq!(socket.numbers(2).await, [0, 2]);

    late.commit().await.unwrap();

    // and what is accepted after it comes after it
    place.send_numbers(3..4).await;
    for socket in [&mut socket, &mut before] {
        assert_eq!(socket.numbers(2).await, [1, 3]);
        socket.hears_nothing().await;
    }
}
