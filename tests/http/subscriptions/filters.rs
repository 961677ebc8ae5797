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
        r#"{"a":[{"prefix" : "x"},{"numeric":[">=",1.0]}],"n":{"m":{"o":[{"exists":false}]}}}"#,
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
async fn a_filter_of_another_structure_is_refused_where_it_is_wrong() {
    let app = app_with_topic().await;
    let structure = "Value error, Invalid filter structure. Expected format: \
        {\"field\": [\"value\", ...]} with strings, numbers, booleans or operators as values";
    let operator = "Value error, an operator is an object with one of prefix, suffix, anything-but, \
        exists, numeric, routing-key";
    let numeric = "Value error, a comparison of numeric is one of =, <, <=, >, >=";
    let longest = "Value error, suffix must have at most 1024 characters";
    let empty = "Value error, an object of fields must have at least one field";
    let long = "x".repeat(1025);

    for (filter, path, msg, input) in [
        (json!({"a": "x"}), json!(["a"]), structure, json!("x")),
        (json!({"a": null}), json!(["a"]), structure, json!(null)),
        (
            json!({"a": [null]}),
            json!(["a", 0]),
            structure,
            json!(null),
        ),
        (
            json!({"a": [1, [2]]}),
            json!(["a", 1]),
            structure,
            json!([2]),
        ),
        (json!({"a": [1], "b": 2}), json!(["b"]), structure, json!(2)),
        (json!({"a": [{}]}), json!(["a", 0]), operator, json!({})),
        (
            json!({"address": {"country": [{"like": "x"}]}}),
            json!(["address", "country", 0, "like"]),
            operator,
            json!("x"),
        ),
        (
            json!({"a": [{"numeric": ["!", 1]}]}),
            json!(["a", 0, "numeric", 0]),
            numeric,
            json!("!"),
        ),
        (
            json!({"a": [{"suffix": long}]}),
            json!(["a", 0, "suffix"]),
            longest,
            json!(long),
        ),
        (
            json!({"a": {"\"": {}}}),
            json!(["a", "\""]),
            empty,
            json!({}),
        ),
    ] {
        let body = json!({"id": "s", "topic_id": "t", "filter": filter});
        let answer = app.post("/subscriptions", body).await;
        assert_eq!(answer.status, 422, "{filter}");
        let mut loc = json!(["body", "filter"]);
        let steps = path.as_array().unwrap().clone();
        loc.as_array_mut().unwrap().extend(steps);
        let expected = fault("value_error", loc, msg, input, json!({"error": {}}));
        assert_eq!(answer.json(), json!({"detail": [expected]}), "{filter}");
    }
    for filter in [json!([]), json!("x"), json!(true)] {
        let body = json!({"id": "s", "topic_id": "t", "filter": filter});
        let answer = app.post("/subscriptions", body).await.expect(422);
        let msg = "Input should be a valid dictionary";
        let loc = json!(["body", "filter"]);
        let expected = fault("dict_type", loc, msg, filter, Value::Null);
        assert_eq!(answer.json(), json!({"detail": [expected]}));
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

    for (count, status) in [(1000, 201), (1001, 422), (14_000, 422), (100_000, 413)] {
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
