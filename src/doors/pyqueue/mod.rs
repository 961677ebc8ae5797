//! The front door of programs written for PyQueue Server. A queue is a topic and a subscription, both
//! `pyqueue/QUEUE`; an item's id is a message key and the attribute `id`.

mod add;
mod bodies;
mod browse;
mod caller;
mod keys;
mod openapi;
mod pages;
mod queues;
mod receive;
pub mod start;
mod view;

use axum::Router;
use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::doors::envelope::set_challenge;
use crate::doors::mount::Mount;
use crate::doors::{cors, docs, fastapi, schemas};
use crate::error::Error;

/// What begins the ids of its topics and subscriptions.
const PREFIX: &str = "pyqueue/";
/// Where it is beside the other doors.
pub const MOUNT: &str = "/pyqueue";

/// The routes behind the prefix of the API.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(
            add::add_message,
            browse::get_messages,
            browse::clear_queue
        ))
        .routes(routes!(receive::receive_messages))
        .routes(routes!(browse::check_existence))
        .routes(routes!(browse::delete_by_id, add::update_message))
        .routes(routes!(receive::delete_message))
        .routes(routes!(browse::get_message))
        .routes(routes!(queues::info))
        .routes(routes!(queues::health))
        .routes(routes!(queues::list_queues))
        .routes(routes!(keys::me))
        .routes(routes!(keys::permissions))
        .routes(routes!(pages::api_health))
}

fn all(prefix: &str) -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .nest(prefix, api())
        .routes(routes!(pages::card))
        .routes(routes!(pages::health))
        .routes(routes!(pages::metrics))
}

/// The OpenAPI document of the door, with the default prefix of its API.
#[must_use]
pub fn document() -> Document {
    let mut document = all("/api/v1").into_openapi();
    schemas::complete(&mut document);
    document
}

/// The door, at a place: [`MOUNT`], or the root of a listener of its own.
#[must_use]
pub fn mount(app: &App, prefix: &'static str) -> Mount {
    let (routes, mut document) = all(&app.settings.pyqueue.api_v1_prefix).split_for_parts();
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
        cors: Some(cors::with_credentials()),
    }
}

/// FastAPI's words, and the challenge of a key.
#[must_use]
pub fn envelope(error: &Error) -> Response {
    let mut response = fastapi::envelope(error);
    if error.status() == 401 {
        set_challenge(&mut response, "ApiKey");
    }
    response
}
