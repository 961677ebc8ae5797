//! What is there without a key.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::Errors;
use super::queues::now;
use crate::app::App;
use crate::db;
use crate::doors::prometheus;
use crate::error::Error;

/// How the service is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `healthy`; 503 else.
    status: &'static str,
    /// Of which queue this is told.
    #[schema(required = true)]
    queue_name: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// Whether messages can be added and received.
///
/// # Errors
/// 503 when the database is away or takes no writes.
pub(super) async fn healthy(app: &App, queue_name: Option<String>) -> Result<Json<Health>, Error> {
    match db::why_read_only(&app.database).await? {
        None => Ok(Json(Health {
            status: "healthy",
            queue_name,
            timestamp: now(),
        })),
        Some(reason) => Err(Error::refused(503, reason)),
    }
}

/// See whether messages can be added and received
#[utoipa::path(get, path = "/health", tag = "service", operation_id = "api_health",
    responses((status = 200, body = Health), Errors))]
pub(super) async fn api_health(State(app): State<App>) -> Result<Json<Health>, Error> {
    healthy(&app, None).await
}

/// That the service is up.
#[derive(Serialize, ToSchema)]
pub(super) struct Up {
    /// Always `healthy`.
    status: &'static str,
    /// Always `pyqueue-server`.
    service: &'static str,
}

/// See whether the process runs
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Up)))]
pub(super) async fn health() -> Json<Up> {
    Json(Up {
        status: "healthy",
        service: "pyqueue-server",
    })
}

/// What this is.
#[derive(Serialize, ToSchema)]
pub(super) struct Card {
    /// Its name.
    name: &'static str,
    /// The version of fastpubsub.
    version: &'static str,
    /// Where its documentation is, from here.
    docs: &'static str,
}

/// See what this is
#[utoipa::path(get, path = "/", tag = "service", responses((status = 200, body = Card)))]
pub(super) async fn card() -> Json<Card> {
    Json(Card {
        name: "PyQueue Server, by fastpubsub",
        version: env!("CARGO_PKG_VERSION"),
        docs: "docs",
    })
}

/// Prometheus metrics of the whole service
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    prometheus::answer(&app).await
}
