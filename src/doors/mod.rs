//! The front doors: which there are, where each is, and what is around all of them.

pub mod activity;
pub mod answers;
pub mod body;
pub mod connection;
pub mod cors;
pub mod envelope;
pub mod given;
pub mod native;
pub mod receipts;
pub mod serve;
pub mod tree;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::config::Settings;
use crate::error::Error;
use crate::telemetry::requests;
use envelope::{Envelope, say};
use serve::Listening;

/// A front door. Who may call a route, and how long a body may be, its handlers say by their arguments.
pub struct Mount {
    /// Where its paths begin: nothing for the root, else such as `/pyqueue`.
    pub prefix: &'static str,
    /// What it serves, with its documentation and what it says of paths that there are not.
    pub routes: Router,
    /// Its words for errors.
    pub envelope: Envelope,
}

/// Every door of the service.
#[must_use]
pub fn mounts(app: &App) -> Vec<Mount> {
    vec![native::mount(app.clone())]
}

/// Every door on one listener.
#[must_use]
pub fn listening(listener: TcpListener, app: &App) -> Listening {
    Listening {
        listener,
        router: router(mounts(app), &app.settings),
        envelope: native::envelope::envelope,
    }
}

/// Doors side by side, behind routing.
#[must_use]
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
