//! Acks and publishes in one step: `apply_transaction`.

use super::database::Database;
use uuid::Uuid;

use super::json::JsonText;
use super::publish::{Publication, column};
use crate::error::Error;

/// Deliveries to ack: an element of each list per delivery.
#[derive(Debug, Default)]
pub struct Acks {
    /// Their subscriptions.
    pub subscription_ids: Vec<String>,
    /// Their messages.
    pub message_ids: Vec<Uuid>,
    /// Their leases.
    pub leases: Vec<i64>,
}

/// Messages to publish: an element of each list per publish.
#[derive(Debug, Default)]
pub struct Publishes {
    /// Their topics.
    pub topic_ids: Vec<String>,
    /// What is published.
    pub publications: Vec<Publication>,
}

/// Ack all and publish all, or nothing; returns the ids of the messages, in their order.
///
/// # Errors
/// 404 for an unknown subscription or topic, 409 with the positions of stale leases, 422 for what a
/// message must not be.
pub(crate) async fn apply(
    database: &Database,
    acks: &Acks,
    publishes: &Publishes,
    idempotency_window_seconds: i32,
) -> Result<Vec<Uuid>, Error> {
    let publications = publishes.publications.as_slice();
    let topic_ids: Vec<&str> = publishes
        .topic_ids
        .iter()
        .zip(publications)
        .flat_map(|(topic_id, publication)| {
            std::iter::repeat_n(topic_id.as_str(), publication.payloads.len())
        })
        .collect();
    let payloads: Vec<&JsonText> = publications
        .iter()
        .flat_map(|publication| &publication.payloads)
        .collect();
    // seconds count by the database's clock, like everything else
    let query = sqlx::query_scalar(
        "select t.message_id \
         from pubsub.message_times($7, $8) d (times), \
             pubsub.message_times($9, $10, d.times) e (times), \
             pubsub.apply_transaction($1, $2, $3, $4, $5, $6, d.times, e.times, $11, $12, $13, \
                 $14, $15) t",
    );
    Ok(query
        .bind(&acks.subscription_ids)
        .bind(&acks.message_ids)
        .bind(&acks.leases)
        .bind(topic_ids)
        .bind(payloads)
        .bind(column(publications, |extras| extras.attributes.as_ref()))
        .bind(column(publications, |extras| extras.deliver_at))
        .bind(column(publications, |extras| extras.delay_seconds))
        .bind(column(publications, |extras| extras.expires_at))
        .bind(column(publications, |extras| extras.ttl_seconds))
        .bind(column(publications, |extras| {
            extras.ordering_key.as_deref()
        }))
        .bind(column(publications, |extras| extras.priority))
        .bind(column(publications, |extras| {
            extras.idempotency_key.as_deref()
        }))
        .bind(idempotency_window_seconds)
        .bind(column(publications, |extras| extras.message_key.as_deref()))
        .fetch_all(database)
        .await?)
}
