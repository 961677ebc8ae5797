//! Broadcasts to many, and their order.

use futures_util::future::join_all;
use serde_json::json;

use super::{Door, door};
use crate::support::TestApp;

#[tokio::test]
async fn each_of_many_gets_everything_once_and_in_the_order_of_acceptance() {
    let first = door().await;
    let flags = ["--pulsar-listen", "127.0.0.1:0"];
    let second = Door {
        app: TestApp::start_on(first.app.database.share(), &flags).await,
    };
    let [[here, _], [there, _]] = [first.places(), second.places()];
    let mut sockets = Vec::new();
    for n in 0..30 {
        let place = if n % 2 == 0 { &here } else { &there };
        sockets.push(place.subscribe(&["a", "b"], "last").await);
    }
    // each publisher sends the next once the last one was answered, to the servers in turn
    let publish = async |publisher: i64| {
        for n in 0..50 {
            let place = if (n + publisher) % 2 == 0 {
                &here
            } else {
                &there
            };
            let topic = if n % 3 == 0 { "a" } else { "b" };
            place.send(topic, json!({"n": publisher * 1000 + n})).await;
        }
    };

    join_all((0..6).map(publish)).await;

    for socket in &mut sockets {
        let numbers = socket.numbers(300).await;
        for publisher in 0..6 {
            let of = numbers.iter().filter(|n| **n / 1000 == publisher);
            let of: Vec<i64> = of.map(|n| n % 1000).collect();
            assert!(of.iter().copied().eq(0..50), "{publisher}: {of:?}");
        }
        socket.hears_nothing().await;
    }
}

#[tokio::test]
async fn what_is_accepted_after_subscribed_always_comes() {
    let door = door().await;
    let [place, _] = door.places();
    for round in 0..5 {
        // with publishes under way while the first connection makes the subscription
        let publishing = async {
            for n in 0..40 {
                place.send("noise", json!({"n": n})).await;
            }
        };
        let subscribing = async {
            let mut socket = place.subscribe(&[&place.topic], "last").await;
            place.send(&place.topic, json!({"n": round})).await;
            assert_eq!(socket.numbers(1).await, [round]);
        };
        tokio::join!(publishing, subscribing);
        super::until(async || super::subscriptions(&door.app).await.is_empty()).await;
    }
}
