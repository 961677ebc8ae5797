//! Topics and messages by their names.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::error::{Count, Rule};

/// The engine's topic, which has the messages of all topics of the door.
pub(super) const TOPIC: &str = "pulsar";
/// The attribute that says of which topic a message is, for native filters.
pub(super) const ATTRIBUTE: &str = "pulsar/topic";
/// Most characters of a topic, and of what a client calls itself.
pub(super) const NAME_MAX_LENGTH: usize = 255;
const TOPIC_RULE: &str =
    "topic must have letters and digits, - and _ alone, and one letter or digit at least";
const MESSAGE: &str = "msg_";

/// What is wrong with the name of a topic.
pub(super) fn fault(topic: &str) -> Option<Rule> {
    let length = topic.chars().count();
    if length == 0 {
        return Some(Rule::AtLeast(Count::Characters, 1, None));
    }
    if length > NAME_MAX_LENGTH {
        return Some(Rule::AtMost(Count::Characters, NAME_MAX_LENGTH, None));
    }
    let is_plain = topic
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    let fits = is_plain && topic.chars().any(char::is_alphanumeric);
    (!fits).then(|| Rule::Refused(TOPIC_RULE.to_owned()))
}

/// How a message is called.
pub(super) fn message_id(id: Uuid) -> String {
    format!("{MESSAGE}{}", id.simple())
}

/// Which message is called so, if any can be.
pub(super) fn parse_message_id(text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(MESSAGE)?;
    (digits.len() == 32)
        .then(|| Uuid::try_parse(digits).ok())
        .flatten()
}

/// When a message was accepted: its id begins with the milliseconds since 1970.
pub(super) fn accepted_at(id: Uuid) -> DateTime<Utc> {
    let millis = (id.as_u128() >> 80).try_into().unwrap_or_default();
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

/// Before the ids of messages that are accepted at a time or later.
pub(super) fn id_at(at: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(at.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

/// A time as clients see it.
pub(super) fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The time now, as clients see it.
pub(super) fn now() -> String {
    timestamp(Utc::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_of_letters_digits_dashes_and_underscores() {
        for topic in ["orders", "a", "0", "a-b_c", "_a", "\u{fc}ber", "\u{4e2d}"] {
            assert_eq!(fault(topic), None, "{topic}");
        }
        for topic in [
            "",
            "-",
            "__",
            "a b",
            "a.b",
            "a/b",
            "a\n",
            "\u{1f600}",
            "a\0",
        ] {
            assert!(fault(topic).is_some(), "{topic}");
        }
        assert_eq!(fault(&"\u{fc}".repeat(255)), None);
        assert!(fault(&"a".repeat(256)).is_some());
    }

    #[test]
    fn a_message_is_called_by_its_id_which_begins_with_its_time() {
        let id = Uuid::try_parse("01932c07-0a00-7000-8000-0123456789ab").unwrap();
        let name = "msg_01932c070a00700080000123456789ab";

        assert_eq!(message_id(id), name);
        assert_eq!(parse_message_id(name), Some(id));
        assert_eq!(timestamp(accepted_at(id)), "2024-11-14T18:54:39.104Z");
        assert!(id_at(accepted_at(id)) <= id);
        assert!(id_at(accepted_at(id) + chrono::TimeDelta::milliseconds(1)) > id);
        for name in [
            "",
            "msg_",
            "msg_01932c07-0a00-7000-8000-0123456789ab",
            &name[4..],
        ] {
            assert_eq!(parse_message_id(name), None, "{name}");
        }
    }
}
