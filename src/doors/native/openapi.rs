//! The OpenAPI document, made from the routes, and the errors that they share.

use serde::Serialize;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme,
};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::auth::scopes;
use crate::doors::fastapi::{ErrorBody, ErrorDetail, FaultBody, Place};

/// An error of RFC 6749.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError)]
pub struct OAuthErrorBody {
    /// The error code.
    #[schema(example = "invalid_request")]
    error: String,
    /// What is wrong.
    error_description: String,
    /// The same for JSON, where authentication is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// Why there is no token: an error of RFC 6749 for a form, and the one of all routes for JSON.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum TokenError {
    /// For a form.
    Form(OAuthErrorBody),
    /// For JSON.
    Json(ErrorBody),
}

/// What any route may answer.
#[derive(IntoResponses)]
pub enum CommonErrors {
    /// Missing, malformed, expired or revoked token or API key
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The token lacks the scope
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The request does not have the right form
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

/// No such object
#[derive(IntoResponses)]
#[response(status = 404)]
pub struct NotFound(pub ErrorBody);

/// The id is taken
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Conflict(pub ErrorBody);

/// It was changed meanwhile: look at it again
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Changed(pub ErrorBody);

/// A receipt is stale: nothing was done
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct StaleReceipts(pub ErrorBody);

/// A job is in the way
#[derive(IntoResponses)]
#[response(status = 409)]
pub struct Busy(pub ErrorBody);

/// The body, or a message in it, is too large
#[derive(IntoResponses)]
#[response(status = 413)]
pub struct TooLarge(pub ErrorBody);

/// The database is down
#[derive(IntoResponses)]
#[response(status = 503)]
pub struct Unavailable(pub ErrorBody);

/// Why there is no WebSocket.
#[derive(IntoResponses)]
pub enum NoSocket {
    /// The request does not ask for a WebSocket
    #[response(status = 400)]
    NotAsked(ErrorBody),
    /// The connection cannot become a WebSocket: HTTP/1.1 is needed
    #[response(status = 426)]
    NotUpgradable(ErrorBody),
}

/// What the token endpoint may answer instead of a token.
#[derive(IntoResponses)]
pub enum TokenErrors {
    /// The request lacks something, or asks for what there is not
    #[response(status = 400)]
    Refused(TokenError),
    /// Unknown or inactive client, or wrong secret; which one is not told
    #[response(status = 401)]
    Unauthorized(TokenError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(TokenError),
    /// The body is encoded
    #[response(status = 415)]
    Encoded(TokenError),
    /// The JSON does not have the right form
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// Too many logins at a time; try again after the seconds of the header Retry-After
    #[response(status = 429)]
    TooMany(TokenError),
    /// A defect
    #[response(status = 500)]
    Internal(TokenError),
    /// The database is unavailable; try again after the seconds of the header Retry-After
    #[response(status = 503)]
    Unavailable(TokenError),
    /// The database took too long
    #[response(status = 504)]
    Timeout(TokenError),
}

/// The order is one in which the examples work; a test runs them.
const DESCRIPTION: &str = "\
Postgres-native pub/sub: topics, subscriptions, filters, retries, dead letters.

Every request body has an example. On a fresh server the examples work as they stand, in this order:

1. `create_topic`, `create_subscription`
2. `publish_messages`, `pull_messages`, `settle_messages`: put a receipt that was pulled into the last one
3. `preview_filter`, `apply_transaction`, `create_snapshot`, `seek_subscription`
4. `list_dlq_messages`, `reprocess_dlq_messages`, `list_parked_messages`, `resume_messages`
5. `update_topic`, `update_subscription`, `subscription_metrics`
6. `purge_dlq_messages`, `delete_snapshot`, `delete_subscription`, `delete_topic`

Errors are `{\"detail\": ...}`: a text, or, of status 422, a list of faults, each with its place.
Fields and query parameters that a route does not know are refused.";

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "fastpubsub",
        description = DESCRIPTION,
        license(name = "MIT", identifier = "MIT")
    ),
    modifiers(&TokenScheme),
    // what the derives above refer to but do not collect
    components(schemas(ErrorBody, ErrorDetail, FaultBody, Place, TokenError, OAuthErrorBody)),
    tags(
        (name = "topics", description = "Named streams that messages are published to."),
        (name = "subscriptions", description = "Who receives what, with which retry policy."),
        (name = "messages", description = "Publishing, pulling, settling."),
        (name = "dead letters", description = "Messages that a subscription gave up, and parked ones."),
        (name = "replay", description = "Seeking, snapshots, and the jobs that do it."),
        (name = "clients", description = "Applications that may call the API."),
        (name = "oauth", description = "Access tokens."),
        (name = "monitoring", description = "Health and metrics."),
        (name = "original", description = "What clients of the Python fastpubsub call, kept for \
            them. New ones publish with `/publish`, and consume with `/pull` and `/settle`, which \
            can do more.")
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
        let flow = ClientCredentials::new("oauth/token", Scopes::from_iter(scopes));
        let scheme = SecurityScheme::OAuth2(OAuth2::with_description(
            [Flow::ClientCredentials(flow)],
            "Needed where the server runs with FASTPUBSUB_AUTH_ENABLED=true; a token goes into the \
             header `Authorization: Bearer TOKEN`. A scope may end in the id of one object, such as \
             `topics:publish:user-events`.",
        ));
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "X-API-Key",
            "An API key of a client instead of a token, with all scopes of the client. \
             `Authorization: Bearer KEY` is the same.",
        )));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("oauth2", scheme);
        components.add_security_scheme("api_key", key);
    }
}
