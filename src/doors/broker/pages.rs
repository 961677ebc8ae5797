//! What is there without a key.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::Errors;
use crate::app::App;
use crate::db;
use crate::db::Timestamp;
use crate::doors::prometheus;
use crate::error::Error;

/// How the service is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `healthy`; 503 else.
    status: &'static str,
    /// When.
    timestamp: Timestamp,
    /// The version of fastpubsub.
    version: &'static str,
}

/// See whether messages can be published and pulled
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Health), Errors))]
pub(super) async fn health(State(app): State<App>) -> Result<Json<Health>, Error> {
    match db::why_read_only(&app.database).await? {
        None => Ok(Json(Health {
            status: "healthy",
            timestamp: Timestamp(Utc::now()),
            version: env!("CARGO_PKG_VERSION"),
        })),
        Some(reason) => Err(Error::refused(503, reason)),
    }
}

/// Prometheus metrics of the whole service
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    prometheus::answer(&app).await
}
