//! Settling deliveries one by one: `settle_messages`, and `release_messages` for those that nobody
//! saw.

use super::database::Database;
use uuid::Uuid;

use super::Timestamp;
use super::messages::Handle;
use crate::error::Error;

/// How a delivery is settled.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// For good.
    Ack,
    /// For good, with something to be told in its timeline.
    Noted {
        /// What the consumer says.
        note: String,
    },
    /// It returns after a delay, or after its backoff.
    Nack {
        /// The delay, in seconds.
        seconds: Option<f64>,
        /// What the consumer says.
        reason: Option<String>,
    },
    /// It goes to the dead letters at once.
    Reject {
        /// What the consumer says.
        reason: Option<String>,
    },
    /// Not yet: its ack deadline moves.
    Extend {
        /// To so many seconds from now.
        seconds: f64,
    },
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::Ack | Self::Noted { .. } => "ack",
            Self::Nack { .. } => "nack",
            Self::Reject { .. } => "reject",
            Self::Extend { .. } => "extend",
        }
    }

    fn seconds(&self) -> Option<f64> {
        match self {
            Self::Nack { seconds, .. } => *seconds,
            Self::Extend { seconds } => Some(*seconds),
            Self::Ack | Self::Noted { .. } | Self::Reject { .. } => None,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Nack { reason, .. } | Self::Reject { reason } => reason.as_deref(),
            Self::Noted { note } => Some(note),
            Self::Ack | Self::Extend { .. } => None,
        }
    }
}

/// A delivery and how it is settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The message.
    pub message_id: Uuid,
    /// The lease it was delivered with.
    pub lease: i64,
    /// How it is settled.
    pub action: Action,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Settled {
    /// `acked`, `nacked`, `dead_lettered`, `parked`, `skipped`, `extended` or `lease_lost`.
    pub status: String,
    /// The new ack deadline of one that was extended.
    pub ack_deadline: Option<Timestamp>,
}

/// Settle deliveries, all in one commit; the results are in their order.
///
/// # Errors
/// 404 for an unknown subscription; 422 when a delivery is named twice.
pub(crate) async fn settle(
    database: &Database,
    subscription_id: &str,
    settlements: &[&Settlement],
) -> Result<Vec<Settled>, Error> {
    let (message_ids, leases): (Vec<_>, Vec<_>) = settlements
        .iter()
        .map(|settlement| (settlement.message_id, settlement.lease))
        .unzip();
    let actions = settlements.iter().map(|settlement| &settlement.action);
    let names: Vec<_> = actions.clone().map(Action::name).collect();
    let seconds: Vec<_> = actions.clone().map(Action::seconds).collect();
    let reasons: Vec<_> = actions.map(Action::reason).collect();
    let query = sqlx::query_as(
        "select s.status, s.ack_deadline \
         from pubsub.settle_messages($1, $2, $3, $4, $5, $6) s order by s.position",
    );
    let settled: Vec<(String, Option<Timestamp>)> = query
        .bind(subscription_id)
        .bind(message_ids)
        .bind(leases)
        .bind(names)
        .bind(seconds)
        .bind(reasons)
        .fetch_all(database)
        .await?;
    let result = |(status, ack_deadline)| Settled {
        status,
        ack_deadline,
    };
    Ok(settled.into_iter().map(result).collect())
}

/// Undo the leases of deliveries that nobody saw; returns how many were.
///
/// # Errors
/// 404 for an unknown subscription.
pub(crate) async fn release(
    database: &Database,
    subscription_id: &str,
    deliveries: &[Handle],
) -> Result<i64, Error> {
    let (message_ids, leases): (Vec<_>, Vec<_>) = deliveries
        .iter()
        .map(|handle| (handle.message_id, handle.lease))
        .unzip();
    Ok(
        sqlx::query_scalar("select pubsub.release_messages($1, $2, $3)")
            .bind(subscription_id)
            .bind(message_ids)
            .bind(leases)
            .fetch_one(database)
            .await?,
    )
}
