//! `/subscriptions`.

use serde_json::{Value, json};

use super::topics::{fault, post_text};
use crate::support::TestApp;

async fn app_with_topic() -> TestApp {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    app
}

#[tokio::test]
async fn a_subscription_has_the_defaults_of_the_server() {
    let app = TestApp::start_with(&[
        "--subscription-max-attempts",
        "7",
        "--subscription-backoff-min-seconds",
        "11",
        "--subscription-backoff-max-seconds",
        "13",
    ])
    .await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);

    let mut created = app
        .post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201)
        .json();

    let created_at = created["created_at"].take();
    assert!(created_at.as_str().unwrap().ends_with('Z'), "{created_at}");
    assert_eq!(
        created,
        json!({
            "id": "s", "topic_id": "t", "filter": null, "max_delivery_attempts": 7,
            "backoff_min_seconds": 11, "backoff_max_seconds": 13, "created_at": null,
        })
    );
}

#[tokio::test]
async fn a_subscription_is_shown_as_it_was_created() {
    let app = app_with_topic().await;
    let body = json!({
        "id": "s", "topic_id": "t", "filter": {"a": [1]}, "max_delivery_attempts": 1,
        "backoff_min_seconds": 2, "backoff_max_seconds": 2, "ack_deadline_seconds": 43200,
        "unknown": "field",
    });

    let created = app
        .post("/subscriptions", body.clone())
        .await
        .expect(201)
        .json();
    let shown = app.get("/subscriptions/s").await.expect(200).json();
    let listed = app.get("/subscriptions").await.expect(200).json();

    for (field, value) in body.as_object().unwrap() {
        if field != "unknown" {
            assert_eq!(&created[field], value, "{field}");
        }
    }
    assert_eq!(created["unknown"], Value::Null);
    assert_eq!(shown, created);
    assert_eq!(listed, json!({"data": [created]}));
}

#[tokio::test]
async fn a_taken_id_is_409_even_where_the_topic_is_missing() {
    let app = app_with_topic().await;
    app.post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201);

    for topic in ["t", "missing"] {
        let body = json!({"id": "s", "topic_id": topic});
        let again = app.post("/subscriptions", body).await.expect(409);
        assert_eq!(
            again.json(),
            json!({"detail": "This subscription already exists"}),
            "{topic}"
        );
    }
}

#[tokio::test]
async fn a_subscription_to_an_unknown_topic_is_404() {
    let app = TestApp::start().await;

    let answer = app
        .post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await;

    assert_eq!(
        answer.expect(404).json(),
        json!({"detail": "Topic not found"})
    );
    app.get("/subscriptions/s").await.expect(404);
}

#[tokio::test]
async fn every_route_of_an_unknown_subscription_is_404() {
    let app = TestApp::start().await;

    for answer in [
        app.get("/subscriptions/x").await,
        app.delete("/subscriptions/x").await,
        app.get("/subscriptions/x/messages?consumer_id=c").await,
        app.post("/subscriptions/x/acks", json!([])).await,
        app.post("/subscriptions/x/nacks", json!([])).await,
        app.get("/subscriptions/x/dlq").await,
        app.post("/subscriptions/x/dlq/reprocess", json!([])).await,
        app.get("/subscriptions/x/metrics").await,
    ] {
        assert_eq!(
            answer.expect(404).json(),
            json!({"detail": "Subscription not found"})
        );
    }
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_with_its_messages() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    app.post("/topics/t/messages", json!([{"a": 1}, {"a": 2}]))
        .await
        .expect(204);

    let deleted = app.delete("/subscriptions/s").await.expect(204);

    assert_eq!(deleted.body, "");
    app.get("/subscriptions/s").await.expect(404);
    app.delete("/subscriptions/s").await.expect(404);
    app.get("/topics/t").await.expect(200);
    app.post("/subscriptions", json!({"id": "s", "topic_id": "t"}))
        .await
        .expect(201);
    assert_eq!(
        app.get("/subscriptions/s/metrics").await.expect(200).json(),
        json!({
            "subscription_id": "s", "available": 0, "delivered": 0, "scheduled": 0, "acked": 0,
            "dlq": 0,
        })
    );
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

/// Original's defect 9.
#[tokio::test]
async fn numbers_outside_their_limits_are_refused() {
    let app = app_with_topic().await;
    let ge = |name: &str, min: i64, input| {
        let msg = format!("Input should be greater than or equal to {min}");
        let loc = json!(["body", name]);
        fault("greater_than_equal", loc, &msg, input, json!({"ge": min}))
    };
    let le = |name: &str, max: i64, input| {
        let msg = format!("Input should be less than or equal to {max}");
        let loc = json!(["body", name]);
        fault("less_than_equal", loc, &msg, input, json!({"le": max}))
    };
    let number = |kind: &str, name: &str, why: &str, input| {
        let msg = format!("Input should be a valid integer{why}");
        fault(kind, json!(["body", name]), &msg, input, Value::Null)
    };
    let fraction = ", got a number with a fractional part";
    let unparsable = ", unable to parse string as an integer";
    let int_max = i64::from(i32::MAX);

    for name in [
        "max_delivery_attempts",
        "backoff_min_seconds",
        "backoff_max_seconds",
    ] {
        for (value, expected) in [
            (json!(0), ge(name, 1, json!(0))),
            (json!(-7), ge(name, 1, json!(-7))),
            (json!(int_max + 1), le(name, int_max, json!(int_max + 1))),
            (json!("2147483648"), le(name, int_max, json!("2147483648"))),
            (json!(u64::MAX), le(name, int_max, json!(u64::MAX))),
            (json!(1e300), le(name, int_max, json!(1e300))),
            (
                json!(1.5),
                number("int_from_float", name, fraction, json!(1.5)),
            ),
            (
                json!("1.5"),
                number("int_parsing", name, unparsable, json!("1.5")),
            ),
            (
                json!("x"),
                number("int_parsing", name, unparsable, json!("x")),
            ),
            (json!(null), number("int_type", name, "", json!(null))),
            (json!([1]), number("int_type", name, "", json!([1]))),
        ] {
            let body = json!({"id": "s", "topic_id": "t", name: value});
            let answer = app.post("/subscriptions", body).await;
            assert_eq!(answer.status, 422, "{name} {value}");
            assert_eq!(
                answer.json(),
                json!({"detail": [expected]}),
                "{name} {value}"
            );
        }
    }
    for (value, expected) in [
        (json!(0), ge("ack_deadline_seconds", 1, json!(0))),
        (
            json!(43201),
            le("ack_deadline_seconds", 43200, json!(43201)),
        ),
    ] {
        let body = json!({"id": "s", "topic_id": "t", "ack_deadline_seconds": value});
        let answer = app.post("/subscriptions", body).await.expect(422);
        assert_eq!(answer.json(), json!({"detail": [expected]}), "{value}");
    }
    app.get("/subscriptions/s").await.expect(404);
}

#[tokio::test]
async fn numbers_are_converted_where_nothing_is_lost() {
    let app = app_with_topic().await;

    for (position, (given, taken)) in [
        (json!("7"), 7),
        (json!(2.0), 2),
        (json!(true), 1),
        (json!(i32::MAX), i32::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({
            "id": position.to_string(), "topic_id": "t", "max_delivery_attempts": given,
            "backoff_min_seconds": given, "backoff_max_seconds": given,
        });
        let created = app.post("/subscriptions", body).await.expect(201).json();
        for field in [
            "max_delivery_attempts",
            "backoff_min_seconds",
            "backoff_max_seconds",
        ] {
            assert_eq!(created[field], taken, "{field} {given}");
        }
    }
}

#[tokio::test]
async fn a_longest_backoff_below_the_shortest_is_refused() {
    let app = app_with_topic().await;
    let body = json!({
        "id": "s", "topic_id": "t", "backoff_min_seconds": 10, "backoff_max_seconds": 9,
    });

    let refused = app.post("/subscriptions", body).await.expect(422).json();
    let body = json!({"id": "s", "topic_id": "t", "backoff_min_seconds": 1000});
    let above_the_default = app.post("/subscriptions", body).await.expect(201).json();

    let loc = json!(["body", "backoff_max_seconds"]);
    let msg = "Input should be greater than or equal to 10";
    let expected = fault("greater_than_equal", loc, msg, json!(9), json!({"ge": 10}));
    assert_eq!(refused, json!({"detail": [expected]}));
    assert_eq!(above_the_default["backoff_max_seconds"], 1000);
}

#[tokio::test]
async fn an_ack_deadline_may_be_left_out() {
    let app = app_with_topic().await;

    for (id, given, taken) in [
        ("null", json!(null), json!(null)),
        ("text", json!("60"), json!(60)),
        ("least", json!(1), json!(1)),
    ] {
        let body = json!({"id": id, "topic_id": "t", "ack_deadline_seconds": given});
        let created = app.post("/subscriptions", body).await.expect(201).json();
        assert_eq!(created["ack_deadline_seconds"], taken, "{id}");
    }
}

#[tokio::test]
async fn all_faults_of_a_subscription_are_reported_at_once() {
    let app = TestApp::start().await;
    let body = json!({"topic_id": "a b", "filter": 7, "max_delivery_attempts": 0});

    let refused = app
        .post("/subscriptions", body.clone())
        .await
        .expect(422)
        .json();

    let faults: Vec<(&str, &Value)> = refused["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["type"].as_str().unwrap(), &fault["loc"]))
        .collect();
    assert_eq!(
        faults,
        [
            ("missing", &json!(["body", "id"])),
            ("string_pattern_mismatch", &json!(["body", "topic_id"])),
            ("dict_type", &json!(["body", "filter"])),
            (
                "greater_than_equal",
                &json!(["body", "max_delivery_attempts"])
            ),
        ]
    );
    assert_eq!(refused["detail"][0]["input"], body);
}

/// Original's defect 1: filters were escaped when they were stored.
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
async fn a_filter_of_many_values_never_breaks_a_publish() {
    let app = app_with_topic().await;

    for count in [1000, 8000, 10_000, 12_000, 14_000, 16_000, 18_000, 100_000] {
        let values: Vec<u32> = (0..count).collect();
        let fields: serde_json::Map<String, Value> =
            (0..count).map(|n| (format!("f{n}"), json!([n]))).collect();
        for (kind, filter) in [("values", json!({"a": values})), ("fields", json!(fields))] {
            let id = format!("{kind}-{count}");
            let body = json!({"id": id, "topic_id": "t", "filter": filter});
            let created = app.post("/subscriptions", body).await;
            let published = app.post("/topics/t/messages", json!([{"a": 1}])).await;

            let expected = if count == 1000 { 201..=201 } else { 201..=422 };
            assert!(expected.contains(&created.status), "{id}: {}", created.body);
            assert_eq!(published.status, 204, "{id}: {}", published.body);
        }
    }
}
