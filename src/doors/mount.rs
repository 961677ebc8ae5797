//! What a front door is, and what is around all of them.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

use super::envelope::{Envelope, say};
use super::{cors, requests};
use crate::config::Settings;
use crate::error::Error;

/// A front door. Who may call a route, and how long a body may be, its handlers say by their arguments.
pub struct Mount {
    /// Where its paths begin: nothing for the root, else such as `/pyqueue`.
    pub prefix: &'static str,
    /// What it serves, with its documentation and what it says of paths that there are not.
    pub routes: Router,
    /// Its words for errors.
    pub envelope: Envelope,
}

/// Doors side by side, behind routing.
pub fn router(mounts: Vec<Mount>, settings: &Settings) -> Router {
    let cors = settings.api_cors_origins.as_ref().map(cors::layer);
    let mut all = Router::new();
    for mount in mounts {
        let routes = mount
            .routes
            .layer(CatchPanicLayer::custom(|_| {
                let panicked = std::io::Error::other("a handler panicked");
                Error::Internal(Arc::new(panicked)).into_response()
            }))
            .layer(from_fn_with_state(mount.envelope, say));
        all = match mount.prefix {
            "" => all.merge(routes),
            prefix => all.nest(prefix, routes),
        };
    }
    all.layer(option_layer(cors))
        .layer(from_fn(requests::observe))
}
