//! Ordering keys over several connections: claims of one key at once, beside acks, after a late commit
//! and after a rollback. A key is given by a letter; a dot stands for none.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::{Delivery, advance_hints, database, execute, settle, until_blocked};
use crate::support::database::TestDatabase;

const NOTHING: [Uuid; 0] = [];

/// The subscription of these tests: leases of ten minutes, and no message is ever spent.
pub(super) const ORDERED: &str = "ordered";

pub(super) async fn ordered_database() -> (TestDatabase, PgConnection) {
    let (database, mut connection) = database().await;
    execute(
        &mut connection,
        "select pubsub.delete_subscription('s'); \
         select pubsub.create_subscription('ordered', 't', '{\"max_delivery_attempts\": 1000000, \"ack_deadline_seconds\": 600, \"enable_ordering\": true}')",
    )
    .await;
    (database, connection)
}

/// A message for each key, in one call.
pub(super) async fn publish_keys(connection: &mut PgConnection, keys: &str) -> Vec<Uuid> {
    let keys: Vec<Option<String>> = keys
        .chars()
        .map(|key| (key != '.').then(|| key.to_string()))
        .collect();
    sqlx::query_scalar(
        "select message_id from pubsub.publish_messages('t', $1, p_ordering_keys => $2)",
    )
    .bind(vec![Json(json!({"n": 1})); keys.len()])
    .bind(keys)
    .fetch_all(connection)
    .await
    .unwrap()
}

pub(super) async fn claim(connection: &mut PgConnection, limit: i32) -> Vec<Delivery> {
    super::consume(connection, ORDERED, limit).await
}

async fn ids(connection: &mut PgConnection, limit: i32) -> Vec<Uuid> {
    let claimed = claim(connection, limit).await;
    claimed.iter().map(|delivery| delivery.message_id).collect()
}

/// Claim until something comes, which takes a look-back of the engine a moment.
async fn ids_within_seconds(connection: &mut PgConnection, limit: i32) -> Vec<Uuid> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let ids = ids(connection, limit).await;
        if !ids.is_empty() || Instant::now() > deadline {
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ack(connection: &mut PgConnection, ids: &[Uuid]) {
    let acked = settle(connection, "ack_messages", ORDERED, ids, None).await;
    assert_eq!(usize::try_from(acked).unwrap(), ids.len());
}

/// Make messages an hour older than they are; their ids then.
async fn an_hour_older(connection: &mut PgConnection, ids: &[Uuid]) -> Vec<Uuid> {
    let mut older = Vec::new();
    for id in ids {
        let row = sqlx::query(
            "with moved as ( \
                 select overlay($1::text placing \
                     left(pubsub.id_at(pubsub.id_time($1) - interval '1 hour')::text, 13) from 1 \
                 )::uuid as id \
             ), message as ( \
                 update pubsub_data.messages m set message_id = moved.id from moved \
                 where m.message_id = $1 \
             ) \
             update pubsub_data.deliveries d set message_id = moved.id from moved \
             where d.message_id = $1 returning moved.id",
        )
        .bind(id)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        older.push(row.get(0));
    }
    older
}

#[tokio::test]
async fn of_two_claims_at_once_one_gets_the_key() {
    let (database, mut first) = ordered_database().await;
    let mut second = database.connect().await;
    let published = publish_keys(&mut first, "aaab").await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(ids(&mut open, 2).await, published[..2]);
    assert_eq!(ids(&mut second, 10).await, published[3..]);
    open.commit().await.unwrap();

    assert_eq!(ids(&mut second, 10).await, NOTHING);
    ack(&mut second, &published[..1]).await;
    assert_eq!(
        ids(&mut second, 10).await,
        NOTHING,
        "the second is in flight"
    );
    ack(&mut second, &published[1..2]).await;
    assert_eq!(ids(&mut second, 10).await, published[2..3]);
}

#[tokio::test]
async fn claims_that_race_for_one_key_hand_it_out_once() {
    let (database, mut admin) = ordered_database().await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(database.connect().await);
    }
    for _ in 0..50 {
        let published = publish_keys(&mut admin, "aaaa").await;

        let racing = connections
            .drain(..)
            .map(|mut connection| {
                tokio::spawn(async move {
                    let claimed = ids(&mut connection, 2).await;
                    (connection, claimed)
                })
            })
            .collect::<Vec<_>>();
        let mut claimed = Vec::new();
        for race in racing {
            let (connection, got) = race.await.unwrap();
            connections.push(connection);
            claimed.extend((!got.is_empty()).then_some(got));
        }

        assert_eq!(claimed, [published[..2].to_vec()]);
        ack(&mut admin, &published[..2]).await;
        assert_eq!(ids(&mut admin, 2).await, published[2..]);
        ack(&mut admin, &published[2..]).await;
    }
}

#[tokio::test]
async fn what_follows_waits_for_the_commit_of_an_ack() {
    let (database, mut first) = ordered_database().await;
    let mut second = database.connect().await;
    let published = publish_keys(&mut first, "aa").await;
    assert_eq!(ids(&mut first, 1).await, published[..1]);

    let mut open = first.begin().await.unwrap();
    ack(&mut open, &published[..1]).await;
    assert_eq!(ids(&mut second, 10).await, NOTHING);
    open.commit().await.unwrap();

    assert_eq!(ids(&mut second, 10).await, published[1..]);
}

#[tokio::test]
async fn a_late_commit_waits_for_what_is_in_flight() {
    let (database, mut consumer) = ordered_database().await;
    let (mut slow, mut other) = (database.connect().await, database.connect().await);
    // more than a claim wants
    let keys = "a".repeat(300);

    let mut open = slow.begin().await.unwrap();
    let late = publish_keys(&mut open, &keys).await;
    let early = publish_keys(&mut other, "aa").await;
    assert_eq!(ids(&mut consumer, 1).await, early[..1]);
    open.commit().await.unwrap();

    for connection in [&mut other, &mut consumer] {
        assert_eq!(ids(connection, 10).await, NOTHING);
    }
    ack(&mut consumer, &early[..1]).await;
    assert_eq!(ids_within_seconds(&mut other, 10).await, late[..10]);
    assert_eq!(ids(&mut consumer, 10).await, NOTHING);
}

#[tokio::test]
async fn a_late_commit_is_found_behind_messages_that_are_held_up() {
    let (database, mut consumer) = ordered_database().await;
    let mut slow = database.connect().await;
    // what is left of "a" is ready, but waits for the first
    let held = publish_keys(&mut consumer, &"a".repeat(100)).await;
    assert_eq!(ids(&mut consumer, 1).await, held[..1]);

    let mut open = slow.begin().await.unwrap();
    let late = publish_keys(&mut open, ".").await;
    let early = publish_keys(&mut consumer, "b").await;
    assert_eq!(ids(&mut consumer, 10).await, early);
    open.commit().await.unwrap();

    // time to look back
    advance_hints(&mut consumer, 60.0).await;
    assert_eq!(ids(&mut consumer, 10).await, late);
}

#[tokio::test]
async fn a_late_commit_waits_for_a_claim_that_is_not_yet_committed() {
    let (database, mut consumer) = ordered_database().await;
    let (mut slow, mut other) = (database.connect().await, database.connect().await);

    let mut publishing = slow.begin().await.unwrap();
    let late = publish_keys(&mut publishing, "a").await;
    let early = publish_keys(&mut other, "a").await;
    let mut claiming = consumer.begin().await.unwrap();
    assert_eq!(ids(&mut claiming, 1).await, early);
    publishing.commit().await.unwrap();

    assert_eq!(ids(&mut other, 10).await, NOTHING);
    claiming.commit().await.unwrap();
    assert_eq!(ids(&mut other, 10).await, NOTHING);
    ack(&mut consumer, &early).await;
    assert_eq!(ids_within_seconds(&mut other, 10).await, late);
}

#[tokio::test]
async fn what_a_claim_gives_back_by_rolling_back_goes_first() {
    let (database, mut first) = ordered_database().await;
    let mut second = database.connect().await;
    let published = publish_keys(&mut first, "aab").await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(ids(&mut open, 1).await, published[..1]);
    assert_eq!(ids(&mut second, 10).await, published[2..]);
    open.rollback().await.unwrap();

    assert_eq!(ids_within_seconds(&mut second, 10).await, published[..2]);
}

#[tokio::test]
async fn what_a_claim_gives_back_at_a_savepoint_is_anybodys_and_what_it_keeps_is_not() {
    let (database, mut first) = ordered_database().await;
    let mut second = database.connect().await;
    let published = publish_keys(&mut first, "aabb").await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(ids(&mut open, 1).await, published[..1]);
    execute(&mut open, "savepoint before").await;
    assert_eq!(ids(&mut open, 10).await, published[2..]);
    execute(&mut open, "rollback to savepoint before").await;

    assert_eq!(ids(&mut second, 10).await, published[2..]);
    open.commit().await.unwrap();
    ack(&mut first, &published[..1]).await;
    assert_eq!(ids(&mut second, 10).await, published[1..2]);
}

/// Two lanes of one hash.
const ONE_LOCK: &str = "create or replace function pubsub.lane_lock(p_subscription_key bigint, p_lane text) \
    returns bigint language sql immutable begin atomic select -1::bigint; end";

#[tokio::test]
async fn keys_that_share_a_lock_wait_for_a_claim_but_not_for_its_messages() {
    let (database, mut first) = ordered_database().await;
    execute(&mut first, ONE_LOCK).await;
    let mut second = database.connect().await;
    let published = publish_keys(&mut first, "aab").await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(ids(&mut open, 1).await, published[..1]);
    assert_eq!(ids(&mut second, 10).await, NOTHING);
    open.commit().await.unwrap();

    assert_eq!(ids_within_seconds(&mut second, 10).await, published[2..]);
    ack(&mut second, &published[..1]).await;
    assert_eq!(ids(&mut second, 10).await, published[1..2]);
}

/// Whoever wants a lane waits for the gate: between its first look at what there is and the lock.
const GATE: &str = "create or replace function pubsub.lane_lock(p_subscription_key bigint, p_lane text) \
    returns bigint language plpgsql as $$ begin \
        perform pg_catalog.pg_advisory_lock_shared(7), pg_catalog.pg_advisory_unlock_shared(7); \
        return pg_catalog.hashtextextended(p_lane, p_subscription_key); \
    end $$";

#[tokio::test]
async fn a_claim_looks_at_a_key_once_it_has_its_lock() {
    let (database, mut gate) = ordered_database().await;
    execute(&mut gate, GATE).await;
    let (mut slow, mut consumer) = (database.connect().await, database.connect().await);
    let mut other = database.connect().await;
    let mut publishing = slow.begin().await.unwrap();
    let late = publish_keys(&mut publishing, "a").await;
    let early = publish_keys(&mut other, "a").await;
    let mut claiming = consumer.begin().await.unwrap();
    assert_eq!(ids(&mut claiming, 1).await, early);
    publishing.commit().await.unwrap();

    execute(&mut gate, "select pg_advisory_lock(7)").await;
    let looking = tokio::spawn(async move { ids(&mut other, 10).await });
    until_blocked(&mut gate).await;
    claiming.commit().await.unwrap();
    execute(&mut gate, "select pg_advisory_unlock(7)").await;

    assert_eq!(
        looking.await.unwrap(),
        NOTHING,
        "the later one is in flight"
    );
    ack(&mut consumer, &early).await;
    assert_eq!(ids_within_seconds(&mut consumer, 10).await, late);
}

#[tokio::test]
async fn what_is_acked_while_a_claim_waits_for_its_key_is_not_handed_out() {
    let (database, mut gate) = ordered_database().await;
    execute(&mut gate, GATE).await;
    let (mut consumer, mut other) = (database.connect().await, database.connect().await);
    let published = publish_keys(&mut gate, "aa").await;
    let held = claim(&mut consumer, 1).await;
    super::advance(&mut gate, 601.0).await;

    // its lease has run out, and may still be acked: a claim that finds it by itself has not locked it
    execute(&mut gate, "delete from pubsub_data.wakeups").await;
    execute(&mut gate, "select pg_advisory_lock(7)").await;
    let looking = tokio::spawn(async move { ids(&mut other, 1).await });
    until_blocked(&mut gate).await;
    let mut acking = consumer.begin().await.unwrap();
    ack(&mut acking, &[held[0].message_id]).await;
    execute(&mut gate, "select pg_advisory_unlock(7)").await;

    assert_eq!(looking.await.unwrap(), NOTHING, "the ack has yet to commit");
    acking.commit().await.unwrap();
    assert_eq!(ids_within_seconds(&mut consumer, 10).await, published[1..]);
}

#[tokio::test]
async fn a_transaction_has_a_hundred_keys_at_most() {
    let (database, mut first) = ordered_database().await;
    let mut second = database.connect().await;
    let keys: String = ('a'..='z')
        .chain('A'..='Z')
        .chain('\u{100}'..='\u{163}')
        .collect();
    let published = publish_keys(&mut first, &(keys + "..")).await;

    let mut open = first.begin().await.unwrap();
    assert_eq!(ids(&mut open, 60).await, published[..60]);
    let rest = ids(&mut open, 1000).await;
    assert_eq!(rest[..40], published[60..100]);
    assert_eq!(ids(&mut open, 1000).await, NOTHING);
    let taken = 60 + rest.len();
    assert_eq!(taken, 102, "what has no key needs none");

    assert_eq!(ids(&mut second, 1000).await, published[100..152]);
    open.commit().await.unwrap();
    assert_eq!(ids_within_seconds(&mut first, 1000).await, NOTHING);
}

/// What a session has noted in its setting: the lowest id that may be live.
async fn tail(connection: &mut PgConnection) -> Uuid {
    sqlx::query_scalar(
        "select (current_setting(pubsub.hint_name('ordered', s.subscription_key))::pubsub.ordered_hint).tail \
         from pubsub_data.subscriptions s",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn what_is_reprocessed_below_all_that_is_live_goes_first() {
    let (database, mut consumer) = ordered_database().await;
    let mut other = database.connect().await;
    let published = publish_keys(&mut consumer, "aaa").await;
    let old = an_hour_older(&mut consumer, &published).await;
    for connection in [&mut consumer, &mut other] {
        assert_eq!(ids(connection, 1).await.len(), 1);
        execute(
            connection,
            "select pubsub.ack_messages('ordered', array_agg(message_id)) \
             from pubsub_data.deliveries where lease is not null",
        )
        .await;
    }
    for connection in [&mut consumer, &mut other] {
        // it takes a while to know that all earlier transactions have ended, those of others included
        let deadline = Instant::now() + Duration::from_secs(60);
        while tail(connection).await <= old[1] && Instant::now() < deadline {
            ids(connection, 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(tail(connection).await > old[1]);
    }
    let newer = publish_keys(&mut other, "a").await;

    sqlx::query(
        "with back as ( \
             insert into pubsub_data.deliveries (topic_key, subscription_key, message_id, lane) \
             select topic_key, subscription_key, $1, 'a' from pubsub_data.subscriptions \
         ) \
         update pubsub_data.subscriptions set rewinds = rewinds + 1, rewound_to = pubsub.id_at(now() - interval '2 hours')",
    )
    .bind(old[0])
    .execute(&mut other)
    .await
    .unwrap();

    ack(&mut other, &old[2..]).await;
    assert_eq!(ids(&mut consumer, 1).await, old[..1]);
    assert_eq!(ids(&mut other, 1).await, NOTHING);
    ack(&mut other, &old[..1]).await;
    assert_eq!(ids(&mut other, 1).await, newer);
}

#[tokio::test]
async fn no_session_looks_past_a_publisher_that_has_yet_to_commit() {
    let (database, mut consumer) = ordered_database().await;
    let mut slow = database.connect().await;
    let mut open = slow.begin().await.unwrap();
    let late = publish_keys(&mut open, "a").await;
    let late = an_hour_older(&mut open, &late).await;

    for _ in 0..3 {
        let published = publish_keys(&mut consumer, "a").await;
        assert_eq!(ids(&mut consumer, 1).await, published);
        ack(&mut consumer, &published).await;
        forget_when_tail_moves(&mut consumer).await;
    }
    assert!(tail(&mut consumer).await < late[0]);
    let newer = publish_keys(&mut consumer, "a").await;
    open.commit().await.unwrap();

    assert_eq!(ids(&mut consumer, 1).await, late);
    assert_eq!(ids(&mut consumer, 1).await, NOTHING);
    ack(&mut consumer, &late).await;
    assert_eq!(ids(&mut consumer, 1).await, newer);
}

/// Let a session set a new mark for its tail at its next claim.
async fn forget_when_tail_moves(connection: &mut PgConnection) {
    execute(
        connection,
        "with hints as ( \
             select h.name, (current_setting(h.name)::pubsub.ordered_hint).* \
             from pubsub_data.subscriptions s \
             cross join lateral pubsub.hint_name('ordered', s.subscription_key) h (name) \
         ) \
         select set_config(h.name, row(h.noted_at, h.rewinds, h.tail, h.mark, h.mark_xid, 0, \
             h.near_at, h.sweep_at, h.sweep, h.sweep_millis)::pubsub.ordered_hint::text, false) \
         from hints h",
    )
    .await;
}
