//! Browsers on pages of other origins: what they may ask and see.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::config::Origins;

/// For which a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The layer that answers preflights and lets pages of these origins see answers. Callers show a token
/// of their own; what a browser would add by itself, such as cookies, is neither wanted nor allowed.
pub fn layer(origins: &Origins) -> CorsLayer {
    allowing(match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::These(origins) => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    })
}

/// Any origin, with credentials, as some systems allowed: an answer must then name the origin.
pub fn with_credentials() -> CorsLayer {
    allowing(AllowOrigin::mirror_request()).allow_credentials(true)
}

/// Whether a page may open a WebSocket, of which browsers do not ask before: one of the same host, or of an
/// origin that is allowed. Whoever names no origin is no page.
#[must_use]
pub fn lets_in(origins: Option<&Origins>, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let of_page = origin.split_once("://").map(|(_, host)| host);
    let is_same =
        of_page.is_some_and(|page| host.is_some_and(|host| host.eq_ignore_ascii_case(page)));
    is_same
        || match origins {
            Some(Origins::Any) => true,
            Some(Origins::These(origins)) => origins.contains(&origin),
            None => false,
        }
}

fn allowing(origin: AllowOrigin) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            header::LOCATION,
            header::ALLOW,
        ])
        .max_age(MAX_AGE)
}
