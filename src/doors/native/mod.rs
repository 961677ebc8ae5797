//! The front door of fastpubsub itself: its routes and what is around them.

pub mod attributes;
pub mod clients;
pub mod document;
pub mod filters;
pub mod idempotency;
pub mod messages;
pub mod monitoring;
pub mod oauth;
pub mod openapi;
pub mod queries;
pub mod routes;
pub mod streams;
pub mod subscriptions;
pub mod times;
pub mod topics;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::head;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::queries::KnownParameters;
use crate::app::App;
use crate::doors::mount::Mount;
use crate::doors::{cors, docs, fastapi};
use crate::error::Error;

/// The paths where a GET changes something, and what they have.
const CHANGING: [(&str, &str); 3] = [
    ("/subscriptions/{id}/messages", "GET,DELETE"),
    ("/subscriptions/{id}/stream", "GET"),
    ("/subscriptions/{id}/ws", "GET"),
];

/// The routes of the API, with their part of the OpenAPI document.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(topics::create_topic, topics::list_topics))
        .routes(routes!(
            topics::get_topic,
            subscriptions::settings::update_topic,
            topics::delete_topic
        ))
        .routes(routes!(
            topics::publish_messages,
            topics::log::read_messages
        ))
        .routes(routes!(topics::publish::publish))
        .routes(routes!(
            subscriptions::create_subscription,
            subscriptions::list_subscriptions
        ))
        .routes(routes!(
            subscriptions::get_subscription,
            subscriptions::settings::update_subscription,
            subscriptions::delete_subscription
        ))
        .routes(routes!(subscriptions::push::rotate_push_secret))
        .routes(routes!(subscriptions::subscription_metrics))
        .routes(routes!(subscriptions::filter_preview::preview_filter))
        .routes(routes!(subscriptions::push_test::test_push))
        .routes(routes!(subscriptions::seek::seek_subscription))
        .routes(routes!(subscriptions::jobs::list_jobs))
        .routes(routes!(
            subscriptions::jobs::get_job,
            subscriptions::jobs::cancel_job
        ))
        .routes(routes!(
            subscriptions::snapshots::create_snapshot,
            subscriptions::snapshots::list_snapshots
        ))
        .routes(routes!(subscriptions::snapshots::delete_snapshot))
        .routes(routes!(
            messages::consume::consume_messages,
            messages::browse::purge_subscription
        ))
        .routes(routes!(messages::browse::browse_messages))
        .routes(routes!(messages::browse::delete_message))
        .routes(routes!(messages::consume::ack_messages))
        .routes(routes!(messages::consume::nack_messages))
        .routes(routes!(messages::pull::pull_messages))
        .routes(routes!(streams::stream_messages))
        .routes(routes!(streams::stream_on_socket))
        .routes(routes!(messages::settle::settle_messages))
        .routes(routes!(
            messages::dead_letters::list_dlq_messages,
            messages::dead_letters::purge_dlq_messages
        ))
        .routes(routes!(messages::dead_letters::reprocess_dlq_messages))
        .routes(routes!(messages::parked::list_parked_messages))
        .routes(routes!(messages::parked::resume_messages))
        .routes(routes!(messages::timeline::message_timeline))
        .routes(routes!(messages::transactions::apply_transaction))
        .routes(routes!(clients::create_client, clients::list_clients))
        .routes(routes!(
            clients::get_client,
            clients::update_client,
            clients::delete_client
        ))
        .routes(routes!(clients::create_credentials))
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

/// The door, at the root.
#[must_use]
pub fn mount(app: App) -> Mount {
    let (api, mut document) = api().split_for_parts();
    document::complete(&mut document);
    let known = KnownParameters::of(&document);
    let cors = app.settings.api_cors_origins.as_ref().map(cors::layer);
    // they would lease messages and throw them away
    let api = CHANGING
        .iter()
        .fold(api, |api, (path, _)| api.route(path, head(wrong_method)));
    let routes = api
        .route_layer(middleware::from_fn_with_state(known, check))
        .merge(docs::routes(&document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    Mount {
        prefix: "",
        routes,
        envelope: fastapi::envelope,
        cors,
    }
}

fn not_found() -> Error {
    Error::refused(404, "Not Found")
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

/// What a request says beside its path and its body, of every route.
async fn check(State(known): State<KnownParameters>, mut request: Request, next: Next) -> Response {
    match idempotency::check(&request).and_then(|()| known.check(&mut request)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn wrong_method(path: Option<MatchedPath>) -> Response {
    let mut response = Error::refused(405, "Method Not Allowed").into_response();
    // routes offer HEAD wherever they have GET; not so those
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    if let Some((_, allow)) = CHANGING.iter().find(|(changing, _)| *changing == path) {
        let allow = HeaderValue::from_static(allow);
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
