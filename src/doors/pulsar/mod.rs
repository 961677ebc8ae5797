//! The front door of programs written for Pulsar Proxy: messages come in over HTTP and go to everybody who is
//! subscribed to their topic on a WebSocket, on whichever server. All of them are messages of the one topic
//! `pulsar`, whose ordering key, and attribute `pulsar/topic`, is the topic of the proxy.

mod caller;
mod history;
mod hub;
mod ingest;
mod listener;
mod message;
mod names;
mod openapi;
mod pages;
mod poll;
mod protocol;
mod replay;
mod session;
mod socket;
pub mod start;
mod taker;

use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::doors::mount::Mount;
use crate::doors::rate::Rate;
use crate::doors::{docs, schemas};
use crate::error::Error;
use hub::Hub;
pub use openapi::envelope;

/// Where it is beside the other doors.
pub const MOUNT: &str = "/pulsar";
/// Most pages of history that are read or on their way at a time.
const PAGES: usize = 32;

/// What the door has once in this process.
#[derive(Debug)]
struct Door {
    hub: Arc<Hub>,
    rate: Option<Rate>,
    pages: Arc<Semaphore>,
}

impl Door {
    fn of(app: &App) -> Arc<Self> {
        app.once(|app| Self {
            hub: Arc::default(),
            rate: Rate::per_minute(app.settings.pulsar.rate_limit_per_client),
            pages: Arc::new(Semaphore::new(PAGES)),
        })
    }
}

fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(ingest::send_message))
        .routes(routes!(ingest::send_messages))
        .routes(routes!(poll::poll))
        .routes(routes!(socket::socket))
        .routes(routes!(pages::health))
        .routes(routes!(pages::ready))
        .routes(routes!(pages::metrics))
}

/// The OpenAPI document of the door.
#[must_use]
pub fn document() -> Document {
    let mut document = all().into_openapi();
    schemas::complete(&mut document);
    document
}

/// The door, at a place: [`MOUNT`], or the root of a listener of its own.
#[must_use]
pub fn mount(app: &App, prefix: &'static str) -> Mount {
    let (routes, mut document) = all().split_for_parts();
    schemas::complete(&mut document);
    let routes: Router = routes
        .merge(docs::routes(&document))
        .fallback(|| async { Error::refused(404, "Not Found") })
        .method_not_allowed_fallback(|| async { Error::refused(405, "Method Not Allowed") })
        .with_state(app.clone());
    Mount {
        prefix,
        routes,
        envelope,
        cors: None,
    }
}
