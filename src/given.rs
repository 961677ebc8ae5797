//! What a fault shows of the value that was given: all of it where it is short, else its beginning. A
//! refusal must not cost more than the request.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

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

/// For serde: the input of a fault.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(input: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    value(input).serialize(serializer)
}

/// For serde: the place of a fault, with names that clients chose.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_place<S: Serializer>(place: &[Value], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(place.iter().map(|step| match step {
        Value::String(name) => text_up_to(name, MOST_BYTES_OF_NAME),
        step => step.clone(),
    }))
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
