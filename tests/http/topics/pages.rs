//! Pages of every list that can be long: by the id that the page before ended with.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestApp, ids};

async fn page(app: &TestApp, path: &str) -> Vec<Value> {
    let page = app.get(path).await.expect(200).json();
    ids(page["data"].as_array().unwrap())
}

/// All ids of a list, page after page.
async fn all(app: &TestApp, list: &str, limit: usize) -> Vec<Value> {
    let mut got: Vec<Value> = Vec::new();
    loop {
        let after = got.last().and_then(Value::as_str);
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        let next = page(app, &format!("{list}?limit={limit}{after}")).await;
        if next.is_empty() {
            return got;
        }
        got.extend(next);
    }
}

async fn execute(app: &TestApp, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.pool()).await.unwrap();
}

/// Topics t0 to t6 with subscriptions; s0 of t0 has dead letters, parked messages, jobs, snapshots.
async fn app_with_lists() -> TestApp {
    let app = TestApp::start().await;
    execute(
        &app,
        "select pubsub.create_topic('t' || n), pubsub.create_subscription('s' || n, 't' || n, json_build_object('max_delivery_attempts', 1, 'enable_ordering', n = 1, 'ordering_failure', 'park')) from generate_series(0, 6) n;
        select pubsub.create_snapshot('n' || n, 's' || n % 2) from generate_series(0, 6) n;
        do $$ begin for n in 0 .. 6 loop
            perform pubsub.seek_subscription_to_end('s' || n % 2);
            perform pubsub.create_client(gen_random_uuid(), 'c', '*', true, 'none');
        end loop; end $$;
        select pubsub.publish_messages('t' || n % 2, array['{}'::jsonb],
            p_ordering_keys => array['k' || n]) from generate_series(0, 13) n;
        select pubsub.settle_messages('s0', array_agg(c.message_id), array_agg(c.lease),
            array_agg('reject'::text)) from pubsub.consume_messages('s0', 'c', 100) c;
        select pubsub.nack_messages('s1', array_agg(c.message_id))
            from pubsub.consume_messages('s1', 'c', 100) c",
    )
    .await;
    app
}

#[tokio::test]
async fn every_list_is_paged_by_the_last_id_in_the_order_of_offsets() {
    let app = app_with_lists().await;

    for list in [
        "/topics",
        "/subscriptions",
        "/clients",
        "/snapshots",
        "/jobs",
        "/subscriptions/s0/dlq",
        "/subscriptions/s1/parked",
    ] {
        let in_order = page(&app, &format!("{list}?limit=100")).await;
        assert_eq!(in_order.len(), 7, "{list}");
        for limit in [1, 3, 7, 100] {
            assert_eq!(all(&app, list, limit).await, in_order, "{list} by {limit}");
        }
        let by_offset = page(&app, &format!("{list}?offset=2&limit=3")).await;
        let second = in_order[1].as_str().unwrap();
        let after = page(&app, &format!("{list}?offset=0&after={second}&limit=3")).await;
        assert_eq!(after, by_offset, "{list}");
    }
}

#[tokio::test]
async fn offset_and_after_exclude_each_other_and_an_after_that_cannot_be_an_id_is_refused() {
    let app = app_with_lists().await;

    for (query, place) in [
        ("/topics?offset=1&after=t1", "offset"),
        ("/topics?after=", "after"),
        ("/topics?after=a%20b", "after"),
        ("/subscriptions?after=%00", "after"),
        ("/subscriptions?topic_id=a%20b", "topic_id"),
        ("/clients?after=t1", "after"),
        ("/subscriptions/s0/dlq?after=t1", "after"),
        ("/subscriptions/s1/parked?after=t1", "after"),
        // jobs are in the order of time, which an unknown id does not tell
        ("/jobs?after=00000000-0000-0000-0000-000000000001", "after"),
    ] {
        let refused = app.get(query).await.expect(422).json();
        let loc = &refused["detail"][0]["loc"];
        assert_eq!(loc, &json!(["query", place]), "{query}");
    }
    let unknown = Uuid::nil();
    assert_eq!(page(&app, "/topics?after=t5z").await, ["t6"]);
    assert_eq!(page(&app, "/snapshots?after=n6").await, Vec::<Value>::new());
    let dlq = format!("/subscriptions/s0/dlq?after={unknown}");
    assert_eq!(page(&app, &dlq).await.len(), 7);
}

#[tokio::test]
async fn lists_are_narrowed_by_what_their_entries_belong_to() {
    let app = app_with_lists().await;
    execute(&app, "select pubsub.create_subscription('x', 't3')").await;

    assert_eq!(page(&app, "/subscriptions?topic_id=t3").await, ["s3", "x"]);
    let rest = "/subscriptions?topic_id=t3&after=s3";
    assert_eq!(page(&app, rest).await, ["x"]);
    let snapshots = "/snapshots?subscription_id=s1&after=n1";
    assert_eq!(page(&app, snapshots).await, ["n3", "n5"]);
    assert_eq!(page(&app, "/jobs?subscription_id=s1").await.len(), 3);
    for list in [
        "/subscriptions?topic_id=nope",
        "/snapshots?subscription_id=nope",
        "/jobs?subscription_id=nope",
    ] {
        assert_eq!(page(&app, list).await, Vec::<Value>::new(), "{list}");
    }
}

#[tokio::test]
async fn dead_letters_that_are_reprocessed_page_by_page_are_all_seen_once() {
    let app = app_with_lists().await;
    let mut wanted = page(&app, "/subscriptions/s0/dlq?limit=100").await;

    let mut seen = Vec::new();
    let mut query = String::from("?limit=2");
    loop {
        let ids = page(&app, &format!("/subscriptions/s0/dlq{query}")).await;
        let Some(last) = ids.last().and_then(Value::as_str) else {
            break;
        };
        query = format!("?limit=2&after={last}");
        app.post("/subscriptions/s0/dlq/reprocess", json!(ids))
            .await
            .expect(204);
        seen.extend(ids);
    }

    assert_eq!(seen, wanted);
    let mut back = ids(&app.consume("s0").await);
    back.sort_by_key(Value::to_string);
    wanted.sort_by_key(Value::to_string);
    assert_eq!(back, wanted);
}
