//! Messages: `consume_messages_for`, `take_messages_for`, both of several subscriptions, `ack_messages`,
//! `nack_messages`.

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
    /// The lease that fences this delivery; none of one that is settled.
    #[sqlx(default)]
    pub lease: Option<i64>,
    /// The subscription, where several were asked.
    #[sqlx(default)]
    pub subscription_id: Option<String>,
    /// Its attributes, if it has any.
    #[sqlx(default)]
    pub attributes: Option<JsonText>,
    /// Its ordering key, if it has one.
    #[sqlx(default)]
    pub ordering_key: Option<String>,
    /// Its priority, if it has one.
    #[sqlx(default)]
    pub priority: Option<i16>,
    /// When the lease ends; never for what is settled or a dead letter.
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

    /// What names it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            message_id: self.message_id,
            lease: self.lease,
        }
    }

    /// Whether it is of a subscription that was asked.
    pub(crate) fn is_of(&self, subscription_id: &str) -> bool {
        let named = self.subscription_id.as_deref();
        named.is_none_or(|named| named == subscription_id)
    }
}

/// A delivery as a client names it: with its lease, or whichever holds the message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle {
    /// The message.
    pub message_id: Uuid,
    /// The lease it was delivered with.
    pub lease: Option<i64>,
}

/// What a claim passes over: what was delivered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Only {
    /// To anybody.
    New,
    /// To the consumer.
    Unseen,
}

impl Only {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unseen => "unseen",
        }
    }
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
    /// None: whatever is ready.
    pub only: Option<Only>,
    /// Settle them in the same commit: they are handed out at most once, without a lease.
    pub auto_ack: bool,
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

/// Lease ready messages to consumers, or take them, the oldest to the first, as the first one asks; `head`
/// is that of an earlier call.
///
/// # Errors
/// 404 for an unknown subscription; 422 where the subscription has no `only`.
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
    let first = claims.first();
    let query = if first.is_some_and(|claim| claim.auto_ack) {
        // what is gone must be so after a crash, too: this commit waits for the disk
        sqlx::query("select t.* from pubsub.take_messages_for($1, $2, $3, $4, $5, $6, $7) t")
    } else {
        // a claim that a crash undoes is only a redelivery, so its commit need not wait for the disk
        sqlx::query(
            "select c.* from (select set_config('synchronous_commit', 'off', true)) fast, \
             pubsub.consume_messages_for($1, $2, $3, $8, $9, $4, $5, $6, $7) c",
        )
    };
    let query = query
        .bind(subscription_id)
        .bind(consumer_ids)
        .bind(batch_sizes)
        .bind(head.map(|head| head.message_id))
        .bind(head.map(|head| head.rewinds))
        .bind(terms.max_bytes)
        .bind(first.and_then(|claim| claim.only).map(Only::as_str));
    let query = match first {
        Some(claim) if !claim.auto_ack => query
            .bind(claim.ack_deadline_seconds)
            .bind(terms.default_ack_deadline_seconds),
        _ => query,
    };
    let rows = query.fetch_all(database).await?;
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

/// Lease ready messages of several subscriptions, or take them: of one after the other, in random order,
/// until there are enough.
///
/// # Errors
/// 404 for an unknown subscription; 422 where any of them has no `only`.
pub(crate) async fn consume_from(
    database: &Database,
    subscription_ids: &[String],
    claim: &Claim,
    terms: Terms,
) -> Result<Vec<Delivery>, Error> {
    let query = if claim.auto_ack {
        sqlx::query_as("select t.* from pubsub.take_messages_from($1, $2, $3, $4, $5) t")
    } else {
        sqlx::query_as(
            "select c.* from (select set_config('synchronous_commit', 'off', true)) fast, \
             pubsub.consume_messages_from($1, $2, $3, $6, $7, $4, $5) c",
        )
    };
    let query = query
        .bind(subscription_ids)
        .bind(&claim.consumer_id)
        .bind(claim.batch_size)
        .bind(terms.max_bytes)
        .bind(claim.only.map(Only::as_str));
    let query = if claim.auto_ack {
        query
    } else {
        query
            .bind(claim.ack_deadline_seconds)
            .bind(terms.default_ack_deadline_seconds)
    };
    Ok(query.fetch_all(database).await?)
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
