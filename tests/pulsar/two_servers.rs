//! Two servers on one database.

use serde_json::json;

use super::{Door, door, subscriptions};
use crate::support::TestApp;

#[tokio::test]
async fn everybody_gets_what_any_server_accepted() {
    let first = door().await;
    let flags = ["--pulsar-listen", "127.0.0.1:0"];
    let second = Door {
        app: TestApp::start_on(first.app.database.share(), &flags).await,
    };
    let [here, _] = first.places();
    let there = second.places().into_iter().nth(1).unwrap();
    let mut at_first = here.subscribe(&["a"], "last").await;
    let mut at_second = there.subscribe(&["a"], "last").await;
    assert_eq!(subscriptions(&first.app).await.len(), 2);

    for n in 0..20 {
        let place = if n % 2 == 0 { &here } else { &there };
        place.send("a", json!({"n": n})).await;
    }

    for socket in [&mut at_first, &mut at_second] {
        assert!(socket.numbers(20).await.into_iter().eq(0..20));
        socket.hears_nothing().await;
    }
    let mut replayed = there.subscribe(&["a"], "earliest").await;
    assert!(replayed.numbers(20).await.into_iter().eq(0..20));
    // a poll here hears of what is sent there
    let polling = here.get("/api/v1/messages/poll?topics=b&timeout=20");
    let sending = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        there.send("b", json!({"n": 1})).await;
    };
    let (polled, ()) = tokio::join!(polling, sending);
    assert_eq!(
        polled.expect(200).json()["messages"][0]["payload"],
        json!({"n": 1})
    );
    // one leaves, the other goes on
    drop(second);
    here.send("a", json!({"n": 20})).await;
    assert_eq!(at_first.numbers(1).await, [20]);
}
