//! The OpenAPI document of the door, and the errors that its routes share.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi};

use crate::doors::fastapi::{ErrorBody, ErrorDetail, FaultBody, Place};
use crate::doors::schemas::secure;

/// What any route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the schema only")]
pub(super) enum Errors {
    /// The body could not be read
    #[response(status = 400)]
    Unread(ErrorBody),
    /// Unknown or inactive key
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The key lacks the permission
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    Slow(ErrorBody),
    /// The body is encoded, such as with gzip
    #[response(status = 415)]
    Encoded(ErrorBody),
    /// The header X-API-Key is missing, or the request does not have the right form
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// A defect
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The database is unavailable; try again after the seconds of the header Retry-After
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The database took too long
    #[response(status = 504)]
    Timeout(ErrorBody),
}

/// No such message
#[derive(IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "the schema only")]
pub(super) struct NoSuchMessage(ErrorBody);

/// The body, or the message in it, is too large
#[derive(IntoResponses)]
#[response(status = 413)]
#[expect(dead_code, reason = "the schema only")]
pub(super) struct TooLarge(ErrorBody);

/// The document without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "PyQueue Server, by fastpubsub",
        description = "Queues for programs written for PyQueue Server and its client."
    ),
    components(schemas(ErrorBody, ErrorDetail, FaultBody, Place)),
    modifiers(&Key)
)]
pub(super) struct Document;

struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let header =
            ApiKeyValue::with_description("X-API-Key", "A key of the settings or of a client.");
        secure(
            document,
            "key",
            SecurityScheme::ApiKey(ApiKey::Header(header)),
        );
    }
}
