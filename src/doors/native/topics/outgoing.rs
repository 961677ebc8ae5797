//! Reading messages that are to be published, with all they may carry: `{"payload": {}, ...}`. What
//! is wrong is told by its place in the body.

use std::collections::HashMap;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::payloads::payload;
use crate::db::json::JsonText;
use crate::db::publish::{Extras, Publication};
use crate::doors::fields::Fields;
use crate::doors::given;
use crate::doors::native::times;
use crate::doors::tree::{self, List};
use crate::engine::message::{
    ATTRIBUTE_MAX_LENGTH, ATTRIBUTE_NAME_MAX_LENGTH, IDEMPOTENCY_KEY_MAX_LENGTH, MAX_ATTRIBUTES,
    MAX_PRIORITY, MAX_SECONDS, MESSAGE_KEY_MAX_LENGTH, ORDERING_KEY_MAX_LENGTH,
};
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Rule, Step};

/// Most messages of one request.
pub const MAX_MESSAGES: usize = 1000;
/// The fields of a message.
const FIELDS: [&str; 10] = [
    "payload",
    "attributes",
    "ordering_key",
    "priority",
    "delay_seconds",
    "deliver_at",
    "ttl_seconds",
    "expires_at",
    "idempotency_key",
    "message_key",
];

/// A message to publish.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
pub struct OutgoingMessage {
    /// What is published.
    #[schema(value_type = Object, example = json!({"order_id": 1}))]
    payload: Value,
    /// Up to 100 strings by name; filters find them under "attributes".
    #[schema(value_type = Option<HashMap<String, String>>, example = json!({"region": "eu"}))]
    attributes: Option<Value>,
    /// Messages with the same key are delivered in order, where a subscription has enable_ordering.
    #[schema(min_length = 1, max_length = 1024)]
    ordering_key: Option<String>,
    /// The higher ones are delivered first.
    #[schema(minimum = 0, maximum = 9, default = 0)]
    priority: Option<i16>,
    /// Seconds until it can be consumed; not together with deliver_at.
    #[schema(minimum = 0, maximum = 31_536_000)]
    delay_seconds: Option<i32>,
    /// When it can be consumed, at most 365 days ahead; not together with delay_seconds.
    deliver_at: Option<DateTime<Utc>>,
    /// For how many seconds it can be consumed; not together with expires_at.
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl_seconds: Option<i32>,
    /// When it can no longer be consumed; not together with ttl_seconds.
    expires_at: Option<DateTime<Utc>>,
    /// A message under a key that was used in this topic lately is not published again.
    #[schema(min_length = 1, max_length = 256)]
    idempotency_key: Option<String>,
    /// It is not published while another message under the key is queued, or in hands, in this topic.
    #[schema(min_length = 1, max_length = 256)]
    message_key: Option<String>,
}

/// The messages in `list`, a part of `body` that was found at `path`.
///
/// # Errors
/// 422 with all faults.
pub fn read(body: &Bytes, list: &RawValue, path: &[Step]) -> Result<Publication, Error> {
    let texts = texts(list, path)?;
    let mut faults = Vec::new();
    let mut publication = Publication {
        wants_ids: true,
        ..Publication::default()
    };
    for (position, text) in texts.into_iter().enumerate() {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        let path = [path, &[position.into()]].concat();
        let Ok(fields) = tree::object(text.get().as_bytes()) else {
            let given = given::json(text.get());
            faults.push(Fault::body(path, Rule::Is(Form::Fields), given));
            continue;
        };
        if let Some(text) = fields.get("payload") {
            match payload(body, text, || {
                [path.as_slice(), &["payload".into()]].concat()
            }) {
                Ok(payload) => publication.payloads.push(payload),
                Err(fault) => faults.push(fault),
            }
        }
        let read = match extras(body, &fields) {
            Ok(read) => read,
            Err(Error::Invalid(found)) => {
                faults.extend(found.into_iter().map(|fault| fault.within(&path)));
                Extras::default()
            }
            Err(error) => return Err(error),
        };
        publication.extras.push(read);
    }
    if !faults.is_empty() {
        faults.truncate(MAX_FAULTS);
        return Err(Error::Invalid(faults));
    }
    if publication.extras.iter().all(Extras::is_empty) {
        publication.extras.clear();
    }
    Ok(publication)
}

/// The messages of a list, as they came.
fn texts<'a>(list: &'a RawValue, path: &[Step]) -> Result<Vec<&'a RawValue>, Error> {
    let Ok(List {
        items: texts,
        count,
    }) = tree::list(list.get().as_bytes(), MAX_MESSAGES)
    else {
        let given = given::json(list.get());
        let fault = Fault::body(path.to_vec(), Rule::Is(Form::List), given);
        return Err(Error::Invalid(vec![fault]));
    };
    let (rule, given) = match count {
        0 => (Rule::AtLeast(Count::Items, 1, Some(0)), json!([])),
        count if count > MAX_MESSAGES => {
            let rule = Rule::AtMost(Count::Items, MAX_MESSAGES, Some(count));
            (rule, Value::Null)
        }
        _ => return Ok(texts),
    };
    Err(Error::Invalid(vec![Fault::body(
        path.to_vec(),
        rule,
        given,
    )]))
}

/// All of a message but its payload.
fn extras(body: &Bytes, texts: &HashMap<String, &RawValue>) -> Result<Extras, Error> {
    let value = |(name, text): (&String, &&RawValue)| {
        // the payload stays as it came: here it only matters that there is one
        let value = match name.as_str() {
            "payload" => Value::Null,
            // what no value can hold, such as 1e999, is wrong for every field, like a list
            name if FIELDS.contains(&name) => tree::part(text).unwrap_or_else(|| json!([])),
            _ => given::outline(text.get()),
        };
        (name.clone(), value)
    };
    let values = Value::Object(texts.iter().map(value).collect::<Map<_, _>>());
    let mut fields = Fields::of_body(&values)?;
    fields.required("payload");
    let mut extras = Extras {
        ordering_key: text(&mut fields, "ordering_key", ORDERING_KEY_MAX_LENGTH),
        priority: integer(&mut fields, "priority", 0, MAX_PRIORITY)
            .and_then(|priority| i16::try_from(priority).ok()),
        deliver_at: times::optional(&mut fields, "deliver_at"),
        delay_seconds: integer(&mut fields, "delay_seconds", 0, MAX_SECONDS).map(f64::from),
        expires_at: times::optional(&mut fields, "expires_at"),
        ttl_seconds: integer(&mut fields, "ttl_seconds", 1, MAX_SECONDS).map(f64::from),
        idempotency_key: text(&mut fields, "idempotency_key", IDEMPOTENCY_KEY_MAX_LENGTH),
        message_key: text(&mut fields, "message_key", MESSAGE_KEY_MAX_LENGTH),
        attributes: None,
    };
    for (one, other) in [
        ("deliver_at", "delay_seconds"),
        ("expires_at", "ttl_seconds"),
    ] {
        if fields.optional(one).is_some() && fields.optional(other).is_some() {
            fields.refuse_as(one, format!("{one} and {other} exclude each other"));
        }
    }
    let attributes = fields.optional("attributes");
    let mut faults = match fields.finish() {
        Ok(()) => Vec::new(),
        Err(Error::Invalid(faults)) => faults,
        Err(error) => return Err(error),
    };
    if let (Some(values), Some(text)) = (attributes, texts.get("attributes")) {
        faults.extend(attribute_faults(values));
        match JsonText::part_of(body, text) {
            Ok(attributes) => extras.attributes = Some(attributes),
            Err(reason) => {
                let rule = Rule::Refused(reason.to_owned());
                faults.push(attribute_fault(None, rule, values));
            }
        }
    }
    if faults.is_empty() {
        Ok(extras)
    } else {
        Err(Error::Invalid(faults))
    }
}

fn text(fields: &mut Fields<'_>, name: &'static str, max: usize) -> Option<String> {
    fields.optional(name)?;
    Some(fields.text(name, 1, max))
}

fn integer(fields: &mut Fields<'_>, name: &'static str, min: i32, max: i32) -> Option<i32> {
    fields.optional(name)?;
    Some(fields.int(name, min, min, max))
}

fn attribute_fault(name: Option<&str>, rule: Rule, given: &Value) -> Fault {
    let path = std::iter::once("attributes").chain(name);
    Fault::body(path.map(Step::from).collect(), rule, given::value(given))
}

/// What is wrong with the attributes of a message.
fn attribute_faults(attributes: &Value) -> Vec<Fault> {
    let Some(values) = attributes.as_object() else {
        return vec![attribute_fault(None, Rule::Is(Form::Object), attributes)];
    };
    if values.len() > MAX_ATTRIBUTES {
        let rule = Rule::AtMost(Count::Entries, MAX_ATTRIBUTES, Some(values.len()));
        return vec![attribute_fault(None, rule, &Value::Null)];
    }
    let fault_of = |(name, value): (&String, &Value)| {
        let rule = match value.as_str() {
            None => Rule::Is(Form::Text),
            _ if name.is_empty() => Rule::AtLeast(Count::NameCharacters, 1, None),
            _ if name.chars().count() > ATTRIBUTE_NAME_MAX_LENGTH => {
                Rule::AtMost(Count::NameCharacters, ATTRIBUTE_NAME_MAX_LENGTH, None)
            }
            Some(text) if text.chars().count() > ATTRIBUTE_MAX_LENGTH => {
                Rule::AtMost(Count::Characters, ATTRIBUTE_MAX_LENGTH, None)
            }
            Some(_) => return None,
        };
        Some(attribute_fault(Some(name), rule, value))
    };
    values.iter().filter_map(fault_of).collect()
}
