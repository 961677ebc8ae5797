//! Backoffs and ack deadlines.

use serde_json::{Value, json};

use super::{
    app_with, consume_one, counts, database_time, dead_letters, publish, settle, wait_seconds,
};
use crate::support::TestApp;

/// Contract point 6.
/// Original's defect 3.
/// The first wait was twice the shortest.
#[tokio::test]
async fn the_backoff_doubles_from_the_shortest_to_the_longest() {
    let policy = json!({
        "backoff_min_seconds": 3, "backoff_max_seconds": 20, "max_delivery_attempts": 10,
    });
    let app = app_with(policy).await;
    publish(&app, json!([{"a": 1}])).await;

    for (attempt, wait) in [(1, 3.0), (2, 6.0), (3, 12.0), (4, 20.0), (5, 20.0)] {
        let message = consume_one(&app).await;
        assert_eq!(message["delivery_attempts"], attempt);
        let since = database_time(&app).await;
        settle(&app, "nacks", &[&message["receipt"]]).await;

        let (least, most) = wait_seconds(&app, since).await;
        assert!(
            least <= wait && wait <= most,
            "attempt {attempt}: {least} to {most}"
        );
        app.pass_seconds(wait - 1.0).await;
        assert_eq!(counts(&app).await, [0, 0, 1, 0, 0], "attempt {attempt}");
        assert_eq!(
            app.consume("s").await,
            Vec::<Value>::new(),
            "attempt {attempt}"
        );
        app.pass_seconds(1.0).await;
        assert_eq!(counts(&app).await, [1, 0, 0, 0, 0], "attempt {attempt}");
    }
}

/// Original's defect 4.
#[tokio::test]
async fn no_number_of_attempts_overflows_the_backoff() {
    let app = app_with(json!({
        "max_delivery_attempts": i32::MAX, "backoff_min_seconds": i32::MAX,
    }))
    .await;
    publish(&app, json!([{"a": 1}])).await;

    for attempts in [2000, i32::MAX - 2] {
        app.pass_seconds(2_147_483_648.0).await;
        sqlx::query("update pubsub_data.deliveries set attempts = $1")
            .bind(attempts)
            .execute(&app.pool())
            .await
            .unwrap();
        let message = consume_one(&app).await;
        assert_eq!(message["delivery_attempts"], attempts + 1);
        let since = database_time(&app).await;

        settle(&app, "nacks", &[&message["receipt"]]).await;

        let (least, most) = wait_seconds(&app, since).await;
        let wait = f64::from(i32::MAX);
        assert!(
            least <= wait && wait <= most,
            "{attempts}: {least} to {most}"
        );
    }
}

/// Contract point 7.
/// Original's defect 28.
/// Nothing came back without a cron job.
#[tokio::test]
async fn an_expired_lease_comes_back_by_itself() {
    for (fields, flags, deadline) in [
        (json!({}), &[][..], 60.0),
        (json!({"ack_deadline_seconds": 7}), &[], 7.0),
        (
            json!({}),
            &["--cleanup-stuck-messages-lock-timeout-seconds", "25"],
            25.0,
        ),
    ] {
        let app = TestApp::start_with(flags).await;
        app.topic_with_subscription("t", "s", fields).await;
        publish(&app, json!([{"a": 1}])).await;
        let since = database_time(&app).await;
        consume_one(&app).await;

        let (least, most) = wait_seconds(&app, since).await;
        assert!(least <= deadline && deadline <= most, "{least} to {most}");
        app.pass_seconds(deadline - 1.0).await;
        assert_eq!(app.consume("s").await, Vec::<Value>::new());
        assert_eq!(counts(&app).await, [0, 1, 0, 0, 0]);
        app.pass_seconds(1.0).await;
        assert_eq!(counts(&app).await, [1, 0, 0, 0, 0]);
        assert_eq!(consume_one(&app).await["delivery_attempts"], 2);
    }
}

/// Contract point 7.
/// Original's defect 2.
#[tokio::test]
async fn an_expired_lease_whose_attempts_are_spent_is_dead_lettered() {
    let app = app_with(json!({"max_delivery_attempts": 1})).await;
    publish(&app, json!([{"a": 1}])).await;
    let id = consume_one(&app).await["id"].clone();
    app.pass_seconds(60.0).await;

    assert_eq!(app.consume("s").await, Vec::<Value>::new());

    assert_eq!(counts(&app).await, [0, 0, 0, 0, 1]);
    assert_eq!(dead_letters(&app, "").await[0]["id"], id);
}
