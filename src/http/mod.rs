//! The HTTP front door: the table of routes, the layers around them, and serving.

pub mod activity;
pub mod answers;
pub mod attributes;
pub mod body;
pub mod clients;
pub mod connection;
pub mod cors;
pub mod dead_letters;
pub mod docs;
pub mod document;
pub mod extract;
pub mod filter_preview;
pub mod filters;
pub mod handles;
pub mod idempotency;
pub mod jobs;
pub mod messages;
pub mod monitoring;
pub mod oauth;
pub mod openapi;
pub mod outgoing;
pub mod parked;
pub mod payload;
pub mod publish;
pub mod pull;
pub mod queries;
pub mod receipts;
pub mod seek;
pub mod serve;
pub mod settings;
pub mod settle;
pub mod snapshots;
pub mod subscriptions;
pub mod timeline;
pub mod times;
pub mod topics;
pub mod transactions;
pub mod tree;
pub mod validation;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::queries::{KnownParameters, refuse_unknown};
use crate::app::App;
use crate::error::Error;
use crate::telemetry::requests;

/// The routes of the API, with their part of the OpenAPI document.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(topics::create_topic, topics::list_topics))
        .routes(routes!(
            topics::get_topic,
            settings::update_topic,
            topics::delete_topic
        ))
        .routes(routes!(topics::publish_messages))
        .routes(routes!(publish::publish))
        .routes(routes!(
            subscriptions::create_subscription,
            subscriptions::list_subscriptions
        ))
        .routes(routes!(
            subscriptions::get_subscription,
            settings::update_subscription,
            subscriptions::delete_subscription
        ))
        .routes(routes!(subscriptions::subscription_metrics))
        .routes(routes!(filter_preview::preview_filter))
        .routes(routes!(seek::seek_subscription))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::cancel_job))
        .routes(routes!(
            snapshots::create_snapshot,
            snapshots::list_snapshots
        ))
        .routes(routes!(snapshots::delete_snapshot))
        .routes(routes!(messages::consume_messages))
        .routes(routes!(messages::ack_messages))
        .routes(routes!(messages::nack_messages))
        .routes(routes!(pull::pull_messages))
        .routes(routes!(settle::settle_messages))
        .routes(routes!(
            dead_letters::list_dlq_messages,
            dead_letters::purge_dlq_messages
        ))
        .routes(routes!(dead_letters::reprocess_dlq_messages))
        .routes(routes!(parked::list_parked_messages))
        .routes(routes!(parked::resume_messages))
        .routes(routes!(timeline::message_timeline))
        .routes(routes!(transactions::apply_transaction))
        .routes(routes!(clients::create_client, clients::list_clients))
        .routes(routes!(
            clients::get_client,
            clients::update_client,
            clients::delete_client
        ))
        .routes(routes!(oauth::issue_token))
        .routes(routes!(monitoring::liveness))
        .routes(routes!(monitoring::readiness))
        .routes(routes!(monitoring::metrics))
}

/// The OpenAPI document of the API.
#[must_use]
pub fn document() -> Document {
    let mut document = api().into_openapi();
    document::complete(&mut document);
    document
}

/// The whole service, behind routing.
fn router(app: App) -> Router {
    let cors = app.settings.api_cors_origins.as_ref().map(cors::layer);
    let (api, mut document) = api().split_for_parts();
    document::complete(&mut document);
    let known = KnownParameters::of(&document);
    api.route_layer(middleware::from_fn(idempotency::refuse))
        .route_layer(middleware::from_fn_with_state(known, refuse_unknown))
        .merge(docs::routes(&document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(|_| {
            let panicked = std::io::Error::other("a handler panicked");
            Error::Internal(Arc::new(panicked)).into_response()
        }))
        .layer(option_layer(cors))
        .layer(middleware::from_fn(requests::observe))
        .with_state(app)
}

fn not_found() -> Error {
    Error::Refused {
        status: StatusCode::NOT_FOUND,
        message: "Not Found".to_owned(),
    }
}

/// Not found, or, for a known path with a slash too many, a redirect to the path without it.
async fn unknown_route(request: Request) -> Response {
    const FIRST_SEGMENTS: [&str; 13] = [
        "topics",
        "subscriptions",
        "messages",
        "transactions",
        "jobs",
        "snapshots",
        "clients",
        "oauth",
        "liveness",
        "readiness",
        "metrics",
        "docs",
        "redoc",
    ];
    let path = request.uri().path();
    let bare = path.trim_end_matches('/');
    let known = bare
        .split('/')
        .nth(1)
        .is_some_and(|first| FIRST_SEGMENTS.contains(&first));
    if bare.len() == path.len() || !known {
        return not_found().into_response();
    }
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    match HeaderValue::from_str(&format!("{bare}{query}")) {
        Ok(location) => (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, location)],
        )
            .into_response(),
        Err(_) => not_found().into_response(),
    }
}

async fn wrong_method() -> Error {
    Error::Refused {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message: "Method Not Allowed".to_owned(),
    }
}
