//! Streams of subscriptions that expire: they keep them while they are open, whatever their clients do.

use serde_json::json;

use super::{Events, app_with, connect, hear, publish, send};
use crate::http::subscriptions::expiry::{expires, is_kept};
use crate::support::answer;

#[tokio::test]
async fn events_keep_a_subscription_also_while_the_client_holds_all_it_may() {
    let app = app_with(json!({"expires_after_seconds": 10})).await;
    publish(&app, json!([{"n": 1}, {"n": 2}])).await;
    let mut events = Events::begin(&app, "?max_in_flight=1").await;
    let first = events.next().await;

    is_kept(&app).await;

    let acks = json!({"acks": [first.id]});
    app.post("/subscriptions/s/settle", acks).await.expect(200);
    assert_eq!(events.next().await.data["payload"], json!({"n": 2}));
    drop(events);
    expires(&app).await;
}

#[tokio::test]
async fn a_socket_without_credit_keeps_a_subscription_that_begins_to_expire() {
    let app = app_with(json!({})).await;
    publish(&app, json!([{"n": 1}])).await;
    let mut socket = connect(&app, "?credit=0").await;
    let request = app.request("PATCH", "/subscriptions/s");
    let changes = json!({"expires_after_seconds": 10});
    answer(request.json(&changes)).await.expect(200);

    is_kept(&app).await;

    send(&mut socket, json!({"type": "credit", "messages": 1})).await;
    let heard = [hear(&mut socket).await, hear(&mut socket).await];
    assert!(heard.iter().any(|told| told["payload"] == json!({"n": 1})));
    drop(socket);
    expires(&app).await;
}
