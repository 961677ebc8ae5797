//! Whoever works on one subscription at the same time may wait for each other, but never in a circle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::IndexedRandom;
use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection};

use super::{database, execute};

/// Two subscriptions of one topic, one of which buries what is spent in another topic.
const MAKE: &[&str] = &[
    "select pubsub.create_topic('t')",
    "select pubsub.create_topic('dead')",
    "select pubsub.create_subscription('s', 't', '{\"max_delivery_attempts\": 2, \"backoff_min_seconds\": 1, \"backoff_max_seconds\": 2}')",
    "select pubsub.create_subscription('s', 't', '{\"max_delivery_attempts\": 2, \"backoff_min_seconds\": 1, \"backoff_max_seconds\": 2}', now() - interval '3 s')",
    "select pubsub.create_subscription('s2', 't', '{\"max_delivery_attempts\": 2, \"backoff_min_seconds\": 1, \"backoff_max_seconds\": 2, \"dead_letter_topic_id\": \"dead\"}')",
    "select pubsub.create_subscription('d', 'dead', '{\"max_delivery_attempts\": 2, \"backoff_min_seconds\": 1, \"backoff_max_seconds\": 2, \"dead_letter_topic_id\": \"t\"}')",
];

/// What is done again and again; $ stands for `s` or `s2`, # for a small number.
const CALLS: &[&str] = &[
    "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[50]))",
    "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[5]), \
        p_ordering_keys => array['a', 'b', 'c', null, null], \
        p_idempotency_keys => array['#', '2', '1', '0', null])",
    "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[4]), \
        p_idempotency_keys => array['1', null, '#', null], \
        p_message_keys => array['2', '#', '1', '0'])",
    "select pubsub.publish_messages('t', array_fill('{}'::jsonb, array[3]), \
        p_priorities => array[0, 5, 9]::smallint[])",
    "select pubsub.settle_messages('$', array_agg(c.message_id), array_agg(c.lease), \
        array_agg((array['ack', 'nack', 'nack', 'reject'])[1 + random() * 3])) \
        from pubsub.consume_messages('$', 'c', 50) c having count(*) > 0",
    "select pubsub.nack_messages('$', array( \
        select d.message_id from pubsub_data.deliveries d where d.lease is not null limit 100))",
    "select t.* from (select array_agg('$'::text) as s, array_agg(c.message_id) as i, \
        array_agg(c.lease) as l from pubsub.consume_messages('$', 'c', 5) c) c \
        cross join lateral pubsub.apply_transaction( \
            c.s, c.i, c.l, array['t', 'dead'], array['{}', '{}']::jsonb[]) t where c.i is not null",
    "select pubsub.seek_subscription('$', now() - interval '2 s')",
    "select pubsub.seek_subscription_to_end('$')",
    "select pubsub.create_snapshot('#', '$')",
    "select pubsub.seek_subscription_to_snapshot('$', '#')",
    "select pubsub.delete_snapshot('#')",
    "select pubsub.replay_messages('$', '{}', now() - interval '2 s')",
    "select pubsub.advance_jobs(500)",
    "select pubsub.advance_jobs(500)",
    "select pubsub.advance_jobs(500)",
    "select pubsub.cancel_job(j.id) from pubsub.list_jobs(null, 0, 2) j",
    "select pubsub.reprocess_dlq_messages('$', array( \
        select l.message_id from pubsub.list_dlq_messages('$', 0, 100) l order by random()))",
    "select pubsub.reprocess_matching_dlq_messages('$', null, 50, nullif(# * 1000, 0))",
    "select pubsub.purge_dlq_messages('$', array( \
        select l.message_id from pubsub.list_dlq_messages('$', 0, 10) l))",
    "select pubsub.resume_messages('$', array( \
        select p.message_id from pubsub.list_parked_messages('$', 0, 50) p), \
        (array['retry', 'dead_letter', 'skip'])[1 + #])",
    "select pubsub.delete_messages('$', array( \
        select d.message_id from pubsub_data.deliveries d order by random() limit 20) || array( \
        select r.message_ids[1 + # * 7] from pubsub_data.runs r limit 10))",
    "select pubsub.delete_messages('$', array( \
        select b.message_id from pubsub.browse_messages('$', 'delivered', null, 20, #) b))",
    "select pubsub.update_message('t', m.message_id, to_jsonb(repeat('x', 100 + 900 * #)), '{\"a\": \"b\"}') \
        from (select x.message_id from pubsub_data.messages x order by random() limit 1) m",
    "select pubsub.purge_subscription('$')",
    "select pubsub.create_queue('$', '{}', 'dead')",
    "select pubsub.create_queue('dead', '{}', 't')",
    "select pubsub.delete_queue((array['s', 'dead'])[1 + random()])",
    "select pubsub.update_subscription('$', (array[ \
        '{\"max_in_flight\": 500}', '{\"max_in_flight\": null}', \
        '{\"dead_letter_topic_id\": \"dead\", \"enable_ordering\": false}', \
        '{\"dead_letter_topic_id\": null, \"enable_ordering\": true, \"ordering_failure\": \"park\"}' \
        ])[1 + random() * 3]::json)",
    "select pubsub.update_subscription('$', '{\"expires_after_seconds\": 10}')",
    "delete from pubsub_data.kept_subscriptions k where k.ctid = any(array( \
        select x.ctid from pubsub_data.kept_subscriptions x for update skip locked))",
    "select pubsub.keep_subscriptions('{s,s2,d}')",
    "select pubsub.expire_subscriptions()",
    "select pubsub.cleanup_stuck_messages(0)",
    "select pubsub.dead_letter_spent_messages()",
    "select pubsub.cleanup_default_messages(now() - interval '3 s')",
    "select pubsub.purge_deleted_subscriptions(100)",
    "select pubsub.delete_subscription('$')",
    "select pubsub.delete_topic((array['t', 'dead'])[1 + random()])",
];

/// Who waits for whom, and where.
fn whereabouts(error: &sqlx::Error) -> String {
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error
        .map(|error| {
            let parts = [error.detail(), error.r#where()];
            parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
        })
        .unwrap_or_default()
}

/// Work until then; how often each end was met.
async fn work(mut connection: PgConnection, until: Instant) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    while Instant::now() < until {
        let sql = {
            let mut random = rand::rng();
            let calls = if random.random_bool(0.2) { MAKE } else { CALLS };
            calls
                .choose(&mut random)
                .unwrap()
                .replace('$', ["s", "s2"].choose(&mut random).unwrap())
                .replace('#', ["0", "1", "2"].choose(&mut random).unwrap())
        };
        let end = match sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut connection)
            .await
        {
            Ok(_) => "done".to_owned(),
            Err(error) => match error.as_database_error().and_then(|error| error.code()) {
                // purged meanwhile: the server calls again
                Some(code) if code.starts_with("PS4") || code == "40001" => code.into_owned(),
                _ => format!("{error}: {sql}\n{}", whereabouts(&error)),
            },
        };
        *ends.entry(end).or_default() += 1;
    }
    connection.close().await.unwrap();
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_deadlocks_while_a_subscription_is_sought_reprocessed_changed_and_deleted_by_many() {
    let (database, mut connection) = database().await;
    for sql in &MAKE[1..] {
        // some are there already
        let _ = sqlx::raw_sql(*sql).execute(&mut connection).await;
    }
    let until = Instant::now() + Duration::from_secs(10);
    let mut workers = Vec::new();
    for _ in 0..16 {
        let mut worker = database.connect().await;
        // soon after the circle is closed, and before a step gives up
        execute(&mut worker, "set deadlock_timeout = '50ms'").await;
        workers.push(tokio::spawn(work(worker, until)));
    }
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers {
        for (end, times) in worker.await.unwrap() {
            *ends.entry(end).or_default() += times;
        }
    }

    let bad: Vec<_> = ends.iter().filter(|(end, _)| end.len() > 5).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(ends["done"] > 200, "{ends:?}");
}
