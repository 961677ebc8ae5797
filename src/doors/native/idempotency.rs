//! The header `Idempotency-Key`: the key of a whole request where keys are kept, refused where not.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::request::Parts;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::db::publish::RequestKey;
use crate::error::{Error, Fault, Part, Rule, Step};

/// The header of a key for a whole request.
const HEADER: &str = "Idempotency-Key";
/// Most characters of such a key.
const MAX_KEY_LENGTH: usize = 256;

/// The routes that keep keys, and the one whose answers have a form of their own.
const EXEMPT: [&str; 3] = [
    "/topics/{id}/messages",
    "/topics/{id}/publish",
    "/oauth/token",
];

/// The key of a whole request, if it has one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut keys = parts.headers.get_all(HEADER).iter();
        let Some(key) = keys.next() else {
            return Ok(Self(None));
        };
        let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
        if visible && (1..=MAX_KEY_LENGTH).contains(&key.len()) && keys.next().is_none() {
            return Ok(Self(key.to_str().ok().map(str::to_owned)));
        }
        let text = "one key of 1 to 256 visible ASCII characters is expected";
        Err(Error::Invalid(vec![fault(key, text)]))
    }
}

/// The key with what tells another request under it.
#[must_use]
pub fn request_key(key: String, body: &Bytes) -> RequestKey {
    let digest = Sha256::digest(body);
    RequestKey {
        key,
        fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// The engine's refusal of a key, which knows fields only: it came in the header.
#[must_use]
pub fn in_header(mut error: Error) -> Error {
    if let Error::Invalid(faults) = &mut error {
        for fault in faults {
            if fault.path == [Step::from("idempotency_key")] {
                fault.part = Part::Header;
                fault.path = vec![HEADER.into()];
            }
        }
    }
    error
}

/// Refuse a request that believes that it can be repeated without harm.
///
/// # Errors
/// 422 when it has a key where none is kept.
pub fn check(request: &Request) -> Result<(), Error> {
    if request.method() == Method::POST
        && let Some(key) = request.headers().get(HEADER)
        && !request
            .extensions()
            .get::<MatchedPath>()
            .is_some_and(|path| EXEMPT.contains(&path.as_str()))
    {
        let text = "only publishing to a topic keeps idempotency keys; \
            a message of a transaction may have an idempotency_key";
        return Err(Error::Invalid(vec![fault(key, text)]));
    }
    Ok(())
}

fn fault(key: &HeaderValue, text: &str) -> Fault {
    Fault {
        part: Part::Header,
        path: vec![HEADER.into()],
        rule: Rule::Refused(text.to_owned()),
        given: json!(String::from_utf8_lossy(key.as_bytes())),
    }
}
