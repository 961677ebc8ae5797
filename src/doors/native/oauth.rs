//! `POST /oauth/token`: the client credentials grant (RFC 6749, section 4.4), and the JSON form of
//! the Python original, which answers 201.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::tokens::{AccessToken, Denied};
use crate::doors::body;
use crate::doors::envelope::{said, status};
use crate::doors::extract::{is_json, media_type};
use crate::doors::fields::{Fields, TEXT_MAX_LENGTH};
use crate::doors::native::openapi::TokenErrors;
use crate::doors::tree::parse_json;
use crate::error::Error;

/// One text for unknown client, wrong secret and inactive client.
const INVALID_CLIENT: &str = "Invalid client credentials";
const TOO_MANY: &str = "too many logins at a time, try again";
/// Authentication is off, and so there is no grant that would be supported.
const NO_KEY: (StatusCode, &str, &str) = (
    StatusCode::BAD_REQUEST,
    "unsupported_grant_type",
    "no tokens here: FASTPUBSUB_AUTH_SECRET_KEY is not set",
);
const FORM: &str = "application/x-www-form-urlencoded";

/// The JSON form of a token request.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"client_id": "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e",
    "client_secret": "0123456789abcdef0123456789abcdef"}))]
pub struct TokenRequest {
    /// The client.
    client_id: Uuid,
    /// Its secret.
    client_secret: String,
}

/// The form of RFC 6749; the credentials may come as HTTP Basic instead.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "the schema only; bodies are read field by field")]
#[schema(example = json!({"grant_type": "client_credentials",
    "client_id": "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e",
    "client_secret": "0123456789abcdef0123456789abcdef"}))]
pub struct TokenForm {
    /// Always `client_credentials`.
    #[schema(example = "client_credentials")]
    grant_type: String,
    /// The client.
    client_id: Option<Uuid>,
    /// Its secret.
    client_secret: Option<String>,
    /// Fewer scopes than the client has, separated by spaces.
    scope: Option<String>,
}

/// Issue an access token
#[utoipa::path(post, path = "/oauth/token", tag = "oauth",
    request_body(content((TokenRequest = "application/json"), (TokenForm = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "Issued for a form", body = AccessToken),
        (status = 201, description = "Issued for JSON", body = AccessToken),
        TokenErrors))]
pub async fn issue_token(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match body::read(&parts.headers, body, body::TOKEN, &app).await {
        Err(error) if wants_json(&parts.headers) => error.into_response(),
        Err(error) => refusal_of(error),
        Ok(bytes) if wants_json(&parts.headers) => json_token(&app, &bytes)
            .await
            .unwrap_or_else(IntoResponse::into_response),
        Ok(bytes) => form_token(&app, &parts.headers, &bytes).await,
    };
    (
        [
            (header::CACHE_CONTROL, "no-store"),
            (header::PRAGMA, "no-cache"),
        ],
        answer,
    )
        .into_response()
}

/// Whether it is a request of the Python original, not one of RFC 6749.
fn wants_json(headers: &HeaderMap) -> bool {
    let has_basic = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().get(..6))
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
    is_json(headers) && (headers.contains_key(header::CONTENT_TYPE) || !has_basic)
}

async fn json_token(app: &App, bytes: &[u8]) -> Result<Response, Error> {
    let Some(tokens) = &app.tokens else {
        // whoever asks for a token reads RFC 6749's error or the original's
        let (status, error, text) = NO_KEY;
        let body = json!({"detail": text, "error": error, "error_description": text});
        return Ok((status, Json(body)).into_response());
    };
    let body = parse_json(bytes)?;
    let mut fields = Fields::of_body(&body)?;
    let client_id = fields.uuid("client_id");
    let client_secret = fields.text("client_secret", 0, TEXT_MAX_LENGTH);
    // as for the form: RFC 6749, section 3.2, has unrecognized parameters ignored
    fields.finish_ignoring_others()?;
    match tokens
        .issue(&app.database, client_id, client_secret, None)
        .await
    {
        Ok(token) => Ok((StatusCode::CREATED, Json(token)).into_response()),
        Err(Denied::Failed(error)) => Err(error),
        Err(Denied::TooMany) => Err(Error::TooMany(TOO_MANY)),
        Err(Denied::InvalidClient | Denied::InvalidScope) => {
            Err(Error::Unauthorized(INVALID_CLIENT))
        }
    }
}

/// A refusal of RFC 6749, section 5.2.
struct Refusal(StatusCode, &'static str, &'static str);

async fn form_token(app: &App, headers: &HeaderMap, bytes: &[u8]) -> Response {
    let Some(tokens) = &app.tokens else {
        let (status, error, text) = NO_KEY;
        return Refusal(status, error, text).into_response();
    };
    let (client_id, client_secret, scope) = match form_request(headers, bytes) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    let invalid_client =
        || Refusal(StatusCode::UNAUTHORIZED, "invalid_client", INVALID_CLIENT).into_response();
    let Ok(client_id) = Uuid::parse_str(&client_id) else {
        return invalid_client();
    };
    match tokens
        .issue(&app.database, client_id, client_secret, scope.as_deref())
        .await
    {
        Ok(token) => Json::<AccessToken>(token).into_response(),
        Err(Denied::InvalidClient) => invalid_client(),
        Err(Denied::InvalidScope) => Refusal(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "scope asks for more than the client has",
        )
        .into_response(),
        Err(Denied::TooMany) => refusal_of(Error::TooMany(TOO_MANY)),
        Err(Denied::Failed(error)) => refusal_of(error),
    }
}

/// An error of ours in the form of RFC 6749, with its status and headers.
fn refusal_of(error: Error) -> Response {
    said(rfc_6749, error.into_response())
}

fn rfc_6749(error: &Error) -> Response {
    let code = match error.status() {
        429 | 503 | 504 => "temporarily_unavailable",
        500.. => "server_error",
        _ => "invalid_request",
    };
    let body = json!({"error": code, "error_description": error.to_string()});
    (status(error), Json(body)).into_response()
}

fn form_request(
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<(String, String, Option<String>), Refusal> {
    let refuse = |text| Refusal(StatusCode::BAD_REQUEST, "invalid_request", text);
    if media_type(headers).as_deref() != Some(FORM) {
        return Err(refuse(
            "Content-Type must be application/x-www-form-urlencoded",
        ));
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(refuse("credentials are given twice"));
    }
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_bytes(bytes).map_err(|_| refuse("the body is not a form"))?;
    let field = |name: &str| -> Result<Option<String>, Refusal> {
        let mut values = pairs
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(refuse("a parameter is given twice")),
            // an empty parameter is as good as none (section 3.2)
            (value, None) => Ok(value.filter(|value| !value.is_empty()).cloned()),
        }
    };
    match field("grant_type")?.as_deref() {
        Some("client_credentials") => {}
        Some(_) => {
            let text = "grant_type must be client_credentials";
            return Err(Refusal(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                text,
            ));
        }
        None => return Err(refuse("grant_type is missing")),
    }
    let in_body = (field("client_id")?, field("client_secret")?);
    let (client_id, client_secret) = match (headers.get(header::AUTHORIZATION), in_body) {
        (Some(_), (_, Some(_))) => return Err(refuse("credentials are given twice")),
        (Some(basic), _) => basic_credentials(basic).ok_or(Refusal(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Authorization is not valid HTTP Basic",
        ))?,
        (None, (Some(id), Some(secret))) => (id, secret),
        (None, _) => return Err(refuse("client_id or client_secret is missing")),
    };
    Ok((client_id, client_secret, field("scope")?))
}

/// HTTP Basic with form-encoded id and secret (RFC 6749, section 2.3.1). Ours need no encoding.
fn basic_credentials(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error, description) = self;
        let body = Json(json!({"error": error, "error_description": description}));
        let mut response = (status, body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Basic realm=\"fastpubsub\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
