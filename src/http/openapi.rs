//! The OpenAPI document, made from the routes, and the errors that they share.

use serde::Serialize;
use utoipa::openapi::security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::auth::scopes;
use crate::error::Fault;

/// An error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    #[schema(example = "Topic not found")]
    detail: String,
}

/// What is wrong with a request.
#[derive(Serialize, ToSchema)]
pub struct ValidationErrorBody {
    /// Every fault.
    detail: Vec<Fault>,
}

/// An error of RFC 6749.
#[derive(Serialize, ToSchema)]
pub struct OAuthErrorBody {
    /// The error code.
    #[schema(example = "invalid_request")]
    error: String,
    /// What is wrong.
    error_description: String,
}

/// Why a transaction was not applied.
#[derive(Serialize, ToSchema)]
pub struct StaleReceiptsBody {
    /// What is wrong.
    #[schema(example = "1 of 2 leases to ack are stale; nothing was done")]
    detail: String,
    /// The receipts that are stale.
    about: Vec<String>,
}

/// What any route may answer.
#[derive(IntoResponses)]
pub enum CommonErrors {
    /// Missing, malformed, expired or revoked token
    #[response(status = 401)]
    Unauthorized(#[to_schema] ErrorBody),
    /// The token lacks the scope
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// The request does not have the right form
    #[response(status = 422)]
    Invalid(#[to_schema] ValidationErrorBody),
    /// A defect
    #[response(status = 500)]
    Internal(#[to_schema] ErrorBody),
    /// The database is unavailable; try again after the seconds of the header Retry-After
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorBody),
    /// The database took too long
    #[response(status = 504)]
    Timeout(#[to_schema] ErrorBody),
}

/// No such object
#[derive(IntoResponses)]
#[response(status = 404)]
pub struct NotFound(#[to_schema] pub ErrorBody);

/// The id is taken
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Conflict(#[to_schema] pub ErrorBody);

/// It was changed meanwhile: look at it again
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Changed(#[to_schema] pub ErrorBody);

/// A receipt is stale: nothing was done
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct StaleReceipts(#[to_schema] pub StaleReceiptsBody);

/// A job is in the way
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Busy(#[to_schema] pub ErrorBody);

/// The body, or a message in it, is too large
#[derive(IntoResponses)]
#[response(status = 413)]
pub struct TooLarge(#[to_schema] pub ErrorBody);

/// The database is down
#[derive(IntoResponses)]
#[response(status = 503)]
pub struct Unavailable(#[to_schema] pub ErrorBody);

/// The token request is refused
#[derive(IntoResponses)]
#[response(status = 400)]
pub struct OAuthRefusal(#[to_schema] pub OAuthErrorBody);

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "fastpubsub",
        description = "Postgres-native pub/sub: topics, subscriptions, filters, retries, dead letters.",
        license(name = "MIT", identifier = "MIT")
    ),
    modifiers(&TokenScheme),
    // what the derives above refer to but do not collect
    components(schemas(Fault)),
    tags(
        (name = "topics", description = "Named streams that messages are published to."),
        (name = "subscriptions", description = "Who receives what, with which retry policy."),
        (name = "messages", description = "Consuming, acknowledging, dead letters."),
        (name = "clients", description = "Applications that may call the API."),
        (name = "oauth", description = "Access tokens."),
        (name = "monitoring", description = "Health and metrics.")
    )
)]
pub struct Document;

struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scopes = scopes::ACTIONS
            .iter()
            .map(|known| {
                let scope = format!("{}:{}", known.resource, known.action);
                (scope, known.lets.to_owned())
            })
            .chain([("*".to_owned(), "everything".to_owned())]);
        let flow = ClientCredentials::new("/oauth/token", Scopes::from_iter(scopes));
        let scheme = SecurityScheme::OAuth2(OAuth2::new([Flow::ClientCredentials(flow)]));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("oauth2", scheme);
    }
}
