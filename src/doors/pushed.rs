//! A message as the receiver of an endpoint gets it: the same for every door, but for how things are named.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::db::Timestamp;
use crate::db::json::JsonText;
use crate::db::messages::Delivery;

/// What a door calls the source of a message.
#[derive(Debug, Serialize)]
pub struct Names<'a> {
    /// The subscription.
    pub subscription_id: &'a str,
    /// The id of its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<&'a str>,
    /// The name of its topic, of a door with names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    /// What the message was published with, of a door that routes by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
}

#[derive(Serialize)]
struct Pushed<'a> {
    message_id: Uuid,
    #[serde(flatten)]
    names: Names<'a>,
    attempt: i32,
    published_at: Timestamp,
    message: &'a JsonText,
    #[serde(serialize_with = "or_none")]
    attributes: Option<&'a JsonText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
}

/// The body of a push.
#[must_use]
pub fn body(names: Names<'_>, delivery: &Delivery) -> Vec<u8> {
    let pushed = Pushed {
        message_id: delivery.message_id,
        names,
        attempt: delivery.attempts,
        published_at: delivery.published_at,
        message: &delivery.payload,
        attributes: delivery.attributes.as_ref(),
        ordering_key: delivery.ordering_key.as_deref(),
    };
    // nothing in it cannot be written
    serde_json::to_vec(&pushed).unwrap_or_default()
}

fn or_none<S: Serializer>(
    attributes: &Option<&JsonText>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match attributes {
        Some(attributes) => attributes.serialize(serializer),
        None => serializer.serialize_map(Some(0))?.end(),
    }
}
