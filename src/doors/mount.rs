//! What a front door is, and what is around all of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::FutureExt;
use tower::ServiceExt;
use tower_http::cors::CorsLayer;

use super::envelope::{Envelope, said};
use crate::error::Error;

/// A front door. Who may call a route, and how long a body may be, its handlers say by their arguments.
pub struct Mount {
    /// Where its paths begin: nothing for the root, else such as `/pyqueue`.
    pub prefix: &'static str,
    /// What it serves, with its documentation and what it says of paths that there are not.
    pub routes: Router,
    /// Its words for errors.
    pub envelope: Envelope,
    /// Which pages of other origins may call it; none if there are none.
    pub cors: Option<CorsLayer>,
}

/// Doors side by side, behind routing.
pub fn router(mounts: Vec<Mount>) -> Router {
    let mut all = Router::new();
    for mount in mounts {
        let mut routes = mount
            .routes
            .layer(from_fn_with_state(mount.envelope, answer));
        if let Some(cors) = mount.cors {
            // what it answers itself has a route, too
            routes = routes.layer(cors).layer(from_fn(name));
        }
        all = match mount.prefix {
            "" => all.merge(routes),
            prefix => {
                let root = routes.clone();
                let at_root = move |request| root.clone().oneshot(rooted(request));
                all.nest(prefix, routes)
                    .route(&format!("{prefix}/"), any(at_root))
            }
        };
    }
    all
}

/// A request to the prefix with a slash behind it, which is the root of a door as well.
fn rooted(mut request: Request) -> Request {
    *request.uri_mut() = Uri::from_static("/");
    request
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
