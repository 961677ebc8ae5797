//! Bodies that hold a message: `{"id"?, "message_body"}`, or `message` as older clients call it. Whatever
//! else there is in them is ignored, as PyQueue Server does.

use axum::body::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::db::json::JsonText;
use crate::doors::fields::Fields;
use crate::doors::{given, tree};
use crate::error::{Error, Fault, Form, Rule};

/// Most characters of the id of a message.
pub(super) const ID_MAX_LENGTH: usize = 256;
const BODY: &str = "message_body";

/// A message to add, or what is to become of one.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its id; a new one where the client chose none.
    pub(super) id: String,
    /// What it holds, an object.
    pub(super) payload: JsonText,
}

/// Read a body, whose message has at most so many bytes; the id of one that names another message does not count.
///
/// # Errors
/// 422 with all faults, 413 for a message that is too large.
pub(super) fn parse(body: &Bytes, most: usize, has_id: bool) -> Result<Sent, Error> {
    let fields = tree::object(body).map_err(|_| tree::not_a(Form::Fields, body))?;
    let mut faults = Vec::new();
    let id = match fields.get("id").filter(|_| has_id) {
        None => None,
        Some(id) => id_of(id).unwrap_or_else(|wrong| {
            faults.extend(wrong);
            None
        }),
    };
    let given = [BODY, "message"].into_iter().find_map(|name| {
        let text = fields.get(name).filter(|text| text.get() != "null")?;
        Some((name, *text))
    });
    let payload = match given {
        None => Err(Fault::body(vec![BODY.into()], Rule::Required, Value::Null)),
        Some((name, text)) => payload(body, text, name),
    };
    let payload = payload.map_err(|fault| faults.push(fault)).ok();
    match payload {
        Some(payload) if faults.is_empty() => {
            check_size(&payload, most)?;
            Ok(Sent {
                id: id.unwrap_or_else(|| Uuid::new_v4().to_string()),
                payload,
            })
        }
        _ => Err(Error::Invalid(faults)),
    }
}

/// The id of a body, where it is not null; or what is wrong with it.
fn id_of(text: &RawValue) -> Result<Option<String>, Vec<Fault>> {
    let body = json!({ "id": given::json(text.get()) });
    let parsed = Fields::of_body(&body).and_then(|mut fields| {
        let is_given = fields.optional("id").is_some();
        let id = is_given.then(|| fields.text("id", 1, ID_MAX_LENGTH));
        fields.finish().map(|()| id)
    });
    parsed.map_err(|error| match error {
        Error::Invalid(faults) => faults,
        _ => Vec::new(),
    })
}

/// What a message holds: an object, or a text, which becomes the field `content` of one.
fn payload(body: &Bytes, text: &RawValue, name: &'static str) -> Result<JsonText, Fault> {
    let read = match text.get().as_bytes().first() {
        Some(b'{') => JsonText::part_of(body, text),
        Some(b'"') => JsonText::written(format!("{{\"content\":{}}}", text.get())),
        _ => {
            let given = given::json(text.get());
            return Err(Fault::body(
                vec![name.into()],
                Rule::Is(Form::Object),
                given,
            ));
        }
    };
    read.map_err(|reason| {
        Fault::body(
            vec![name.into()],
            Rule::Refused(reason.to_owned()),
            Value::Null,
        )
    })
}

fn check_size(payload: &JsonText, most: usize) -> Result<(), Error> {
    // as it was sent it is longer where its client escapes
    if payload.size() <= most {
        return Ok(());
    }
    let bytes = written_size(payload.as_str());
    if bytes <= most {
        return Ok(());
    }
    let text = format!(
        "the message has {bytes} bytes, the limit is {most} (FASTPUBSUB_PYQUEUE_MAX_MESSAGE_SIZE)"
    );
    Err(Error::refused(413, text))
}

/// How many bytes a JSON text has without space between its tokens, and without escapes that it does not need.
fn written_size(json: &str) -> usize {
    let mut bytes = json.bytes().peekable();
    let (mut size, mut in_text) = (0, false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                in_text = !in_text;
                size += 1;
            }
            b'\\' if bytes.peek() == Some(&b'u') => {
                let digits: Vec<u8> = bytes.by_ref().skip(1).take(4).collect();
                size += match digits.as_slice() {
                    // control characters stay as they are
                    [b'0', b'0', b'0' | b'1', _] => 6,
                    [b'0', b'0', b'2'..=b'7', _] => 1,
                    // also each half of a pair
                    [b'0', b'0'..=b'7', ..]
                    | [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..] => 2,
                    _ => 3,
                };
            }
            b'\\' => {
                let escaped = bytes.next();
                size += if escaped == Some(b'/') { 1 } else { 2 };
            }
            b' ' | b'\t' | b'\n' | b'\r' if !in_text => {}
            _ => size += 1,
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_is_written_without_need() {
        for value in [
            json!({"a": [1, -2.5, true, null, "x y"], "b c": {}}),
            json!({"t": "é😀\u{7ff}\u{800}\u{ffff}~\u{80}\"\\/ \t\n\u{1}"}),
        ] {
            let compact = value.to_string();
            let mut escaped = String::new();
            for c in compact.chars() {
                match c {
                    c if c.is_ascii() => escaped.push(c),
                    c => {
                        let mut units = [0; 2];
                        for unit in c.encode_utf16(&mut units) {
                            escaped.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                }
            }
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            // serde writes \u0001 as we count it
            for text in [&compact, &escaped, &pretty] {
                assert_eq!(written_size(text), compact.len(), "{text}");
            }
        }
    }
}
