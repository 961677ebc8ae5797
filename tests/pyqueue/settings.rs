//! Settings of the door that hold for queues made under other ones.

use serde_json::json;

use super::{KEYS, door};
use crate::support::TestApp;

#[tokio::test]
async fn how_often_a_message_may_be_received_holds_for_queues_that_there_are() {
    let door = door().await;
    let [place, _] = door.places();
    place.add(&["a"]).await;
    let attempts = async |app: &TestApp| {
        let queue = app
            .get("/subscriptions/pyqueue%2Fmounted")
            .await
            .expect(200);
        queue.json()["max_delivery_attempts"].clone()
    };
    assert_eq!(attempts(&door.app).await, i32::MAX);
    door.app
        .topic_with_subscription("native", "native", json!({}))
        .await;

    let flags = [
        "--pyqueue-api-keys-json",
        KEYS,
        "--pyqueue-max-receive-count",
        "7",
    ];
    let restarted = TestApp::start_on(door.app.database.share(), &flags).await;

    assert_eq!(attempts(&restarted).await, 7);
    let native = restarted
        .get("/subscriptions/native")
        .await
        .expect(200)
        .json();
    assert_eq!(native["max_delivery_attempts"], 5);
}
