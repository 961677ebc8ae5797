//! What Postgres can store of JSON, told before it is asked.

/// Deepest nesting. Postgres could take more, JSON libraries of consumers may not.
pub const MAX_DEPTH: usize = 512;
/// Largest exponent of a number: what a double holds (RFC 8259, section 6).
const MAX_EXPONENT: usize = 308;

/// How many bytes Postgres prints for a JSON text, numbers written out; or why it cannot store it.
///
/// # Errors
/// In a sentence about what the text has.
pub fn stored_size(json: &str) -> Result<usize, &'static str> {
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
}
