//! `/topics`.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn a_topic_is_created_once() {
    let app = TestApp::start().await;

    let topic = app
        .post("/topics", json!({"id": "user-events"}))
        .await
        .expect(201)
        .json();
    let again = app
        .post("/topics", json!({"id": "user-events"}))
        .await
        .expect(409)
        .json();

    assert_eq!(topic["id"], "user-events");
    assert_eq!(again, json!({"detail": "This topic already exists"}));
}
