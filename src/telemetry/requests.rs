//! The layer around every request: its id, its log line, its metrics.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use uuid::Uuid;

use super::metrics::{DURATION, IN_PROGRESS, REQUESTS};
use crate::error::{Cause, Error};

const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is taken from a client.
const REQUEST_ID_MAX_LENGTH: usize = 128;

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
    let client = ClientId::default();
    request.extensions_mut().insert(client.clone());

    let mut response = next.run(request).await;

    let status = response.status();
    let elapsed = started.elapsed();
    log(
        &id,
        method,
        &route,
        status,
        elapsed.as_secs_f64() * 1000.0,
        &client,
    );
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

fn log(
    id: &HeaderValue,
    method: &str,
    route: &str,
    status: StatusCode,
    duration_ms: f64,
    client: &ClientId,
) {
    tracing::info!(
        request.id = id.to_str().unwrap_or_default(),
        http.method = method,
        http.route = route,
        http.status = status.as_u16(),
        duration_ms = (duration_ms * 1000.0).round() / 1000.0,
        client.id = client.0.get().map(ToString::to_string),
        "{method} {route} {}",
        status.as_u16(),
    );
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
