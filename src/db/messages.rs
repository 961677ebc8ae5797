//! Messages: `consume_messages_for`, `ack_messages`, `nack_messages`.

use super::database::Database;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::Timestamp;
use super::json::JsonText;
use crate::error::Error;

/// Of a delivery beside its payload, attributes and key, as it is answered.
const OTHER_BYTES: usize = 400;

/// A delivery of a message.
#[derive(Debug, FromRow)]
pub struct Delivery {
    /// The message.
    pub message_id: Uuid,
    /// Its payload, as Postgres prints it.
    pub payload: JsonText,
    /// How often it was delivered.
    pub attempts: i32,
    /// When it was published.
    pub published_at: Timestamp,
    /// The lease that fences this delivery.
    pub lease: Option<i64>,
    /// Its attributes, if it has any.
    #[sqlx(default)]
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    #[sqlx(default)]
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    #[sqlx(default)]
    pub priority: Option<i16>,
    /// When the lease ends; never for a dead letter.
    #[sqlx(default)]
    pub ack_deadline: Option<Timestamp>,
}

impl Delivery {
    /// About how many bytes it has as an answer.
    pub(crate) fn size(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, JsonText::size);
        let key = self.ordering_key.as_ref().map_or(0, String::len);
        self.payload.size() + attributes + key + OTHER_BYTES
    }
}

/// A delivery as a client names it: with its lease, or whichever holds the message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The message.
    pub message_id: Uuid,
    /// The lease it was delivered with.
    pub lease: Option<i64>,
}

/// Who wants how many messages.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who holds the lease.
    pub consumer_id: String,
    /// Most messages to lease.
    pub batch_size: i32,
    /// For how long; none: as long as the subscription says.
    pub ack_deadline_seconds: Option<i32>,
}

/// What holds for all claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// For subscriptions without an ack deadline of their own.
    pub(crate) default_ack_deadline_seconds: i32,
    /// Most bytes of the messages of one call, unless one message alone has more.
    pub(crate) max_bytes: i64,
}

/// How far a subscription has been read. It holds as long as the subscription is not rewound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    message_id: Uuid,
    rewinds: i32,
}

/// What consumers were handed out.
#[derive(Debug)]
pub(crate) struct Consumed {
    /// The deliveries of each, in the order of the claims: of all, or of the first ones, when the bound of
    /// bytes left nothing to the others.
    pub(crate) deliveries: Vec<Vec<Delivery>>,
    /// How far the subscription has been read, if anything was found.
    pub(crate) head: Option<Head>,
}

/// Lease ready messages to consumers, the oldest to the first, for as long as the first one asks;
/// `head` is that of an earlier call.
///
/// # Errors
/// 404 for an unknown subscription.
pub(crate) async fn consume(
    database: &Database,
    subscription_id: &str,
    claims: &[Claim],
    terms: Terms,
    head: Option<Head>,
) -> Result<Consumed, Error> {
    let (consumer_ids, batch_sizes): (Vec<&str>, Vec<i32>) = claims
        .iter()
        .map(|claim| (claim.consumer_id.as_str(), claim.batch_size))
        .unzip();
    // a claim that a crash undoes is only a redelivery, so its commit need not wait for the disk
    let query = sqlx::query(
        "select c.* from (select set_config('synchronous_commit', 'off', true)) fast, \
         pubsub.consume_messages_for($1, $2, $3, $4, $5, $6, $7, $8) c",
    );
    let rows = query
        .bind(subscription_id)
        .bind(consumer_ids)
        .bind(batch_sizes)
        .bind(claims.first().and_then(|claim| claim.ack_deadline_seconds))
        .bind(terms.default_ack_deadline_seconds)
        .bind(head.map(|head| head.message_id))
        .bind(head.map(|head| head.rewinds))
        .bind(terms.max_bytes)
        .fetch_all(database)
        .await?;
    let head = match rows.first() {
        Some(row) => row
            .try_get::<Option<_>, _>("head")?
            .zip(row.try_get("rewinds")?),
        None => None,
    };
    let head = head.map(|(message_id, rewinds)| Head {
        message_id,
        rewinds,
    });
    let mut deliveries: Vec<_> = claims.iter().map(|_| Vec::new()).collect();
    let mut served = claims.len();
    for row in rows {
        let consumer: i32 = row.try_get("consumer")?;
        if row.try_get::<Option<bool>, _>("is_cut")? == Some(true) {
            served = usize::try_from(consumer).unwrap_or(served);
        }
        usize::try_from(consumer)
            .ok()
            .and_then(|consumer| deliveries.get_mut(consumer.checked_sub(1)?))
            .ok_or_else(|| sqlx::Error::Protocol(format!("no consumer {consumer} was asked for")))?
            .push(Delivery::from_row(&row)?);
    }
    deliveries.truncate(served);
    Ok(Consumed { deliveries, head })
}

/// Settle deliveries for good; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub(crate) async fn ack(
    database: &Database,
    subscription_id: &str,
    handles: impl Iterator<Item = &Handle>,
) -> Result<i64, Error> {
    let (message_ids, leases) = columns(handles);
    Ok(sqlx::query_scalar("select pubsub.ack_messages($1, $2, $3)")
        .bind(subscription_id)
        .bind(message_ids)
        .bind(leases)
        .fetch_one(database)
        .await?)
}

/// Give deliveries back for a retry; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub(crate) async fn nack(
    database: &Database,
    subscription_id: &str,
    handles: &[Handle],
) -> Result<i64, Error> {
    let (message_ids, leases) = columns(handles.iter());
    Ok(
        sqlx::query_scalar("select pubsub.nack_messages($1, $2, $3)")
            .bind(subscription_id)
            .bind(message_ids)
            .bind(leases)
            .fetch_one(database)
            .await?,
    )
}

fn columns<'a>(handles: impl Iterator<Item = &'a Handle>) -> (Vec<Uuid>, Vec<Option<i64>>) {
    handles
        .map(|handle| (handle.message_id, handle.lease))
        .unzip()
}
