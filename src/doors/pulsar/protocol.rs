//! Frames of a WebSocket: those of clients read, those of the server written.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names::{self, NAME_MAX_LENGTH, parse_message_id};
use crate::config::Secret;
use crate::doors::fastapi;
use crate::doors::fields::Fields;
use crate::doors::tree::parse_json;
use crate::error::{Count, Error, Rule};

/// Most topics of a frame.
pub(super) const MOST_TOPICS: usize = 50;
/// Longest token.
pub(super) const TOKEN_MAX_LENGTH: usize = 16 * 1024;
/// Longest type that is shown.
const TYPE_MAX_LENGTH: usize = 100;

/// What a client says.
#[derive(Debug)]
pub(super) enum Said {
    /// It wants messages.
    Subscribe(Subscribe),
    /// It has seen one.
    Ack,
    /// It wants to know whether somebody is there.
    Ping,
    /// It does not want those of these topics any more.
    Unsubscribe(Vec<String>),
}

/// What a client wants.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) topics: Vec<String>,
    pub(super) client_id: String,
    pub(super) offset: Offset,
    pub(super) token: Option<Secret>,
}

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    /// What is accepted from now on.
    Last,
    /// All that is kept.
    Earliest,
    /// What comes after a message.
    After(Uuid),
}

/// Why a frame is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody knows its type.
    Type(String),
    /// It is not as it has to be.
    Form(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Form(told(&error))
    }
}

/// Read a frame.
pub(super) fn parse(text: &str) -> Result<Said, Fault> {
    let body = parse_json(text.as_bytes())?;
    let mut fields = Fields::of_body(&body)?;
    let kind = fields.text("type", 0, usize::MAX);
    match kind.as_str() {
        _ if !body.get("type").is_some_and(Value::is_string) => {
            fields.finish_ignoring_others()?;
            Err(Fault::Type(String::new()))
        }
        "ping" => Ok(Said::Ping),
        "ack" => {
            fields.text("message_id", 0, usize::MAX);
            fields.finish_ignoring_others()?;
            Ok(Said::Ack)
        }
        "subscribe" => subscribe(fields),
        "unsubscribe" => {
            let topics = topics(&mut fields, usize::MAX);
            fields.finish_ignoring_others()?;
            Ok(Said::Unsubscribe(topics))
        }
        other => Err(Fault::Type(other.chars().take(TYPE_MAX_LENGTH).collect())),
    }
}

fn subscribe(mut fields: Fields<'_>) -> Result<Said, Fault> {
    let topics = topics(&mut fields, MOST_TOPICS);
    for topic in &topics {
        if let Some(rule) = names::fault(topic) {
            fields.refuse("topics", rule);
            break;
        }
    }
    let client_id = fields.text("client_id", 1, NAME_MAX_LENGTH);
    let offset = match fields.optional("offset") {
        None => Some(Offset::Last),
        Some(Value::String(text)) => match text.as_str() {
            "last" => Some(Offset::Last),
            "earliest" => Some(Offset::Earliest),
            id => parse_message_id(id).map(Offset::After),
        },
        Some(_) => None,
    };
    if offset.is_none() {
        fields.refuse_as("offset", "offset must be last, earliest or a message_id");
    }
    let token = fields.optional("token");
    let token = token.map(|_| fields.text("token", 0, TOKEN_MAX_LENGTH));
    fields.finish_ignoring_others()?;
    Ok(Said::Subscribe(Subscribe {
        topics,
        client_id,
        offset: offset.unwrap_or(Offset::Last),
        token: token.map(Secret::from),
    }))
}

fn topics(fields: &mut Fields<'_>, most: usize) -> Vec<String> {
    let topics = fields.texts("topics", most);
    let is_empty = topics.is_empty();
    let is_list = fields
        .optional("topics")
        .is_some_and(|value| value.as_array().is_some_and(Vec::is_empty));
    if is_empty && is_list {
        fields.refuse("topics", Rule::AtLeast(Count::Items, 1, Some(0)));
    }
    topics
}

/// An error in a line.
pub(super) fn told(error: &Error) -> String {
    let Error::Invalid(faults) = error else {
        return error.to_string();
    };
    let lines = faults.iter().take(5).map(|fault| {
        let (place, text) = fastapi::told(fault);
        let steps = place.iter().skip(1).map(|step| match step {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        });
        let place = steps.collect::<Vec<_>>().join(".");
        if place.is_empty() {
            text
        } else {
            format!("{place}: {text}")
        }
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// What goes wrong, as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Subscription,
    UnknownType,
    Processing,
    Unauthorized,
    RateLimit,
    Closed,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscription => "SUBSCRIPTION_ERROR",
            Self::UnknownType => "UNKNOWN_MESSAGE_TYPE",
            Self::Processing => "PROCESSING_ERROR",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::RateLimit => "RATE_LIMIT_EXCEEDED",
            Self::Closed => "CONNECTION_CLOSED",
        }
    }
}

/// An error frame.
pub(super) fn error(code: Code, message: &str) -> String {
    json!({"type": "error", "code": code.name(), "message": message, "details": null}).to_string()
}

/// The answer to a subscribe.
pub(super) fn subscribed(topics: &[String], session_id: &str) -> String {
    json!({
        "type": "subscribed", "topics": topics, "session_id": session_id, "timestamp": names::now(),
    })
    .to_string()
}

/// The answer to an unsubscribe.
pub(super) fn unsubscribed(topics: &[String]) -> String {
    json!({"type": "unsubscribed", "topics": topics}).to_string()
}

/// The answer to a ping.
pub(super) fn pong() -> String {
    json!({"type": "pong", "timestamp": names::now()}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        match parse(text) {
            Err(Fault::Form(text)) => text,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn frames_of_clients_are_read_and_unknown_fields_ignored() {
        let text = r#"{"type": "subscribe", "topics": ["a", "b"], "client_id": "c", "x": 1}"#;
        let Ok(Said::Subscribe(subscribe)) = parse(text) else {
            panic!("no subscribe")
        };
        assert_eq!(subscribe.topics, ["a", "b"]);
        assert_eq!(
            (subscribe.client_id.as_str(), subscribe.offset),
            ("c", Offset::Last)
        );
        let id = "msg_01932c070a00700080000123456789ab";
        for (offset, expected) in [
            (r#""earliest""#.to_owned(), Offset::Earliest),
            ("null".to_owned(), Offset::Last),
            (
                format!("\"{id}\""),
                Offset::After(parse_message_id(id).unwrap()),
            ),
        ] {
            let text = format!(
                r#"{{"type": "subscribe", "topics": ["a"], "client_id": "c", "offset": {offset}}}"#
            );
            let Ok(Said::Subscribe(subscribe)) = parse(&text) else {
                panic!("{text}")
            };
            assert_eq!(subscribe.offset, expected);
        }
        assert!(matches!(parse(r#"{"type": "ping"}"#), Ok(Said::Ping)));
        assert!(matches!(
            parse(r#"{"type": "ack", "message_id": "x"}"#),
            Ok(Said::Ack)
        ));
        let unsubscribe = parse(r#"{"type": "unsubscribe", "topics": ["a"]}"#);
        assert!(matches!(unsubscribe, Ok(Said::Unsubscribe(topics)) if topics == ["a"]));
    }

    #[test]
    fn bad_frames_are_told_apart() {
        let unknown = parse(r#"{"type": "dance"}"#).unwrap_err();
        assert_eq!(unknown, Fault::Type("dance".to_owned()));
        for (text, expected) in [
            ("{", "0: JSON decode error"),
            ("[]", "Input should be a valid dictionary"),
            ("{}", "type: Field required"),
            (r#"{"type": 5}"#, "type: Input should be a valid string"),
            (r#"{"type": "ack"}"#, "message_id: Field required"),
            (
                r#"{"type": "unsubscribe", "topics": []}"#,
                "topics: List should have at least 1",
            ),
            (
                r#"{"type": "subscribe", "topics": ["a b"], "client_id": ""}"#,
                "topics: Value error, topic must have letters",
            ),
            (
                r#"{"type": "subscribe", "topics": ["a"], "client_id": "c", "offset": "then"}"#,
                "offset: Value error, offset must be",
            ),
        ] {
            let told = form(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
        let many = json!({"type": "subscribe", "topics": vec!["a"; 51], "client_id": "c"});
        assert!(form(&many.to_string()).contains("at most 50"));
    }
}
