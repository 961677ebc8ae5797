use std::time::Duration;

use serde_json::json;

use super::{Receiver, count, counted, eventually, publish, subscribe};
use crate::support::TestApp;

#[tokio::test]
async fn two_servers_together_send_no_more_than_max_in_flight() {
    let (first, receiver) = (TestApp::start().await, Receiver::held().await);
    let second = TestApp::start_on(first.database.share(), &[]).await;
    subscribe(&first, &receiver, json!({}), json!({"max_in_flight": 3})).await;
    second.push.changed();

    publish(&first, 0..30).await;
    receiver.arrived(3).await;
    for taken in 1..=27 {
        receiver.answer(1);
        receiver.arrived(3 + taken).await;
    }
    receiver.answer(3);
    counted(&first, "acked", 30).await;

    assert_eq!(receiver.pushes().len(), 30);
    assert_eq!(receiver.most(), 3);
}

#[tokio::test]
async fn a_server_that_ends_finishes_what_is_on_its_way_and_claims_no_more() {
    let (first, receiver) = (TestApp::start().await, Receiver::held().await);
    subscribe(&first, &receiver, json!({}), json!({"max_in_flight": 4})).await;
    publish(&first, 0..10).await;
    receiver.arrived(4).await;

    first.stop();
    let other = TestApp::start_on(first.database.share(), &["--push-allowed-networks", ""]).await;
    receiver.answer(100);
    counted(&other, "acked", 4).await;

    assert_eq!(receiver.pushes().len(), 4);
}

#[tokio::test]
async fn what_is_on_its_way_for_too_long_goes_back_when_a_server_ends() {
    let flags = ["--api-shutdown-timeout-seconds", "0"];
    let (first, receiver) = (TestApp::start_with(&flags).await, Receiver::held().await);
    let push = json!({"timeout_seconds": 60});
    subscribe(&first, &receiver, push, json!({})).await;
    publish(&first, [1]).await;
    receiver.arrived(1).await;

    first.stop();
    let second = TestApp::start_on(first.database.share(), &[]).await;
    receiver.answer(100);
    counted(&second, "acked", 1).await;

    let [cut, again] = &receiver.pushes()[..] else {
        panic!("two pushes");
    };
    assert_eq!(cut.header("webhook-id"), again.header("webhook-id"));
    assert_eq!(again.body["attempt"], 1);
}

#[tokio::test]
async fn what_a_server_had_claimed_behind_a_key_goes_back_unsent_when_it_ends() {
    let (first, receiver) = (TestApp::start().await, Receiver::held().await);
    subscribe(
        &first,
        &receiver,
        json!({}),
        json!({"enable_ordering": true}),
    )
    .await;
    let message = |n: usize| json!({"payload": {"n": n}, "ordering_key": "k"});
    let body = json!({"messages": (0..5).map(message).collect::<Vec<_>>()});
    first.post("/topics/t/publish", body).await.expect(201);
    receiver.arrived(1).await;

    first.stop();
    // it has heard of its end before it hears of the first one's
    tokio::time::sleep(Duration::from_millis(100)).await;
    receiver.answer(1);
    let pushed = eventually("a give back", async || {
        let other = count(&first_database(&first).await, "available").await;
        (other == 4).then(|| receiver.pushes().len())
    })
    .await;

    assert_eq!(pushed, 1);
}

/// A server on the same database that pushes nowhere.
async fn first_database(first: &TestApp) -> TestApp {
    TestApp::start_on(first.database.share(), &["--push-allowed-networks", ""]).await
}
