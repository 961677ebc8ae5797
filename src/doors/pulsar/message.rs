//! A message on its way to clients: written once, whoever it goes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::ws::Utf8Bytes;
use chrono::Utc;
use metrics::{Counter, Histogram};
use serde_json::json;
use uuid::Uuid;

use super::names::{ATTRIBUTE, accepted_at, message_id, timestamp};
use crate::db::json::JsonText;
use crate::telemetry::proxy;

/// What a frame has before what an answer to a poll has as well.
const FRAME: &str = r#"{"type":"message","#;

/// Bytes of the messages that are in memory, all connections together.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the messages that are on their way.
pub(super) fn bytes_on_their_way() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// A topic, with what is counted of it.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    sent: Counter,
    latency: Histogram,
}

impl Topic {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sent: proxy::delivered(name, proxy::Delivery::WebSocket),
            latency: proxy::latency(name),
        }
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: Uuid,
    pub(super) topic: Arc<Topic>,
    text: Utf8Bytes,
    /// Not one that is replayed.
    is_live: bool,
    was_sent: AtomicBool,
}

impl Message {
    /// What the engine says, as clients see it.
    pub(super) fn new(
        id: Uuid,
        topic: Arc<Topic>,
        payload: &JsonText,
        attributes: Option<&JsonText>,
        is_live: bool,
    ) -> Self {
        let text = format!(
            r#"{FRAME}"message_id":"{}","topic":{},"payload":{},"timestamp":"{}","metadata":{}}}"#,
            message_id(id),
            json!(topic.name),
            payload.as_str(),
            timestamp(accepted_at(id)),
            metadata(attributes),
        );
        BYTES.fetch_add(text.len(), Ordering::Relaxed);
        Self {
            id,
            topic,
            text: text.into(),
            is_live,
            was_sent: AtomicBool::new(false),
        }
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    /// As the frame of a WebSocket.
    pub(super) fn frame(&self) -> Utf8Bytes {
        self.text.clone()
    }

    /// As in the answer to a poll.
    pub(super) fn object(&self) -> String {
        let rest = self.text.get(FRAME.len()..).unwrap_or_default();
        format!("{{{rest}")
    }

    /// A WebSocket took it.
    pub(super) fn was_sent(&self) {
        self.topic.sent.increment(1);
        self.was_sent.store(true, Ordering::Relaxed);
    }
}

impl Drop for Message {
    /// The last one who sends it lets it go.
    fn drop(&mut self) {
        BYTES.fetch_sub(self.text.len(), Ordering::Relaxed);
        if self.is_live && *self.was_sent.get_mut() {
            let took = Utc::now() - accepted_at(self.id);
            let took = took.to_std().unwrap_or_default();
            self.topic.latency.record(took.as_secs_f64());
        }
    }
}

/// The attributes but for the topic; null where there are none.
fn metadata(attributes: Option<&JsonText>) -> String {
    let all = attributes.map(|attributes| serde_json::from_str(attributes.as_str()));
    let mut all: BTreeMap<String, String> = all.and_then(Result::ok).unwrap_or_default();
    all.remove(ATTRIBUTE);
    if all.is_empty() {
        return "null".to_owned();
    }
    json!(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Option<&str>) -> Message {
        let id = Uuid::try_parse("01932c07-0a00-7000-8000-0123456789ab").unwrap();
        let text = |text: &str| JsonText::written(text.to_owned()).unwrap();
        let attributes = attributes.map(text);
        let topic = Arc::new(Topic::new("a\u{e9}"));
        Message::new(
            id,
            topic,
            &text(r#"{"n": 1.50}"#),
            attributes.as_ref(),
            false,
        )
    }

    #[test]
    fn a_frame_says_what_was_accepted() {
        let with = message(Some(r#"{"pulsar/topic": "a", "k": "v\""}"#));
        assert_eq!(
            with.frame().as_str(),
            "{\"type\":\"message\",\"message_id\":\"msg_01932c070a00700080000123456789ab\",\
             \"topic\":\"a\u{e9}\",\"payload\":{\"n\": 1.50},\"timestamp\":\"2024-11-14T18:54:39.104Z\",\
             \"metadata\":{\"k\":\"v\\\"\"}}"
        );
        for attributes in [None, Some(r#"{"pulsar/topic": "a"}"#)] {
            let object: serde_json::Value =
                serde_json::from_str(&message(attributes).object()).unwrap();
            assert_eq!(object["metadata"], serde_json::Value::Null);
            assert_eq!(object["type"], serde_json::Value::Null);
            assert_eq!(object["payload"], json!({"n": 1.5}));
        }
    }
}
