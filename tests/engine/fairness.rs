//! An even share between tenants, over several connections.

use std::collections::{HashMap, HashSet};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{consume, consume_within_seconds, database, execute};

const QUIET: usize = 9;

/// So many messages of a tenant.
async fn publish_of(connection: &mut PgConnection, tenant: &str, count: i32) -> Vec<Uuid> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "select message_id from pubsub.publish_messages('t', \
             array_fill('{}'::jsonb, array[$2]), \
             array_fill(jsonb_build_object('tenant', $1), array[$2]))",
    )
    .bind(tenant)
    .bind(count)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    for sql in [
        "update pubsub_data.deliveries set lane = $1 \
         where message_id = any($2) and lane is null",
        "insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane) \
         select topic_key, subscription_key, $1 from pubsub_data.subscriptions \
         where cardinality($2) > 0 on conflict do nothing",
    ] {
        sqlx::query(sql)
            .bind(tenant)
            .bind(&ids)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    ids
}

/// The subscription `s`, shared between tenants.
async fn share(connection: &mut PgConnection) {
    execute(
        connection,
        "update pubsub_data.subscriptions set fairness_key = 'tenant'",
    )
    .await;
}

/// Whose message each is.
async fn tenants(connection: &mut PgConnection) -> HashMap<Uuid, String> {
    sqlx::query_as("select message_id, attributes ->> 'tenant' from pubsub_data.messages")
        .fetch_all(connection)
        .await
        .unwrap()
        .into_iter()
        .collect()
}

#[tokio::test]
async fn one_noisy_tenant_does_not_hold_nine_quiet_ones_up() {
    for (batch, claims_each) in [(1, 8), (10, 2)] {
        let (database, mut publisher) = database().await;
        share(&mut publisher).await;
        publish_of(&mut publisher, "noisy", 10_000).await;
        for tenant in 0..QUIET {
            publish_of(&mut publisher, &format!("quiet {tenant}"), 2).await;
        }
        let tenants = tenants(&mut publisher).await;

        let mut served = Vec::new();
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(database.connect().await);
        }
        for _ in 0..claims_each {
            for session in &mut sessions {
                served.extend(consume(session, "s", batch).await);
            }
        }

        let quiet: HashSet<Uuid> = served
            .iter()
            .map(|delivery| delivery.message_id)
            .filter(|id| tenants[id] != "noisy")
            .collect();
        assert_eq!(served.len() % 4, 0);
        if batch == 1 {
            // each session goes round the ten lanes
            assert!(quiet.len() >= 14, "{} of {}", quiet.len(), served.len());
        } else {
            assert_eq!(quiet.len(), 2 * QUIET, "of {}", served.len());
        }
    }
}

#[tokio::test]
async fn consumers_at_once_get_every_message_exactly_once() {
    let (database, mut publisher) = database().await;
    share(&mut publisher).await;
    let mut published = publish_of(&mut publisher, "noisy", 1500).await;
    for tenant in 0..100 {
        published.extend(publish_of(&mut publisher, &tenant.to_string(), 1 + tenant % 7).await);
    }

    let mut consumers = tokio::task::JoinSet::new();
    for batch in [1, 7, 10, 100] {
        let mut connection = database.connect().await;
        consumers.spawn(async move {
            let mut got = Vec::new();
            loop {
                let deliveries = consume(&mut connection, "s", batch).await;
                if deliveries.is_empty() {
                    return got;
                }
                got.extend(deliveries.into_iter().map(|delivery| delivery.message_id));
            }
        });
    }
    let mut got: Vec<Uuid> = consumers.join_all().await.into_iter().flatten().collect();

    got.sort_unstable();
    published.sort_unstable();
    assert_eq!(got, published);
}

#[tokio::test]
async fn a_publisher_that_commits_late_is_found_below_what_was_read_of_its_lane() {
    let (database, mut consumer) = database().await;
    let mut slow = database.connect().await;
    share(&mut consumer).await;
    publish_of(&mut consumer, "a", 1).await;

    let mut open = slow.begin().await.unwrap();
    let late = publish_of(&mut open, "a", 2).await;
    publish_of(&mut consumer, "a", 2).await;
    assert_eq!(consume(&mut consumer, "s", 10).await.len(), 3);
    open.commit().await.unwrap();

    let found = consume_within_seconds(&mut consumer, 10).await;
    assert_eq!(found.iter().map(|d| d.message_id).collect::<Vec<_>>(), late);
}

#[tokio::test]
async fn messages_of_a_claim_that_rolled_back_are_delivered_to_others() {
    let (database, mut first) = database().await;
    let mut second = database.connect().await;
    share(&mut first).await;
    publish_of(&mut first, "a", 2).await;
    publish_of(&mut first, "b", 2).await;

    let mut claim = first.begin().await.unwrap();
    assert_eq!(consume(&mut claim, "s", 3).await.len(), 3);
    assert_eq!(consume(&mut second, "s", 10).await.len(), 1);
    claim.rollback().await.unwrap();

    // what lies below the end of its lane is looked for, the rest is there
    let mut back = 0;
    while back < 3 {
        let found = consume_within_seconds(&mut second, 10).await.len();
        assert!(found > 0, "{back} of 3");
        back += found;
    }
    assert_eq!(back, 3);
}
