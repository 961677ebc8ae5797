//! Errors as answers. What any part of the service refuses becomes an answer without words, which the
//! envelope of the door puts them into: so those of extractors, limits and panics have them too.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// How a door says an error: a whole answer, to which only headers are added.
pub type Envelope = fn(&Error) -> Response;

/// The error behind an answer, for the envelope and the request log.
#[derive(Clone, Debug)]
pub struct Cause(pub Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(&self).into_response();
        add_headers(&self, response.headers_mut());
        response.extensions_mut().insert(Cause(Arc::new(self)));
        response
    }
}

/// An answer with its words, if it is an error without.
#[must_use]
pub fn said(envelope: Envelope, response: Response) -> Response {
    let Some(Cause(error)) = response.extensions().get().cloned() else {
        return response;
    };
    if !response.body().is_end_stream() {
        return response;
    }
    let (bare, _) = response.into_parts();
    let mut said = envelope(&error);
    for (name, value) in &bare.headers {
        if name != header::CONTENT_LENGTH {
            said.headers_mut().entry(name).or_insert(value.clone());
        }
    }
    said.extensions_mut().extend(bare.extensions);
    said
}

/// An answer of a door for which a database that takes too long is one that is not there now.
#[must_use]
pub fn late_as_away(error: &Error, say: Envelope) -> Response {
    let Error::Timeout(_) = error else {
        return say(error);
    };
    let mut response = say(&Error::refused(503, error.to_string()));
    let seconds = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// Tell how to authenticate, in words of the door's own.
pub fn set_challenge(response: &mut Response, scheme: &'static str) {
    let scheme = HeaderValue::from_static(scheme);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
}

/// The status of an error.
#[must_use]
pub fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn add_headers(error: &Error, headers: &mut HeaderMap) {
    if let Some(challenge) = challenge(error) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if matches!(
        error,
        Error::Busy(_) | Error::Unavailable(_) | Error::TooMany(_)
    ) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// `WWW-Authenticate` (RFC 6750, section 3), of nothing that a client said.
fn challenge(error: &Error) -> Option<HeaderValue> {
    match error {
        Error::Unauthorized(_) => Some(HeaderValue::from_static("Bearer")),
        Error::InvalidToken(text) => {
            let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{text}\"");
            HeaderValue::from_str(&challenge).ok()
        }
        Error::Forbidden { needed, .. } => {
            let scope = needed.map_or_else(String::new, |(resource, action)| {
                format!(", scope=\"{resource}:{action}\"")
            });
            HeaderValue::from_str(&format!("Bearer error=\"insufficient_scope\"{scope}")).ok()
        }
        _ => None,
    }
}
