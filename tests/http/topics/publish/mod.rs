//! `POST /topics/{id}/publish`.

mod message_keys;
mod once;
mod once_elsewhere;
mod refusals;
mod rings;

use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use crate::support::{Answer, TestApp, ids};

/// A service with topic `t` and subscription `s`.
async fn app() -> TestApp {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app
}

async fn publish(app: &TestApp, messages: Value) -> Answer {
    app.post("/topics/t/publish", json!({"messages": messages}))
        .await
}

async fn number(app: &TestApp, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn published_messages_are_delivered_in_order_under_the_ids_of_the_answer() {
    let app = app().await;
    let messages: Vec<Value> = (0..20).map(|n| json!({"payload": {"n": n}})).collect();

    let answer = publish(&app, json!(messages)).await.expect(201).json();

    let delivered = app.consume("s").await;
    let numbers: Vec<i64> = delivered
        .iter()
        .map(|message| message["payload"]["n"].as_i64().unwrap())
        .collect();
    assert_eq!(answer["message_ids"], json!(ids(&delivered)));
    assert_eq!(answer["duplicates"], json!([]));
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_that_a_message_carries_is_stored_and_the_payload_as_it_came() {
    let app = app().await;
    let body = r#"{"messages": [{"payload": {"a": 1.50, "b": [null, "<&>é"]},
        "attributes": {"region": "eu", "empty": ""}, "ordering_key": "k", "priority": 9,
        "delay_seconds": 60, "ttl_seconds": 30, "idempotency_key": "i"},
        {"payload": {}, "attributes": {}, "ordering_key": null, "priority": null,
        "delay_seconds": null, "expires_at": "2901-01-01T01:00:00+01:00"}]}"#;

    let answer = super::post_text(&app, "/topics/t/publish", body)
        .await
        .expect(201)
        .json();

    let rows = sqlx::query(
        "select m.message_id, m.payload::text, m.attributes::text, m.ordering_key, m.priority, \
             extract(epoch from \
                 nullif(d.visible_at, '-infinity') - m.published_at)::float8, \
             extract(epoch from \
                 m.expires_at - nullif(d.visible_at, '-infinity'))::float8, \
             m.expires_at = '2901-01-01' \
         from pubsub_data.messages m join pubsub_data.deliveries d using (topic_key, message_id) \
         order by m.message_id",
    )
    .fetch_all(&app.pool())
    .await
    .unwrap();
    let stored: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(answer["message_ids"], json!(stored));
    let [first, second] = rows.as_slice() else {
        panic!("{}", rows.len());
    };
    assert_eq!(
        first.get::<String, _>(1),
        r#"{"a": 1.50, "b": [null, "<&>é"]}"#
    );
    let attributes: Value = serde_json::from_str(first.get(2)).unwrap();
    assert_eq!(attributes, json!({"region": "eu", "empty": ""}));
    assert_eq!(first.get::<String, _>(3), "k");
    assert_eq!(first.get::<i16, _>(4), 9);
    assert!((first.get::<f64, _>(5) - 60.0).abs() < 1.0);
    // its life begins when it can be consumed
    assert!((first.get::<f64, _>(6) - 30.0).abs() < 1.0);
    assert_eq!(second.get::<Option<String>, _>(3), None);
    assert_eq!(second.get::<Option<i16>, _>(4), None);
    assert!(second.get::<bool, _>(7));
}

#[tokio::test]
async fn publishes_that_come_at_once_each_get_their_own_ids() {
    let app = app().await;
    let one = async |n: usize| {
        // every other one carries nothing, and every third is of the old route
        let mut message = json!({"payload": {"n": n}});
        if n.is_multiple_of(2) {
            message["attributes"] = json!({"n": n.to_string()});
        }
        if n.is_multiple_of(3) {
            app.post("/topics/t/messages", json!([{"n": n}]))
                .await
                .expect(204);
            return (n, None);
        }
        let answer = publish(&app, json!([message])).await.expect(201).json();
        let [id] = answer["message_ids"].as_array().unwrap().as_slice() else {
            panic!("{answer}");
        };
        (n, Some(id.as_str().unwrap().to_owned()))
    };

    let answers = at_once((0..60).map(one)).await;

    assert_eq!(
        number(&app, "select count(*) from pubsub_data.messages").await,
        60
    );
    for (n, id) in answers {
        let Some(id) = id else { continue };
        let row = sqlx::query(
            "select (m.payload ->> 'n')::int8, (m.attributes ->> 'n')::int8 \
             from pubsub_data.messages m where m.message_id = $1::uuid",
        )
        .bind(id)
        .fetch_one(&app.pool())
        .await
        .unwrap();
        let tagged = n.is_multiple_of(2);
        let n = i64::try_from(n).unwrap();
        assert_eq!(row.get::<i64, _>(0), n);
        assert_eq!(row.get::<Option<i64>, _>(1), tagged.then_some(n));
    }
}

/// Poll all of them in this task.
async fn at_once<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut futures {
            if result.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *result = Some(ready);
            }
        }
        if futures.iter().all(|(_, result)| result.is_some()) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    futures
        .into_iter()
        .map(|(_, result)| result.unwrap())
        .collect()
}

#[tokio::test]
async fn publishing_needs_the_scope_and_a_topic() {
    let app = TestApp::start_with_auth("topics:create topics:publish:t").await;
    for topic in ["t", "u"] {
        app.post("/topics", json!({"id": topic})).await.expect(201);
    }
    let body = json!({"messages": [{"payload": {}}]});

    app.post("/topics/t/publish", body.clone())
        .await
        .expect(201);
    app.post("/topics/u/publish", body.clone())
        .await
        .expect(403);
    app.with_token(None)
        .post("/topics/t/publish", json!({}))
        .await
        .expect(401);
    app.delete("/topics/t").await.expect(403);
    let unknown = TestApp::start()
        .await
        .post("/topics/none/publish", body)
        .await;

    assert_eq!(
        unknown.expect(404).json(),
        json!({"detail": "Topic not found"})
    );
}
