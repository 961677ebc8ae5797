//! The metrics of the whole service, which every door shows.

use axum::http::header;
use axum::response::IntoResponse;

use crate::app::App;

/// In Prometheus' text format.
pub async fn answer(app: &App) -> impl IntoResponse + use<> {
    let text = app.metrics.render(&app.database, &app.settings).await;
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}
