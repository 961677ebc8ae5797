//! Claims that read lanes, by ordering key or by priority, touch no more while a long transaction keeps a
//! hundred thousand messages of one lane that are gone.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{database, execute};

/// Messages of one lane that were published an hour ago and are gone.
const GONE: &str = "with gone as ( \
        insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane) \
        select s.topic_key, s.subscription_key, \
            pubsub.id_at(now() - interval '1 hour' + n * interval '1 ms'), '9' \
        from pubsub_data.subscriptions s, generate_series(1, 100000) n \
        where s.subscription_id = 's' \
        returning 1 \
    ) \
    select count(*) from gone; \
    delete from pubsub_data.deliveries where lane = '9' \
        and message_id < pubsub.id_at(now() - interval '10 minutes')";

const ACK: &str = "select pubsub.ack_messages('s', array_agg(message_id)) \
    from pubsub_data.deliveries where lease is not null";

/// Pages that a claim of ten reads, and that of one: the median of several. Each finds ten more, and
/// what it got is acked.
async fn pages_of_a_claim(connection: &mut PgConnection, publish: &'static str) -> [i64; 2] {
    let mut medians = [0; 2];
    for (batch, median) in [10, 1].into_iter().zip(&mut medians) {
        let mut pages = Vec::new();
        // the first claims of a connection make plans
        for turn in 0..20 {
            execute(connection, publish).await;
            let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "explain (analyze, buffers, format json) \
                 select * from pubsub.consume_messages('s', 'c', {batch})"
            )))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
            let node = &plan[0]["Plan"];
            assert_eq!(node["Actual Rows"].as_f64(), Some(f64::from(batch)));
            if turn >= 5 {
                let read = node["Shared Read Blocks"].as_i64().unwrap();
                pages.push(node["Shared Hit Blocks"].as_i64().unwrap() + read);
            }
            execute(connection, ACK).await;
        }
        pages.sort_unstable();
        *median = pages[pages.len() / 2];
    }
    medians
}

/// Claim until the session has noted that nothing is left of long ago.
async fn warm_up(connection: &mut PgConnection) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        execute(
            connection,
            "select count(*) from pubsub.consume_messages('s', 'c', 1)",
        )
        .await;
        execute(connection, ACK).await;
        let noted: bool = sqlx::query_scalar(
            "select (current_setting(pubsub.hint_name('ordered', s.subscription_key))::pubsub.ordered_hint).tail \
                 > pubsub.id_at(now() - interval '1 minute') \
             from pubsub_data.subscriptions s",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if noted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the tail of the session did not move");
}

#[tokio::test]
async fn messages_of_a_key_that_are_gone_do_not_slow_its_claims() {
    const PUBLISH: &str = "select count(*) from pubsub.publish_messages('t', \
        array_fill('{\"n\": 1}'::jsonb, array[10]), \
        p_ordering_keys => array_fill('9'::text, array[10]))";
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "update pubsub_data.subscriptions set enable_ordering = true",
    )
    .await;
    let clean = pages_of_a_claim(&mut connection, PUBLISH).await;
    let mut pinning = database.connect().await;
    let mut horizon = pinning.begin().await.unwrap();
    execute(&mut horizon, "set transaction isolation level repeatable read; select count(*) from pubsub_data.deliveries").await;

    execute(&mut connection, GONE).await;
    for mut connection in [connection, database.connect().await] {
        warm_up(&mut connection).await;
        let pinned = pages_of_a_claim(&mut connection, PUBLISH).await;

        for (pinned, clean) in pinned.into_iter().zip(clean) {
            assert!(
                pinned < clean * 3,
                "{pinned} pages, {clean} without dead rows"
            );
        }
    }
}

#[tokio::test]
async fn messages_of_a_priority_that_are_gone_do_not_slow_claims() {
    const PUBLISH: &str = "select count(*) from pubsub.publish_messages('t', \
        array_fill('{\"n\": 1}'::jsonb, array[10]), \
        p_priorities => array_fill(9::smallint, array[10]))";
    // they keep the session's place in the subscription down
    const BACKLOG: &str = "select count(*) from pubsub.publish_messages('t', \
        array_fill('{\"n\": 1}'::jsonb, array[1000]))";
    let (database, mut connection) = database().await;
    execute(&mut connection, BACKLOG).await;
    let clean = pages_of_a_claim(&mut connection, PUBLISH).await;
    let mut pinning = database.connect().await;
    let mut horizon = pinning.begin().await.unwrap();
    execute(&mut horizon, "set transaction isolation level repeatable read; select count(*) from pubsub_data.deliveries").await;

    execute(&mut connection, GONE).await;
    for mut connection in [connection, database.connect().await] {
        let pinned = pages_of_a_claim(&mut connection, PUBLISH).await;

        for (pinned, clean) in pinned.into_iter().zip(clean) {
            assert!(
                pinned < clean * 3,
                "{pinned} pages, {clean} without dead rows"
            );
        }
    }
}
