//! The front door of programs written for the Message Broker. A queue is a topic and a subscription, both
//! `broker/queues/QUEUE`; a topic is `broker/topics/TOPIC`, a subscription of it
//! `broker/topics/TOPIC/SUBSCRIPTION`, whose filter looks at the attribute `routing_key`. Spent messages of both
//! go to the queue that is named after them.

mod auth;
mod caller;
mod names;
mod openapi;
mod pages;
mod publish;
mod pull;
mod queues;
mod settle;
pub mod start;
mod stats;
mod streams;
mod subscriptions;
mod tags;
mod view;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::doors::mount::Mount;
use crate::doors::rate::Rate;
use crate::doors::{cors, docs, schemas};
use crate::error::Error;
pub use openapi::envelope;
pub use view::pushed_names;

/// Where it is beside the other doors.
pub const MOUNT: &str = "/broker";
/// What the paths of its API begin with.
const API: &str = "/api/v1";

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(queues::put_queue, queues::delete_queue))
        .routes(routes!(publish::publish_to_queue))
        .routes(routes!(pull::pull_from_queue))
        .routes(routes!(settle::ack_of_queue))
        .routes(routes!(settle::nack_of_queue))
        .routes(routes!(queues::peek))
        .routes(routes!(queues::purge_queue))
        .routes(routes!(stats::queue_stats))
        .routes(routes!(streams::stream_queue))
        .routes(routes!(subscriptions::put_topic))
        .routes(routes!(
            subscriptions::subscribe,
            subscriptions::list_subscriptions
        ))
        .routes(routes!(subscriptions::unsubscribe))
        .routes(routes!(publish::publish_to_topic))
        .routes(routes!(pull::pull_from_topic))
        .routes(routes!(settle::ack_of_topic))
        .routes(routes!(settle::nack_of_topic))
        .routes(routes!(stats::topic_stats))
        .routes(routes!(streams::stream_topic))
        .routes(routes!(pages::health))
        .routes(routes!(pages::metrics))
        .routes(routes!(stats::all_stats))
}

fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi()).nest(API, api())
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
    let settings = &app.settings.broker;
    let (routes, mut document) = all().split_for_parts();
    schemas::complete(&mut document);
    let mut routes = routes
        .merge(docs::routes(&document))
        // where monitors look for them first
        .route("/health", get(pages::health))
        .route("/metrics", get(pages::metrics))
        .route("/stats", get(stats::all_stats));
    if let Some(rate) = Rate::per_minute(settings.rate_limit) {
        routes = routes.layer(Extension(Arc::new(rate)));
    }
    let routes: Router = routes
        .fallback(|| async { Error::refused(404, "there is no such path") })
        .method_not_allowed_fallback(|| async { Error::refused(405, "the path has other methods") })
        .with_state(app.clone());
    Mount {
        prefix,
        routes,
        envelope,
        cors: settings.cors_origins.as_ref().map(cors::layer),
    }
}
