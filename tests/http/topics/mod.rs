//! `/topics`, and what all routes share: pages, bodies, slashes, methods.

mod forms;
mod log;
mod pages;
mod publish;
mod routes;

use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer, ids};

/// Send a body as it is, without a content type.
pub(in crate::http) async fn post_text(
    app: &TestApp,
    path: &str,
    body: impl Into<String>,
) -> Answer {
    answer(app.request("POST", path).body(body.into())).await
}

/// One fault of a 422; a null `ctx` stands for none.
pub(in crate::http) fn fault(kind: &str, loc: Value, msg: &str, input: Value, ctx: Value) -> Value {
    let mut fault = json!({"type": kind, "loc": loc, "msg": msg, "input": input});
    if !ctx.is_null() {
        fault["ctx"] = ctx;
    }
    fault
}

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
    assert_eq!(topic.as_object().unwrap().len(), 2);
    let created_at = topic["created_at"].as_str().unwrap();
    assert_eq!(created_at.len(), "2026-01-02T03:04:05.678901Z".len());
    assert!(created_at.ends_with('Z'), "{created_at}");
    assert_eq!(again, json!({"detail": "This topic already exists"}));
}

#[tokio::test]
async fn a_topic_is_shown_as_it_was_created() {
    let app = TestApp::start().await;
    let topic = app.post("/topics", json!({"id": "t"})).await.json();

    let shown = app.get("/topics/t").await.expect(200).json();
    let listed = app.get("/topics").await.expect(200).json();

    assert_eq!(shown, topic);
    assert_eq!(listed, json!({"data": [topic]}));
}

#[tokio::test]
async fn an_unknown_topic_is_404() {
    let app = TestApp::start().await;

    for answer in [
        app.get("/topics/nope").await,
        app.delete("/topics/nope").await,
        app.post("/topics/nope/messages", json!([{"a": 1}])).await,
        app.post("/topics/nope/messages", json!([])).await,
    ] {
        assert_eq!(
            answer.expect(404).json(),
            json!({"detail": "Topic not found"})
        );
    }
}

#[tokio::test]
async fn a_deleted_topic_is_gone_with_its_subscriptions() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.topic_with_subscription("other", "o", json!({})).await;
    app.post("/topics/t/messages", json!([{"a": 1}])).await;

    let deleted = app.delete("/topics/t").await.expect(204);

    assert_eq!(deleted.body, "");
    app.get("/topics/t").await.expect(404);
    app.delete("/topics/t").await.expect(404);
    app.get("/subscriptions/s").await.expect(404);
    app.get("/subscriptions/o").await.expect(200);
    app.topic_with_subscription("t", "s", json!({})).await;
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

#[tokio::test]
async fn ids_of_every_allowed_character_and_length_are_taken() {
    let app = TestApp::start().await;

    for id in ["a", "0", "-", ".", "_", "aZ-09._", &"x".repeat(128)] {
        app.post("/topics", json!({"id": id})).await.expect(201);

        let path = format!("/topics/{id}");
        // a path of a dot would be the parent directory to the client
        if id != "." {
            assert_eq!(app.get(&path).await.expect(200).json()["id"], id);
        }
    }
}

#[tokio::test]
async fn lists_are_paged_in_the_byte_order_of_ids() {
    let app = TestApp::start().await;
    let in_order = [
        "-x", ".y", "10", "9", "A", "Z", "_u", "a", "a-b", "a.b", "ab", "b",
    ];
    for id in in_order.iter().rev() {
        app.topic_with_subscription(id, id, json!({})).await;
    }

    for (query, expected) in [
        ("", &in_order[..10]),
        ("?limit=100", &in_order[..]),
        ("?limit=3", &in_order[..3]),
        ("?offset=3&limit=4", &in_order[3..7]),
        ("?offset=10", &in_order[10..]),
        ("?offset=12", &[]),
        ("?offset=9223372036854775807&limit=100", &[]),
    ] {
        for list in ["/topics", "/subscriptions"] {
            let page = app.get(&format!("{list}{query}")).await.expect(200).json();
            assert_eq!(
                ids(page["data"].as_array().unwrap()),
                expected,
                "{list}{query}"
            );
        }
    }
}
