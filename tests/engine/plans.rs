//! What publish, claim and ack touch with up to a million deliveries waiting, while a long transaction keeps
//! every dead row: each finds its rows by primary keys, in proportion to its batch. As the session
//! itself counted: scans, index entries read and pages touched, of tables and indexes.

use std::collections::BTreeMap;

use fastpubsub::db::health;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{consume, database, execute, publish_count, settle};
use crate::support::database::TestDatabase;

/// What a call may cost for each message, and apart from its messages.
const PAGES_A_MESSAGE: i64 = 20;
const PAGES_A_CALL: i64 = 50;
const ENTRIES_A_MESSAGE: i64 = 4;
const ENTRIES_A_CALL: i64 = 50;
/// Some claims also look back for stragglers, which takes up to 5 % of the time.
const RUNS: usize = 9;

/// What was done to one table or index.
#[derive(Clone, Copy, Debug, Default)]
struct Touched {
    /// Sequential scans of a table, or searches of an index.
    scans: i64,
    /// Rows of those scans, or entries of the index that were read.
    entries: i64,
    pages: i64,
}

type Relations = BTreeMap<String, Touched>;

/// The counts of this session so far, those of finished transactions that it has yet to report
/// included. Of the tables that grow, and their indexes.
async fn counts(connection: &mut PgConnection) -> Relations {
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "select c.relname::text, pg_stat_get_xact_numscans(c.oid), \
             pg_stat_get_xact_tuples_returned(c.oid), pg_stat_get_xact_blocks_fetched(c.oid) \
         from pg_class c \
         left join pg_index i on i.indexrelid = c.oid \
         join pg_class t on t.oid = coalesce(i.indrelid, c.oid) \
         where t.relnamespace = 'pubsub_data'::regnamespace and c.relkind in ('r', 'i') \
             and t.relname ~ '^(messages|deliveries|wakeups|acked|dead_letters)'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(name, scans, entries, pages)| {
            let touched = Touched {
                scans,
                entries,
                pages,
            };
            (name, touched)
        })
        .collect()
}

/// What some work touches, relation by relation, where it touches anything; and its result.
async fn touched<T>(
    connection: &mut PgConnection,
    work: impl AsyncFnOnce(&mut PgConnection) -> T,
) -> (Relations, T) {
    let mut transaction = connection.begin().await.unwrap();
    let before = counts(&mut transaction).await;
    let result = work(&mut transaction).await;
    let mut touched = counts(&mut transaction).await;
    transaction.commit().await.unwrap();

    for (name, after) in &mut touched {
        let before = before.get(name).copied().unwrap_or_default();
        after.scans -= before.scans;
        after.entries -= before.entries;
        after.pages -= before.pages;
    }
    touched.retain(|_, touched| touched.pages > 0);
    (touched, result)
}

/// So many messages that wait, published a millisecond apart.
async fn fill(connection: &mut PgConnection, count: i32) {
    let sql = "with stored as ( \
             insert into pubsub_data.messages (topic_key, message_id, payload, published_at) \
             select t.topic_key, pubsub.id_at(now() - interval '1 hour' + n * interval '1 ms'), \
                 '{\"n\": 1}', now() \
             from pubsub_data.topics t, generate_series(1, $1) n \
             returning topic_key, message_id \
         ) \
         insert into pubsub_data.deliveries (topic_key, subscription_key, message_id) \
         select s.topic_key, s.subscription_key, m.message_id \
         from stored m join pubsub_data.subscriptions s on s.topic_key = m.topic_key";
    sqlx::query(sql)
        .bind(count)
        .execute(connection)
        .await
        .unwrap();
}

/// A database whose subscription `s` has thousands of messages to deliver, of which others were acked,
/// whose rows stay; the connection that did this; and one that still wants to see what is gone.
async fn deep_backlog(thousands: i32, dead: i32) -> (TestDatabase, PgConnection, PgConnection) {
    let (database, mut connection) = database().await;
    let mut holder = database.connect().await;
    fill(&mut connection, thousands * 1000).await;
    execute(
        &mut holder,
        "begin isolation level repeatable read; select count(*) from pubsub_data.topics",
    )
    .await;
    for _ in 0..dead {
        execute(
            &mut connection,
            "select pubsub.ack_messages('s', array_agg(message_id), array_agg(lease)) \
             from pubsub.consume_messages('s', 'c', 1000)",
        )
        .await;
    }
    (database, connection, holder)
}

/// Of several runs: each finds its rows by primary keys, the cheapest at a bounded price. Others may
/// look back as well, as often as their time allows, which is often on a slow machine.
fn assert_proportional(what: &str, batch: usize, runs: &[Relations]) {
    let (mut entries, mut pages) = (Vec::new(), Vec::new());
    for run in runs {
        for (name, touched) in run {
            let is_key = name.ends_with("_pkey");
            assert!(is_key || touched.scans == 0, "{what} scans {name}: {run:?}");
        }
        entries.push(run.values().map(|touched| touched.entries).sum::<i64>());
        pages.push(run.values().map(|touched| touched.pages).sum::<i64>());
    }
    entries.sort_unstable();
    pages.sort_unstable();
    let batch = i64::try_from(batch).unwrap();
    for (counted, a_message, a_call, of) in [
        (entries, ENTRIES_A_MESSAGE, ENTRIES_A_CALL, "index entries"),
        (pages, PAGES_A_MESSAGE, PAGES_A_CALL, "pages"),
    ] {
        let cheapest = counted[0];
        assert!(
            cheapest <= batch * a_message + a_call,
            "{what} of {batch} reads {cheapest} {of}: {counted:?}, {runs:?}"
        );
    }
}

#[tokio::test]
async fn publish_claim_and_ack_read_by_primary_keys_in_proportion_to_the_batch() {
    proportional(50, 10).await;
}

#[tokio::test]
#[ignore = "make test-full"]
async fn with_a_million_messages_they_read_as_much() {
    proportional(1000, 100).await;
}

async fn proportional(thousands: i32, dead: i32) {
    let (database, veteran, _holder) = deep_backlog(thousands, dead).await;
    let newcomer = database.connect().await;

    for mut connection in [veteran, newcomer] {
        for batch in [10, 100] {
            let (mut publishes, mut claims, mut acks) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..RUNS {
                let publish = async |on: &mut PgConnection| publish_count(on, batch).await;
                publishes.push(touched(&mut connection, publish).await.0);

                let limit = i32::try_from(batch).unwrap();
                let claim = async |on: &mut PgConnection| consume(on, "s", limit).await;
                let (run, claimed) = touched(&mut connection, claim).await;
                claims.push(run);
                assert_eq!(claimed.len(), batch);

                let ids: Vec<Uuid> = claimed.iter().map(|message| message.message_id).collect();
                let leases: Vec<i64> = claimed.iter().map(|message| message.lease).collect();
                let ack = async |on: &mut PgConnection| {
                    settle(on, "ack_messages", "s", &ids, Some(&leases)).await
                };
                let (run, acked) = touched(&mut connection, ack).await;
                acks.push(run);
                assert_eq!(acked, i64::from(limit));
            }
            assert_proportional("a publish", batch, &publishes);
            assert_proportional("a claim", batch, &claims);
            assert_proportional("an ack", batch, &acks);
        }
    }
}

#[tokio::test]
async fn the_oldest_unacked_message_is_one_probe_of_the_primary_key() {
    let (_database, mut connection) = database().await;
    fill(&mut connection, 20_000).await;

    let list = async |on: &mut PgConnection| health::list(on).await.unwrap();
    let (run, facts) = touched(&mut connection, list).await;

    let oldest = facts
        .iter()
        .find(|fact| fact.name == "oldest_unacked_age_seconds");
    assert!(oldest.unwrap().value.unwrap() > 3500.0, "{oldest:?}");
    assert!(!run.contains_key("messages_default"), "{run:?}");
    let entries = run["deliveries_pkey"].entries;
    assert_eq!((run["deliveries"].scans, entries), (0, 1), "{run:?}");
}
