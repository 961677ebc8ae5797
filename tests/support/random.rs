//! Requests at random.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const SCALARS: &[&str] = &[
    "null",
    "true",
    "0",
    "1",
    "-1",
    "1.5",
    "2147483648",
    "9223372036854775808",
    "1e300",
    "1e400",
    "NaN",
    "m",
    "\"\"",
    "\"m\"",
    "\"a b\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\u{e9}😀\"",
    "[]",
    "{}",
    "{\"a\": 1e400}",
    "%00",
    "%ff",
    "{\"a\": \"b\"}",
];

/// A text with a scalar for each X.
pub fn filled(random: &mut StdRng, form: &str) -> String {
    let parts = form.split('X').map(str::to_owned);
    parts
        .reduce(|text, rest| text + SCALARS.choose(random).unwrap() + &rest)
        .unwrap()
}
