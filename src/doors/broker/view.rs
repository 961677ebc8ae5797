//! Messages as this door shows them.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::names::{Kind, place};
use super::tags::tag;
use crate::db::browse::Browsed;
use crate::db::json::JsonText;
use crate::db::messages::Delivery;
use crate::db::push::PushEndpoint;
use crate::doors::attributes::attribute;
use crate::doors::pushed::Names;

/// The attribute of messages to topics that has their routing key.
pub(super) const ROUTING_KEY: &str = "routing_key";

/// What was pulled, of a queue; without a message, nothing was there.
#[derive(Serialize, ToSchema)]
pub(super) struct Pulled {
    /// Names this delivery, to settle it; null where nothing was there, or it is acked already.
    #[schema(required = true, example = "dtag-rAZ...")]
    delivery_tag: Option<String>,
    /// What was published.
    #[schema(required = true, value_type = serde_json::Value)]
    message: Option<JsonText>,
    /// How often it was delivered before.
    retry: i32,
    /// The message; absent where nothing was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message_id: Option<Uuid>,
    /// What it was published with; absent of queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    routing_key: Option<String>,
    /// Which subscription it is of; absent of queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subscription_id: Option<String>,
}

impl Pulled {
    /// Nothing was there.
    pub(super) fn nothing() -> Self {
        Self {
            delivery_tag: None,
            message: None,
            retry: 0,
            message_id: None,
            routing_key: None,
            subscription_id: None,
        }
    }

    /// A delivery by a subscription of the engine.
    pub(super) fn of(subscription_id: &str, delivery: Delivery) -> Self {
        let place = place(subscription_id);
        let of_topic = place.and_then(|place| place.subscription_id);
        Self {
            delivery_tag: delivery
                .lease
                .map(|lease| tag(subscription_id, delivery.message_id, lease)),
            message: Some(delivery.payload),
            retry: delivery.attempts.saturating_sub(1),
            message_id: Some(delivery.message_id),
            routing_key: of_topic.map(|_| routing_key(delivery.attributes.as_ref())),
            subscription_id: of_topic.map(str::to_owned),
        }
    }
}

/// What a message to a topic was published with; of one that was published natively perhaps nothing.
fn routing_key(attributes: Option<&JsonText>) -> String {
    attribute(attributes, ROUTING_KEY).unwrap_or_default()
}

/// What a push to an endpoint of this door calls things; none if it is of another.
#[must_use]
pub fn pushed_names<'a>(endpoint: &'a PushEndpoint, delivery: &Delivery) -> Option<Names<'a>> {
    let place = place(&endpoint.subscription_id)?;
    Some(Names {
        subscription_id: place.subscription_id?,
        topic_id: None,
        topic: Some(place.name),
        routing_key: Some(routing_key(delivery.attributes.as_ref())),
    })
}

/// A message that is only looked at.
#[derive(Serialize, ToSchema)]
pub(super) struct Peeked {
    /// The message.
    message_id: Uuid,
    /// What was published.
    #[schema(required = true, value_type = serde_json::Value)]
    message: Option<JsonText>,
    /// How often it was delivered before the delivery under way or to come.
    retry: i32,
    /// `ready`, `in_flight`, or `scheduled` while it waits for a retry or its delay.
    state: &'static str,
}

impl Peeked {
    /// A message, unless it is over.
    pub(super) fn of(message: Browsed) -> Option<Self> {
        let (state, retry) = match message.state.as_str() {
            "available" => ("ready", message.attempts),
            "delivered" => ("in_flight", message.attempts.saturating_sub(1)),
            "scheduled" => ("scheduled", message.attempts),
            _ => return None,
        };
        Some(Self {
            message_id: message.message_id,
            message: message.payload,
            retry,
            state,
        })
    }
}

/// What counters call a queue or topic. A queue's name has no slash.
pub(super) fn label(kind: Kind, name: &str) -> Cow<'_, str> {
    match kind {
        Kind::Queue => Cow::Borrowed(name),
        Kind::Topic => Cow::Owned(format!("topics/{name}")),
    }
}
