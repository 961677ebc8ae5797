//! The OpenAPI document of the door, its errors, and how they are said.

use axum::response::Response;
use utoipa::{IntoResponses, OpenApi};

use crate::doors::envelope::late_as_away;
use crate::doors::fastapi::{self, ErrorBody, ErrorDetail, FaultBody, Place};
use crate::doors::schemas::Bearer;
use crate::error::Error;
use crate::telemetry::proxy;

/// An error as an answer.
#[must_use]
pub fn envelope(error: &Error) -> Response {
    late_as_away(error, said)
}

fn said(error: &Error) -> Response {
    proxy::error("http", &error.status().to_string());
    fastapi::envelope(error)
}

/// What any route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the schema only")]
pub(super) enum Errors {
    /// The body could not be read, or the request does not ask for a WebSocket
    #[response(status = 400)]
    Unread(ErrorBody),
    /// No token, or one that is wrong or not valid any more
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The token lacks the scope, or is not for the topic
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    Slow(ErrorBody),
    /// The body is encoded, such as with gzip
    #[response(status = 415)]
    Encoded(ErrorBody),
    /// The request does not have the right form
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// Too many messages of a client; the headers Retry-After, X-RateLimit-Limit and X-RateLimit-Remaining say more
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// A defect
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The database is unavailable or late; try again after the seconds of the header Retry-After
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// The body, or a message in it, is too large
#[derive(IntoResponses)]
#[response(status = 413)]
#[expect(dead_code, reason = "the schema only")]
pub(super) struct TooLarge(ErrorBody);

/// The document without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pulsar Proxy, by fastpubsub",
        description = "Messages in over HTTP, out to every subscriber of their topic."
    ),
    components(schemas(ErrorBody, ErrorDetail, FaultBody, Place)),
    modifiers(&Bearer)
)]
pub(super) struct Document;
