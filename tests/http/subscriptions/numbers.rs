//! The retry policy of a subscription.

use serde_json::{Value, json};

use super::app_with_topic;
use crate::http::topics::fault;

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
