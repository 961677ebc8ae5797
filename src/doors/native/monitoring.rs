//! `/liveness`, `/readiness` and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::db;
use crate::doors::native::openapi::Unavailable;
use crate::doors::prometheus;
use crate::error::Error;

/// How the service is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `alive` or `ready`.
    #[schema(example = "ready")]
    status: &'static str,
}

/// Whether the process runs
#[utoipa::path(get, path = "/liveness", tag = "monitoring", responses((status = 200, body = Health)))]
pub async fn liveness() -> Json<Health> {
    Json(Health { status: "alive" })
}

/// Whether requests can be answered: the database is up and takes writes
#[utoipa::path(get, path = "/readiness", tag = "monitoring",
    responses((status = 200, body = Health), Unavailable))]
pub async fn readiness(State(app): State<App>) -> Result<Json<Health>, Error> {
    let unready = |reason: &str| Error::Refused {
        status: 503,
        message: reason.to_owned(),
    };
    match db::why_read_only(&app.database).await {
        Ok(None) => Ok(Json(Health { status: "ready" })),
        Ok(Some(reason)) => {
            tracing::warn!("{reason}");
            Err(unready(reason))
        }
        Err(error) => {
            tracing::warn!(error = %error, "database is down");
            Err(unready("database is down"))
        }
    }
}

/// Prometheus metrics
#[utoipa::path(get, path = "/metrics", tag = "monitoring",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(app): State<App>) -> impl IntoResponse {
    prometheus::answer(&app).await
}
