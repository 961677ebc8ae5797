//! Times in request bodies: RFC 3339.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::validation::Fields;

/// A time, if given.
pub fn optional(fields: &mut Fields<'_>, name: &'static str) -> Option<DateTime<Utc>> {
    let value = fields.optional(name)?;
    let time = value.as_str().map(DateTime::parse_from_rfc3339);
    if let Some(Ok(time)) = time {
        return Some(time.to_utc());
    }
    let (kind, msg) = match value {
        Value::String(_) => (
            "datetime_parsing",
            "Input should be a valid datetime, such as 2026-01-02T03:04:05Z",
        ),
        _ => ("datetime_type", "Input should be a valid datetime"),
    };
    fields.refuse(name, kind, msg, None);
    None
}
