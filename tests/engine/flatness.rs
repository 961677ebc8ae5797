//! What a claim touches must not grow with dead rows, messages in flight, waiting ones or the
//! backlog. Counted in buffer pages, which do not depend on the speed of the machine.

use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{consume, database, execute, publish_count};

/// Pages that a claim of ten messages reads, with everything it calls: the lower quartile of several, since
/// some also look back for stragglers, which takes up to 5 % of the time.
async fn pages_of_a_claim(connection: &mut PgConnection) -> i64 {
    let mut pages = Vec::new();
    // the first claims of a connection make plans
    for turn in 0..20 {
        publish_count(connection, 10).await;
        let plan: Value = sqlx::query_scalar(
            "explain (analyze, buffers, format json) \
             select * from pubsub.consume_messages('s', 'c', 10)",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        let node = &plan[0]["Plan"];
        assert_eq!(node["Actual Rows"].as_f64(), Some(10.0));
        if turn >= 5 {
            let read = node["Shared Read Blocks"].as_i64().unwrap();
            pages.push(node["Shared Hit Blocks"].as_i64().unwrap() + read);
        }
    }
    pages.sort_unstable();
    pages[pages.len() / 4]
}

async fn bulk_publish(connection: &mut PgConnection, count: usize, sql_options: &'static str) {
    for _ in 0..count / 1000 {
        execute(connection, sql_options).await;
    }
}

const PLAIN: &str = "select count(*) from pubsub.publish_messages('t', \
    array(select '{\"n\": 1}'::jsonb from generate_series(1, 1000)))";
const DELAYED: &str = "select count(*) from pubsub.publish_messages('t', \
    array(select '{\"n\": 1}'::jsonb from generate_series(1, 1000)), null, \
    array(select now() + interval '1 hour' from generate_series(1, 1000)))";

#[tokio::test]
async fn dead_rows_that_a_long_transaction_pins_do_not_slow_a_claim() {
    let (database, mut connection) = database().await;
    let clean = pages_of_a_claim(&mut connection).await;
    let mut pinning = database.connect().await;
    let mut horizon = pinning.begin().await.unwrap();
    execute(&mut horizon, "set transaction isolation level repeatable read; select count(*) from pubsub_data.deliveries").await;

    bulk_publish(&mut connection, 20_000, PLAIN).await;
    for _ in 0..20 {
        execute(
            &mut connection,
            "select pubsub.ack_messages('s', array_agg(message_id)) \
             from pubsub.consume_messages('s', 'c', 1000)",
        )
        .await;
    }
    let pinned = pages_of_a_claim(&mut connection).await;
    let mut newcomer = database.connect().await;
    let newcomers = pages_of_a_claim(&mut newcomer).await;

    assert!(
        pinned < clean * 3,
        "{pinned} pages, {clean} without dead rows"
    );
    assert!(
        newcomers < clean * 3,
        "{newcomers} pages on a new connection, {clean} without"
    );
}

#[tokio::test]
async fn runs_of_which_the_first_half_is_acked_do_not_slow_a_claim() {
    let (database, mut connection) = database().await;
    let clean = pages_of_a_claim(&mut connection).await;
    let mut pinning = database.connect().await;
    let mut horizon = pinning.begin().await.unwrap();
    execute(
        &mut horizon,
        "set transaction isolation level repeatable read; select count(*) from pubsub_data.runs",
    )
    .await;

    execute(
        &mut connection,
        "update pubsub_data.run_sizes set run_size = 100",
    )
    .await;
    bulk_publish(&mut connection, 20_000, PLAIN).await;
    for _ in 0..20 {
        execute(
            &mut connection,
            "select pubsub.ack_messages('s', array_agg(message_id) filter (where place % 100 < 50)) \
             from pubsub.consume_messages('s', 'c', 1000) with ordinality c (message_id, p, a, o, pr, \
             pu, at, l, d, place)",
        )
        .await;
    }
    // the others are those that were claimed ten at a time
    let whole: i64 = sqlx::query_scalar(
        "select count(*) from pubsub_data.runs where cardinality(message_ids) > 10",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(whole, 0, "all are broken up");
    let pinned = pages_of_a_claim(&mut connection).await;
    let mut newcomer = database.connect().await;
    let newcomers = pages_of_a_claim(&mut newcomer).await;

    assert!(pinned < clean * 3, "{pinned} pages, {clean} without");
    assert!(
        newcomers < clean * 3,
        "{newcomers} pages on a new connection, {clean} without"
    );
}

/// Pages that a claim of one message reads, when it finds one that is single.
async fn pages_of_a_claim_of_one(connection: &mut PgConnection) -> i64 {
    let mut pages = Vec::new();
    for _ in 0..9 {
        let plan: Value = sqlx::query_scalar(
            "explain (analyze, buffers, format json) \
             select * from pubsub.consume_messages('s', 'c', 1)",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        let node = &plan[0]["Plan"];
        let read = node["Shared Read Blocks"].as_i64().unwrap();
        pages.push(node["Shared Hit Blocks"].as_i64().unwrap() + read);
    }
    pages.sort_unstable();
    pages[pages.len() / 2]
}

#[tokio::test]
async fn runs_that_wait_do_not_slow_a_claim_of_one() {
    let (_database, mut connection) = database().await;
    execute(
        &mut connection,
        "update pubsub_data.run_sizes set run_size = 5",
    )
    .await;
    publish_count(&mut connection, 20).await;
    let few = pages_of_a_claim_of_one(&mut connection).await;

    execute(
        &mut connection,
        "update pubsub_data.run_sizes set run_size = 5",
    )
    .await;
    bulk_publish(&mut connection, 20_000, PLAIN).await;
    let many = pages_of_a_claim_of_one(&mut connection).await;

    assert!(many < few * 3, "{many} pages, {few} before a few");
}

#[tokio::test]
async fn messages_in_flight_do_not_slow_a_claim() {
    let (_database, mut connection) = database().await;
    let clean = pages_of_a_claim(&mut connection).await;

    bulk_publish(&mut connection, 20_000, PLAIN).await;
    for _ in 0..20 {
        consume(&mut connection, "s", 1000).await;
    }
    let pages = pages_of_a_claim(&mut connection).await;

    assert!(
        pages < clean * 3,
        "{pages} pages, {clean} with nothing in flight"
    );
}

#[tokio::test]
async fn messages_that_wait_for_their_time_do_not_slow_a_claim() {
    let (_database, mut connection) = database().await;
    let clean = pages_of_a_claim(&mut connection).await;

    bulk_publish(&mut connection, 20_000, DELAYED).await;
    let pages = pages_of_a_claim(&mut connection).await;

    assert!(
        pages < clean * 3,
        "{pages} pages, {clean} with nothing waiting"
    );
}

#[tokio::test]
async fn a_backlog_does_not_slow_a_claim() {
    let (_database, mut connection) = database().await;
    let clean = pages_of_a_claim(&mut connection).await;

    bulk_publish(&mut connection, 30_000, PLAIN).await;
    let pages = pages_of_a_claim(&mut connection).await;

    assert!(
        pages < clean * 3,
        "{pages} pages, {clean} without a backlog"
    );
}

#[tokio::test]
async fn a_claim_that_finds_nothing_writes_nothing() {
    let (_database, mut connection) = database().await;
    publish_count(&mut connection, 1).await;
    consume(&mut connection, "s", 1).await;

    let mut transaction = connection.begin().await.unwrap();
    let found = consume(&mut transaction, "s", 10).await;
    let written: Option<String> =
        sqlx::query_scalar("select pg_catalog.pg_current_xact_id_if_assigned()::text")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();

    assert!(found.is_empty());
    assert_eq!(written, None);
}
