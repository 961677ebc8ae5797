//! Reading the messages of a publish from its body without building a tree: each payload goes to
//! Postgres as the bytes that came. What Postgres could not store is refused here.

use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::tree::{self, List};
use super::validation::{fault, fault_with};
use crate::db::json::JsonText;
use crate::error::{Error, Fault, MAX_FAULTS};
use crate::given;

/// Deepest nesting of a payload. Postgres could take more, JSON libraries of consumers may not.
pub const MAX_DEPTH: usize = 512;
/// Most messages of one publish: so many take about a second to store.
pub const MAX_MESSAGES: usize = 100_000;
/// Largest exponent of a number: what a double holds (RFC 8259, section 6).
const MAX_EXPONENT: usize = 308;

/// The payloads of a body, which must be an array of objects.
///
/// # Errors
/// 422 naming the first bad position and what is wrong; 413 when a payload is too large.
pub fn parse(body: &Bytes, max_message_bytes: usize) -> Result<Vec<JsonText>, Error> {
    let Ok(List {
        items: payloads,
        count,
    }) = tree::list(body, MAX_MESSAGES)
    else {
        let msg = "Input should be a valid list";
        return Err(tree::not_a("list_type", msg, body));
    };
    if count > MAX_MESSAGES {
        let msg =
            format!("List should have at most {MAX_MESSAGES} items after validation, not {count}");
        let ctx = json!({"max_length": MAX_MESSAGES, "actual_length": count});
        let loc = vec![json!("body")];
        return Err(Error::Invalid(vec![fault_with(
            "too_long",
            loc,
            &msg,
            Value::Null,
            ctx,
        )]));
    }
    let mut faults = Vec::new();
    for (position, payload) in payloads.iter().enumerate() {
        if faults.len() == MAX_FAULTS {
            break;
        }
        let loc = vec![json!("body"), json!(position)];
        faults.extend(check(payload, position, loc, max_message_bytes)?);
    }
    if faults.is_empty() {
        let text = |payload| JsonText::part_of(body, payload);
        Ok(payloads.into_iter().map(text).collect())
    } else {
        Err(Error::Invalid(faults))
    }
}

/// What is wrong with one payload, at `loc`.
///
/// # Errors
/// 413 when it is too large, naming the position of its message.
pub fn check(
    payload: &RawValue,
    position: usize,
    loc: Vec<Value>,
    max_bytes: usize,
) -> Result<Option<Fault>, Error> {
    if !payload.get().starts_with('{') {
        let input = given::json(payload.get());
        let msg = "Input should be a valid dictionary";
        return Ok(Some(fault("dict_type", loc, msg, input)));
    }
    match stored_size(payload.get()) {
        Ok(bytes) if bytes > max_bytes => Err(Error::Refused {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!(
                "message {position} has {bytes} bytes, the limit is {max_bytes} \
                 (FASTPUBSUB_API_MAX_MESSAGE_BYTES)"
            ),
        }),
        Ok(_) => Ok(None),
        Err(reason) => Ok(Some(refused(loc, reason))),
    }
}

fn refused(loc: Vec<Value>, reason: &str) -> Fault {
    let msg = format!("Value error, {reason}");
    fault_with("value_error", loc, &msg, Value::Null, json!({"error": {}}))
}

/// How many bytes Postgres prints for a payload, numbers written out; or why it cannot store it.
fn stored_size(json: &str) -> Result<usize, &'static str> {
    let bytes = json.as_bytes();
    let mut size = bytes.len();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err("the payload is nested deeper than 512 levels");
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'e' | b'E' if at > 0 && bytes.get(at - 1).is_some_and(u8::is_ascii_digit) => {
                let digits = bytes.get(at + 1..).unwrap_or_default();
                let digits = digits
                    .strip_prefix(b"-")
                    .or(digits.strip_prefix(b"+"))
                    .unwrap_or(digits);
                let exponent = digits
                    .iter()
                    .take_while(|digit| digit.is_ascii_digit())
                    .fold(0_usize, |sum, digit| {
                        sum.saturating_mul(10)
                            .saturating_add(usize::from(digit - b'0'))
                    });
                if exponent > MAX_EXPONENT {
                    return Err("a number has an exponent beyond 308");
                }
                size = size.saturating_add(exponent);
            }
            _ => {}
        }
        at += 1;
    }
    Ok(size)
}

/// The position of the quote that ends a string, whose escapes Postgres must be able to store.
fn string_end(bytes: &[u8], start: usize) -> Result<usize, &'static str> {
    let mut at = start;
    loop {
        match bytes.get(at) {
            Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => {
                match code_unit(bytes, at + 2) {
                    Some(0) => return Err("\\u0000 cannot be stored"),
                    Some(0xD800..=0xDBFF) => {
                        let low = (bytes.get(at + 6..at + 8) == Some(b"\\u"))
                            .then(|| code_unit(bytes, at + 8))
                            .flatten();
                        if !matches!(low, Some(0xDC00..=0xDFFF)) {
                            return Err("a \\u surrogate lacks its other half");
                        }
                        at += 6;
                    }
                    Some(0xDC00..=0xDFFF) => return Err("a \\u surrogate lacks its other half"),
                    _ => {}
                }
                at += 6;
            }
            Some(b'\\') => at += 2,
            Some(b'"') | None => return Ok(at),
            Some(_) => at += 1,
        }
    }
}

fn code_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// Why a JSON text cannot be stored by Postgres, if so.
#[must_use]
pub fn unstorable(json: &str) -> Option<&'static str> {
    stored_size(json).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_cannot_store_is_named() {
        for (json, reason) in [
            (r#"{"a":"\u0000"}"#, "\\u0000"),
            (r#"{"\u0000":1}"#, "\\u0000"),
            (r#"{"a":"\ud800"}"#, "surrogate"),
            (r#"{"a":"\udc00\ud800"}"#, "surrogate"),
            (r#"{"a":"\ud800\ud800"}"#, "surrogate"),
            (r#"{"a":1e309}"#, "exponent"),
            (r#"{"a":-1E-99999999999999999999999}"#, "exponent"),
            (&format!("{}{}", "[".repeat(513), "]".repeat(513)), "nested"),
        ] {
            assert!(stored_size(json).unwrap_err().contains(reason), "{json}");
        }
    }

    #[test]
    fn ordinary_payloads_pass_and_numbers_count_as_written_out() {
        for json in [
            r#"{"a":"\ud83d\ude00 \\u0000 \"e9\" {[","e999":[1,2.5,{}]}"#,
            &format!("{}{}", "[".repeat(512), "]".repeat(512)),
        ] {
            assert_eq!(stored_size(json), Ok(json.len()));
        }
        assert_eq!(stored_size(r#"{"a":1e300}"#), Ok(11 + 300));
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_by_position() {
        let body = Bytes::from_static(br#"[{"a":1},{"a":"xxxxxxxxxx"}]"#);
        let error = parse(&body, 10).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("message 1 has 18 bytes, the limit is 10")
        );
    }
}
