//! `/docs` (Swagger UI), `/redoc` and `/openapi.json`; nothing is fetched from another host, and all by
//! relative paths: a proxy may serve them behind a prefix of its own.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::{OpenApi, Server};
use utoipa_swagger_ui::Config;

use crate::doors::extract::PathId;
use crate::error::Error;

const SWAGGER_PAGE: &str = include_str!("assets/swagger.html");
const REDOC_PAGE: &str = include_str!("assets/redoc.html");
/// Redoc 2.5.4 (MIT) as released, but for the address of its logo, which was on another host.
const REDOC_SCRIPT: &str = include_str!("assets/redoc.standalone.js");

static SWAGGER: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none")));

/// The routes of the documentation.
pub fn routes<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let mut document = document.clone();
    // the API lies where its document lies, also behind a prefix
    document.servers = Some(vec![Server::new("./")]);
    let json = Bytes::from(document.to_json().unwrap_or_default());
    let document = move || {
        let json = json.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], json) }
    };
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(async || Html(SWAGGER_PAGE)))
        .route("/docs/{file}", get(swagger_file))
        .route("/redoc", get(async || Html(REDOC_PAGE)))
        .route("/redoc/redoc.standalone.js", get(redoc_script))
}

async fn swagger_file(PathId(file): PathId) -> Response {
    let file = match file.as_str() {
        "oauth2-redirect" => "oauth2-redirect.html",
        // its index page is not ours
        "" => "unknown",
        file => file,
    };
    match utoipa_swagger_ui::serve(file, Arc::clone(&SWAGGER)) {
        Ok(Some(file)) => (
            [(header::CONTENT_TYPE, file.content_type)],
            // as it lies in the binary, not a copy for each who asks
            match file.bytes {
                Cow::Borrowed(bytes) => Body::from(Bytes::from_static(bytes)),
                Cow::Owned(bytes) => Body::from(bytes),
            },
        )
            .into_response(),
        _ => Error::Refused {
            status: 404,
            message: "Not Found".to_owned(),
        }
        .into_response(),
    }
}

async fn redoc_script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        REDOC_SCRIPT,
    )
}
