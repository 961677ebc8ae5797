//! The OpenAPI document of the door, its errors, and how they are said.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoResponses, OpenApi, ToSchema};

use crate::doors::envelope::{late_as_away, set_challenge, status};
use crate::doors::fastapi::{self, Place};
use crate::doors::schemas::Bearer;
use crate::error::{Error, MAX_FAULTS};

/// Why a request was refused or failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// For people.
    #[schema(example = "queue \"payments\" does not exist")]
    pub(super) error: String,
    /// What is wrong with the request, of status 422.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fields: Option<Vec<FieldFault>>,
}

/// One thing that is wrong with a request.
#[derive(Serialize, ToSchema)]
pub(super) struct FieldFault {
    /// Where: `body`, `query` or `path`, then names of fields and positions.
    #[schema(value_type = Vec<Place>)]
    loc: Vec<Value>,
    /// What is wrong.
    msg: String,
}

impl ErrorBody {
    /// What is said of an error.
    pub(super) fn of(error: &Error) -> Self {
        let fields: Option<Vec<FieldFault>> = match error {
            Error::Invalid(faults) => {
                let shown = faults.iter().take(MAX_FAULTS).map(fastapi::told);
                let fields = shown.map(|(loc, msg)| FieldFault { loc, msg });
                Some(fields.collect())
            }
            other if other.status() == 422 => Some(vec![FieldFault {
                loc: vec![json!("body")],
                msg: other.to_string(),
            }]),
            _ => None,
        };
        let text = fields
            .as_deref()
            .and_then(<[FieldFault]>::first)
            .map(|first| {
                let place: Vec<_> = first.loc.iter().map(step).collect();
                format!("{}: {}", place.join("."), first.msg)
            });
        Self {
            error: text.unwrap_or_else(|| error.to_string()),
            fields,
        }
    }
}

/// An error as an answer.
#[must_use]
pub fn envelope(error: &Error) -> Response {
    late_as_away(error, said)
}

fn said(error: &Error) -> Response {
    let status = status(error);
    let mut response = (status, Json(ErrorBody::of(error))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        set_challenge(&mut response, "Bearer");
    }
    response
}

fn step(step: &Value) -> String {
    match step {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

/// What any route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the schema only")]
pub(super) enum Errors {
    /// The body could not be read
    #[response(status = 400)]
    Unread(ErrorBody),
    /// No key or token, or one that is wrong or not valid any more
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The key or token lacks the scope
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
    /// Too many requests of a client; another may come after the seconds of the header Retry-After
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// A defect
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The database is unavailable or late; try again after the seconds of the header Retry-After
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// No such queue, topic or subscription, or no such delivery any more
#[derive(IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "the schema only")]
pub(super) struct NotFound(ErrorBody);

/// The body, or the message in it, is too large
#[derive(IntoResponses)]
#[response(status = 413)]
#[expect(dead_code, reason = "the schema only")]
pub(super) struct TooLarge(ErrorBody);

/// The document without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Message Broker, by fastpubsub",
        description = "Queues and topics for programs written for the Message Broker."
    ),
    components(schemas(ErrorBody, FieldFault, Place)),
    modifiers(&Bearer)
)]
pub(super) struct Document;
