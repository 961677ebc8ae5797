//! The layer around every request: its id, its log line, its metrics.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use uuid::Uuid;

use super::metrics::{DURATION, IN_PROGRESS, REQUESTS};
use crate::error::{Cause, Error};

const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is taken from a client.
const REQUEST_ID_MAX_LENGTH: usize = 128;
/// Longest part of a path that is logged as the id of an object.
const OBJECT_ID_MAX_LENGTH: usize = 128;
/// Routes that machines ask every few seconds.
const PROBES: &[&str] = &["/liveness", "/readiness", "/metrics"];

/// Where authentication tells the log line who called.
#[derive(Clone, Debug, Default)]
pub struct ClientId(Arc<OnceLock<Uuid>>);

impl ClientId {
    /// The caller is this client.
    pub fn set(&self, id: Uuid) {
        // the first caller of a request is its only one
        let _already_set = self.0.set(id);
    }
}

/// What a HEAD is called behind routing, where a GET changes something.
pub const REFUSED_HEAD: &str = "REFUSED-HEAD";

/// Give the request an id, answer it, then log and count it.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let in_progress = gauge!(IN_PROGRESS);
    in_progress.increment(1.0);
    let _finished = OnDrop(|| in_progress.decrement(1.0));

    let id = request_id(request.headers());
    let method = known_method(request.method().as_str());
    // never the path itself, which has no bound
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let object = object_id(&route, request.uri().path());
    let client = ClientId::default();
    request.extensions_mut().insert(client.clone());

    let mut response = next.run(request).await;

    let status = response.status();
    let elapsed = started.elapsed();
    let line = Line {
        id: id.to_str().unwrap_or_default(),
        method,
        route: &route,
        object: object.as_deref(),
        status: status.as_u16(),
        duration_ms: (elapsed.as_secs_f64() * 1_000_000.0).round() / 1000.0,
        client: client.0.get().map(ToString::to_string),
    };
    line.log();
    if let Some(Cause(error)) = response.extensions().get::<Cause>() {
        log_cause(&id, error);
    }
    let labels = [
        ("method", method.to_owned()),
        ("path", route.clone()),
        ("status", status.as_str().to_owned()),
    ];
    counter!(REQUESTS, &labels).increment(1);
    histogram!(DURATION, "method" => method, "path" => route).record(elapsed.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What is logged of a request.
struct Line<'a> {
    id: &'a str,
    method: &'a str,
    route: &'a str,
    object: Option<&'a str>,
    status: u16,
    duration_ms: f64,
    client: Option<String>,
}

impl Line<'_> {
    fn log(&self) {
        let Self {
            method,
            route,
            status,
            ..
        } = self;
        // the level of a line is fixed where it stands
        macro_rules! log_at {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    request.id = self.id,
                    http.method = method,
                    http.route = route,
                    http.status = status,
                    duration_ms = self.duration_ms,
                    object.id = self.object,
                    client.id = self.client,
                    "{method} {route} {status}",
                )
            };
        }
        if PROBES.contains(route) && *status < 400 {
            log_at!(tracing::Level::DEBUG);
        } else {
            log_at!(tracing::Level::INFO);
        }
    }
}

/// The parts of a path that a route has names for, as they were sent, bounded.
fn object_id(route: &str, path: &str) -> Option<String> {
    let ids: Vec<String> = route
        .split('/')
        .zip(path.split('/'))
        .filter(|(name, _)| name.starts_with('{'))
        .map(|(_, id)| id.chars().take(OBJECT_ID_MAX_LENGTH).collect())
        .collect();
    (!ids.is_empty()).then(|| ids.join("/"))
}

fn log_cause(id: &HeaderValue, error: &Error) {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!(request.id = id.to_str().unwrap_or_default(), "{text}");
}

/// The client's own id if it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Clients can invent methods; labels must not grow with them.
fn known_method(method: &str) -> &'static str {
    if method == REFUSED_HEAD {
        return "HEAD";
    }
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}

/// Runs a closure at the end of its scope, also when the client goes away in mid-request.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
