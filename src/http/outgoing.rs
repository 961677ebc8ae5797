//! Reading messages that are to be published, with all they may carry: `{"payload": {}, ...}`. What
//! is wrong is told by its place in the body.

use std::collections::HashMap;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::tree::{self, List};
use super::validation::{Fields, fault, fault_with};
use super::{payload, times};
use crate::db::json::JsonText;
use crate::db::publish::{Extras, Publication};
use crate::error::{Error, Fault, MAX_FAULTS};
use crate::given;

/// Most messages of one request.
pub const MAX_MESSAGES: usize = 1000;
/// Longest delay and life of a message, in seconds: 365 days.
const MAX_SECONDS: i32 = 31_536_000;
/// Most attributes of a message.
const MAX_ATTRIBUTES: usize = 100;

/// The fields of a message.
const FIELDS: [&str; 9] = [
    "payload",
    "attributes",
    "ordering_key",
    "priority",
    "delay_seconds",
    "deliver_at",
    "ttl_seconds",
    "expires_at",
    "idempotency_key",
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
}

/// The messages in `list`, a part of `body` that was found at `loc`.
///
/// # Errors
/// 422 with all faults; 413 when a payload is too large.
pub fn read(
    body: &Bytes,
    list: &RawValue,
    loc: &[Value],
    max_message_bytes: usize,
) -> Result<Publication, Error> {
    let texts = texts(list, loc)?;
    let mut faults = Vec::new();
    let mut publication = Publication {
        wants_ids: true,
        ..Publication::default()
    };
    for (position, text) in texts.into_iter().enumerate() {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        let mut loc = loc.to_vec();
        loc.push(json!(position));
        let Ok(fields) = tree::object(text.get().as_bytes()) else {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            let input = given::json(text.get());
            faults.push(fault("model_attributes_type", loc, msg, input));
            continue;
        };
        if let Some(payload) = fields.get("payload") {
            let mut loc = loc.clone();
            loc.push(json!("payload"));
            faults.extend(payload::check(payload, position, loc, max_message_bytes)?);
            publication.payloads.push(JsonText::part_of(body, payload));
        }
        let read = match extras(body, &fields) {
            Ok(read) => read,
            Err(Error::Invalid(found)) => {
                faults.extend(found.into_iter().map(|fault| moved(fault, &loc)));
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
fn texts<'a>(list: &'a RawValue, loc: &[Value]) -> Result<Vec<&'a RawValue>, Error> {
    let Ok(List {
        items: texts,
        count,
    }) = tree::list(list.get().as_bytes(), MAX_MESSAGES)
    else {
        let input = given::json(list.get());
        let msg = "Input should be a valid list";
        return Err(Error::Invalid(vec![fault(
            "list_type",
            loc.to_vec(),
            msg,
            input,
        )]));
    };
    let (kind, msg, ctx) = if texts.is_empty() {
        (
            "too_short",
            "List should have at least 1 item after validation, not 0".to_owned(),
            json!({"min_length": 1, "actual_length": 0}),
        )
    } else if count > MAX_MESSAGES {
        (
            "too_long",
            format!("List should have at most {MAX_MESSAGES} items after validation, not {count}"),
            json!({"max_length": MAX_MESSAGES, "actual_length": count}),
        )
    } else {
        return Ok(texts);
    };
    let input = if count == 0 { json!([]) } else { Value::Null };
    Err(Error::Invalid(vec![fault_with(
        kind,
        loc.to_vec(),
        &msg,
        input,
        ctx,
    )]))
}

/// A fault of a message, told by the place of the message.
fn moved(mut fault: Fault, message: &[Value]) -> Fault {
    let inside = fault.loc.split_off(1);
    fault.loc = message.iter().cloned().chain(inside).collect();
    fault
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
        ordering_key: text(&mut fields, "ordering_key", 1024),
        priority: integer(&mut fields, "priority", 0, 9)
            .and_then(|priority| i16::try_from(priority).ok()),
        deliver_at: times::optional(&mut fields, "deliver_at"),
        delay_seconds: integer(&mut fields, "delay_seconds", 0, MAX_SECONDS),
        expires_at: times::optional(&mut fields, "expires_at"),
        ttl_seconds: integer(&mut fields, "ttl_seconds", 1, MAX_SECONDS),
        idempotency_key: text(&mut fields, "idempotency_key", 256),
        attributes: None,
    };
    for (one, other) in [
        ("deliver_at", "delay_seconds"),
        ("expires_at", "ttl_seconds"),
    ] {
        if fields.optional(one).is_some() && fields.optional(other).is_some() {
            let msg = format!("Value error, {one} and {other} exclude each other");
            fields.refuse(one, "value_error", &msg, Some(json!({"error": {}})));
        }
    }
    let attributes = fields.optional("attributes");
    let mut faults = match fields.finish() {
        Ok(()) => Vec::new(),
        Err(Error::Invalid(faults)) => faults,
        Err(error) => return Err(error),
    };
    if let (Some(values), Some(text)) = (attributes, texts.get("attributes")) {
        faults.extend(attribute_faults(values, text));
        extras.attributes = Some(JsonText::part_of(body, text));
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

/// What is wrong with the attributes of a message.
fn attribute_faults(attributes: &Value, text: &RawValue) -> Vec<Fault> {
    let refused = |kind, name: Option<&str>, msg: &str, input: &Value, ctx: Value| {
        let mut loc = vec![json!("body"), json!("attributes")];
        loc.extend(name.map(|name| json!(name)));
        Fault {
            ctx: (!ctx.is_null()).then_some(ctx),
            ..fault(kind, loc, msg, given::value(input))
        }
    };
    let Some(values) = attributes.as_object() else {
        let msg = "Input should be a valid dictionary";
        return vec![refused("dict_type", None, msg, attributes, Value::Null)];
    };
    if let Some(reason) = payload::unstorable(text.get()) {
        let msg = format!("Value error, {reason}");
        let ctx = json!({"error": {}});
        return vec![refused("value_error", None, &msg, attributes, ctx)];
    }
    if values.len() > MAX_ATTRIBUTES {
        let count = values.len();
        let msg = format!(
            "Dictionary should have at most {MAX_ATTRIBUTES} items after validation, not {count}"
        );
        let ctx = json!({"max_length": MAX_ATTRIBUTES, "actual_length": count});
        return vec![refused("too_long", None, &msg, &Value::Null, ctx)];
    }
    let fault_of = |(name, value): (&String, &Value)| {
        let too_long = |max: usize| {
            let msg = format!("String should have at most {max} characters");
            let ctx = json!({"max_length": max});
            ("string_too_long", msg, ctx)
        };
        let (kind, msg, ctx) = match value.as_str() {
            None => {
                let msg = "Input should be a valid string".to_owned();
                ("string_type", msg, Value::Null)
            }
            _ if name.is_empty() => {
                let msg = "The name of an attribute should have at least 1 character".to_owned();
                ("string_too_short", msg, json!({"min_length": 1}))
            }
            _ if name.chars().count() > 256 => {
                let msg = "The name of an attribute should have at most 256 characters".to_owned();
                ("string_too_long", msg, json!({"max_length": 256}))
            }
            Some(value) if value.chars().count() > 1024 => too_long(1024),
            Some(_) => return None,
        };
        Some(refused(kind, Some(name), &msg, value, ctx))
    };
    values.iter().filter_map(fault_of).collect()
}
