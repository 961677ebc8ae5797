//! Payloads of 300 bytes, and what is read from an answer without parsing it as JSON.

use memchr::memmem;

const PAYLOAD_BYTES: usize = 300;

/// A JSON object of 300 bytes with these fields.
fn padded(fields: &str) -> String {
    let text = format!(r#"{{{fields},"pad":""}}"#);
    let pad = "x".repeat(PAYLOAD_BYTES - text.len());
    format!(r#"{{{fields},"pad":"{pad}"}}"#)
}

pub(crate) fn payload() -> String {
    padded(r#""country":"BR","n":1"#)
}

/// The body of a publish. Half of the messages come from another country.
pub(crate) fn publish_body(batch: usize) -> Vec<u8> {
    let payloads: Vec<String> = (0..batch)
        .map(|number| match number % 2 {
            0 => payload(),
            _ => padded(r#""country":"US","n":1"#),
        })
        .collect();
    format!("[{}]", payloads.join(",")).into_bytes()
}

/// Adds these to a time, so that it always has ten digits and can be overwritten in place.
const TIME_OFFSET: u64 = 1_000_000_000;

/// The body of a publish of one message that carries a time, and whether it shall be left unacked.
pub(crate) fn timed_body() -> Vec<u8> {
    let payload = padded(&format!(r#""country":"BR","leave":0,"at":{TIME_OFFSET}"#));
    format!("[{payload}]").into_bytes()
}

/// Overwrites the time (in microseconds) and the mark of a prepared request with a `timed_body`.
pub(crate) fn stamp(request: &mut [u8], micros: u64, leave: bool) {
    let at = memmem::find(request, br#""at":"#).unwrap() + 5;
    let digits = (TIME_OFFSET + micros).to_string();
    request[at..at + 10].copy_from_slice(digits.as_bytes());
    let at = memmem::find(request, br#""leave":"#).unwrap() + 8;
    request[at] = if leave { b'1' } else { b'0' };
}

/// The times that the messages of an answer carry, in microseconds.
pub(crate) fn times(answer: &[u8]) -> impl Iterator<Item = u64> {
    numbers(answer, br#""at":"#).map(|time| time - TIME_OFFSET)
}

/// How often each message of an answer was delivered.
pub(crate) fn attempts(answer: &[u8]) -> impl Iterator<Item = u64> {
    numbers(answer, br#""delivery_attempts":"#)
}

fn numbers<'a>(answer: &'a [u8], key: &'static [u8]) -> impl Iterator<Item = u64> + 'a {
    memmem::find_iter(answer, key).map(move |at| {
        let text = answer[at + key.len()..].trim_ascii_start();
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    })
}

/// Writes the body that acks the messages of an answer; returns how many they are.
pub(crate) fn write_acks<'a>(
    receipts: impl Iterator<Item = &'a [u8]>,
    body: &mut Vec<u8>,
) -> usize {
    body.clear();
    let mut count = 0;
    for receipt in receipts {
        body.push(if count == 0 { b'[' } else { b',' });
        body.push(b'"');
        body.extend_from_slice(receipt);
        body.push(b'"');
        count += 1;
    }
    if count > 0 {
        body.push(b']');
    }
    count
}

/// The receipts of the messages of an answer.
pub(crate) fn receipts(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    const KEY: &[u8] = br#""receipt":""#;
    memmem::find_iter(answer, KEY).map(|at| {
        let text = &answer[at + KEY.len()..];
        &text[..memchr::memchr(b'"', text).unwrap()]
    })
}
