//! What every request has: an id, a log line, metrics.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use metrics::{counter, gauge, histogram};
use uuid::Uuid;

use super::envelope::Cause;
use crate::error::Error;
use crate::telemetry::metrics::{DURATION, IN_PROGRESS, REQUESTS};

const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is taken from a client.
const REQUEST_ID_MAX_LENGTH: usize = 128;
/// Longest part of a path that is logged as the id of an object.
const OBJECT_ID_MAX_LENGTH: usize = 128;
/// Routes that machines ask every few seconds, and which are answered even where there are too many
/// connections.
pub const PROBES: [&str; 15] = [
    "/liveness",
    "/readiness",
    "/metrics",
    "/health",
    "/pyqueue/health",
    "/pyqueue/metrics",
    "/pyqueue/api/v1/health",
    "/broker/health",
    "/broker/metrics",
    "/broker/api/v1/health",
    "/pulsar/health",
    "/pulsar/ready",
    "/pulsar/metrics",
    "/ready",
    "/api/v1/health",
];

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

/// A request, from its beginning to the end of its answer: it has an id, and is logged and counted when
/// its answer has ended, which of a stream is when its client has left.
#[derive(Debug)]
pub struct Observed {
    started: Instant,
    id: HeaderValue,
    method: &'static str,
    uri: Uri,
    client: ClientId,
    /// Nothing where the client left before.
    answered: Option<Answered>,
}

#[derive(Debug)]
struct Answered {
    status: StatusCode,
    cause: Option<Cause>,
    route: Option<MatchedPath>,
}

impl Observed {
    /// It begins.
    pub fn begin<B>(request: &mut Request<B>) -> Self {
        gauge!(IN_PROGRESS).increment(1.0);
        let client = ClientId::default();
        request.extensions_mut().insert(client.clone());
        Self {
            started: Instant::now(),
            id: request_id(request.headers()),
            method: known_method(request.method().as_str()),
            uri: request.uri().clone(),
            client,
            answered: None,
        }
    }

    /// Its answer begins.
    pub fn answer<B>(&mut self, response: &mut Response<B>) {
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
        self.answered = Some(Answered {
            status: response.status(),
            cause: response.extensions().get().cloned(),
            route: response.extensions().get().cloned(),
        });
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        gauge!(IN_PROGRESS).decrement(1.0);
        let Some(Answered {
            status,
            cause,
            route,
        }) = self.answered.take()
        else {
            return;
        };
        // never the path itself, which has no bound
        let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
        let object = object_id(route, self.uri.path());
        let elapsed = self.started.elapsed();
        let line = Line {
            id: self.id.to_str().unwrap_or_default(),
            method: self.method,
            route,
            object: object.as_deref(),
            status: status.as_u16(),
            duration_ms: (elapsed.as_secs_f64() * 1_000_000.0).round() / 1000.0,
            client: self.client.0.get().map(ToString::to_string),
        };
        line.log();
        if let Some(Cause(error)) = cause
            && error.is_failure()
        {
            log_cause(&self.id, &error);
        }
        let (method, route) = (self.method, route.to_owned());
        let labels = [
            ("method", method.to_owned()),
            ("path", route.clone()),
            ("status", status.as_str().to_owned()),
        ];
        counter!(REQUESTS, &labels).increment(1);
        histogram!(DURATION, "method" => method, "path" => route).record(elapsed.as_secs_f64());
    }
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
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}
