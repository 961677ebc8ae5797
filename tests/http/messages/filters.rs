//! What a filter selects.

use serde_json::{Value, json};

use super::publish;
use crate::support::TestApp;

/// Contract point 4.
/// Original's defect 1.
#[tokio::test]
async fn a_filter_selects_by_json_equality() {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let cases = [
        // every message
        (json!(null), json!({"a": 1}), true),
        (json!({}), json!({}), true),
        // JSON equality
        (json!({"a": [1]}), json!({"a": 1.0}), true),
        (json!({"a": [1.0]}), json!({"a": 1}), true),
        (json!({"a": [10]}), json!({"a": 1e1}), true),
        (json!({"a": [1]}), json!({"a": "1"}), false),
        (json!({"a": ["1"]}), json!({"a": 1}), false),
        (json!({"a": [true]}), json!({"a": true}), true),
        (json!({"a": [true]}), json!({"a": "true"}), false),
        (json!({"a": [true]}), json!({"a": 1}), false),
        (json!({"a": [false]}), json!({"a": null}), false),
        (json!({"a": [""]}), json!({"a": ""}), true),
        (json!({"a": ["x"]}), json!({"a": "X"}), false),
        (json!({"a": ["x"]}), json!({"a": "x "}), false),
        // a missing field
        (json!({"a": ["x"]}), json!({"b": "x"}), false),
        (json!({"a": ["x"]}), json!({"a": null}), false),
        (json!({"a": ["x"]}), json!({}), false),
        (json!({"a": ["x"]}), json!({"b": {"a": "x"}}), false),
        (json!({"a": ["x"]}), json!({"a": {"x": "x"}}), false),
        (json!({"a.b": ["x"]}), json!({"a": {"b": "x"}}), false),
        (json!({"a.b": ["x"]}), json!({"a.b": "x"}), true),
        // arrays
        (json!({"a": ["x"]}), json!({"a": ["y", "x"]}), true),
        (json!({"a": [1]}), json!({"a": ["1", 1.0]}), true),
        (json!({"a": ["x"]}), json!({"a": ["y"]}), false),
        (json!({"a": ["x"]}), json!({"a": []}), false),
        (json!({"a": ["x"]}), json!({"a": [{"a": "x"}]}), false),
        // an empty list
        (json!({"a": []}), json!({"a": "x"}), false),
        (json!({"a": []}), json!({"a": []}), false),
        (json!({"a": [], "b": [1]}), json!({"b": 1}), false),
        // AND over fields, OR in a list
        (json!({"a": [1, 2]}), json!({"a": 2}), true),
        (json!({"a": [1, 2]}), json!({"a": 3}), false),
        (json!({"a": ["x", 2, true]}), json!({"a": true}), true),
        (
            json!({"a": [1, 2], "b": ["x"]}),
            json!({"a": 2, "b": "x"}),
            true,
        ),
        (
            json!({"a": [1, 2], "b": ["x"]}),
            json!({"a": 2, "b": "y"}),
            false,
        ),
        (json!({"a": [1, 2], "b": ["x"]}), json!({"a": 2}), false),
        (
            json!({"a": [1], "b": [1], "c": [1]}),
            json!({"a": 1, "b": 1, "c": 1}),
            true,
        ),
        (
            json!({"a": [1], "b": [1], "c": [1]}),
            json!({"a": 1, "b": 2, "c": 1}),
            false,
        ),
        // text that needs quoting somewhere
        (json!({"a": ["a&b"]}), json!({"a": "a&b"}), true),
        (json!({"a": ["a&b"]}), json!({"a": "a&amp;b"}), false),
        (json!({"a": ["<script>"]}), json!({"a": "<script>"}), true),
        (json!({"a": ["it's"]}), json!({"a": "it's"}), true),
        (json!({"a": ["\"x\""]}), json!({"a": "\"x\""}), true),
        (json!({"a": ["\\"]}), json!({"a": "\\"}), true),
        (json!({"a": ["\" || 1 == 1"]}), json!({"a": "x"}), false),
        (
            json!({"a": ["\n\t\u{1}\u{7f}"]}),
            json!({"a": "\n\t\u{1}\u{7f}"}),
            true,
        ),
        (json!({"a": ["日本", "😀"]}), json!({"a": "😀"}), true),
        (json!({"a": ["é"]}), json!({"a": "e\u{301}"}), false),
        (
            json!({"it's \"é\" \\ $.* @": [1]}),
            json!({"it's \"é\" \\ $.* @": 1}),
            true,
        ),
        (json!({"": [1]}), json!({"": 1}), true),
        (json!({"$": [1]}), json!({"$": 1}), true),
        (json!({"a": [i64::MAX]}), json!({"a": i64::MAX - 1}), false),
        (json!({"a": [0.1]}), json!({"a": 0.1}), true),
        (json!({"a": [-1]}), json!({"a": -1}), true),
        (json!({"a": [1e300]}), json!({"a": 1e300}), true),
        // operators and nested fields
        (json!({"a": [{"prefix": "x"}]}), json!({"a": "xy"}), true),
        (json!({"a": [{"prefix": "x"}]}), json!({"a": "yx"}), false),
        (json!({"a": [{"suffix": ".x"}]}), json!({"a": "y.x"}), true),
        (json!({"a": [{"suffix": ".x"}]}), json!({"a": "yx"}), false),
        (json!({"a": [{"exists": false}]}), json!({"b": 1}), true),
        (json!({"a": [{"exists": false}]}), json!({"a": 1}), false),
        (
            json!({"a": [{"anything-but": ["x"]}]}),
            json!({"a": 1}),
            true,
        ),
        (
            json!({"a": [{"anything-but": ["x"]}]}),
            json!({"a": "x"}),
            false,
        ),
        (
            json!({"a": ["x", {"numeric": [">", 1, "<=", 2]}]}),
            json!({"a": 2}),
            true,
        ),
        (
            json!({"a": ["x", {"numeric": [">", 1, "<=", 2]}]}),
            json!({"a": 1}),
            false,
        ),
        (
            json!({"a": {"b": ["x"], "c": [1]}}),
            json!({"a": {"b": "x", "c": 1}}),
            true,
        ),
        (
            json!({"a": {"b": ["x"], "c": [1]}}),
            json!({"a": {"b": "x"}}),
            false,
        ),
    ];
    for (position, (filter, payload, _)) in cases.iter().enumerate() {
        // one subscription at a time sees the payload of its case
        let id = format!("s{position}");
        let body = json!({"id": id, "topic_id": "t", "filter": filter});
        app.post("/subscriptions", body).await.expect(201);
        publish(&app, json!([payload])).await;
    }

    for (position, (filter, payload, expected)) in cases.iter().enumerate() {
        let messages = app.consume(&format!("s{position}")).await;
        let received = messages.first().map(|message| &message["payload"]);
        assert_eq!(received == Some(payload), *expected, "{filter} {payload}");
    }
}

#[tokio::test]
async fn a_long_filter_and_a_long_array_cost_their_sum() {
    cost_their_sum(4_000).await;
}

#[tokio::test]
#[ignore = "make test-full"]
async fn a_long_filter_and_a_very_long_array_cost_their_sum() {
    cost_their_sum(20_000).await;
}

async fn cost_their_sum(elements: usize) {
    let app = TestApp::start().await;
    app.post("/topics", json!({"id": "t"})).await.expect(201);
    let wanted = |value: fn(usize) -> Value| (1..=1000).map(value).collect::<Vec<_>>();
    let lists = [
        wanted(|n| json!(n.to_string())),
        wanted(|n| json!(n)),
        wanted(|n| json!({"prefix": format!("{n}-")})),
        wanted(|n| json!({"suffix": format!("-{n}")})),
        vec![json!({"anything-but": wanted(|n| json!(format!("z{}", n - 1)))})],
    ];
    for (n, list) in lists.iter().enumerate() {
        for (id, filter) in [
            (format!("flat-{n}"), json!({"a": list})),
            (format!("deep-{n}"), json!({"b": {"a": list}})),
        ] {
            let subscription = json!({"id": id, "topic_id": "t", "filter": filter});
            app.post("/subscriptions", subscription).await.expect(201);
        }
    }

    let texts: Vec<_> = (0..elements).map(|n| format!("z{}", n % 1000)).collect();
    let objects: Vec<_> = texts.iter().map(|text| json!({"a": text})).collect();
    let mut hits = objects.clone();
    hits.extend([json!({"a": ["1000"]}), json!({"a": [1000.0]})]);
    hits.extend([json!({"a": "1000-"}), json!({"a": "-1000"})]);
    let digits = vec![json!(0); 25 * elements];
    let began = std::time::Instant::now();
    for payload in [
        json!({"a": texts, "b": objects}),
        json!({"a": digits}),
        json!({"b": hits}),
    ] {
        let messages = json!([payload]);
        app.post("/topics/t/messages", messages).await.expect(204);
    }

    // by their product they took minutes
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
    for n in 0..lists.len() {
        let path = format!("/subscriptions/deep-{n}/metrics");
        let deep = app.get(&path).await.expect(200).json();
        assert_eq!(deep["available"], 1, "{deep}");
        let path = format!("/subscriptions/flat-{n}/metrics");
        let flat = app.get(&path).await.expect(200).json();
        assert_eq!(flat["available"], u8::from(n == 4), "{flat}");
    }
}
