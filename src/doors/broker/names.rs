//! Names of queues, topics and subscriptions, and the ids that they have in the engine.

use serde_json::json;

use crate::error::{Count, Error, Fault, Part, Rule, found};

/// What begins the ids of all that the door has.
pub(super) const PREFIX: &str = "broker/";
/// What begins the ids of its queues.
pub(super) const QUEUES: &str = "broker/queues/";
/// What begins the ids of its topics, and of their subscriptions.
pub(super) const TOPICS: &str = "broker/topics/";
/// Most characters of a name, without the suffix of a dead-letter queue.
const NAME_MAX_LENGTH: usize = 200;

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A queue.
    Queue,
    /// A topic.
    Topic,
}

impl Kind {
    /// In the words of errors.
    fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
        }
    }

    /// The id of the topic that what has this name publishes to.
    pub(super) fn id(self, name: &str) -> String {
        let prefix = match self {
            Self::Queue => QUEUES,
            Self::Topic => TOPICS,
        };
        format!("{prefix}{name}")
    }

    /// There is none of this name.
    pub(super) fn unknown(self, name: &str) -> Error {
        Error::refused(404, format!("{} {name:?} does not exist", self.word()))
    }

    /// What the engine says, in which nothing has this name.
    pub(super) fn known<T>(self, name: &str, answer: Result<T, Error>) -> Result<T, Error> {
        found(answer)?.ok_or_else(|| self.unknown(name))
    }
}

/// The id of a subscription of a topic.
pub(super) fn subscription(topic: &str, subscription_id: &str) -> String {
    format!("{TOPICS}{topic}/{subscription_id}")
}

/// What an id in the engine stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// What has the name.
    pub(super) kind: Kind,
    /// Of the queue or topic.
    pub(super) name: &'a str,
    /// The subscription, of a topic.
    pub(super) subscription_id: Option<&'a str>,
}

/// What the id of a subscription in the engine stands for, if it is one of this door.
pub(super) fn place(id: &str) -> Option<Place<'_>> {
    if let Some(name) = id.strip_prefix(QUEUES) {
        return Some(Place {
            kind: Kind::Queue,
            name,
            subscription_id: None,
        });
    }
    let (name, subscription_id) = id.strip_prefix(TOPICS)?.split_once('/')?;
    Some(Place {
        kind: Kind::Topic,
        name,
        subscription_id: Some(subscription_id),
    })
}

/// Whether a queue is a dead-letter queue: such a one has none of its own.
pub(super) fn is_dead_letter_queue(name: &str, suffix: &str) -> bool {
    name.ends_with(suffix)
}

/// Check a name of the path.
///
/// # Errors
/// 422 that names the limit.
pub(super) fn check(name: &str, suffix: &str) -> Result<(), Error> {
    let without = name.strip_suffix(suffix).unwrap_or(name);
    let rule = if without.chars().count() > NAME_MAX_LENGTH {
        Rule::AtMost(Count::Characters, NAME_MAX_LENGTH, None)
    } else if name.is_empty() {
        Rule::AtLeast(Count::Characters, 1, None)
    } else if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        let text = "a name has no space, no control character and no slash";
        Rule::Refused(text.to_owned())
    } else {
        return Ok(());
    };
    Err(Error::Invalid(vec![Fault {
        part: Part::Path,
        path: vec!["name".into()],
        rule,
        given: json!(name),
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_what_it_is_of() {
        let queue = place("broker/queues/a.DLQ").unwrap();
        assert_eq!((queue.kind, queue.name), (Kind::Queue, "a.DLQ"));
        let id = subscription("t", "sub-1");
        let topic = place(&id).unwrap();
        assert_eq!((topic.kind, topic.name), (Kind::Topic, "t"));
        assert_eq!(topic.subscription_id, Some("sub-1"));
        for other in ["broker/topics/t", "pyqueue/q", "q", "broker/"] {
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn the_name_of_a_dead_letter_queue_is_longer_by_its_suffix() {
        let longest = "x".repeat(200);
        assert!(check(&longest, ".DLQ").is_ok());
        assert!(check(&format!("{longest}.DLQ"), ".DLQ").is_ok());
        assert!(check(&format!("{longest}.DLX"), ".DLQ").is_err());
        for bad in ["", "a b", "a/b", "a\u{0}", "\u{a0}"] {
            assert!(check(bad, ".DLQ").is_err(), "{bad:?}");
        }
    }
}
