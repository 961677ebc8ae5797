//! What a route does not know is refused, not ignored: a misspelt setting would go unnoticed.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer};

/// Every route with a query parameter too many, as the document lists them.
#[tokio::test]
async fn an_unknown_query_parameter_is_refused_on_every_route() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200).json();
    let mut refused = 0;

    for (path, operations) in document["paths"].as_object().unwrap() {
        if path == "/oauth/token" {
            continue;
        }
        for method in operations.as_object().unwrap().keys() {
            let target = format!("{}?limt=5", path.replace("{id}", "x"));
            let answer = answer(app.request(&method.to_uppercase(), &target)).await;

            let fault = answer.expect(422).json()["detail"][0].clone();
            assert_eq!(
                fault,
                json!({"type": "extra_forbidden", "loc": ["query", "limt"], "input": "5",
                    "msg": "Extra inputs are not permitted"}),
                "{method} {path}"
            );
            refused += 1;
        }
    }

    assert!(refused > 30, "{refused}");
}

#[tokio::test]
async fn an_unknown_query_parameter_changes_nothing() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages?delay=9", json!([{"n": 1}]))
        .await
        .expect(422);
    app.post("/topics/t/messages", json!([{"n": 2}]))
        .await
        .expect(204);

    app.get("/subscriptions/s/messages?consumer_id=c&batchsize=1")
        .await
        .expect(422);
    app.delete("/topics/t?if_unused=true").await.expect(422);

    let messages = app.consume("s").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["payload"], json!({"n": 2}));
}

/// Who lacks the scope learns nothing, and not that a parameter is wrong either.
#[tokio::test]
async fn who_lacks_the_scope_is_told_so_before_an_unknown_parameter() {
    let app = TestApp::start_with_auth("topics:read").await;

    app.get("/topics?limt=5").await.expect(422);
    app.get("/subscriptions?limt=5").await.expect(403);
    app.post("/transactions?limt=5", json!({}))
        .await
        .expect(403);
    app.with_token(None).get("/topics?limt=5").await.expect(401);
}

#[track_caller]
fn assert_unknown(answer: Answer, loc: &Value, what: &str) {
    assert_eq!(answer.status, 422, "{what}: {}", answer.body);
    let faults = answer.json()["detail"].clone();
    let expected = json!(["extra_forbidden", loc]);
    let found = faults.as_array().unwrap().iter();
    let found: Vec<Value> = found
        .map(|fault| json!([fault["type"], fault["loc"]]))
        .collect();
    assert!(found.contains(&expected), "{what}: {found:?}");
}

#[tokio::test]
async fn an_unknown_field_is_refused_wherever_it_stands_in_a_body() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let client = json!({"name": "n", "scopes": "*"});
    let client_id = app.post("/clients", client).await.expect(201).json()["id"].clone();
    let client_path = format!("/clients/{}", client_id.as_str().unwrap());

    for (method, path, body, loc) in [
        ("POST", "/topics", json!({"id": "a", "x": 1}), json!(["x"])),
        ("PATCH", "/topics/t", json!({"x": 1}), json!(["x"])),
        (
            "POST",
            "/subscriptions",
            json!({"id": "a", "topic_id": "t", "enable_order": true}),
            json!(["enable_order"]),
        ),
        (
            "POST",
            "/subscriptions",
            json!({"id": "a", "topic_id": "t", "max_delivery_attempt": 2}),
            json!(["max_delivery_attempt"]),
        ),
        (
            "PATCH",
            "/subscriptions/s",
            json!({"x": null}),
            json!(["x"]),
        ),
        (
            "POST",
            "/topics/t/publish",
            json!({"messages": [{"payload": {}}], "x": 1}),
            json!(["x"]),
        ),
        (
            "POST",
            "/topics/t/publish",
            json!({"messages": [{"payload": {}}, {"payload": {}, "x": 1}]}),
            json!(["messages", 1, "x"]),
        ),
        (
            "POST",
            "/subscriptions/s/pull",
            json!({"consumer_id": "c", "batch_size": 1}),
            json!(["batch_size"]),
        ),
        (
            "POST",
            "/subscriptions/s/settle",
            json!({"x": []}),
            json!(["x"]),
        ),
        (
            "POST",
            "/subscriptions/s/settle",
            json!({"nacks": [{"receipt": "r", "delay": 1}]}),
            json!(["nacks", 0, "delay"]),
        ),
        (
            "POST",
            "/subscriptions/s/settle",
            json!({"rejects": [{"receipt": "r", "x": 1}]}),
            json!(["rejects", 0, "x"]),
        ),
        (
            "POST",
            "/subscriptions/s/settle",
            json!({"extends": [{"receipt": "r", "seconds": 1, "x": 1}]}),
            json!(["extends", 0, "x"]),
        ),
        (
            "POST",
            "/subscriptions/s/seek",
            json!({"to": "end", "x": 1}),
            json!(["x"]),
        ),
        (
            "POST",
            "/subscriptions/s/seek",
            json!({"to": "end", "since": "2026-01-02T03:04:05Z"}),
            json!(["since"]),
        ),
        (
            "POST",
            "/subscriptions/s/filter-preview",
            json!({"filter": {}, "x": 1}),
            json!(["x"]),
        ),
        (
            "POST",
            "/subscriptions/s/dlq/reprocess",
            json!({"all": true, "x": 1}),
            json!(["x"]),
        ),
        (
            "POST",
            "/subscriptions/s/parked/resume",
            json!({"message_ids": [], "action": "skip", "x": 1}),
            json!(["x"]),
        ),
        (
            "POST",
            "/snapshots",
            json!({"id": "a", "subscription_id": "s", "x": 1}),
            json!(["x"]),
        ),
        ("POST", "/transactions", json!({"ack": []}), json!(["ack"])),
        (
            "POST",
            "/transactions",
            json!({"acks": [{"subscription_id": "s", "receipt": "r", "x": 1}]}),
            json!(["acks", 0, "x"]),
        ),
        (
            "POST",
            "/transactions",
            json!({"publishes": [{"topic_id": "t", "messages": [{"payload": {}}], "x": 1}]}),
            json!(["publishes", 0, "x"]),
        ),
        (
            "POST",
            "/transactions",
            json!({"publishes": [{"topic_id": "t", "messages": [{"payload": {}, "x": 1}]}]}),
            json!(["publishes", 0, "messages", 0, "x"]),
        ),
        (
            "POST",
            "/clients",
            json!({"name": "n", "scopes": "*", "active": false}),
            json!(["active"]),
        ),
        (
            "PUT",
            &client_path,
            json!({"name": "n", "scopes": "*", "secret": "s"}),
            json!(["secret"]),
        ),
    ] {
        let what = format!("{method} {path} {body}");
        let answer = answer(app.request(method, path).json(&body)).await;

        let mut place = vec![json!("body")];
        place.extend(loc.as_array().unwrap().clone());
        assert_unknown(answer, &json!(place), &what);
    }

    assert_eq!(
        app.get("/topics").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(app.consume("s").await.is_empty());
}

/// RFC 6749, section 3.2: unrecognized request parameters must be ignored.
#[tokio::test]
async fn the_token_endpoint_ignores_what_it_does_not_know() {
    let app = TestApp::start_with_auth("*").await;
    let (id, secret) = app.client_with("*").await;

    let json = json!({"client_id": id, "client_secret": secret, "audience": "a"});
    app.post("/oauth/token?resource=r", json).await.expect(201);
}
