//! `/subscriptions/{id}/filter-preview`.

use std::time::Duration;

use serde_json::{Value, json};

use super::app_with_topic;
use crate::http::topics::{fault, post_text};
use crate::support::TestApp;

const PREVIEW: &str = "/subscriptions/s/filter-preview";

/// Topic `t` with messages 1 to 20, and a subscription `s` that received none of them.
async fn app_with_messages() -> TestApp {
    let app = app_with_topic().await;
    let messages: Vec<Value> = (1..=20).map(|n| json!({"n": n})).collect();
    app.post("/topics/t/messages", json!(messages))
        .await
        .expect(204);
    app.post(
        "/subscriptions",
        json!({"id": "s", "topic_id": "t", "filter": {"n": []}}),
    )
    .await
    .expect(201);
    app
}

fn numbers(preview: &Value) -> Vec<i64> {
    let samples = preview["samples"].as_array().unwrap();
    samples
        .iter()
        .map(|sample| sample["payload"]["n"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_preview_counts_and_shows_the_newest_matches() {
    let app = app_with_messages().await;

    let range = json!({"filter": {"n": [{"numeric": [">", 5]}]}});
    let all = app.post(PREVIEW, range).await.expect(200).json();
    let last = json!({"filter": {"n": [{"anything-but": [19]}]}, "last": 3});
    let last = app.post(PREVIEW, last).await.expect(200).json();
    let none = json!({"filter": {"n": ["1"]}});
    let none = app.post(PREVIEW, none).await.expect(200).json();
    let every = app.post(PREVIEW, json!({"filter": null})).await.expect(200);

    assert_eq!((&all["scanned"], &all["matched"]), (&json!(20), &json!(15)));
    assert_eq!(numbers(&all), [20, 19, 18, 17, 16, 15, 14, 13, 12, 11]);
    assert_eq!((&last["scanned"], &last["matched"]), (&json!(3), &json!(2)));
    assert_eq!(numbers(&last), [20, 18]);
    assert_eq!(none, json!({"scanned": 20, "matched": 0, "samples": []}));
    assert_eq!(every.json()["matched"], 20);
    assert_eq!(app.consume("s").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_sample_is_the_message_as_it_was_published() {
    let app = app_with_messages().await;
    sqlx::query(
        "select pubsub.publish_messages('t', array['{\"n\": 1.50, \"a\": [null]}'::jsonb], \
         array['{\"region\": \"eu-1\"}'::jsonb])",
    )
    .execute(&app.pool())
    .await
    .unwrap();

    let filter = json!({"filter": {"attributes": {"region": [{"suffix": "-1"}]}}});
    let answer = app.post(PREVIEW, filter).await.expect(200);

    assert!(answer.body.contains(r#""n": 1.50"#), "{}", answer.body);
    let mut preview = answer.json();
    let sample = &mut preview["samples"][0];
    assert_eq!(sample["id"].take().as_str().unwrap().len(), 36);
    assert!(sample["created_at"].take().as_str().unwrap().ends_with('Z'));
    assert_eq!(
        *sample,
        json!({"id": null, "payload": {"n": 1.5, "a": [null]},
            "attributes": {"region": "eu-1"}, "created_at": null})
    );
    let plain = app.post(PREVIEW, json!({"filter": {"n": [1]}})).await;
    assert_eq!(plain.json()["samples"][0]["attributes"], json!({}));
}

#[tokio::test]
async fn a_preview_of_another_form_is_refused_with_every_fault() {
    let app = app_with_messages().await;

    let body = json!({"filtre": {}, "last": 100_001, "x": 1});
    let refused = app.post(PREVIEW, body.clone()).await.expect(422).json();
    let inside = json!({"filter": {"a": {"b": [{"exists": 1}]}}});
    let inside = app.post(PREVIEW, inside).await.expect(422).json();

    let extra = "Extra inputs are not permitted";
    let too_many = "Input should be less than or equal to 100000";
    assert_eq!(
        refused["detail"],
        json!([
            fault(
                "missing",
                json!(["body", "filter"]),
                "Field required",
                body,
                Value::Null
            ),
            fault(
                "less_than_equal",
                json!(["body", "last"]),
                too_many,
                json!(100_001),
                json!({"le": 100_000})
            ),
            fault(
                "extra_forbidden",
                json!(["body", "filtre"]),
                extra,
                json!({}),
                Value::Null
            ),
            fault(
                "extra_forbidden",
                json!(["body", "x"]),
                extra,
                json!(1),
                Value::Null
            ),
        ])
    );
    let loc = json!(["body", "filter", "a", "b", 0, "exists"]);
    let msg = "Value error, exists must be true or false";
    let expected = fault("value_error", loc, msg, json!(1), json!({"error": {}}));
    assert_eq!(inside["detail"], json!([expected]));
    for body in [
        r#"{"filter":[]}"#,
        r#"{"filter":{},"last":0}"#,
        r#"{"filter":{"a":["\u0000"]}}"#,
        "[]",
    ] {
        post_text(&app, PREVIEW, body).await.expect(422);
    }
}

#[tokio::test]
async fn a_preview_of_an_unknown_subscription_is_404() {
    let app = app_with_topic().await;

    let path = "/subscriptions/nowhere/filter-preview";
    let answer = app.post(path, json!({"filter": {}})).await.expect(404);

    assert_eq!(answer.json(), json!({"detail": "Subscription not found"}));
}

/// How many previews Postgres is busy with.
async fn running(app: &TestApp) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid() \
         and state = 'active' and query like '%preview_filter(%'",
    )
    .fetch_one(&app.pool())
    .await
    .unwrap()
}

async fn until_running(app: &TestApp, wanted: i64, within: Duration) {
    let running = async {
        while running(app).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(within, running)
        .await
        .unwrap_or_else(|_| panic!("not {wanted} previews within {within:?}"));
}

/// What keeps a preview from its messages while it lives.
async fn hold_messages(app: &TestApp) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holding = app.pool().pool().begin().await.unwrap();
    sqlx::query("lock table pubsub_data.messages in access exclusive mode")
        .execute(&mut *holding)
        .await
        .unwrap();
    holding
}

#[tokio::test]
async fn two_previews_run_at_a_time_and_each_for_some_seconds() {
    let app = app_with_messages().await;
    let holding = hold_messages(&app).await;

    let both = async {
        tokio::join!(
            app.post(PREVIEW, json!({"filter": {}})),
            app.post(PREVIEW, json!({"filter": {}}))
        )
    };
    let third = async {
        until_running(&app, 2, Duration::from_secs(4)).await;
        app.post(PREVIEW, json!({"filter": {}})).await
    };
    let ((one, other), third) = tokio::join!(both, third);
    drop(holding);

    let third = third.expect(503);
    assert_eq!(third.header("retry-after"), Some("1"));
    assert_eq!(
        third.json(),
        json!({"detail": "two filter previews are running already"})
    );
    for slow in [one, other] {
        let text = "a filter preview may take 5 seconds; let it look at fewer messages: last";
        assert_eq!(slow.expect(504).json(), json!({"detail": text}));
    }
    let again = app.post(PREVIEW, json!({"filter": {}})).await;
    assert_eq!(again.expect(200).json()["matched"], 20);
}

#[tokio::test]
async fn a_preview_whose_client_goes_away_ends_in_postgres() {
    let app = app_with_messages().await;
    let _holding = hold_messages(&app).await;

    let asked = app.request("POST", PREVIEW).json(&json!({"filter": {}}));
    let asking = tokio::spawn(asked.send());
    until_running(&app, 1, Duration::from_secs(4)).await;
    asking.abort();

    // sooner than by its limit
    until_running(&app, 0, Duration::from_secs(3)).await;
}
