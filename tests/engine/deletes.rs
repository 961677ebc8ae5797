//! What is deleted while others wait, or made anew under the same name: all of a call is done, or nothing.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::{consume, database, execute, publish_count, until_blocked};
use crate::support::database::TestDatabase;

/// "done", or the code of the refusal.
async fn end(connection: &mut PgConnection, sql: &str) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
    {
        Ok(_) => "done".to_owned(),
        Err(error) => {
            let database = error.as_database_error().unwrap();
            database.code().unwrap().into_owned()
        }
    }
}

/// How `call` ends, which another session's open transaction keeps waiting; `meanwhile` is done, then
/// the other one ends.
async fn end_of_waiting(
    database: &TestDatabase,
    holder: &str,
    call: &str,
    meanwhile: &'static str,
    commits: bool,
) -> String {
    let mut holding = database.connect().await;
    let mut open = holding.begin().await.unwrap();
    assert_eq!(end(&mut open, holder).await, "done", "{holder}");
    let mut other = database.connect().await;
    let waiting = tokio::spawn({
        let call = call.to_owned();
        async move { end(&mut other, &call).await }
    });
    let mut third = database.connect().await;
    until_blocked(&mut third).await;
    execute(&mut third, meanwhile).await;
    if commits {
        open.commit().await.unwrap();
    } else {
        open.rollback().await.unwrap();
    }
    waiting.await.unwrap()
}

async fn number(connection: &mut PgConnection, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Messages of `s` in flight, and messages that wait in `s2`, `d` and `d3`.
const LEFT: &str = "select array_agg(concat(subscription_id, ' ', available, ' ', delivered) \
    order by subscription_id) from pubsub.list_subscription_metrics()";

async fn left(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(LEFT)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// A pipeline: `s` and `s2` of `t`, from which it acks; `dst` and `dst3`, to which it publishes. Its
/// one delivery in `s` is held by the first statement; the second is the step.
async fn pipeline() -> (TestDatabase, PgConnection, String, String) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "select pubsub.create_subscription('s2', 't'); \
         select pubsub.create_topic('dst'); select pubsub.create_subscription('d', 'dst'); \
         select pubsub.create_topic('dst3'); select pubsub.create_subscription('d3', 'dst3')",
    )
    .await;
    let ids = publish_count(&mut connection, 1).await;
    for subscription in ["s", "s2"] {
        assert_eq!(consume(&mut connection, subscription, 1).await.len(), 1);
    }
    let id = ids[0];
    let holder = format!("select pubsub.ack_messages('s', array['{id}'::uuid])");
    let step = format!(
        "select pubsub.apply_transaction(array['s2', 's'], array['{id}', '{id}']::uuid[], \
         array[null, null]::bigint[], array['dst', 'dst3'], array['{{}}', '{{}}']::jsonb[])"
    );
    (database, connection, holder, step)
}

#[tokio::test]
async fn a_step_does_nothing_when_a_topic_is_deleted_while_it_waits() {
    for meanwhile in [
        "select pubsub.delete_topic('dst')",
        "select pubsub.delete_topic('dst'); select pubsub.create_topic('dst'); \
         select pubsub.create_subscription('d', 'dst')",
    ] {
        let (database, mut connection, holder, step) = pipeline().await;

        let end = end_of_waiting(&database, &holder, &step, meanwhile, false).await;

        assert_eq!(end, "PS404", "{meanwhile}");
        let mut left = left(&mut connection).await;
        left.retain(|subscription| !subscription.starts_with("d "));
        assert_eq!(left, ["d3 0 0", "s 0 1", "s2 0 1"], "{meanwhile}");
        let stored = "select count(*) from pubsub_data.messages";
        assert_eq!(number(&mut connection, stored).await, 1, "{meanwhile}");
    }
}

#[tokio::test]
async fn a_step_does_nothing_when_a_subscription_is_deleted_while_it_waits() {
    for meanwhile in [
        "select pubsub.delete_subscription('s2')",
        "select pubsub.delete_subscription('s2'); select pubsub.create_subscription('s2', 't')",
        "select pubsub.delete_subscription('s')",
    ] {
        let (database, mut connection, holder, step) = pipeline().await;

        let end = end_of_waiting(&database, &holder, &step, meanwhile, false).await;

        assert_eq!(end, "PS404", "{meanwhile}");
        let left = left(&mut connection).await;
        assert_eq!(left[..2], ["d 0 0", "d3 0 0"], "{meanwhile}");
    }
}

#[tokio::test]
async fn a_step_that_waited_is_done_as_a_whole_when_nothing_was_deleted() {
    let (database, mut connection, holder, step) = pipeline().await;

    let end = end_of_waiting(&database, &holder, &step, "select 1", false).await;

    assert_eq!(end, "done");
    assert_eq!(
        left(&mut connection).await,
        ["d 1 0", "d3 1 0", "s 0 0", "s2 0 0"]
    );
}

#[tokio::test]
async fn a_publish_that_waits_for_its_key_is_refused_when_its_topic_is_deleted() {
    let publish =
        |keys: &str| format!("select pubsub.publish_messages('t', array['{{}}'::jsonb], {keys})");
    for keys in [
        "p_idempotency_keys => array['k']",
        "p_request_key => 'k', p_request_fingerprint => 'f'",
        "p_message_keys => array['k']",
    ] {
        let (database, mut connection) = database().await;
        let meanwhile = "select pubsub.delete_topic('t'); select pubsub.create_topic('t'); \
             select pubsub.create_subscription('s', 't')";

        let end = end_of_waiting(&database, &publish(keys), &publish(keys), meanwhile, false).await;

        assert_eq!(end, "PS404", "{keys}");
        assert_eq!(left(&mut connection).await, ["s 0 0"], "{keys}");
    }
}

#[tokio::test]
async fn a_change_does_not_reach_what_has_the_name_now() {
    let (database, mut connection) = database().await;
    let anew = "select pubsub.delete_topic('t'); select pubsub.create_topic('t'); \
        select pubsub.create_subscription('s', 't')";

    for (call, unchanged) in [
        (
            r#"select pubsub.update_topic('t', '{"message_retention_seconds": 60}')"#,
            "select count(*) from pubsub.get_topic('t') where message_retention_seconds is null",
        ),
        (
            r#"select pubsub.update_subscription('s', '{"max_rate": 7}')"#,
            "select count(*) from pubsub.get_subscription('s') where max_rate is null",
        ),
    ] {
        let end = end_of_waiting(&database, anew, call, "select 1", true).await;

        assert_eq!(end, "PS404", "{call}");
        assert_eq!(number(&mut connection, unchanged).await, 1, "{call}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_delete_is_told_that_there_is_nothing_any_more() {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "select pubsub.create_subscription('other', 't'); \
         select pubsub.create_snapshot('snap', 'other')",
    )
    .await;

    for call in [
        "select pubsub.reprocess_dlq_messages('s', array[gen_random_uuid()])",
        "select pubsub.reprocess_matching_dlq_messages('s')",
        "select pubsub.resume_messages('s', array[gen_random_uuid()], 'skip')",
        "select pubsub.seek_subscription('s', now())",
        "select pubsub.seek_subscription_to_end('s')",
        "select pubsub.seek_subscription_to_snapshot('s', 'snap')",
        "select pubsub.replay_messages('s', '{}')",
        "select pubsub.create_snapshot('mine', 's')",
        "select pubsub.update_subscription('s', '{}')",
        "select pubsub.delete_subscription('s')",
    ] {
        let delete = "select pubsub.delete_subscription('s')";
        let end = end_of_waiting(&database, delete, call, "select 1", true).await;
        assert_eq!(end, "PS404", "{call}");
        execute(
            &mut connection,
            "select pubsub.create_subscription('s', 't')",
        )
        .await;
    }
    for (call, code) in [
        ("select pubsub.create_subscription('new', 't')", "PS404"),
        (
            "select pubsub.create_subscription('new', 'kept', '{\"dead_letter_topic_id\": \"t\"}')",
            "PS422",
        ),
        (
            r#"select pubsub.update_subscription('k', '{"dead_letter_topic_id": "t"}')"#,
            "PS422",
        ),
    ] {
        execute(
            &mut connection,
            "select pubsub.create_topic('kept'); select pubsub.create_subscription('k', 'kept')",
        )
        .await;
        let delete = "select pubsub.delete_topic('t')";
        assert_eq!(
            end_of_waiting(&database, delete, call, "select 1", true).await,
            code,
            "{call}"
        );
        execute(
            &mut connection,
            "select pubsub.delete_topic('kept'); select pubsub.create_topic('t')",
        )
        .await;
    }
}

/// A message of `s` with one attempt left, leased; spent ones go to topic `dead`, which `d` reads.
async fn with_dead_letter_topic() -> (TestDatabase, PgConnection, String) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "select pubsub.create_topic('dead'); select pubsub.create_subscription('d', 'dead'); \
         select pubsub.update_subscription('s', \
         '{\"dead_letter_topic_id\": \"dead\", \"max_delivery_attempts\": 1}')",
    )
    .await;
    let ids = publish_count(&mut connection, 1).await;
    assert_eq!(consume(&mut connection, "s", 1).await.len(), 1);
    let nack = format!(
        "select pubsub.nack_messages('s', array['{}'::uuid])",
        ids[0]
    );
    (database, connection, nack)
}

const DEAD_LETTERS: &str = "select count(*) from pubsub.list_dlq_messages('s')";

#[tokio::test]
async fn a_dead_letter_is_kept_while_its_topic_is_being_deleted() {
    let (database, mut connection, nack) = with_dead_letter_topic().await;
    let mut deleter = database.connect().await;
    let mut open = deleter.begin().await.unwrap();
    execute(&mut open, "select pubsub.delete_topic('dead')").await;

    assert_eq!(end(&mut connection, &nack).await, "done");
    open.commit().await.unwrap();

    assert_eq!(number(&mut connection, DEAD_LETTERS).await, 1);
    assert_eq!(left(&mut connection).await, ["s 0 0"]);
}

#[tokio::test]
async fn a_dead_letter_topic_is_not_deleted_before_what_it_was_sent_is_committed() {
    let (database, mut connection, nack) = with_dead_letter_topic().await;
    let delete = "select pubsub.delete_topic('dead')";

    let end = end_of_waiting(&database, &nack, delete, "select 1", false).await;

    assert_eq!(end, "done");
    assert_eq!(left(&mut connection).await, ["s 0 1"]);
    assert_eq!(self::end(&mut connection, &nack).await, "done");
    assert_eq!(number(&mut connection, DEAD_LETTERS).await, 1);
}
