//! What a front door is, and what is around all of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::cors;
use super::envelope::{Envelope, said};
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
    let mut all = Router::new();
    for mount in mounts {
        let routes = mount
            .routes
            .layer(from_fn_with_state(mount.envelope, answer));
        all = match mount.prefix {
            "" => all.merge(routes),
            prefix => all.nest(prefix, routes),
        };
    }
    match &settings.api_cors_origins {
        // what it answers itself has a route, too
        Some(origins) => all.layer(cors::layer(origins)).layer(from_fn(name)),
        None => all,
    }
}

/// Say in the door's words what nobody has said yet, that a handler panicked included. A layer costs
/// every request some microseconds: one does it all.
async fn answer(State(envelope): State<Envelope>, request: Request, next: Next) -> Response {
    let route = matched(&request);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        let panicked = std::io::Error::other("a handler panicked");
        Error::Internal(Arc::new(panicked)).into_response()
    });
    named(route, said(envelope, response))
}

async fn name(request: Request, next: Next) -> Response {
    let route = matched(&request);
    named(route, next.run(request).await)
}

fn matched(request: &Request) -> Option<MatchedPath> {
    request.extensions().get().cloned()
}

/// The route of an answer, for the log and the metrics.
fn named(route: Option<MatchedPath>, mut response: Response) -> Response {
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}
