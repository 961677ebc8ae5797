//! The filter of a subscription, as it is given; what it selects is a matter of messages.

use serde_json::{Value, json};

use super::app_with_topic;
use crate::http::topics::{fault, post_text};

/// Original's defect 1.
/// Filters were escaped when they were stored.
#[tokio::test]
async fn a_filter_is_kept_and_shown_exactly_as_given() {
    let app = app_with_topic().await;

    for (position, filter) in [
        "{}",
        r#"{"f":[]}"#,
        r#"{"b":["x"],"a":[1.0,1,1e2,-0,true,false]}"#,
        r#"{"a":["a&b","<script>alert(1)</script>","it's","\"quoted\"","back\\slash"]}"#,
        r#"{ "spaces" : [ 1 ,2],	"tab":["\t\u00e9é日本😀"] }"#,
        r#"{"big":[123456789012345678901234567890,0.10]}"#,
        r#"{"twice":[1],"twice":[2]}"#,
    ]
    .iter()
    .enumerate()
    {
        let body = format!(r#"{{"id":"s{position}","topic_id":"t","filter":{filter}}}"#);
        let created = post_text(&app, "/subscriptions", body).await.expect(201);
        let shown = app
            .get(&format!("/subscriptions/s{position}"))
            .await
            .expect(200);
        let listed = app
            .get(&format!("/subscriptions?offset={position}"))
            .await
            .expect(200);

        for answer in [created, shown, listed] {
            let echo = format!(r#""filter":{filter},"#);
            assert!(answer.body.contains(&echo), "{filter}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_filter_of_another_structure_is_refused() {
    let app = app_with_topic().await;
    let loc = || json!(["body", "filter"]);
    let structure = "Value error, Invalid filter structure. Expected format: \
        {\"field\": [\"value\", ...]} with strings, numbers or booleans as values";
    let dictionary = "Input should be a valid dictionary";
    let error = || json!({"error": {}});
    let refused = |filter| ("value_error", structure, filter, error());
    let no_object = |filter| ("dict_type", dictionary, filter, Value::Null);

    for (kind, msg, filter, ctx) in [
        refused(json!({"a": "x"})),
        refused(json!({"a": 1})),
        refused(json!({"a": null})),
        refused(json!({"a": [null]})),
        refused(json!({"a": [[1]]})),
        refused(json!({"a": [{}]})),
        refused(json!({"a": {"b": [1]}})),
        refused(json!({"a": [1], "b": 2})),
        no_object(json!([])),
        no_object(json!("x")),
        no_object(json!(true)),
    ] {
        let body = json!({"id": "s", "topic_id": "t", "filter": filter});
        let answer = app.post("/subscriptions", body).await;
        assert_eq!(answer.status, 422, "{filter}");
        let expected = fault(kind, loc(), msg, filter.clone(), ctx);
        assert_eq!(answer.json(), json!({"detail": [expected]}), "{filter}");
    }
    for unstorable in [
        r#"{"a":["\u0000"]}"#,
        r#"{"\u0000":[1]}"#,
        r#"{"a":["\ud800"]}"#,
    ] {
        let body = format!(r#"{{"id":"s","topic_id":"t","filter":{unstorable}}}"#);
        let answer = post_text(&app, "/subscriptions", body).await;
        assert_eq!(answer.status, 422, "{unstorable}");
    }
    app.get("/subscriptions/s").await.expect(404);
}

/// A filter that Postgres takes but cannot evaluate would fail every publish to the topic.
#[tokio::test]
async fn a_filter_has_at_most_a_thousand_values() {
    let app = app_with_topic().await;

    for (count, status) in [(1000, 201), (1001, 422), (14_000, 422), (100_000, 422)] {
        let values: Vec<u32> = (0..count).collect();
        let one_each: serde_json::Map<String, Value> =
            (0..count).map(|n| (format!("f{n}"), json!([n]))).collect();
        let none_each: serde_json::Map<String, Value> =
            (0..count).map(|n| (format!("f{n}"), json!([]))).collect();
        for (kind, filter) in [
            ("values", json!({"a": values})),
            ("fields", json!(one_each)),
            ("empty", json!(none_each)),
        ] {
            let id = format!("{kind}-{count}");
            let body = json!({"id": id, "topic_id": "t", "filter": filter});
            let created = app.post("/subscriptions", body).await;
            let published = app.post("/topics/t/messages", json!([{"a": 1}])).await;

            assert_eq!(created.status, status, "{id}: {:.300}", created.body);
            if status == 422 {
                let msg = "Value error, filter must have at most 1000 values";
                assert_eq!(created.json()["detail"][0]["msg"], msg, "{id}");
            }
            assert_eq!(published.status, 204, "{id}: {}", published.body);
        }
    }
}
