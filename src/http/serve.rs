//! Serving connections: time limits for slow clients, HEAD refused, a bounded drain at the end.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower::{Layer, ServiceExt};

use super::router;
use crate::app::App;
use crate::telemetry::requests;

/// For the head of a request, the wait for the next one on a connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a connection could not be taken, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serve until `shutdown`, then let requests in flight finish within the limit of the settings.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) {
    let limit = Duration::from_secs(app.settings.api_shutdown_timeout_seconds);
    let merged = app.merged.clone();
    let service = MapRequestLayer::new(disguise_head).layer(router(app));
    let service = MapResponseLayer::new(offer_no_head).layer(service);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // answers are small; a client that is gone by now is noticed below
        let _gone = stream.set_nodelay(true);
        let service = service
            .clone()
            .map_request(|request: hyper::Request<Incoming>| request.map(axum::body::Body::new));
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    merged.end_waits();
    tokio::select! {
        () = connections.shutdown() => {}
        () = tokio::time::sleep(limit) => {
            tracing::warn!(seconds = limit.as_secs(), "stopped with requests in flight");
        }
    }
}

/// A HEAD would run the GET, which may lease messages, and throw its answer away: before it is routed
/// it becomes a method that no route has.
fn disguise_head(mut request: Request) -> Request {
    if request.method() == Method::HEAD
        && let Ok(refused) = Method::from_bytes(requests::REFUSED_HEAD.as_bytes())
    {
        *request.method_mut() = refused;
    }
    request
}

/// Routes offer HEAD wherever they have GET; ours do not.
fn offer_no_head(mut response: Response) -> Response {
    if let Some(allow) = response.headers_mut().get_mut(header::ALLOW) {
        let methods = allow
            .to_str()
            .unwrap_or_default()
            .split(',')
            .filter(|name| *name != "HEAD");
        if let Ok(without) = HeaderValue::from_str(&methods.collect::<Vec<_>>().join(", ")) {
            *allow = without;
        }
    }
    response
}
