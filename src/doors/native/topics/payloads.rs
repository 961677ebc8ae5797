//! The payloads of a publish of the Python original, without building a tree: each goes to Postgres as
//! the bytes that came. What Postgres could not store is refused here.

use axum::body::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::db::json::JsonText;
use crate::doors::given;
use crate::doors::tree::{self, List};
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Rule, Step};

/// Most messages of one publish: so many take about a second to store.
pub const MAX_MESSAGES: usize = 100_000;

/// The payloads of a body, which must be an array of objects.
///
/// # Errors
/// 422 naming the first bad positions and what is wrong.
pub fn parse(body: &Bytes) -> Result<Vec<JsonText>, Error> {
    let Ok(List { items, count }) = tree::list(body, MAX_MESSAGES) else {
        return Err(tree::not_a(Form::List, body));
    };
    if count > MAX_MESSAGES {
        let rule = Rule::AtMost(Count::Items, MAX_MESSAGES, Some(count));
        return Err(Error::fault(Vec::new(), rule));
    }
    let mut faults = Vec::new();
    let mut payloads = Vec::with_capacity(items.len());
    for (position, text) in items.into_iter().enumerate() {
        match payload(body, text, || vec![position.into()]) {
            Ok(payload) => payloads.push(payload),
            Err(fault) => faults.push(fault),
        }
        if faults.len() == MAX_FAULTS {
            break;
        }
    }
    if faults.is_empty() {
        Ok(payloads)
    } else {
        Err(Error::Invalid(faults))
    }
}

/// A payload in a body.
///
/// # Errors
/// What is wrong with it, at `path`.
pub fn payload(
    body: &Bytes,
    text: &RawValue,
    path: impl FnOnce() -> Vec<Step>,
) -> Result<JsonText, Fault> {
    if !text.get().starts_with('{') {
        return Err(Fault::body(
            path(),
            Rule::Is(Form::Object),
            given::json(text.get()),
        ));
    }
    JsonText::part_of(body, text)
        .map_err(|reason| Fault::body(path(), Rule::Refused(reason.to_owned()), Value::Null))
}
