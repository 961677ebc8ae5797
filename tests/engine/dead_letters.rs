//! Dead letters that are reprocessed while their messages are cleaned up.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{consume, consume_within_seconds, database, execute, publish_count};
use crate::support::database::TestDatabase;

const REPROCESS: &str = "select pubsub.reprocess_dlq_messages('s', array(\
    select message_id from pubsub_data.dead_letters))";
const CLEAN_UP: &str =
    "select pubsub.cleanup_default_messages(clock_timestamp() + interval '1 day')";

/// A database with a dead letter, whose message nothing else needs, and its id.
async fn dead_letter() -> (TestDatabase, PgConnection, Uuid) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "update pubsub_data.subscriptions set max_delivery_attempts = 1",
    )
    .await;
    let ids = publish_count(&mut connection, 1).await;
    consume(&mut connection, "s", 1).await;
    execute(
        &mut connection,
        "select pubsub.nack_messages('s', array(select message_id from pubsub_data.deliveries))",
    )
    .await;
    (database, connection, ids[0])
}

#[tokio::test]
async fn a_clean_up_leaves_the_message_of_a_reprocess_that_is_under_way() {
    let (database, mut connection, id) = dead_letter().await;
    let mut other = database.connect().await;

    let mut reprocess = other.begin().await.unwrap();
    execute(&mut reprocess, REPROCESS).await;
    execute(&mut connection, CLEAN_UP).await;
    reprocess.commit().await.unwrap();

    let back = consume_within_seconds(&mut connection, 1).await;
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].message_id, id);
}

#[tokio::test]
async fn a_reprocess_restores_a_message_whose_clean_up_is_under_way() {
    let (database, mut connection, id) = dead_letter().await;
    let mut other = database.connect().await;

    let mut clean_up = other.begin().await.unwrap();
    execute(&mut clean_up, CLEAN_UP).await;
    let reprocess = tokio::spawn(async move {
        execute(&mut connection, REPROCESS).await;
        connection
    });
    let mut watcher = database.connect().await;
    let is_waiting = "select exists (select from pg_catalog.pg_locks l \
        join pg_catalog.pg_stat_activity a on a.pid = l.pid \
        where not l.granted and a.datname = pg_catalog.current_database())";
    let waits = async {
        while !sqlx::query_scalar::<_, bool>(is_waiting)
            .fetch_one(&mut watcher)
            .await
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waits)
        .await
        .expect("the reprocess waits for the clean-up");
    clean_up.commit().await.unwrap();
    let mut connection = reprocess.await.unwrap();

    let back = consume_within_seconds(&mut connection, 1).await;
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].message_id, id);
}
