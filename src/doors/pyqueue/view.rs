//! Messages as this door shows them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::browse::Browsed;
use crate::db::json::JsonText;
use crate::db::messages::Delivery;
use crate::doors::attributes::attribute;
use crate::doors::receipts::receipt;

/// The attribute that has the id which the client chose.
pub(super) const ID: &str = "id";

/// A message.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    /// The id that its client chose, or a UUID.
    #[schema(example = "order-1")]
    id: String,
    /// What was added; a text is the field `content` of an object.
    #[schema(value_type = Object, required = true)]
    message_body: Option<JsonText>,
    /// When it was added.
    #[schema(format = DateTime)]
    timestamp: String,
    /// `available`, `in_flight`, or `processed` where it was deleted by the receive that shows it.
    status: &'static str,
    /// While it is in flight: when it becomes available again.
    #[schema(required = true, format = DateTime)]
    visibility_timeout: Option<String>,
    /// While it is in flight: names this delivery.
    #[schema(required = true)]
    receipt_handle: Option<String>,
    /// How often it was received.
    receive_count: i32,
}

/// A time of RFC 3339 in UTC, as Python writes it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// The id that a client knows a message by. One that was published natively has no other than its own.
fn id_of(message_id: Uuid, attributes: Option<&JsonText>) -> String {
    attribute(attributes, ID).unwrap_or_else(|| message_id.to_string())
}

impl Message {
    /// One that was just received.
    pub(super) fn received(delivery: Delivery) -> Self {
        let lease = delivery.lease;
        Self {
            status: "in_flight",
            visibility_timeout: delivery.ack_deadline.map(|at| time(at.0)),
            receipt_handle: lease.map(|lease| receipt(delivery.message_id, lease)),
            ..Self::taken(delivery)
        }
    }

    /// One that was received and deleted at once.
    pub(super) fn taken(delivery: Delivery) -> Self {
        Self {
            id: id_of(delivery.message_id, delivery.attributes.as_ref()),
            message_body: Some(delivery.payload),
            timestamp: time(delivery.published_at.0),
            status: "processed",
            visibility_timeout: None,
            receipt_handle: None,
            receive_count: delivery.attempts,
        }
    }

    /// One that is only looked at.
    pub(super) fn seen(message: Browsed) -> Self {
        let lease = message.lease.filter(|_| message.state == "delivered");
        Self {
            id: id_of(message.message_id, message.attributes.as_ref()),
            message_body: message.payload,
            timestamp: time(message.published_at.0),
            status: if lease.is_some() {
                "in_flight"
            } else {
                "available"
            },
            visibility_timeout: lease.and(message.ack_deadline).map(|at| time(at.0)),
            receipt_handle: lease.map(|lease| receipt(message.message_id, lease)),
            receive_count: message.attempts,
        }
    }
}

/// A page of messages, or what was received.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// How many are in it.
    pub(super) count: usize,
    /// How many there are in all.
    pub(super) total: i64,
    /// How many were skipped.
    pub(super) offset: i64,
    /// Most that were asked for.
    pub(super) limit: i32,
    /// Whether there are more.
    pub(super) has_more: bool,
}

/// A page of messages, or what was received.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the schema only; messages are answered one by one"
)]
#[schema(as = Messages)]
pub(super) struct PageOfMessages {
    /// Available ones, the oldest first, or what was received.
    messages: Vec<Message>,
    /// How many are in it.
    count: usize,
    /// How many there are in all.
    total: i64,
    /// How many were skipped.
    offset: i64,
    /// Most that were asked for.
    limit: i32,
    /// Whether there are more.
    has_more: bool,
}

/// That something was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// Always `success`.
    status: &'static str,
    /// What was done.
    message: &'static str,
}

impl Done {
    /// This was done.
    pub(super) fn with(message: &'static str) -> Self {
        Self {
            status: "success",
            message,
        }
    }
}
