use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Receiver, count, counted, status, subscribe};
use crate::support::TestApp;

async fn publish(app: &TestApp, keys: &[&str]) {
    let message = |(n, key): (usize, &&str)| json!({"payload": {"n": n}, "ordering_key": key});
    let messages: Vec<Value> = keys.iter().enumerate().map(message).collect();
    let body = json!({"messages": messages});
    app.post("/topics/t/publish", body).await.expect(201);
}

/// The numbers of a key's messages, as they arrived.
fn arrived(receiver: &Receiver, key: &str) -> Vec<u64> {
    let pushes = receiver.pushes().into_iter();
    pushes
        .filter(|push| push.body["ordering_key"] == key)
        .map(|push| push.body["message"]["n"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn messages_of_a_key_are_sent_one_after_the_other() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let fields = json!({"enable_ordering": true, "max_in_flight": 20});
    subscribe(&app, &receiver, json!({}), fields).await;

    let keys: Vec<&str> = (0..100).map(|n| ["a", "b", "c"][n % 3]).collect();
    publish(&app, &keys).await;
    counted(&app, "acked", 100).await;

    for key in ["a", "b", "c"] {
        let arrived = arrived(&receiver, key);
        assert!(arrived.is_sorted(), "{key}: {arrived:?}");
    }
    assert_eq!(receiver.pushes().len(), 100);
    assert!(receiver.most() <= 3, "{}", receiver.most());
}

#[tokio::test]
async fn a_failure_holds_its_key_up_and_no_other_and_costs_those_behind_it_no_attempt() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let failed = Arc::new(AtomicBool::new(false));
    receiver.otherwise(move |push| {
        let fails = push.body["message"]["n"] == 2 && !failed.swap(true, Ordering::SeqCst);
        status(if fails { 500 } else { 200 })
    });
    let fields =
        json!({"enable_ordering": true, "backoff_min_seconds": 60, "backoff_max_seconds": 60});
    subscribe(&app, &receiver, json!({}), fields).await;

    publish(&app, &["a", "b", "a", "b", "a", "a", "b"]).await;
    counted(&app, "acked", 4).await;
    counted(&app, "scheduled", 1).await;
    assert_eq!(arrived(&receiver, "a"), [0, 2]);
    assert_eq!(arrived(&receiver, "b"), [1, 3, 6]);
    app.pass_seconds(61.0).await;
    counted(&app, "acked", 7).await;

    assert_eq!(arrived(&receiver, "a"), [0, 2, 2, 4, 5]);
    let last = receiver.pushes().pop().unwrap();
    assert_eq!(last.body["attempt"], 1);
    assert_eq!(count(&app, "dlq").await, 0);
}
