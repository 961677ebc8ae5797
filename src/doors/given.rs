//! What a fault shows of the value that was given: all of it where it is short, else its beginning. A
//! refusal must not cost more than the request.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Part, Step};

/// Most bytes of a value that are shown.
const MOST_BYTES: usize = 2048;
/// Most bytes of a field's name that are shown.
const MOST_BYTES_OF_NAME: usize = 1024;

/// What is shown of a value.
#[must_use]
pub fn value(value: &Value) -> Value {
    if let Value::String(text) = value {
        return text_up_to(text, MOST_BYTES);
    }
    short(value).map_or_else(|start| start, |()| value.clone())
}

/// What is shown of an object.
#[must_use]
pub fn object(fields: &Map<String, Value>) -> Value {
    short(fields).map_or_else(|start| start, |()| Value::Object(fields.clone()))
}

/// Whether something is short enough to be shown; else its beginning.
fn short(value: &impl Serialize) -> Result<(), Value> {
    let mut start = Start(Vec::new());
    serde_json::to_writer(&mut start, value)
        .map_err(|_| text_up_to(&String::from_utf8_lossy(&start.0), MOST_BYTES))
}

/// What is shown of a value that is still a JSON text.
#[must_use]
pub fn json(text: &str) -> Value {
    if text.len() <= MOST_BYTES {
        serde_json::from_str(text).unwrap_or_default()
    } else {
        text_up_to(text, MOST_BYTES)
    }
}

/// What kind of value a JSON text is, its content where that is no list and no object: those of many
/// texts that are kept together must not cost more than the texts.
#[must_use]
pub fn outline(text: &str) -> Value {
    match text.as_bytes().first() {
        Some(b'[') => json!([]),
        Some(b'{') => json!({}),
        _ => json(text),
    }
}

/// What is shown of bytes that are no JSON.
#[must_use]
pub fn bytes(bytes: &[u8]) -> Value {
    let start = bytes.get(..MOST_BYTES + 1).unwrap_or(bytes);
    text_up_to(&String::from_utf8_lossy(start), MOST_BYTES)
}

fn text_up_to(text: &str, most: usize) -> Value {
    if text.len() <= most {
        return json!(text);
    }
    let end = text.floor_char_boundary(most);
    json!(format!("{}...", text.get(..end).unwrap_or_default()))
}

/// What is shown of the name of a field, which clients chose.
#[must_use]
pub fn name(name: &str) -> Value {
    text_up_to(name, MOST_BYTES_OF_NAME)
}

/// A refusal of the engine, which knows places only, with what the body held there.
#[must_use]
pub fn in_body(mut error: Error, body: &Value) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults.iter_mut().filter(|fault| fault.given.is_null()) {
            let found = fault.path.iter().try_fold(body, |value, step| match step {
                Step::Field(name) => value.get(name),
                Step::Position(position) => value.get(position),
            });
            fault.given = found.map(value).unwrap_or_default();
        }
    }
    error
}

/// A refusal of the engine, of something that came in the query.
#[must_use]
pub fn in_query(mut error: Error, query: &Map<String, Value>) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults {
            if let Some(Step::Field(name)) = fault.path.first() {
                fault.given = query.get(name).cloned().unwrap_or_default();
            }
            fault.part = Part::Query;
        }
    }
    error
}

/// Keeps the beginning of what is written, and then fails.
struct Start(Vec<u8>);

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend(bytes.iter().take(MOST_BYTES + 1));
        if self.0.len() > MOST_BYTES {
            return Err(io::Error::other("long enough"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_are_shown_as_they_are_and_long_ones_by_their_beginning() {
        let short = json!({"a": [1, "b", null]});
        assert_eq!(value(&short), short);
        assert_eq!(json(&short.to_string()), short);

        let long = json!(vec!["\u{e9}"; 100_000]);
        for shown in [
            value(&long),
            json(&long.to_string()),
            bytes(long.to_string().as_bytes()),
            value(&json!("\u{e9}".repeat(100_000))),
        ] {
            let shown = shown.as_str().unwrap().to_owned();
            assert!(shown.len() <= MOST_BYTES + 3, "{}", shown.len());
            assert!(shown.ends_with("..."), "{shown}");
        }
    }
}
