//! The layer around every request: its id, its log line, its metrics.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
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
pub const PROBES: [&str; 3] = ["/liveness", "/readiness", "/metrics"];

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

/// Give the request an id, answer it, then log and count it: when its answer has ended, which of a stream
/// is when its client has left.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let mut observed = Observed::begin(&request);
    request.extensions_mut().insert(observed.client.clone());

    let mut response = next.run(request).await;

    let cause = response.extensions().get().cloned();
    observed.answered = Some((response.status(), cause));
    response
        .headers_mut()
        .insert(REQUEST_ID, observed.id.clone());
    response.map(|body| Body::new(Answer { body, observed }))
}

/// A request, from its beginning to the end of its answer.
struct Observed {
    started: Instant,
    id: HeaderValue,
    method: &'static str,
    route: String,
    object: Option<String>,
    client: ClientId,
    /// Nothing where the client left before.
    answered: Option<(StatusCode, Option<Cause>)>,
}

impl Observed {
    fn begin(request: &Request) -> Self {
        gauge!(IN_PROGRESS).increment(1.0);
        // never the path itself, which has no bound
        let route = request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
        Self {
            started: Instant::now(),
            id: request_id(request.headers()),
            method: known_method(request.method().as_str()),
            object: object_id(&route, request.uri().path()),
            route,
            client: ClientId::default(),
            answered: None,
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        gauge!(IN_PROGRESS).decrement(1.0);
        let Some((status, cause)) = self.answered.take() else {
            return;
        };
        let elapsed = self.started.elapsed();
        let line = Line {
            id: self.id.to_str().unwrap_or_default(),
            method: self.method,
            route: &self.route,
            object: self.object.as_deref(),
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
        let (method, route) = (self.method, std::mem::take(&mut self.route));
        let labels = [
            ("method", method.to_owned()),
            ("path", route.clone()),
            ("status", status.as_str().to_owned()),
        ];
        counter!(REQUESTS, &labels).increment(1);
        histogram!(DURATION, "method" => method, "path" => route).record(elapsed.as_secs_f64());
    }
}

/// The body of an answer, whose end is that of the request.
struct Answer {
    body: Body,
    #[expect(dead_code, reason = "its end is what counts")]
    observed: Observed,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
