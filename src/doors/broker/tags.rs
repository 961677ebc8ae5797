//! Delivery tags: the text that names one delivery of a message, and where it was.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::names::{Kind, Place, place};
use crate::doors::receipts;

const PREFIX: &str = "dtag-";

/// The tag of a delivery by a subscription of the engine.
pub(super) fn tag(subscription_id: &str, message_id: Uuid, lease: i64) -> String {
    let receipt = receipts::receipt(message_id, lease);
    let place = URL_SAFE_NO_PAD.encode(subscription_id);
    format!("{PREFIX}{receipt}.{place}")
}

/// A delivery that a tag names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    /// The subscription of the engine.
    pub(super) subscription_id: String,
    /// The message.
    pub(super) message_id: Uuid,
    /// The lease it was delivered with.
    pub(super) lease: i64,
}

impl Tagged {
    /// The delivery of a tag of this door.
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let (receipt, of) = tag.strip_prefix(PREFIX)?.split_once('.')?;
        let (message_id, lease) = receipts::parse(receipt)?;
        let subscription_id = String::from_utf8(URL_SAFE_NO_PAD.decode(of).ok()?).ok()?;
        place(&subscription_id)?;
        // Postgres cannot be asked for it
        (!subscription_id.contains('\0')).then_some(Self {
            subscription_id,
            message_id,
            lease,
        })
    }

    /// Whether it is of a queue or topic of this name.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.place().is_some_and(|place| place.name == name)
    }

    /// Whether it is of what has this name.
    pub(super) fn kind(&self) -> Kind {
        self.place().map_or(Kind::Queue, |place| place.kind)
    }

    fn place(&self) -> Option<Place<'_>> {
        place(&self.subscription_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_its_delivery_and_its_place() {
        let message_id = Uuid::now_v7();
        for (id, name) in [
            ("broker/queues/\u{e9}.DLQ", "\u{e9}.DLQ"),
            ("broker/topics/t/sub-0123456789ab", "t"),
        ] {
            let tag = tag(id, message_id, 7);
            assert!(
                tag.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
                "{tag}"
            );
            let tagged = Tagged::parse(&tag).unwrap();
            assert_eq!((tagged.message_id, tagged.lease), (message_id, 7));
            assert!(tagged.is_of(name) && !tagged.is_of("other"));
        }
        for other in [tag("pyqueue/q", message_id, 7), "dtag-x.y".to_owned()] {
            assert_eq!(Tagged::parse(&other), None);
        }
        assert_eq!(Tagged::parse(&receipts::receipt(message_id, 7)), None);
    }
}
