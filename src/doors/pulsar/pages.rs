//! What is there without a token, and the metrics.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Called;
use super::names::now;
use super::openapi::Errors;
use crate::app::App;
use crate::db;
use crate::doors::prometheus;

/// That the process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `healthy`.
    status: &'static str,
    /// When.
    timestamp: String,
    /// The version of fastpubsub.
    version: &'static str,
}

/// See whether the process runs
#[utoipa::path(get, path = "/health", tag = "service", security(()), responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy",
        timestamp: now(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether messages can be sent.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
    checks: Checks,
}

/// What that depends on.
#[derive(Serialize, ToSchema)]
pub(super) struct Checks {
    /// `ok` or `unavailable`.
    storage: &'static str,
}

/// See whether messages can be sent
#[utoipa::path(get, path = "/ready", tag = "service", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready, description = "They cannot")))]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let why_not = db::why_read_only(&app.database).await;
    let ready = matches!(why_not, Ok(None));
    let (status, storage) = if ready {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let checks = Checks { storage };
    (status, Json(Ready { ready, checks })).into_response()
}

/// Prometheus metrics of the whole service
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain"), Errors))]
pub(super) async fn metrics(_: Called, State(app): State<App>) -> impl IntoResponse {
    prometheus::answer(&app).await
}
