//! Times in request bodies: RFC 3339.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::doors::fields::Fields;
use crate::error::{Form, Rule};

/// A time, if given.
pub fn optional(fields: &mut Fields<'_>, name: &'static str) -> Option<DateTime<Utc>> {
    let value = fields.optional(name)?;
    let time = value.as_str().map(DateTime::parse_from_rfc3339);
    if let Some(Ok(time)) = time {
        return Some(time.to_utc());
    }
    let rule = match value {
        Value::String(_) => Rule::Reads(Form::Time, None),
        _ => Rule::Is(Form::Time),
    };
    fields.refuse(name, rule);
    None
}
